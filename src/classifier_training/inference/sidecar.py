"""``labels_mapping.json``: what a deployer must know besides the ONNX file.

The first four keys are the contract of the downstream pipeline and stay at top level:
``num_classes``, ``class_to_idx``, ``idx_to_class`` and ``normalization``. The rest describes the
preprocessing completely, names the ONNX file by its hash, and carries golden vectors. A deployer
may pass over the optional ``calibration`` and ``input_statistics``.

A variant of the model (``model.int8.onnx``, ``model.uint8.onnx``) has a complete sidecar of its own
under the variant's name (``labels_mapping.int8.json``).

``labels_mapping.schema.json`` beside this module is its JSON Schema; ``docs/sidecar.md`` explains
each key. A key that a reader may pass over is added without a new ``SCHEMA_VERSION``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifier_training.errors import ClassifierTrainingError, ExportError
from classifier_training.inference.agreement import RELATIVE_TOLERANCE
from classifier_training.inference.calibration import Calibration
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.input_check import InputStatistics
from classifier_training.inference.preprocess import INTERPOLATION, RESIZE_RULES, PreprocessSpec

SCHEMA_VERSION = 1
SIDECAR_NAME = "labels_mapping.json"
# JSON Schema (draft 2020-12) of SCHEMA_VERSION, for readers in other languages.
SCHEMA_FILE = Path(__file__).with_name("labels_mapping.schema.json")
ONNX_NAME = "model.onnx"
INPUT_NAME = "input"
OUTPUT_NAME = "logits"

# Sidecar sections repeated in the ONNX metadata_props, so that the two files can be matched.
ONNX_METADATA_KEYS = ("class_to_idx", "normalization", "preprocessing")

# What of the provenance the ONNX metadata repeat, so that a lone file says where it comes from.
# Nothing of it changes when the same checkpoint is exported again.
ONNX_PROVENANCE_KEYS = (
    "run_id",
    "epoch",
    "weights",
    "weights_sha256",
    "data_fingerprint",
    "classifier_training",
)

# A tolerance above this would let another model pass.
_WIDEST_TOLERANCE = 0.25


@dataclass(frozen=True)
class GoldenVector:
    """One synthetic image with what any faithful implementation must compute from it.

    Attributes:
        name: What the image shows.
        png: The encoded image.
        mean: Per-channel mean of the normalised input tensor.
        std: Per-channel (population) standard deviation of it.
        logits: The model's output.
    """

    name: str
    png: bytes
    mean: tuple[float, ...]
    std: tuple[float, ...]
    logits: tuple[float, ...]


@dataclass(frozen=True)
class Sidecar:
    """The parsed sidecar. ``model`` and ``provenance`` are free of code: plain JSON values."""

    class_map: ClassMap
    spec: PreprocessSpec
    model: dict[str, Any]
    provenance: dict[str, Any]
    golden: tuple[GoldenVector, ...]
    calibration: Calibration | None = None
    input_statistics: InputStatistics | None = None

    @property
    def golden_tolerance(self) -> float:
        """How far a logit may lie from the golden one, relative to ``max(1, largest logit)``."""
        return float(self.model.get("golden_tolerance", RELATIVE_TOLERANCE))

    @property
    def takes_pixels(self) -> bool:
        """Whether the network takes uint8 pixels (N, H, W, 3) instead of normalised tensors."""
        return bool(self.model.get("input", {}).get("dtype") == "uint8")

    @classmethod
    def read(cls, path: Path) -> Sidecar:
        """Read and check a sidecar.

        Raises:
            ExportError: Missing, not JSON, of an unknown schema, or contradicting itself.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ExportError(
                f"sidecar {path} does not exist",
                expected=f"{path.name} beside the ONNX file",
                fix="copy both files together, or run: classifier export RUN",
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise _bad(path, f"is not readable JSON: {error}") from error
        try:
            return _parse(content)
        except ClassifierTrainingError as error:
            raise _bad(path, error.what) from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            detail = f"misses key {error}" if isinstance(error, KeyError) else f"is odd: {error}"
            raise _bad(path, detail) from error

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that :meth:`read` parses."""
        return {
            "schema_version": SCHEMA_VERSION,
            **mapping_section(self.class_map, self.spec),
            "model": self.model,
            "provenance": self.provenance,
            **self._optional(),
            "golden": [_golden_to_json(vector) for vector in self.golden],
        }

    def _optional(self) -> dict[str, Any]:
        sections = {"calibration": self.calibration, "input_statistics": self.input_statistics}
        return {name: item.to_json() for name, item in sections.items() if item is not None}


def mapping_section(class_map: ClassMap, spec: PreprocessSpec) -> dict[str, Any]:
    """Return the part of the sidecar that the ONNX metadata repeats."""
    return {
        "num_classes": len(class_map),
        "class_to_idx": class_map.as_class_to_idx(),
        "idx_to_class": class_map.as_idx_to_class(),
        "normalization": {"mean": list(spec.mean), "std": list(spec.std)},
        "preprocessing": {
            "image_size": spec.image_size,
            "resize": spec.resize,
            "resize_rule": RESIZE_RULES[spec.resize],
            "interpolation": INTERPOLATION,
            "antialias": True,
            "pad_color": list(spec.pad_color),
            "color_order": "RGB",
            "exif_orientation": "applied",
            "alpha": "composited on white",
            "sixteen_bit_grey": "high byte",
            "animation": "first frame",
            "value_range": [0.0, 1.0],
            "layout": "NCHW",
            "formula": "(pixels / 255 - mean) / std",
        },
    }


def onnx_metadata(class_map: ClassMap, spec: PreprocessSpec) -> dict[str, str]:
    """Return the ``metadata_props`` that must equal the sidecar: JSON text by sidecar key."""
    section = mapping_section(class_map, spec)
    return {key: json.dumps(section[key], ensure_ascii=False) for key in ONNX_METADATA_KEYS}


def provenance_metadata(provenance: dict[str, Any]) -> dict[str, str]:
    """Return the ``metadata_props`` that say where an ONNX file comes from."""
    known = {key: provenance[key] for key in ONNX_PROVENANCE_KEYS}
    return {"provenance": json.dumps(known, ensure_ascii=False)}


def check_pair(sidecar: Sidecar, onnx_path: Path, metadata: dict[str, str]) -> None:
    """Refuse a sidecar that was not written for this ONNX file.

    Raises:
        ExportError: The hash or the class mapping or the preprocessing differs.
    """
    digest = sha256_of(onnx_path)
    if digest != sidecar.model["sha256"]:
        raise ExportError(
            f"{onnx_path} has SHA-256 {digest[:12]}…, but its sidecar was written for "
            f"{str(sidecar.model['sha256'])[:12]}…",
            expected="the ONNX file and the sidecar of one export",
            fix="copy the ONNX file and its sidecar together from the same run",
        )
    for key, expected in onnx_metadata(sidecar.class_map, sidecar.spec).items():
        if metadata.get(key) != expected:
            raise ExportError(
                f"{onnx_path} and its sidecar differ in {key}",
                expected="the same mapping and preprocessing in both files",
                fix="export the run again: classifier export RUN",
            )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as a hexadecimal string."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bad(path: Path, detail: str) -> ExportError:
    return ExportError(
        f"sidecar {path} {detail}",
        expected=f"a {SIDECAR_NAME} as `classifier export` writes, schema_version {SCHEMA_VERSION}",
        fix="export the run again: classifier export RUN",
    )


def _parse(content: dict[str, Any]) -> Sidecar:
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version {content['schema_version']!r} is unknown")
    by_index = content["idx_to_class"]
    class_map = ClassMap(tuple(by_index[str(i)] for i in range(content["num_classes"])))
    if class_map.as_class_to_idx() != content["class_to_idx"] or len(by_index) != len(class_map):
        raise ValueError("class_to_idx and idx_to_class contradict each other")
    norm, prep = content["normalization"], content["preprocessing"]
    spec = PreprocessSpec(
        image_size=int(prep["image_size"]),
        resize=prep["resize"],
        mean=_channels(norm["mean"]),
        std=_channels(norm["std"]),
    )
    if spec.image_size < 1 or min(spec.std) <= 0:
        raise ValueError("image_size and std must be positive")
    if not all(0 <= channel <= 1 for channel in spec.mean):
        raise ValueError("mean must be of values in 0..1")
    if mapping_section(class_map, spec)["preprocessing"] != prep:
        raise ValueError("its preprocessing section asks for what this version does not do")
    model = content["model"]
    if not isinstance(model["sha256"], str):
        raise ValueError("model.sha256 must be text")
    if not isinstance(model.get("input", {}), dict):
        raise ValueError("model.input must be an object")
    if not 0 < float(model.get("golden_tolerance", RELATIVE_TOLERANCE)) <= _WIDEST_TOLERANCE:
        raise ValueError(f"model.golden_tolerance must be above 0, at most {_WIDEST_TOLERANCE}")
    golden = tuple(_golden_from_json(item, len(class_map)) for item in content["golden"])
    if not golden:
        raise ValueError("it has no golden vectors")
    calibration, inputs = content.get("calibration"), content.get("input_statistics")
    return Sidecar(
        class_map,
        spec,
        model,
        content["provenance"],
        golden,
        calibration=None if calibration is None else Calibration.from_json(calibration),
        input_statistics=None if inputs is None else InputStatistics.from_json(inputs),
    )


def _channels(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = _numbers(values, 3)
    return red, green, blue


def _numbers(values: list[float], count: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{values!r:.60} are not {count} finite numbers")
    return numbers


def _golden_to_json(vector: GoldenVector) -> dict[str, Any]:
    return {
        "name": vector.name,
        "png_base64": base64.b64encode(vector.png).decode("ascii"),
        "tensor_mean": list(vector.mean),
        "tensor_std": list(vector.std),
        "logits": list(vector.logits),
    }


def _golden_from_json(item: dict[str, Any], classes: int) -> GoldenVector:
    return GoldenVector(
        name=str(item["name"]),
        png=base64.b64decode(item["png_base64"], validate=True),
        mean=_numbers(item["tensor_mean"], 3),
        std=_numbers(item["tensor_std"], 3),
        logits=_numbers(item["logits"], classes),
    )


# Weights in int8; uint8 pixels as input.
VARIANTS = ("int8", "uint8")


def variant_files(folder: Path, variant: str) -> tuple[Path, Path]:
    """Return where the ONNX file and the sidecar of one of ``VARIANTS`` lie in a folder."""
    onnx, sidecar = Path(ONNX_NAME), Path(SIDECAR_NAME)
    return (
        folder / f"{onnx.stem}.{variant}{onnx.suffix}",
        folder / f"{sidecar.stem}.{variant}{sidecar.suffix}",
    )


def sidecar_of(onnx_path: Path) -> Path:
    """Return where the sidecar of an ONNX file lies: that of its variant, else the usual one."""
    variant = Path(onnx_path.stem).suffix.removeprefix(".")
    if variant in VARIANTS:
        return variant_files(onnx_path.parent, variant)[1]
    return onnx_path.with_name(SIDECAR_NAME)


def remove_pair(onnx: Path, sidecar: Path) -> None:
    """Remove an ONNX file and its sidecar, where they are."""
    onnx.unlink(missing_ok=True)
    sidecar.unlink(missing_ok=True)
