"""Write the network as one ONNX file with its mapping in the metadata."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from classifier_training.artifacts.checkpoint import TrainedModel
from classifier_training.errors import ExportError
from classifier_training.runtime.sidecar import INPUT_NAME, OUTPUT_NAME, onnx_metadata


def write_onnx(model: TrainedModel, path: Path, *, opset: int) -> None:
    """Export a network: one file, input ``input`` (N, 3, H, W) float32, output ``logits``.

    The batch size is dynamic; normalisation is not part of the graph.

    Args:
        model: An fp32 network on the CPU in evaluation mode.
        path: Where to write.
        opset: ONNX operator set.

    Raises:
        ExportError: The exporter cannot express the network.
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
        raise ExportError(
            f"cannot express {model.card.model_name} in ONNX opset {opset}: {error}",
            expected="a network of operators that the opset has",
            mend="another export.opset, or another model",
        ) from error
    assert program is not None  # with dynamo=True a program is returned
    proto = program.model_proto
    for key, value in onnx_metadata(model.card.class_map, model.card.spec).items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())
