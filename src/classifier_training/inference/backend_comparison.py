"""How often preprocessing by another library changes the answer. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifier_training.errors import DataError
from classifier_training.inference.agreement import compare_logits, softmax
from classifier_training.inference.opencv import INTERPOLATIONS, OpenCvPreprocess
from classifier_training.inference.predictor import Predictor
from classifier_training.system.parallel import prefetch_map
from classifier_training.system.resources import available_cores

_BATCH = 16

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class BackendResult:
    """How OpenCV's preprocessing compares with the one that the model was measured with.

    Attributes:
        interpolation: Of OpenCV; one of ``INTERPOLATIONS``.
        golden: Largest relative difference of logits on the golden vectors.
        images: Number of images compared.
        flips: Images that get another class.
        worst: Largest difference of a probability.
        mean: Mean over the images of their largest difference of a probability.
        unreadable: Files that OpenCV cannot decode although Pillow can.
    """

    interpolation: str
    golden: float
    images: int
    flips: int
    worst: float
    mean: float
    unreadable: int


def compare_opencv(
    predictor: Predictor, paths: Sequence[Path], on_images: Callable[[int, int], None]
) -> list[BackendResult]:
    """Answer each image four times: as the model was measured, and by three ways of OpenCV.

    Args:
        predictor: The exported model.
        paths: Image files.
        on_images: Called with (done, total).

    Raises:
        DataError: A file cannot be read.
    """
    backends = [OpenCvPreprocess(predictor.spec, name) for name in INTERPOLATIONS]
    golden = [_golden_difference(predictor, backend) for backend in backends]

    def load(path: Path) -> tuple[Pixels, ...] | None:
        data = _read(path)
        ours = predictor.spec.load(data, str(path))
        try:
            return ours, *(backend.load(data, str(path)) for backend in backends)
        except DataError:
            return None

    flips, sums, worst = (np.zeros(len(backends)) for _ in range(3))
    compared = unreadable = 0
    batch: list[tuple[Pixels, ...]] = []

    def flush() -> None:
        nonlocal compared
        ours, *others = (
            softmax(predictor.logits(np.stack(way))) for way in zip(*batch, strict=True)
        )
        for at, theirs in enumerate(others):
            difference = np.abs(theirs - ours).max(axis=1)
            flips[at] += (theirs.argmax(axis=1) != ours.argmax(axis=1)).sum()
            sums[at] += difference.sum()
            worst[at] = max(worst[at], difference.max())
        compared += len(batch)
        batch.clear()

    loaded = prefetch_map(load, paths, threads=available_cores(), ahead=2 * _BATCH)
    for done, ways in enumerate(loaded, start=1):
        if ways is None:
            unreadable += 1
        else:
            batch.append(ways)
        if len(batch) == _BATCH:
            flush()
        on_images(done, len(paths))
    if batch:
        flush()
    return [
        BackendResult(
            interpolation=name,
            golden=golden[at],
            images=compared,
            flips=int(flips[at]),
            worst=float(worst[at]),
            mean=float(sums[at] / max(1, compared)),
            unreadable=unreadable,
        )
        for at, name in enumerate(INTERPOLATIONS)
    ]


def _golden_difference(predictor: Predictor, backend: OpenCvPreprocess) -> float:
    vectors = predictor.sidecar.golden
    pixels = np.stack([backend.load(vector.png, vector.name) for vector in vectors])
    stored = np.asarray([vector.logits for vector in vectors], dtype=np.float32)
    return compare_logits(stored, predictor.logits(pixels)).worst


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read image {path}: {error.strerror or error}",
            expected="a readable image file",
            fix="restore the file or its permissions, or say where the images lie: --data DIR",
        ) from error
