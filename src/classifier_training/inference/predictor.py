"""The deployed model: an ONNX file and its sidecar, run by onnxruntime without torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from classifier_training.errors import ConfigError, DataError
from classifier_training.inference.agreement import softmax
from classifier_training.inference.calibration import energies
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.images import read_image
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.inference.session import (
    check_shapes,
    locate_onnx,
    open_session,
    run_session,
)
from classifier_training.inference.sidecar import Sidecar, check_pair, sidecar_of
from classifier_training.system.parallel import prefetch_map
from classifier_training.system.resources import available_cores


@dataclass(frozen=True)
class Extras:
    """What is wanted besides label and probabilities; all but ``check_inputs`` was fitted on val.

    Attributes:
        calibrated: Calibrated probabilities instead of plain ones, and ``Prediction.unsure``.
        sets: ``Prediction.candidates``.
        energy: ``Prediction.energy`` and ``Prediction.out_of_distribution``.
        check_inputs: ``Prediction.oddities``.
    """

    calibrated: bool = False
    sets: bool = False
    energy: bool = False
    check_inputs: bool = False


@dataclass(frozen=True)
class Prediction:
    """What the model says about one image. What was not asked for by :class:`Extras` is None.

    Attributes:
        path: The image as it was named.
        label: The most probable class.
        confidence: Its probability.
        probabilities: ``(C,)`` float32 over the classes of the sidecar, in index order.
        unsure: Whether the calibrated confidence is below the threshold chosen on val; also None
            where val supported none.
        candidates: The conformal set: classes, the most probable first.
        energy: Of the logits; the higher, the less the image resembles the val images.
        out_of_distribution: Whether it is above the limit chosen on val.
        oddities: In what the image lies outside of the range of the training images.
    """

    path: str
    label: str
    confidence: float
    probabilities: npt.NDArray[np.float32]
    unsure: bool | None = None
    candidates: tuple[str, ...] | None = None
    energy: float | None = None
    out_of_distribution: bool | None = None
    oddities: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Input:
    """A decoded image: the network's input, or what is wrong with the file."""

    path: str
    tensor: npt.NDArray[Any] | None  # (3, H, W) float32, or (H, W, 3) uint8
    oddities: tuple[str, ...] | None = None
    error: DataError | None = None


