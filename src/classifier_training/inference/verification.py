"""Whether an exported model is whole and does what its run measured. No torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifier_training.errors import DataError, ExportError
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.golden import GoldenResult, replay_golden
from classifier_training.inference.prediction_files import probability_columns
from classifier_training.inference.predictor import Predictor

# Probabilities move at most as much as logits do; 1e-5 of a logit of 40 is 4e-4.
PROBABILITY_TOLERANCE = 5e-4


@dataclass(frozen=True)
class SplitResult:
    """How the recorded predictions of a split were reproduced.

    Attributes:
        split: Which one.
        images: Number compared.
        flips: Images that now get another class.
        worst: Largest difference of a probability.
    """

    split: str
    images: int
    flips: int
    worst: float

    @property
    def holds(self) -> bool:
        """Whether classes are the same and probabilities within the tolerance."""
        return self.flips == 0 and self.worst <= PROBABILITY_TOLERANCE


def verify_golden(predictor: Predictor) -> list[GoldenResult]:
    """Replay the golden vectors of the sidecar.

    Raises:
        ExportError: One is not reproduced.
    """
    try:
        results = replay_golden(
            predictor.sidecar.golden,
            predictor.spec,
            predictor.logits,
            tolerance=predictor.sidecar.golden_tolerance,
        )
    except DataError as error:
        raise ExportError(
            f"a golden vector of {predictor.path} is damaged: {error.what}",
            expected="images that can be decoded",
            fix="export the run again: classifier export RUN",
        ) from error
    for result in results:
        if not result.holds:
            raise ExportError(
                f"golden vector {result.name!r} is not reproduced: tensor statistics are off by "
                f"{result.statistics_difference:.1e}, logits by {result.logits_difference:.1e}",
                expected="what the sidecar records",
                fix="export the run again with this version: classifier export RUN",
            )
    return results


def verify_recorded(
    predictor: Predictor, run: Path, data_root: Path | None, on_images: Callable[[int, int], None]
) -> list[SplitResult]:
    """Predict again what ``evaluation/*/predictions.csv`` records, and compare.

    Args:
        predictor: The exported model.
        run: Its run folder.
        data_root: Where the images lie now; by default where the run found them.
        on_images: Called with (done, total) of the split at hand.

    Raises:
        ExportError: A class changed, or a probability is off.
        DataError: An image cannot be read.
    """
    root = _recorded_root(run) if data_root is None else data_root
    results = []
    for path in sorted(run.glob("evaluation/*/predictions.csv")):
        result = _verify_split(predictor, path, root, on_images)
        if not result.holds:
            raise ExportError(
                f"{result.flips} of {result.images} {result.split} images get another class than "
                f"{path} records; the largest probability difference is {result.worst:.1e}",
                expected=f"the same classes, probabilities within {PROBABILITY_TOLERANCE:.0e}",
                fix="check that the data is unchanged, then export again: classifier export RUN",
            )
        results.append(result)
    return results


def recorded_images(predictor: Predictor, run: Path, data_root: Path | None) -> list[Path]:
    """Return the files that ``evaluation/*/predictions.csv`` of a run names, each once.

    Args:
        predictor: The exported model.
        run: Its run folder.
        data_root: Where the images lie now; by default where the run found them.

    Raises:
        ExportError: The records are damaged.
    """
    root = _recorded_root(run) if data_root is None else data_root
    files = sorted(run.glob("evaluation/*/predictions.csv"))
    names = {
        name: None for path in files for name in _read_recorded(path, predictor.class_map).paths
    }
    return [root / name for name in names]


@dataclass(frozen=True)
class _Recorded:
    """The columns of a ``predictions.csv`` that are compared."""

    paths: list[str]
    predicted: list[str]
    probabilities: list[npt.NDArray[np.float64]]


def _recorded_root(run: Path) -> Path:
    try:
        return Path(json.loads((run / "run.json").read_text(encoding="utf-8"))["data_root"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"cannot read where the images lie from {run / 'run.json'}: {error}",
            expected="the run.json that the run wrote",
            fix="say where they lie: --data DIR",
        ) from error


def _read_recorded(path: Path, class_map: ClassMap) -> _Recorded:
    columns = probability_columns(class_map)
    recorded = _Recorded([], [], [])
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                values = np.array([float(row[column]) for column in columns])
                if not np.isfinite(values).all() or row["predicted"] not in class_map:
                    raise ValueError(f"odd row of {row['path']!r}")
                recorded.paths.append(row["path"])
                recorded.predicted.append(row["predicted"])
                recorded.probabilities.append(values)
        if not recorded.paths:
            raise ValueError("it has no rows")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ExportError(
            f"cannot read the recorded predictions {path}: {error}",
            expected="what `classifier evaluate` writes, for the classes of this model",
            fix=f"classifier evaluate RUN --split {path.parent.name}",
        ) from error
    return recorded


def _verify_split(
    predictor: Predictor, path: Path, root: Path, on_images: Callable[[int, int], None]
) -> SplitResult:
    recorded = _read_recorded(path, predictor.class_map)
    total = len(recorded.paths)
    flips, worst = 0, 0.0
    again = predictor.predict(root / name for name in recorded.paths)
    rows = zip(recorded.predicted, recorded.probabilities, again, strict=True)
    for done, (label, values, item) in enumerate(rows, start=1):
        worst = max(worst, float(np.abs(values - item.probabilities).max()))
        top_two = np.sort(values)[-2:]
        is_clear = top_two[1] - top_two[0] > PROBABILITY_TOLERANCE
        flips += int(is_clear and label != item.label)
        on_images(done, total)
    return SplitResult(path.parent.name, total, flips, worst)
