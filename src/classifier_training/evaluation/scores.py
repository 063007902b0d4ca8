"""All scores of a split from its logits, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from classifier_training.evaluation.intervals import (
    Estimate,
    macro_intervals,
    mean_interval,
    wilson,
)
from classifier_training.metrics.classification import TOP_K, ClassificationMetrics
from classifier_training.metrics.from_confusion import per_class
from classifier_training.metrics.probabilistic import (
    auroc_macro,
    expected_calibration_error,
    log_losses,
)
from classifier_training.runtime.agreement import softmax
from classifier_training.runtime.class_map import ClassMap


@dataclass(frozen=True)
class Scores:
    """What a split's evaluation found.

    Attributes:
        images: Number of images.
        estimates: Headline scores with intervals, by the names that training uses.
        plain: Scores without interval.
        confusion: ``(C, C)`` int64, rows are truth.
        majority: Accuracy of always answering the split's most frequent class.
    """

    images: int
    estimates: dict[str, Estimate]
    plain: dict[str, float | None]
    confusion: npt.NDArray[np.int64]
    majority: float

    def value(self, name: str) -> float:
        """Return a headline score."""
        return self.estimates[name].value

    def to_json(self, class_map: ClassMap) -> dict[str, Any]:
        """Return the content of ``metrics.json``."""
        return {
            "images": self.images,
            "calibrated": False,
            "metrics": {name: item.to_json() for name, item in self.estimates.items()},
            **self.plain,
            "majority_class_accuracy": self.majority,
            "classes": list(class_map.names),
        }

    def per_class_rows(self, class_map: ClassMap) -> list[dict[str, str]]:
        """Return the rows of ``per_class.csv``."""
        scores = per_class(torch.from_numpy(self.confusion))
        rows = []
        for index, name in enumerate(class_map.names):
            support, hits = int(scores.support[index]), int(self.confusion[index, index])
            recall = wilson(hits, support) if support else None
            rows.append(
                {
                    "class": name,
                    "support": str(support),
                    "predicted": str(int(scores.predicted[index])),
                    "precision": f"{float(scores.precision[index]):.6f}",
                    "recall": f"{float(scores.recall[index]):.6f}",
                    "recall_low": f"{recall.low:.6f}" if recall else "",
                    "recall_high": f"{recall.high:.6f}" if recall else "",
                    "f1": f"{float(scores.f1[index]):.6f}",
                }
            )
        return rows


def score(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Scores:
    """Score ``(N, C)`` float32 logits against ``(N,)`` int64 class indices."""
    metric = ClassificationMetrics(logits.shape[1], persistent=False)
    metric.update(torch.from_numpy(logits), torch.from_numpy(labels))
    confusion: npt.NDArray[np.int64] = metric.confusion.numpy()
    total = len(labels)
    probabilities = softmax(logits)
    macro = macro_intervals(confusion)
    estimates = {
        "acc_top1": wilson(int(confusion.diagonal().sum()), total),
        f"acc_top{TOP_K}": wilson(int(metric.top5_hits), total),
        **{name: item for name, item in macro.items() if name != "acc_top1"},
        "loss": mean_interval(log_losses(logits, labels)),
    }
    plain = {
        "ece": expected_calibration_error(probabilities, labels),
        "auroc_macro": auroc_macro(probabilities, labels),
    }
    majority = float(confusion.sum(axis=1).max() / total)
    return Scores(total, estimates, plain, confusion, majority)
