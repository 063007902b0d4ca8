"""An int8 copy of an exported model, kept only if it is as good and faster on this machine."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from loguru import logger
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from classifier_training.config.schema import ExportConfig
from classifier_training.data.manifest import Manifest
from classifier_training.errors import ExportError
from classifier_training.evaluation.calibrate import refit_calibration
from classifier_training.exporters.latency import SpeedUp, measure_speed_up
from classifier_training.inference.calibration import Calibration
from classifier_training.inference.golden import make_golden
from classifier_training.inference.images import read_image
from classifier_training.inference.predictor import Predictor
from classifier_training.inference.session import check_shapes, open_session
from classifier_training.inference.sidecar import (
    INPUT_NAME,
    Sidecar,
    remove_pair,
    sha256_of,
    variant_files,
)
from classifier_training.metrics.paired import weighted_scores
from classifier_training.run.provenance import machine
from classifier_training.run.reader import Run
from classifier_training.system.files import replacing, write_json
from classifier_training.system.parallel import prefetch_map
from classifier_training.system.progress import progress
from classifier_training.system.resources import available_cores

# Images whose intermediate results are held at a time: about 25 MB each for a ResNet18 at 224 px.
_MOST_AT_A_TIME = 16


@dataclass(frozen=True)
class QuantizationRecipe:
    """One way to choose the ranges and what is quantised.

    Attributes:
        name: For people.
        percentile: Share (in percent) of activations inside the range; None: all of them.
        keep_ends: Whether the first convolution and the last product stay in fp32.
    """

    name: str
    percentile: float | None
    keep_ends: bool


# Cheapest and fastest first; the next is tried when one loses too much.
RECIPES = (
    QuantizationRecipe("full range", None, keep_ends=False),
    QuantizationRecipe("99.999 % of the range", 99.999, keep_ends=False),
    QuantizationRecipe(
        "99.999 % of the range, first and last layer in fp32", 99.999, keep_ends=True
    ),
)


def quantize(
    source: Path,
    target: Path,
    recipe: QuantizationRecipe,
    images: int,
    tensor_of: Callable[[int], npt.NDArray[np.float32]],
) -> None:
    """Write an int8 copy of a network.

    Activations are uint8 for each tensor, weights int8 for each channel, of which 7 bits are used:
    x86 processors without VNNI add pairs of products in 16 bits, which 8-bit weights overflow.
    So the answers do not depend on the processor more than rounding.

    Args:
        source: The fp32 ONNX file.
        target: Where to write; the metadata are those of the source.
        recipe: How.
        images: Number of calibration images.
        tensor_of: Gives the normalised ``(1, 3, H, W)`` float32 of one of them.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        folded = Path(folder) / "folded.onnx"  # BatchNorm inside the convolutions, shapes inferred
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        options: dict[str, Any] = {"CalibStridedMinMax": _chunk(images)}
        method = CalibrationMethod.MinMax
        if recipe.percentile is not None:
            method = CalibrationMethod.Percentile
            options["CalibPercentile"] = recipe.percentile
        quantize_static(
            str(folded),
            str(target),
            _Images(images, tensor_of),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_ends(folded) if recipe.keep_ends else [],
            calibrate_method=method,
            extra_options=options,
        )
    _carry_metadata(source, target)


