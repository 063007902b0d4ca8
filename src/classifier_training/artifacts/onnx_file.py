"""Write the network as one ONNX file with its mapping in the metadata."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import torch

from classifier_training.artifacts.checkpoint import TrainedModel
from classifier_training.errors import ExportError
from classifier_training.runtime.sidecar import INPUT_NAME, OUTPUT_NAME


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
    size = model.card.spec.image_size
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
        f"cannot express {model.card.model_name} in ONNX opset {opset}: {reason}",
        expected="a network of operators that the opset has, and an opset that torch writes",
        mend="another export.opset (18 to 23), or another model",
    )


def _reason(error: Exception) -> str:
    """Return the first line of what made the exporter fail, without terminal colours."""
    lines = str(error.__cause__ or error).strip().splitlines()
    return re.sub(r"\x1b\[[0-9;]*m", "", lines[0]) if lines else type(error).__name__
