"""All scores of a split from its logits, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from classifier_training.inference.agreement import softmax
from classifier_training.inference.class_map import ClassMap
from classifier_training.metrics.bootstrap import ece_interval, macro_intervals
from classifier_training.metrics.classification import TOP_K, ClassificationMetrics, hits_at_k
from classifier_training.metrics.curves import RiskCoverage, risk_coverage
from classifier_training.metrics.from_confusion import per_class
from classifier_training.metrics.intervals import (
    Estimate,
    auroc_interval,
    auroc_of_class,
    design_effect,
    f1_interval,
    mean_interval,
    wilson,
)
from classifier_training.metrics.probabilistic import (
    CalibrationError,
    RocAreas,
    calibration,
    log_losses,
    roc_areas,
)

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """What a split's evaluation found.

    Attributes:
        images: Number of images.
        groups: Number of groups they come in; None where images count as independent.
        estimates: Headline scores with intervals, by the names that training uses.
        confusion: ``(C, C)`` int64, rows are truth.
        majority: Accuracy of always answering the split's most frequent class.
        calibration: Confidence and correctness by bins.
        curve: Risk against coverage.
        roc: One-versus-rest areas.
    """

    images: int
    groups: int | None
    estimates: dict[str, Estimate]
    confusion: Indices
    majority: Estimate
    calibration: CalibrationError
    curve: RiskCoverage
    roc: RocAreas

    def value(self, name: str) -> float:
        """Return a headline score."""
        return self.estimates[name].value

    def to_json(self, class_map: ClassMap) -> dict[str, Any]:
        """Return the content of ``metrics.json``."""
        return {
            "images": self.images,
            "groups": self.groups,
            "calibrated": False,
            "interval_level": 0.95,
            "metrics": {name: item.to_json() for name, item in self.estimates.items()},
            "aurc": self.curve.area,
            "majority_class_accuracy": self.majority.value,
            "baselines": {"majority_class": {"acc_top1": self.majority.to_json()}},
            "classes": list(class_map.names),
        }

    def per_class_rows(self, class_map: ClassMap) -> list[dict[str, str]]:
        """Return the rows of ``per_class.csv``; what is undefined is an empty cell.

        Precision, recall and F1 of no images are 0, as in scikit-learn, without an interval.
        """
        scores = per_class(torch.from_numpy(self.confusion))
        rows = []
        for index, name in enumerate(class_map.names):
            support, hits = int(scores.support[index]), int(self.confusion[index, index])
            predicted = int(scores.predicted[index])
            row = {"class": name, "support": str(support), "predicted": str(predicted)}
            for key, value, estimate in (
                ("precision", scores.precision, wilson(hits, predicted) if predicted else None),
                ("recall", scores.recall, wilson(hits, support) if support else None),
                ("f1", scores.f1, f1_interval(hits, support, predicted) if support else None),
            ):
                row |= {key: f"{float(value[index]):.6f}", **_bounds(key, estimate)}
            area = self._area(index, support)
            row |= {"auroc": f"{area.value:.6f}" if area else "", **_bounds("auroc", area)}
            rows.append(row)
        return rows

    def _area(self, index: int, support: int) -> Estimate | None:
        value = float(self.roc.areas[index])
        if np.isnan(value):
            return None
        variance = float(self.roc.own_variances[index])
        return auroc_of_class(value, variance, support, self.images - support)


def score(
    logits: npt.NDArray[np.float32], labels: Indices, groups: Indices | None = None
) -> Scores:
    """Score predictions.

    Args:
        logits: ``(N, C)`` float32.
        labels: ``(N,)`` class indices.
        groups: ``(N,)`` group of each image from 0, or None where images are independent.
    """
    probabilities = softmax(logits)
    metric = ClassificationMetrics(logits.shape[1], persistent=False)
    metric.update(torch.from_numpy(logits), torch.from_numpy(labels))
    confusion: Indices = metric.confusion.numpy()
    bins = calibration(probabilities, labels)
    roc = roc_areas(probabilities, labels)
    losses = log_losses(logits, labels)
    right, among_five = (
        hits_at_k(torch.from_numpy(logits), torch.from_numpy(labels), k).numpy() for k in (1, TOP_K)
    )
    area = auroc_interval(roc, labels, design_effect(roc.deviations, groups))
    estimates = {
        "acc_top1": _proportion(right, groups),
        f"acc_top{TOP_K}": _proportion(among_five, groups),
        **macro_intervals(confusion, labels, logits.argmax(axis=1), groups),
        "loss": mean_interval(losses, design_effect(losses, groups)),
        "ece": ece_interval(bins, groups),
        **({"auroc_macro": area} if area else {}),
    }
    most = labels == int(confusion.sum(axis=1).argmax())
    return Scores(
        images=len(labels),
        groups=None if groups is None else int(groups.max()) + 1,
        estimates=estimates,
        confusion=confusion,
        majority=_proportion(most, groups),
        calibration=bins,
        curve=risk_coverage(bins.confidence, right),
        roc=roc,
    )


def _proportion(hits: npt.NDArray[np.bool_], groups: Indices | None) -> Estimate:
    effect = design_effect(hits.astype(np.float64), groups)
    return wilson(int(hits.sum()), len(hits), effect)


def _bounds(key: str, estimate: Estimate | None) -> dict[str, str]:
    return {
        f"{key}_low": f"{estimate.low:.6f}" if estimate else "",
        f"{key}_high": f"{estimate.high:.6f}" if estimate else "",
    }
