"""Static quantisation of an exported network to int8 (QDQ), from calibration images."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from classifier_training.runtime.sidecar import INPUT_NAME

# Images whose intermediate results are held at a time: about 25 MB each for a ResNet18 at 224 px.
_MOST_AT_A_TIME = 16


@dataclass(frozen=True)
class Recipe:
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
    Recipe("full range", None, keep_ends=False),
    Recipe("99.999 % of the range", 99.999, keep_ends=False),
    Recipe("99.999 % of the range, first and last layer in fp32", 99.999, keep_ends=True),
)


def quantize(
    source: Path,
    target: Path,
    recipe: Recipe,
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
