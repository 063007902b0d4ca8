"""Whether B is better than A on the same images: paired tests that may say "tie". No torch.

Two things must agree before a difference is called one: the 95 % interval of the paired bootstrap
excludes zero, and the paired randomisation test (A's and B's answers to an image swapped by a
coin; Yeh 2000, "More accurate tests for the statistical significance of result differences") has
p < 0.05. The bootstrap says how large the difference is; alone it is too bold when only a handful
of images changed, where the randomisation test stays exact. With groups, groups are drawn and
swapped, not images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from classifier_training.errors import ConfigError
from classifier_training.evaluation.predictions import PairedPredictions
from classifier_training.metrics.paired import (
    ROUNDING,
    Floats,
    McNemar,
    PairScores,
    group_draws,
    group_swaps,
    holm,
    mcnemar,
    percentiles,
    randomisation_p,
    weighted_scores,
)

Verdict = Literal["better", "worse", "tie"]

METRICS = {
    "acc_top1": "accuracy",
    "f1_macro": "macro F1",
    "acc_macro": "balanced accuracy",
    "loss": "NLL",
}
LEVEL = 0.05
_RESAMPLES = 2000
_POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """A score of A and of B, and B - A.

    Attributes:
        metric: Its key.
        a: A's score.
        b: B's score.
        value: ``b - a``.
        low: Lower bound of its 95 % interval.
        high: Upper bound.
        spread: Standard deviation over the resamples.
        p: Of the paired randomisation test, two-sided.
        images: ``N``.
    """

    metric: str
    a: float
    b: float
    value: float
    low: float
    high: float
    spread: float
    p: float
    images: int

    @property
    def verdict(self) -> Verdict:
        """What B is."""
        if self.p >= LEVEL or self.low <= 0 <= self.high:
            return "tie"
        return "better" if (self.value > 0) != (self.metric == "loss") else "worse"

    @property
    def images_needed(self) -> int | None:
        """Images of this kind that would show a true difference of this size in 4 of 5 cases.

        ``N ((z_0.975 + z_0.8) spread / value)^2``; None when there is no difference at all.
        """
        if abs(self.value) <= ROUNDING:
            return None
        z = NormalDist().inv_cdf(1 - LEVEL / 2) + NormalDist().inv_cdf(_POWER)
        return max(self.images + 1, math.ceil(self.images * (z * self.spread / self.value) ** 2))

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        needed = self.images_needed if self.verdict == "tie" else None
        return {
            "a": self.a,
            "b": self.b,
            "difference": self.value,
            "low": self.low,
            "high": self.high,
            "p": self.p,
            "verdict": self.verdict,
            "images_needed": needed,
        }


@dataclass(frozen=True)
class ClassDifference:
    """B - A for one class; see :class:`Difference`. Without images recall is nan.

    Attributes:
        name: The class.
        support: Its images.
        recall: A, B, difference, low, high.
        f1: A, B, difference, low, high.
        changes: McNemar's test on its images.
        p: Of that test (of swapped groups when there are groups).
        p_holm: The same corrected for the number of classes (Holm 1979).
    """

    name: str
    support: int
    recall: tuple[float, float, float, float, float]
    f1: tuple[float, float, float, float, float]
    changes: McNemar
    p: float
    p_holm: float

    @property
    def verdict(self) -> Verdict:
        """What B is on this class's images."""
        if not self.p_holm < LEVEL:
            return "tie"
        return "better" if self.recall[2] > 0 else "worse"


@dataclass(frozen=True)
class Comparison:
    """All that was found between A and B."""

    pair: PairedPredictions
    metrics: dict[str, Difference]
    mcnemar: McNemar
    classes: tuple[ClassDifference, ...]

    def difference(self, metric: str) -> Difference:
        """Return the difference of a metric.

        Raises:
            ConfigError: There is no such metric here.
        """
        if metric not in self.metrics:
            reason = "needs probabilities on both sides" if metric in METRICS else "is unknown"
            raise ConfigError(
                f"--metric {metric} {reason}",
                expected=f"one of {', '.join(self.metrics)}",
                fix="--metric f1_macro",
            )
        return self.metrics[metric]