class Predictor:
    """Classifies images with an exported model. Build it with :meth:`load`."""

    def __init__(self, session: ort.InferenceSession, sidecar: Sidecar, path: Path) -> None:
        self._session = session
        self.sidecar = sidecar
        self.path = path

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
    ) -> Predictor:
        """Load an ONNX file (or ``model.onnx`` of a run folder) and the sidecar beside it.

        Args:
            path: A run folder or an ONNX file.
            threads: Intra-op threads; by default the cores this process may use.
            providers: Execution providers of onnxruntime in order of preference, as it names them
                or short (``["cuda", "cpu"]``); by default the CPU.

        Raises:
            ExportError: A file is missing, damaged, or the two do not belong together.
            ConfigError: A provider is not available here.
        """
        onnx_path = locate_onnx(Path(path))
        sidecar = Sidecar.read(sidecar_of(onnx_path))
        session = open_session(onnx_path, threads=threads, providers=providers)
        check_pair(sidecar, onnx_path, dict(session.get_modelmeta().custom_metadata_map))
        check_shapes(session, sidecar, onnx_path)
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
        return self.run(self._tensor(images))

    def run(self, tensor: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Run the network on its input as :func:`run_session` takes it; returns ``(N, C)``."""
        return run_session(self._session, tensor)

    def _tensor(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        return images if self.sidecar.takes_pixels else self.spec.normalize(images)

    def predict(
        self,
        paths: Iterable[Path | str],
        *,
        batch_size: int = 32,
        extras: Extras | None = None,
        on_bad_image: Callable[[DataError], None] | None = None,
    ) -> Iterator[Prediction]:
        """Classify image files in the order given, while threads decode the next ones.

        Memory stays at a few batches, however many files there are.

        Args:
            paths: Read as they are needed.
            batch_size: Images at a time.
            extras: What is wanted besides.
            on_bad_image: Called for a file that cannot be read, which is then left out; without
                it, that is an error.

        Raises:
            DataError: A file cannot be read; the message names it.
            ConfigError: The sidecar has no section for what ``extras`` asks.
        """
        extras = Extras() if extras is None else extras
        self._require(extras)
        return self._stream(paths, batch_size, extras, on_bad_image)

    def _require(self, extras: Extras) -> None:
        calibration = self.sidecar.calibration
        wanted = {
            "calibrated probabilities (--calibrated)": extras.calibrated and calibration is None,
            "conformal sets (--sets)": extras.sets
            and (calibration is None or calibration.conformal is None),
            "an out-of-distribution score (--ood)": extras.energy
            and (calibration is None or calibration.energy is None),
            "a check of the inputs (--check-inputs)": extras.check_inputs
            and self.sidecar.input_statistics is None,
        }
        if missing := [name for name, is_missing in wanted.items() if is_missing]:
            raise ConfigError(
                f"the sidecar of {self.path} has nothing for {', '.join(missing)}",
                expected="a run whose calibration was fitted (calibration.enabled) on enough val "
                "images, and whose images were checked (RUN/data/image_facts.npz)",
                fix="leave the option out; evaluation/calibration.json of the run says more",
            )

    def _stream(
        self,
        paths: Iterable[Path | str],
        batch_size: int,
        extras: Extras,
        on_bad_image: Callable[[DataError], None] | None,
    ) -> Iterator[Prediction]:
        statistics = self.sidecar.input_statistics if extras.check_inputs else None

        def read(path: Path | str) -> _Input:
            try:
                image = read_image(Path(path))
            except DataError as error:
                return _Input(str(path), None, error=error)
            tensor = self._tensor(self.spec.resize_image(image)[None])[0]
            oddities = None if statistics is None else statistics.oddities(image)
            return _Input(str(path), tensor, oddities)

        batch: list[_Input] = []
        inputs = prefetch_map(read, paths, threads=available_cores(), ahead=2 * batch_size)
        with contextlib.closing(inputs):
            for item in inputs:
                if item.error is None:
                    batch.append(item)
                elif on_bad_image is None:
                    raise item.error
                else:
                    on_bad_image(item.error)
                if len(batch) == batch_size:
                    yield from self._answer(batch, extras)
                    batch = []
        if batch:
            yield from self._answer(batch, extras)

    def _answer(self, batch: list[_Input], extras: Extras) -> Iterator[Prediction]:
        tensors = [item.tensor for item in batch if item.tensor is not None]
        logits = self.run(np.stack(tensors))
        plain = softmax(logits)
        for item, row, values in zip(batch, plain, logits, strict=True):
            best = int(row.argmax())
            label, confidence = self.class_map.names[best], float(row[best])
            answer = Prediction(item.path, label, confidence, row, oddities=item.oddities)
            yield self._calibrate(answer, values, extras)

    def _calibrate(
        self, answer: Prediction, logits: npt.NDArray[np.float32], extras: Extras
    ) -> Prediction:
        """Add what ``extras`` asks for, from ``(C,)`` logits."""
        calibration = self.sidecar.calibration
        if calibration is None or not (extras.calibrated or extras.sets or extras.energy):
            return answer
        calibrated = calibration.probabilities(logits[None])[0]
        confidence = float(calibrated.max())
        if extras.calibrated:
            answer = replace(
                answer,
                confidence=confidence,
                probabilities=calibrated,
                unsure=calibration.is_unsure(confidence),
            )
        if extras.sets:
            names = (self.class_map.names[index] for index in calibration.candidates(calibrated))
            answer = replace(answer, candidates=tuple(names))
        if extras.energy:
            energy = float(energies(logits[None])[0])
            is_odd = calibration.is_out_of_distribution(energy)
            answer = replace(answer, energy=energy, out_of_distribution=is_odd)
        return answer
