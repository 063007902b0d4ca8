"""An ONNX file and its sidecar, made in milliseconds: a random linear layer over all pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from classifier_training.config.choices import ResizeMode
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.golden import make_golden
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.inference.session import open_session, run_session
from classifier_training.inference.sidecar import (
    ONNX_NAME,
    SIDECAR_NAME,
    Sidecar,
    onnx_metadata,
    sha256_of,
)
from classifier_training.system.files import write_json

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def write_network(
    path: Path,
    metadata: dict[str, str],
    *,
    size: int,
    outputs: int,
    seed: int = 0,
    input_name: str = "input",
) -> None:
    """Write ``logits = flatten(input) @ W``."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 1 / size, (3 * size * size, outputs)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", [input_name], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def write_pair(
    folder: Path,
    *,
    size: int = 16,
    resize: ResizeMode = "squash",
    classes: tuple[str, ...] = ("0", "00", "NO"),
    seed: int = 0,
) -> Path:
    """Write ``model.onnx`` and ``labels_mapping.json`` as an export does; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    class_map, spec = ClassMap(classes), PreprocessSpec(size, resize, MEAN, STD)
    path = folder / ONNX_NAME
    metadata = onnx_metadata(class_map, spec)
    write_network(path, metadata, size=size, outputs=len(classes), seed=seed)
    session = open_session(path, threads=1)
    golden = make_golden(spec, lambda pixels: run_session(session, spec.normalize(pixels)))
    facts = {"sha256": sha256_of(path), "file": ONNX_NAME}
    write_json(folder / SIDECAR_NAME, Sidecar(class_map, spec, facts, {}, golden).to_json())
    return folder


def change_metadata(path: Path, changes: dict[str, str]) -> None:
    """Replace entries of an ONNX file's ``metadata_props``."""
    model = onnx.load(path)
    for entry in model.metadata_props:
        entry.value = changes.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