def compare(pair: PairedPredictions, *, resamples: int = _RESAMPLES, seed: int = 0) -> Comparison:
    """Compare B with A.

    Args:
        pair: Their answers.
        resamples: Of the bootstrap and of the randomisation test each.
        seed: Equal seeds give equal results.
    """
    rng = np.random.default_rng(seed)
    ones = np.ones((1, len(pair)))
    seen = _both(pair, ones)
    draws = [_both(pair, weights) for weights in group_draws(pair.groups, resamples, rng)]
    swapped = [_swapped(pair, swap) for swap in group_swaps(pair.groups, resamples, rng)]
    right = [predicted == pair.true for predicted in pair.predicted]
    metrics = {}
    for name in seen[0].headline:
        a, b = (float(side.headline[name][0]) for side in seen)
        drawn = np.concatenate(
            [right_.headline[name] - left.headline[name] for left, right_ in draws]
        )
        null = np.concatenate(
            [right_.headline[name] - left.headline[name] for left, right_ in swapped]
        )
        low, high = percentiles(drawn)
        metrics[name] = Difference(
            metric=name,
            a=a,
            b=b,
            value=b - a,
            low=float(low),
            high=float(high),
            spread=float(drawn.std()),
            p=float(randomisation_p(np.array(b - a), null)),
            images=len(pair),
        )
    return Comparison(
        pair=pair,
        metrics=metrics,
        mcnemar=mcnemar(int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())),
        classes=_per_class(pair, seen, draws, swapped),
    )


def _differences(draws: list[tuple[PairScores, PairScores]], metric: str) -> Floats:
    return np.concatenate([b.headline[metric] - a.headline[metric] for a, b in draws])


def _both(pair: PairedPredictions, weights: Floats) -> tuple[PairScores, PairScores]:
    losses = pair.losses or (None, None)
    a, b = (
        weighted_scores(pair.true, answers, loss, weights, len(pair.classes))
        for answers, loss in zip(pair.predicted, losses, strict=True)
    )
    return a, b


def _swapped(pair: PairedPredictions, swap: npt.NDArray[np.bool_]) -> tuple[PairScores, PairScores]:
    ones, classes = np.ones(swap.shape), len(pair.classes)
    a, b = pair.predicted
    loss_a, loss_b = pair.losses or (None, None)
    scores = []
    for mask in (swap, ~swap):
        losses = None
        if loss_a is not None and loss_b is not None:
            losses = np.where(mask, loss_b, loss_a)
        answers = np.where(mask, b, a)
        scores.append(weighted_scores(pair.true, answers, losses, ones, classes))
    return scores[0], scores[1]


def _per_class(
    pair: PairedPredictions,
    seen: tuple[PairScores, PairScores],
    draws: list[tuple[PairScores, PairScores]],
    swapped: list[tuple[PairScores, PairScores]],
) -> tuple[ClassDifference, ...]:
    classes = len(pair.classes)
    right = [predicted == pair.true for predicted in pair.predicted]
    support = np.bincount(pair.true, minlength=classes)
    fixed = np.bincount(pair.true[right[1] & ~right[0]], minlength=classes)
    broken = np.bincount(pair.true[right[0] & ~right[1]], minlength=classes)
    tests = [mcnemar(int(fixed[row]), int(broken[row])) for row in range(classes)]
    if pair.grouped:
        null = np.concatenate([b.recall - a.recall for a, b in swapped])
        values = randomisation_p(seen[1].recall[0] - seen[0].recall[0], null).tolist()
    else:
        values = [test.p_exact for test in tests]
    values = [p if support[row] else math.nan for row, p in enumerate(values)]
    corrected = holm(values)
    recall = percentiles(np.concatenate([b.recall - a.recall for a, b in draws]))
    f1 = percentiles(np.concatenate([b.f1 - a.f1 for a, b in draws]))

    def row_of(a: Floats, b: Floats, bounds: tuple[Floats, Floats], row: int) -> Any:
        low, high = float(bounds[0][row]), float(bounds[1][row])
        return float(a[0, row]), float(b[0, row]), float(b[0, row] - a[0, row]), low, high

    return tuple(
        ClassDifference(
            name=pair.classes[row],
            support=int(support[row]),
            recall=row_of(seen[0].recall, seen[1].recall, recall, row),
            f1=row_of(seen[0].f1, seen[1].f1, f1, row),
            changes=tests[row],
            p=values[row],
            p_holm=corrected[row],
        )
        for row in range(classes)
    )
