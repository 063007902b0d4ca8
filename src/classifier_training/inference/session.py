"""An onnxruntime session of one of our ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from classifier_training.errors import ConfigError, ExportError
from classifier_training.inference.sidecar import INPUT_NAME, ONNX_NAME, OUTPUT_NAME, Sidecar
from classifier_training.system.resources import available_cores

_CPU = "CPUExecutionProvider"


def locate_onnx(path: Path) -> Path:
    """Return the ONNX file that ``path`` (a run folder or an ONNX file) stands for.

    Raises:
        ExportError: There is none.
    """
    found = path / ONNX_NAME if path.is_dir() else path
    if not found.is_file():
        raise ExportError(
            f"no ONNX model at {found}",
            expected=f"a run folder with {ONNX_NAME}, or an ONNX file",
            fix="finish the run, or export it: classifier export RUN",
        )
    return found


def open_session(
    path: Path, *, threads: int | None = None, providers: Sequence[str] | None = None
) -> ort.InferenceSession:
    """Open an ONNX file; by default on the CPU.

    Raises:
        ExportError: onnxruntime cannot read it, or its input and output are not ours.
        ConfigError: A provider is not available here.
    """
    wanted = [_CPU] if providers is None else [_provider(name) for name in providers]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.log_severity_level = 3
    # TF32 rounds a product to ten bits; what was measured is fp32.
    settings = [{"use_tf32": "0"} if name == "CUDAExecutionProvider" else {} for name in wanted]
    try:
        session = ort.InferenceSession(
            str(path), options, providers=wanted, provider_options=settings
        )
    except Exception as error:
        raise ExportError(
            f"onnxruntime cannot load {path}: {next(iter(str(error).splitlines()), 'it failed')}",
            expected="a complete ONNX file of a supported opset",
            fix="export the run again: classifier export RUN",
        ) from error
    if session.get_providers()[0] != wanted[0]:  # onnxruntime goes on without it, and only logs
        raise ConfigError(
            f"onnxruntime has {wanted[0]}, but cannot start it here",
            expected="a device and driver that it can use",
            fix="--provider cpu, or fix what onnxruntime reports above",
        )
    inputs = [node.name for node in session.get_inputs()]
    outputs = [node.name for node in session.get_outputs()]
    if inputs != [INPUT_NAME] or outputs != [OUTPUT_NAME]:
        raise ExportError(
            f"{path} has inputs {inputs} and outputs {outputs}",
            expected=f"input {INPUT_NAME!r} and output {OUTPUT_NAME!r}",
            fix="use an ONNX file written by: classifier export RUN",
        )
    return session


def _provider(name: str) -> str:
    """Return the full name of a provider that this onnxruntime has."""
    available = ort.get_available_providers()
    by_name = {known.lower(): known for known in available}
    found = by_name.get(name.lower()) or by_name.get(f"{name.lower()}executionprovider")
    if found is None:
        raise ConfigError(
            f"onnxruntime has no provider {name!r} here",
            expected=f"one of {', '.join(available)}",
            fix="choose one of them, or install the onnxruntime package that brings it "
            "(onnxruntime-gpu for cuda)",
        )
    return cast("str", found)


def check_shapes(session: ort.InferenceSession, sidecar: Sidecar, path: Path) -> None:
    """Refuse a network whose input or output is not of the sidecar's shape.

    Raises:
        ExportError: It is not.
    """
    size, classes = sidecar.spec.image_size, len(sidecar.class_map)
    pixels = ("tensor(uint8)", [size, size, 3])
    tensors = ("tensor(float)", [3, size, size])
    for node, (kind, wanted) in (
        (session.get_inputs()[0], pixels if sidecar.takes_pixels else tensors),
        (session.get_outputs()[0], ("tensor(float)", [classes])),
    ):
        # The first axis is the batch, of any length.
        if node.type != kind or list(node.shape[1:]) != wanted:
            raise ExportError(
                f"{path}: {node.name} is {node.type} of shape {node.shape}, which its sidecar "
                "contradicts",
                expected=f"{kind} of shape {['batch', *wanted]}",
                fix="export the run again: classifier export RUN",
            )


def run_session(
    session: ort.InferenceSession, tensor: npt.NDArray[np.float32] | npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Run a batch through a session; returns ``(N, C)`` float32 logits.

    Args:
        session: An open one.
        tensor: ``(N, 3, H, W)`` float32, normalised; or ``(N, H, W, 3)`` uint8 pixels where the
            network takes those.
    """
    return cast("npt.NDArray[np.float32]", session.run([OUTPUT_NAME], {INPUT_NAME: tensor})[0])