class _Images(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """The calibration images, one at a time, each prepared when it is asked for."""

    def __init__(self, images: int, tensor_of: Callable[[int], npt.NDArray[np.float32]]) -> None:
        self._images = images
        self._tensor_of = tensor_of
        self._left: Iterator[int] = iter(range(images))

    def __len__(self) -> int:
        return self._images

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give these images next; onnxruntime asks so to hold the results of a few only."""
        self._left = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """Return the network's next input, None after the last."""
        index = next(self._left, None)
        return None if index is None else {INPUT_NAME: self._tensor_of(index)}


def _chunk(images: int) -> int:
    """Return the largest number of images at a time that divides them, as onnxruntime asks."""
    return next(size for size in range(_MOST_AT_A_TIME, 0, -1) if images % size == 0)


def _ends(path: Path) -> list[str]:
    """Name the first convolution and the last matrix product of a network."""
    nodes = onnx.load(path).graph.node
    convolutions = [node.name for node in nodes if node.op_type == "Conv"]
    products = [node.name for node in nodes if node.op_type in ("Gemm", "MatMul")]
    return [*convolutions[:1], *products[-1:]]


def _carry_metadata(source: Path, target: Path) -> None:
    quantized = onnx.load(target)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(onnx.load(source).metadata_props)
    onnx.checker.check_model(quantized)
    target.write_bytes(quantized.SerializeToString())


# More calibration images move the ranges little; at 224 px on two cores these take seconds.
CALIBRATION_IMAGES = 256
# More images would only make the scores more certain than the allowed loss needs.
_MOST_SCORED = 5000
_SEED = 0
_BATCH = 32
# Another processor may round an activation to the next of 256 steps; see docs/export.md.
INT8_TOLERANCE = 0.05
# Pairs of timed runs by batch size.
_TIMED = {1: 31, 32: 11}
_SCORES = ("acc_top1", "f1_macro")

Logits = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
MeasureSpeedUp = Callable[..., SpeedUp]


@dataclass(frozen=True)
class Loss:
    """What a recipe loses on the val images.

    Attributes:
        recipe: Which one.
        calibration_images: Number of train images that gave the ranges.
        images: Number of val images.
        fp32: ``acc_top1`` and ``f1_macro`` of the fp32 model.
        int8: The same of the int8 model.
        changed: Images that get another class.
    """

    recipe: str
    calibration_images: int
    images: int
    fp32: dict[str, float]
    int8: dict[str, float]
    changed: int

    @property
    def worst(self) -> float:
        """The larger of the two losses; below 0 when int8 scores higher in both."""
        return max(self.fp32[name] - self.int8[name] for name in _SCORES)

    def __str__(self) -> str:
        scores = ", ".join(
            f"{name} {self.fp32[name]:.4f} to {self.int8[name]:.4f}" for name in _SCORES
        )
        return f"{scores}, {self.changed} of {self.images} images changed class ({self.recipe})"


@dataclass(frozen=True)
class Int8Export:
    """An int8 model that passed both gates.

    Attributes:
        onnx: The file.
        sidecar: The file beside it.
        loss: What it loses.
        speed: How much faster it is here, by batch size.
    """

    onnx: Path
    sidecar: Path
    loss: Loss
    speed: tuple[SpeedUp, ...]


def export_configured(run: Path, config: ExportConfig) -> Int8Export:
    """Export int8 as a run is configured; see :func:`export_int8`."""
    return export_int8(run, max_loss=config.int8_max_loss)


def export_int8(
    run: Path | str,
    *,
    max_loss: float = 0.01,
    data_root: Path | str | None = None,
    stopwatch: MeasureSpeedUp = measure_speed_up,
) -> Int8Export:
    """Quantise the exported model of a run to int8, and keep it only if that is worth it.

    The fp32 model stays as it is, whatever happens.

    Args:
        run: Run folder with ``model.onnx``.
        max_loss: Largest loss of top-1 accuracy and of macro F1 on val that is allowed.
        data_root: Where the data lies now, if it moved.
        stopwatch: Times two models; see :func:`measure_speed_up`.

    Raises:
        ResumeError: ``run`` is no run folder.
        DataError: An image cannot be read.
        ExportError: There is no ``model.onnx``, or int8 loses too much or is not faster here; the
            message has the numbers, and no int8 file is left.
    """
    stored = Run(run, data_root=data_root)
    folder = stored.folder
    onnx, sidecar_file = variant_files(folder.path, "int8")
    remove_pair(onnx, sidecar_file)  # what an earlier export was content with
    before = Predictor.load(folder.path)
    manifest = stored.manifest
    rows = manifest.rows("val")
    val = rows[spread(manifest.labels[rows], _MOST_SCORED)]
    labels = manifest.labels[val]
    logits = _logits(before, manifest, val, "int8: fp32 scores")
    with replacing(onnx) as temporary:
        loss, after_logits = _quantize_well(before, manifest, val, logits, temporary, max_loss)
        after = _predictor(temporary, before.sidecar)
        speed = tuple(_time(before, after, manifest, val, size, stopwatch) for size in _TIMED)
        _require_faster(loss, speed)
        shipped = before.sidecar.calibration
        calibration = None if shipped is None else refit_calibration(shipped, after_logits, labels)
        sidecar = _sidecar(before.sidecar, after, onnx.name, calibration, loss, speed)
    write_json(sidecar_file, sidecar.to_json())
    return Int8Export(onnx, sidecar_file, loss, speed)


def spread(labels: Indices, most: int) -> Indices:
    """Choose at most ``most`` positions of ``(N,)`` labels, seeded, the classes taking turns.

    Returns:
        Positions, ascending.
    """
    order = np.random.default_rng(_SEED).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[by_class], labels[by_class])
    turns = np.arange(len(labels)) - starts  # how many of its class come before
    return np.asarray(np.sort(by_class[np.argsort(turns, kind="stable")][:most]), dtype=np.int64)


