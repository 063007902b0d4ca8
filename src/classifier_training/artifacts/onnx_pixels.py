"""A copy of an exported network that takes uint8 pixels: the normalisation inside the graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from classifier_training.runtime.preprocess import PreprocessSpec
from classifier_training.runtime.sidecar import INPUT_NAME

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
