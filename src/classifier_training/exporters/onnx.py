"""Export the best checkpoint, and keep the file only if it does what was measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from loguru import logger

from classifier_training import __version__
from classifier_training.data.image_stats import ImageStats
from classifier_training.data.loading import resolve_workers
from classifier_training.data.manifest import Manifest
from classifier_training.errors import ExportError
from classifier_training.evaluation.calibrate import read_calibration
from classifier_training.evaluation.models import exact_fp32, infer
from classifier_training.inference.agreement import Agreement, compare_logits
from classifier_training.inference.golden import make_golden
from classifier_training.inference.images import read_image
from classifier_training.inference.input_check import InputStatistics
from classifier_training.inference.predictor import Predictor
from classifier_training.inference.session import open_session, run_session
from classifier_training.inference.sidecar import (
    INPUT_NAME,
    OUTPUT_NAME,
    VARIANTS,
    Sidecar,
    onnx_metadata,
    provenance_metadata,
    remove_pair,
    sha256_of,
    variant_files,
)
from classifier_training.inference.verification import verify_golden
from classifier_training.run.checkpoint import TrainedModel, weights_sha256
from classifier_training.run.folder import RunFolder
from classifier_training.run.reader import Run
from classifier_training.system.files import replacing, write_json


def write_onnx(model: TrainedModel, path: Path, metadata: dict[str, str], *, opset: int) -> None:
    """Export a network: one file, input ``input`` (N, 3, H, W) float32, output ``logits``.

    The batch size is dynamic; normalisation is not part of the graph.

    Args:
        model: An fp32 network on the CPU in evaluation mode.
        path: Where to write.
        metadata: The ``metadata_props``.
        opset: ONNX operator set.

    Raises:
        ExportError: The exporter cannot express the network in this opset.
    """
    size = model.metadata.spec.image_size
    example = torch.zeros(2, 3, size, size)
    try:
        program = torch.onnx.export(
            model.network,
            (example,),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise _not_expressible(model, opset, _reason(error)) from error
    assert program is not None  # with dynamo=True a program is returned
    proto = program.model_proto
    written = {item.domain: item.version for item in proto.opset_import}
    if written.get("") != opset:  # torch converts between opsets, and only warns when it cannot
        raise _not_expressible(model, opset, f"torch writes opset {written.get('')}")
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def _not_expressible(model: TrainedModel, opset: int, reason: str) -> ExportError:
    return ExportError(
        f"cannot express {model.metadata.model_name} in ONNX opset {opset}: {reason}",
        expected="a network of operators that the opset has, and an opset that torch writes",
        fix="another export.opset (18 to 23), or another model",
    )


def _reason(error: Exception) -> str:
    """Return the first line of what made the exporter fail, without terminal colours."""
    lines = str(error.__cause__ or error).strip().splitlines()
    return re.sub(r"\x1b\[[0-9;]*m", "", lines[0]) if lines else type(error).__name__


# More images would only repeat what these show; at 224 px on two cores they take seconds.
MOST_VERIFIED = 512
_FEW = 16


@dataclass(frozen=True)
class Exported:
    """A verified export.

    Attributes:
        onnx: The file.
        sidecar: The file beside it.
        agreement: How closely onnxruntime follows torch, over all batch sizes tried.
    """

    onnx: Path
    sidecar: Path
    agreement: Agreement


def export(run: Path | str, *, opset: int = 18, data_root: Path | str | None = None) -> Exported:
    """Export the best checkpoint of a finished (or stopped) run, verified on its val images.

    Args:
        run: Run folder.
        opset: ONNX operator set.
        data_root: Where the data lies now, if it moved.

    Raises:
        ResumeError: ``run`` is no run folder, or no epoch was finished in it.
        DataError: A validation image cannot be read.
        ExportError: onnxruntime does not reproduce torch; no file is left.
    """
    stored = Run(run, data_root=data_root)
    model = stored.model()
    exact_fp32()
    rows = stored.manifest.rows("val")[:MOST_VERIFIED]
    logits = infer(
        model,
        stored.manifest,
        rows,
        batch_size=32,
        workers=resolve_workers("auto"),
        device=torch.device("cpu"),
        on_images=lambda _: None,
    )
    return export_verified(stored.folder, model, stored.manifest, rows, logits, opset=opset)


def export_verified(
    folder: RunFolder,
    model: TrainedModel,
    manifest: Manifest,
    rows: npt.NDArray[np.int64],
    logits: npt.NDArray[np.float32],
    *,
    opset: int,
    into: Path | None = None,
) -> Exported:
    """Write ONNX and sidecar, unless onnxruntime disagrees with ``logits``.

    Variants (int8, uint8) of other weights that lie there are removed.

    Args:
        folder: The run.
        model: The scored network; moved to the CPU.
        manifest: Where the images are.
        rows: Manifest indices of real images.
        logits: ``(len(rows), C)`` float32 that torch measured on them.
        opset: ONNX operator set.
        into: Folder of the two files; by default that of the run.

    Raises:
        ExportError: It disagrees; nothing is written.
    """
    model.network.to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
    calibration = read_calibration(folder, model.epoch)
    inputs = _input_statistics(folder, manifest)
    rows, logits = rows[:MOST_VERIFIED], logits[:MOST_VERIFIED]
    target = RunFolder(into or folder.path)
    origin = _origin(folder, model)
    metadata = onnx_metadata(model.metadata.class_map, model.metadata.spec) | provenance_metadata(
        origin
    )
    with replacing(target.onnx) as temporary:
        write_onnx(model, temporary, metadata, opset=opset)
        session = open_session(temporary)
        agreement = verify(session, model, manifest, rows, logits)
        sidecar = replace(
            _sidecar(folder, model, sha256_of(temporary), opset, agreement),
            calibration=calibration,
            input_statistics=inputs,
        )
        verify_golden(Predictor(session, sidecar, temporary))
    write_json(target.sidecar, sidecar.to_json())
    _drop_other_variants(target, origin["weights_sha256"])
    return Exported(target.onnx, target.sidecar, agreement)


def verify(
    session: ort.InferenceSession,
    model: TrainedModel,
    manifest: Manifest,
    rows: npt.NDArray[np.int64],
    logits: npt.NDArray[np.float32],
) -> Agreement:
    """Compare onnxruntime with torch on real images at batch sizes 1, 2 and 32.

    Raises:
        ExportError: A logit is off by more than the tolerance, or a class changes.
    """
    spec = model.metadata.spec

    def run(indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        pixels = [spec.resize_image(read_image(manifest.file(int(index)))) for index in indices]
        return _run_exported(
            session, spec.normalize(np.stack(pixels)), len(model.metadata.class_map)
        )

    images = len(rows)
    if images == 1:  # a batch of two needs a second image; the same one will do
        rows, logits = rows.repeat(2), logits.repeat(2, axis=0)
    few = min(_FEW, len(rows))
    all_of_them = _in_batches(run, rows, 32)
    by_batch = {
        1: compare_logits(logits[:few], _in_batches(run, rows[:few], 1)),
        2: compare_logits(logits[:few], _in_batches(run, rows[:few], 2)),
        32: compare_logits(logits, all_of_them),
    }
    for size, agreement in by_batch.items():
        if not agreement.holds:
            name = manifest.describe(int(rows[agreement.worst_image]))
            raise ExportError(
                f"onnxruntime does not reproduce torch at batch {size}: {agreement}; "
                f"the worst image is {name}",
                expected="the same logits within the tolerance, and the same classes",
                fix="try another export.opset, or other onnxruntime and torch versions; the "
                "checkpoint is intact and no ONNX file was written",
            )
    worst = max(by_batch.values(), key=lambda agreement: agreement.worst)
    return Agreement(images, worst.worst, 0, worst.worst_image)


def _run_exported(
    session: ort.InferenceSession, tensor: npt.NDArray[np.float32], classes: int
) -> npt.NDArray[np.float32]:
    """Run a batch; a graph with a batch size frozen into it fails here, or answers too much."""
    try:
        logits = run_session(session, tensor)
    except Exception as error:
        raise _not_dynamic(len(tensor), str(error).splitlines()[0]) from error
    if logits.shape != (len(tensor), classes):
        raise _not_dynamic(len(tensor), f"it returns shape {logits.shape}")
    return logits


def _not_dynamic(images: int, reason: str) -> ExportError:
    return ExportError(
        f"onnxruntime cannot run the exported network on {images} image(s): {reason}",
        expected="one row of logits an image, at any batch size",
        fix="write the network without branches on the batch size or on values; the checkpoint "
        "is intact and no ONNX file was written",
    )


def _in_batches(
    run: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]],
    rows: npt.NDArray[np.int64],
    size: int,
) -> npt.NDArray[np.float32]:
    return np.concatenate([run(rows[start : start + size]) for start in range(0, len(rows), size)])


def _sidecar(
    folder: RunFolder, model: TrainedModel, digest: str, opset: int, agreement: Agreement
) -> Sidecar:
    metadata = model.metadata

    def logits_of(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            output = model.network(torch.from_numpy(metadata.spec.normalize(pixels)))
        values: npt.NDArray[np.float32] = output.numpy()
        return values

    facts: dict[str, Any] = {
        "sha256": digest,
        "file": folder.onnx.name,
        "architecture": metadata.model_name,
        "input": {
            "name": INPUT_NAME,
            "dtype": "float32",
            "shape": _input_shape(metadata.spec.image_size),
        },
        "output": {
            "name": OUTPUT_NAME,
            "dtype": "float32",
            "shape": ["batch", len(metadata.class_map)],
        },
        "opset": opset,
        "precision": "fp32",
    }
    provenance: dict[str, Any] = {
        **_origin(folder, model),
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "verified_images": agreement.images,
        "largest_relative_logit_difference": agreement.worst,
    }
    golden = make_golden(metadata.spec, logits_of)
    return Sidecar(metadata.class_map, metadata.spec, facts, provenance, golden)


def _origin(folder: RunFolder, model: TrainedModel) -> dict[str, Any]:
    """Return what the model comes from: the same each time this checkpoint is exported."""
    return {
        "run_id": model.metadata.run_id,
        "epoch": model.epoch,
        "weights": "moving average" if model.metadata.averaged else "raw",
        "weights_sha256": weights_sha256(model.network.state_dict()),
        "data_fingerprint": folder.read_record()["data_fingerprint"],
        "classifier_training": __version__,
    }


def _drop_other_variants(folder: RunFolder, weights: str) -> None:
    """Remove variants that were made from other weights than the model beside them."""
    for variant in VARIANTS:
        onnx, sidecar = variant_files(folder.path, variant)
        if not onnx.exists() and not sidecar.exists():
            continue
        try:
            is_same = Sidecar.read(sidecar).provenance["weights_sha256"] == weights
        except (ExportError, KeyError, TypeError):
            is_same = False
        if not is_same:
            remove_pair(onnx, sidecar)
            logger.warning("removed {}: it is not of these weights", onnx)


def _input_statistics(folder: RunFolder, manifest: Manifest) -> InputStatistics | None:
    """Summarise the training images, where decoding every image left facts of them."""
    if not folder.image_stats.exists():
        return None
    facts = ImageStats.read(folder.image_stats, manifest).select(manifest.rows("train"))
    decoded = facts.decoded
    if not decoded.any():
        return None
    return InputStatistics.of(
        {
            "width": facts.widths[decoded],
            "height": facts.heights[decoded],
            "brightness": facts.means[decoded].mean(axis=1),
            "contrast": facts.stds[decoded].mean(axis=1),
        }
    )


def _input_shape(size: int) -> list[str | int]:
    return ["batch", 3, size, size]
