"""A copy of an exported model that takes uint8 pixels, kept only if it answers the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from classifier_training.errors import ExportError
from classifier_training.exporters.onnx import MOST_VERIFIED
from classifier_training.inference.agreement import Agreement, compare_logits
from classifier_training.inference.images import read_image
from classifier_training.inference.predictor import Predictor
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.inference.session import check_shapes, open_session
from classifier_training.inference.sidecar import (
    INPUT_NAME,
    Sidecar,
    remove_pair,
    sha256_of,
    variant_files,
)
from classifier_training.inference.verification import verify_golden
from classifier_training.run.reader import Run
from classifier_training.system.files import replacing, write_json
from classifier_training.system.progress import progress

_NORMALIZED = "normalized"


def write_pixels_onnx(source: Path, target: Path, spec: PreprocessSpec) -> None:
    """Write a network whose ``input`` is ``(N, H, W, 3)`` uint8 RGB, already resized.

    The graph computes ``(pixels / 255 - mean) / std`` in float32 by the same operations in the same
    order as :meth:`PreprocessSpec.normalize`, then transposes; the rest is the source's.

    Args:
        source: The fp32 ONNX file.
        target: Where to write; the metadata are those of the source.
        spec: Its preprocessing.
    """
    model = onnx.load(source)
    graph = model.graph
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == INPUT_NAME:
                node.input[position] = _NORMALIZED
    constants = {
        "pixels_255": np.float32(255),
        "pixels_mean": np.asarray(spec.mean, dtype=np.float32),
        "pixels_std": np.asarray(spec.std, dtype=np.float32),
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    steps = [
        helper.make_node("Cast", [INPUT_NAME], ["pixels_float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["pixels_float", "pixels_255"], ["pixels_unit"]),
        helper.make_node("Sub", ["pixels_unit", "pixels_mean"], ["pixels_centred"]),
        helper.make_node("Div", ["pixels_centred", "pixels_std"], ["pixels_scaled"]),
        helper.make_node("Transpose", ["pixels_scaled"], [_NORMALIZED], perm=[0, 3, 1, 2]),
    ]
    for place, node in enumerate(steps):
        node.name = f"normalize_{place}"
        graph.node.insert(place, node)
    size = spec.image_size
    del graph.input[:]
    graph.input.append(
        helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", size, size, 3])
    )
    onnx.checker.check_model(model)
    target.write_bytes(model.SerializeToString())


_BATCHES = (1, 32)


@dataclass(frozen=True)
class PixelsExport:
    """A verified model with uint8 input.

    Attributes:
        onnx: The file.
        sidecar: The file beside it.
        agreement: How closely it follows the model with float input.
    """

    onnx: Path
    sidecar: Path
    agreement: Agreement


def export_pixels(run: Path | str, *, data_root: Path | str | None = None) -> PixelsExport:
    """Put the normalisation into a copy of the exported model of a run.

    ``model.onnx`` stays as it is.

    Args:
        run: Run folder with ``model.onnx``.
        data_root: Where the data lies now, if it moved.

    Raises:
        ResumeError: ``run`` is no run folder.
        DataError: A val image cannot be read.
        ExportError: There is no ``model.onnx``, or the copy answers otherwise; none is left.
    """
    stored = Run(run, data_root=data_root)
    folder = stored.folder
    onnx, sidecar_file = variant_files(folder.path, "uint8")
    remove_pair(onnx, sidecar_file)
    model = Predictor.load(folder.path)
    manifest = stored.manifest
    files = [manifest.file(int(row)) for row in manifest.rows("val")[:MOST_VERIFIED]]
    with replacing(onnx) as temporary:
        write_pixels_onnx(model.path, temporary, model.spec)
        sidecar = _sidecar(model.sidecar, temporary, onnx.name)
        session = open_session(temporary)
        check_shapes(session, sidecar, temporary)
        pixels = Predictor(session, sidecar, temporary)
        agreement = _compare(model, pixels, files)
        verify_golden(pixels)
    write_json(sidecar_file, sidecar.to_json())
    return PixelsExport(onnx, sidecar_file, agreement)


def _compare(model: Predictor, pixels: Predictor, files: list[Path]) -> Agreement:
    """Compare both on images, in small and large batches.

    Raises:
        ExportError: A logit is off by more than the tolerance, or a class changes.
    """
    worst = 0.0
    with progress("verify uint8 input") as report:
        for start in range(0, len(files), max(_BATCHES)):
            loaded = [
                model.spec.resize_image(read_image(file))
                for file in files[start : start + max(_BATCHES)]
            ]
            images = np.stack(loaded)
            expected = model.logits(images)
            for size in _BATCHES if start == 0 else _BATCHES[1:]:
                found = compare_logits(expected, _in_batches(pixels, images, size))
                if not found.holds:
                    raise ExportError(
                        f"with uint8 input {files[start + found.worst_image]} gets other logits "
                        f"than from {model.path} at batch {size}: {found}",
                        expected="the same logits within the tolerance, and the same classes",
                        fix="use model.onnx, which is intact; please report this; no file with "
                        "uint8 input was written",
                    )
                worst = max(worst, found.worst)
            report(start + len(images), len(files))
    return Agreement(len(files), worst, 0, -1)


def _in_batches(
    predictor: Predictor, images: npt.NDArray[np.uint8], size: int
) -> npt.NDArray[np.float32]:
    starts = range(0, len(images), size)
    return np.concatenate([predictor.logits(images[start : start + size]) for start in starts])


def _sidecar(of_model: Sidecar, path: Path, name: str) -> Sidecar:
    size = of_model.spec.image_size
    model = {
        **of_model.model,
        "sha256": sha256_of(path),
        "file": name,
        "input": {
            **of_model.model["input"],
            "dtype": "uint8",
            "shape": ["batch", size, size, 3],
        },
    }
    return replace(of_model, model=model)