def _quantize_well(
    before: Predictor,
    manifest: Manifest,
    val: Indices,
    logits: Logits,
    target: Path,
    max_loss: float,
) -> tuple[Loss, Logits]:
    """Try the recipes until one loses no more than is allowed; returns its val logits too.

    Raises:
        ExportError: None does.
    """
    train = manifest.rows("train")
    chosen = train[spread(manifest.labels[train], CALIBRATION_IMAGES)]
    labels = manifest.labels[val]
    losses = []
    for recipe in RECIPES:
        _quantize(before, manifest, chosen, target, recipe)
        after = _logits(_predictor(target, before.sidecar), manifest, val, "int8: scores")
        loss = _loss(recipe, len(chosen), logits, after, labels)
        logger.info("int8: {}", loss)
        if loss.worst <= max_loss:
            return loss, after
        losses.append(loss)
    raise ExportError(
        f"int8 loses more than {max_loss} on val: " + "; ".join(map(str, losses)),
        expected=f"acc_top1 and f1_macro at most {max_loss} below those of fp32",
        fix="use model.onnx, which is intact; or allow more with --max-loss "
        "(export.int8_max_loss); no int8 file was written",
    )


def _quantize(
    before: Predictor, manifest: Manifest, chosen: Indices, target: Path, recipe: QuantizationRecipe
) -> None:
    spec = before.spec
    with progress("int8: calibrate") as report:

        def tensor_of(position: int) -> npt.NDArray[np.float32]:
            report(position, len(chosen))
            image = read_image(manifest.file(int(chosen[position])))
            return spec.normalize(spec.resize_image(image)[None])

        quantize(before.path, target, recipe, len(chosen), tensor_of)


def _predictor(path: Path, sidecar: Sidecar) -> Predictor:
    session = open_session(path)
    check_shapes(session, sidecar, path)
    return Predictor(session, sidecar, path)


def _logits(predictor: Predictor, manifest: Manifest, rows: Indices, title: str) -> Logits:
    def load(row: np.int64) -> npt.NDArray[np.uint8]:
        return predictor.spec.resize_image(read_image(manifest.file(int(row))))

    loaded = prefetch_map(load, rows, threads=available_cores(), ahead=2 * _BATCH)
    parts: list[Logits] = []
    with progress(title) as report, contextlib.closing(loaded):
        while batch := list(itertools.islice(loaded, _BATCH)):
            parts.append(predictor.logits(np.stack(batch)))
            report(len(parts) * _BATCH, len(rows))
    return np.concatenate(parts)


def _loss(
    recipe: QuantizationRecipe, chosen: int, fp32: Logits, int8: Logits, labels: Indices
) -> Loss:
    answers = [logits.argmax(axis=1) for logits in (fp32, int8)]
    once = np.ones((1, len(labels)))
    scores = [
        weighted_scores(labels, answer, None, once, fp32.shape[1]).headline for answer in answers
    ]
    named = [{name: float(item[name][0]) for name in _SCORES} for item in scores]
    changed = int((answers[0] != answers[1]).sum())
    return Loss(recipe.name, chosen, len(labels), named[0], named[1], changed)


def _time(
    before: Predictor,
    after: Predictor,
    manifest: Manifest,
    val: Indices,
    size: int,
    stopwatch: MeasureSpeedUp,
) -> SpeedUp:
    rows = np.resize(val, size)  # again from the start when there are fewer
    images = [before.spec.resize_image(read_image(manifest.file(int(row)))) for row in rows]
    tensor = before.spec.normalize(np.stack(images))
    return stopwatch(
        lambda: before.run(tensor), lambda: after.run(tensor), batch=size, pairs=_TIMED[size]
    )


def _require_faster(loss: Loss, speed: tuple[SpeedUp, ...]) -> None:
    if all(item.low > 1 for item in speed):
        return
    raise ExportError(
        "int8 is not faster than fp32 here (fp32, int8): "
        f"{'; '.join(map(str, speed))}; on val: {loss}",
        expected="less time at every batch size, beyond what chance explains",
        fix="use model.onnx, which is intact; or export on the kind of processor that will run "
        "it (VNNI or AMX make int8 fast), with nothing else running; no int8 file was written",
    )


def _sidecar(
    fp32: Sidecar,
    after: Predictor,
    name: str,
    calibration: Calibration | None,
    loss: Loss,
    speed: tuple[SpeedUp, ...],
) -> Sidecar:
    model: dict[str, Any] = {
        **fp32.model,
        "sha256": sha256_of(after.path),
        "file": name,
        "precision": "int8",
        "golden_tolerance": INT8_TOLERANCE,
    }
    quantization = {
        "recipe": loss.recipe,
        "calibration_images": loss.calibration_images,
        "of_model": fp32.model["sha256"],
        "val_images": loss.images,
        "fp32": loss.fp32,
        "int8": loss.int8,
        "changed_classes": loss.changed,
        "speed": [item.to_json() for item in speed],
        "measured_on": {**machine(), "cores_of_machine": os.cpu_count()},
    }
    return replace(
        fp32,
        model=model,
        provenance={**fp32.provenance, "quantization": quantization},
        golden=make_golden(fp32.spec, after.logits),
        calibration=calibration,
    )
