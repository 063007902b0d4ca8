"""Whether an exported model is whole and does what its run measured. No torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classifier_training.errors import ExportError
from classifier_training.runtime.golden import GoldenResult, replay_golden
from classifier_training.runtime.prediction_files import probability_columns
from classifier_training.runtime.predictor import Predictor

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
    results = replay_golden(predictor.sidecar.golden, predictor.spec, predictor.logits)
    for result in results:
        if not result.holds:
            raise ExportError(
                f"golden vector {result.name!r} is not reproduced: tensor statistics are off by "
                f"{result.statistics_difference:.1e}, logits by {result.logits_difference:.1e}",
                expected="what the sidecar records",
                mend="export the run again with this version: classifier export RUN",
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
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    root = Path(record["data_root"]) if data_root is None else data_root
    results = []
    for path in sorted(run.glob("evaluation/*/predictions.csv")):
        result = _verify_split(predictor, path, root, on_images)
        if not result.holds:
            raise ExportError(
                f"{result.flips} of {result.images} {result.split} images get another class than "
                f"{path} records; the largest probability difference is {result.worst:.1e}",
                expected=f"the same classes, probabilities within {PROBABILITY_TOLERANCE:.0e}",
                mend="check that the data is unchanged, then export again: classifier export RUN",
            )
        results.append(result)
    return results


def _verify_split(
    predictor: Predictor, path: Path, root: Path, on_images: Callable[[int, int], None]
) -> SplitResult:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = probability_columns(predictor.class_map)
    flips, worst = 0, 0.0
    files = (root / row["path"] for row in rows)
    for done, (row, item) in enumerate(zip(rows, predictor.predict(files), strict=True), start=1):
        recorded = np.array([float(row[column]) for column in columns])
        worst = max(worst, float(np.abs(recorded - item.probabilities).max()))
        top_two = np.sort(recorded)[-2:]
        is_clear = top_two[1] - top_two[0] > PROBABILITY_TOLERANCE
        flips += int(is_clear and row["predicted"] != item.label)
        on_images(done, len(rows))
    return SplitResult(path.parent.name, len(rows), flips, worst)
