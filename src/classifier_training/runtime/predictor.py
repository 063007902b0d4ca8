"""The deployed model: an ONNX file and its sidecar, run by onnxruntime without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from classifier_training.errors import ExportError
from classifier_training.runtime.agreement import softmax
from classifier_training.runtime.class_map import ClassMap
from classifier_training.runtime.cores import available_cores
from classifier_training.runtime.images import read_image
from classifier_training.runtime.preprocess import PreprocessSpec
from classifier_training.runtime.sidecar import (
    INPUT_NAME,
    ONNX_NAME,
    OUTPUT_NAME,
    SIDECAR_NAME,
    Sidecar,
    check_pair,
)


@dataclass(frozen=True)
class Prediction:
    """What the model says about one image.

    Attributes:
        path: The image as it was named.
        label: The most probable class.
        confidence: Its (uncalibrated) probability.
        probabilities: ``(C,)`` float32 over the classes of the sidecar, in index order.
    """

    path: str
    label: str
    confidence: float
    probabilities: npt.NDArray[np.float32]


class Predictor:
    """Classifies images with an exported model. Build it with :meth:`load`."""

    def __init__(self, session: ort.InferenceSession, sidecar: Sidecar, path: Path) -> None:
        self._session = session
        self.sidecar = sidecar
        self.path = path

    @classmethod
    def load(cls, path: Path | str, *, threads: int | None = None) -> Predictor:
        """Load ``model.onnx`` (or the run folder that holds it) and the sidecar beside it.

        Args:
            path: A run folder or an ONNX file.
            threads: Intra-op threads; by default the cores this process may use.

        Raises:
            ExportError: A file is missing, damaged, or the two do not belong together.
        """
        onnx_path = locate_onnx(Path(path))
        sidecar = Sidecar.read(onnx_path.parent / SIDECAR_NAME)
        session = open_session(onnx_path, threads=threads)
        check_pair(sidecar, onnx_path, dict(session.get_modelmeta().custom_metadata_map))
        _check_shapes(session, sidecar, onnx_path)
        return cls(session, sidecar, onnx_path)

    @property
    def class_map(self) -> ClassMap:
        """Class names in index order."""
        return self.sidecar.class_map

    @property
    def spec(self) -> PreprocessSpec:
        """The preprocessing that the model was measured with."""
        return self.sidecar.spec

    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run the network on preprocessed pixels.

        Args:
            images: ``(N, H, W, 3)`` uint8 as :meth:`PreprocessSpec.resize_image` returns them.

        Returns:
            ``(N, C)`` float32.
        """
        return run_session(self._session, self.spec.normalize(images))

    def predict(self, paths: Iterable[Path | str], *, batch_size: int = 32) -> Iterator[Prediction]:
        """Classify image files, a batch at a time, in the order given.

        Raises:
            DataError: A file cannot be read; the message names it.
        """
        names = self.class_map.names
        for batch in _batches(paths, batch_size):
            pixels = np.stack([self.spec.resize_image(read_image(Path(path))) for path in batch])
            for path, row in zip(batch, softmax(self.logits(pixels)), strict=True):
                best = int(row.argmax())
                yield Prediction(str(path), names[best], float(row[best]), row)


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
            mend="finish the run, or export it: classifier export RUN",
        )
    return found


def open_session(path: Path, *, threads: int | None = None) -> ort.InferenceSession:
    """Open an ONNX file on the CPU.

    Raises:
        ExportError: onnxruntime cannot read it, or its input and output are not ours.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(
            f"onnxruntime cannot load {path}: {next(iter(str(error).splitlines()), 'it failed')}",
            expected="a complete ONNX file of a supported opset",
            mend="export the run again: classifier export RUN",
        ) from error
    inputs = [node.name for node in session.get_inputs()]
    outputs = [node.name for node in session.get_outputs()]
    if inputs != [INPUT_NAME] or outputs != [OUTPUT_NAME]:
        raise ExportError(
            f"{path} has inputs {inputs} and outputs {outputs}",
            expected=f"input {INPUT_NAME!r} and output {OUTPUT_NAME!r}",
            mend="use an ONNX file written by: classifier export RUN",
        )
    return session


def _check_shapes(session: ort.InferenceSession, sidecar: Sidecar, path: Path) -> None:
    size, classes = sidecar.spec.image_size, len(sidecar.class_map)
    for node, wanted in (
        (session.get_inputs()[0], [3, size, size]),
        (session.get_outputs()[0], [classes]),
    ):
        # The first axis is the batch, of any length.
        if node.type != "tensor(float)" or list(node.shape[1:]) != wanted:
            raise ExportError(
                f"{path}: {node.name} is {node.type} of shape {node.shape}, which its sidecar "
                "contradicts",
                expected=f"tensor(float) of shape {['batch', *wanted]}",
                mend="export the run again: classifier export RUN",
            )


def run_session(
    session: ort.InferenceSession, tensor: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Run ``(N, 3, H, W)`` float32 through a session; returns ``(N, C)`` float32 logits."""
    return cast("npt.NDArray[np.float32]", session.run([OUTPUT_NAME], {INPUT_NAME: tensor})[0])


def _batches(paths: Iterable[Path | str], size: int) -> Iterator[Sequence[Path | str]]:
    batch: list[Path | str] = []
    for path in paths:
        batch.append(path)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
