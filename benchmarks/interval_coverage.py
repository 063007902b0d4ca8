"""How often the 95 % intervals of evaluation hold the truth, by simulation.

    python -m benchmarks.interval_coverage [--rounds 1000] [--only NAME] [--seed 0] [--json FILE]

Each population has known scores: by formula for those of the confusion matrix, from 300,000 drawn
images for those of the probabilities. Test sets are drawn from it with the same images a class,
which is what the intervals are about. Coverage should be 95 %; 1,000 rounds know it to 1.4 points.
The mean width stands behind each coverage. Populations whose names begin with "held out" were made
after the methods were chosen, with errors of other kinds, and no method was fitted to them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifier_training.inference.agreement import softmax
from classifier_training.metrics.bootstrap import ece_interval, macro_intervals
from classifier_training.metrics.intervals import (
    Estimate,
    auroc_interval,
    auroc_of_class,
    design_effect,
    f1_interval,
    mean_interval,
    wilson,
)
from classifier_training.metrics.probabilistic import calibration, roc_areas

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_LARGE = 300_000


def shares_of(classes: int, imbalance: float, images: int) -> Counts:
    """Return ``(C,)`` images a class, falling geometrically, at least one each."""
    weights = imbalance ** (-np.arange(classes) / max(1, classes - 1))
    return np.maximum(1, np.round(images * weights / weights.sum())).astype(np.int64)


@dataclass(frozen=True)
class TablePopulation:
    """Images a class, and what each class is answered with."""

    counts: Counts
    rows: Floats

    @classmethod
    def make(
        cls, classes: int, imbalance: float, images: int, low: float, high: float, *, falls: bool
    ) -> TablePopulation:
        """Let recall run from ``high`` to ``low``; ``falls``: rare classes have the low ones."""
        rng = np.random.default_rng(7)
        recall = np.linspace(high, low, classes)
        recall = recall if falls else rng.permutation(recall)
        rows = rng.dirichlet(np.full(classes, 0.3), classes)
        return cls.of(shares_of(classes, imbalance, images), recall, rows)

    @classmethod
    def held_out(
        cls, classes: int, imbalance: float, images: int, skill: float, wrong: str
    ) -> TablePopulation:
        """Draw recall from a beta distribution of mean ``skill``.

        Wrong answers go to the next class (``pairs``), to classes by their size (``frequent``) or
        anywhere alike (``even``), a tenth of them elsewhere.
        """
        rng = np.random.default_rng(2024)
        counts = shares_of(classes, imbalance, images)
        kinds = {
            "pairs": np.eye(classes)[np.arange(classes) ^ 1 if classes % 2 == 0 else
                                     (np.arange(classes) + 1) % classes],
            "frequent": np.tile(counts / counts.sum(), (classes, 1)),
            "even": np.full((classes, classes), 1 / classes),
        }  # fmt: skip
        rows = 0.9 * kinds[wrong] + 0.1 * rng.dirichlet(np.ones(classes), classes)
        return cls.of(counts, rng.beta(6 * skill, 6 * (1 - skill), classes), rows)

    @classmethod
    def of(cls, counts: Counts, recall: Floats, wrong: Floats) -> TablePopulation:
        """Put recall on the diagonal, and the rest of each row where ``wrong`` has weight."""
        rows = wrong * (1 - np.eye(len(counts)))
        rows *= ((1 - recall) / rows.sum(axis=1))[:, None]
        return cls(counts, rows + np.diag(recall))

    def truth(self) -> dict[str, float]:
        """Return the scores of the population."""
        joint = self.counts[:, None] * self.rows
        hits, support, predicted = joint.diagonal(), joint.sum(axis=1), joint.sum(axis=0)
        return {
            "acc_top1": float(hits.sum() / support.sum()),
            "acc_macro": float((hits / support).mean()),
            "f1_macro": float((2 * hits / (support + predicted)).mean()),
            "precision_macro": float((hits / np.maximum(predicted, 1e-12)).mean()),
            "f1 of class 0": float(2 * hits[0] / (support[0] + predicted[0])),
            "f1 of last class": float(2 * hits[-1] / (support[-1] + predicted[-1])),
        }

    def round(self, rng: np.random.Generator) -> dict[str, Estimate]:
        """Draw a test set and estimate."""
        matrix = np.stack(
            [rng.multinomial(count, row) for count, row in zip(self.counts, self.rows, strict=True)]
        )
        hits, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
        return {
            "acc_top1": wilson(int(hits.sum()), int(matrix.sum())),
            **macro_intervals(matrix),
            "f1 of class 0": f1_interval(int(hits[0]), int(support[0]), int(predicted[0])),
            "f1 of last class": f1_interval(int(hits[-1]), int(support[-1]), int(predicted[-1])),
        }


@dataclass(frozen=True)
class LogitPopulation:
    """Images a class, how far the right logit stands out, and how overconfident softmax is."""

    counts: Counts
    signal: float
    temperature: float

    def draw(
        self, rng: np.random.Generator, times: int = 1
    ) -> tuple[npt.NDArray[np.float32], Counts]:
        """Draw probabilities and labels."""
        labels = np.repeat(np.arange(len(self.counts)), self.counts * times)
        logits = rng.normal(0, 1, (len(labels), len(self.counts)))
        logits[np.arange(len(labels)), labels] += self.signal
        scaled = logits * self.signal / self.temperature
        return softmax(scaled.astype(np.float32)), labels

    def truth(self) -> dict[str, float]:
        """Return the scores of many images."""
        times = max(1, _LARGE // int(self.counts.sum()))
        probabilities, labels = self.draw(np.random.default_rng(99), times)
        roc = roc_areas(probabilities, labels)
        assert roc.macro is not None
        return {
            "loss": float(_losses(probabilities, labels).mean()),
            "ece": calibration(probabilities, labels).error(),
            "auroc_macro": roc.macro,
            "auroc of last class": float(roc.areas[-1]),
        }

    def round(self, rng: np.random.Generator) -> dict[str, Estimate]:
        """Draw a test set and estimate."""
        probabilities, labels = self.draw(rng)
        roc = roc_areas(probabilities, labels)
        macro = auroc_interval(roc, labels)
        assert macro is not None
        positives = int(self.counts[-1])
        return {
            "loss": mean_interval(_losses(probabilities, labels)),
            "ece": ece_interval(calibration(probabilities, labels)),
            "auroc_macro": macro,
            "auroc of last class": auroc_of_class(
                float(roc.areas[-1]),
                float(roc.own_variances[-1]),
                positives,
                len(labels) - positives,
            ),
        }


@dataclass(frozen=True)
class GroupPopulation:
    """Images in groups that are right or wrong together: accuracy varies between groups."""

    groups: int
    size: int
    classes: int
    spread: float
    accuracy: float = 0.85

    def truth(self) -> dict[str, float]:
        """Return accuracy, the same for every class, whatever the groups."""
        names = ("acc_top1", "acc_macro", "f1_macro", "mean of values")
        return dict.fromkeys(names, self.accuracy)

    def round(self, rng: np.random.Generator) -> dict[str, Estimate]:
        """Draw a test set and estimate."""
        strength = 1 / self.spread - 1
        skill = rng.beta(self.accuracy * strength, (1 - self.accuracy) * strength, self.groups)
        groups = np.repeat(np.arange(self.groups), self.size)
        labels = np.arange(len(groups)) % self.classes
        other = (labels + rng.integers(1, self.classes, len(groups))) % self.classes
        predicted = np.where(rng.random(len(groups)) < skill[groups], labels, other)
        matrix = np.zeros((self.classes, self.classes), dtype=np.int64)
        np.add.at(matrix, (labels, predicted), 1)
        right = (labels == predicted).astype(np.float64)
        effect = design_effect(right, groups)
        found = macro_intervals(matrix, labels, predicted, groups)
        return {
            "acc_top1": wilson(int(right.sum()), len(right), effect),
            "acc_macro": found["acc_macro"],
            "f1_macro": found["f1_macro"],
            "mean of values": mean_interval(right, effect),
        }


Population = TablePopulation | LogitPopulation | GroupPopulation


def populations() -> Iterator[tuple[str, Population]]:
    """Yield names and populations, the first user's kind of data among them."""
    table = TablePopulation.make
    yield (
        "table: 43 classes, 64x, 370 images, rare ones worse",
        table(43, 64, 370, 0.4, 0.97, falls=True),
    )
    yield "table: 43 classes, 64x, 370 images, mixed", table(43, 64, 370, 0.4, 0.97, falls=False)
    yield (
        "table: 43 classes, 64x, 370 images, nearly right",
        table(43, 64, 370, 0.85, 1.0, falls=True),
    )
    yield "table: 43 classes, even, 370 images", table(43, 1, 370, 0.5, 1.0, falls=False)
    yield "table: 4 classes, 5x, 370 images", table(4, 5, 370, 0.6, 0.9, falls=True)
    yield "table: 10 classes, 20x, 2,000 images", table(10, 20, 2000, 0.6, 0.97, falls=True)
    yield "table: 300 classes, 30x, 1,500 images", table(300, 30, 1500, 0.5, 0.95, falls=True)
    yield "table: 2 classes, 9x, 200 images", table(2, 9, 200, 0.8, 0.98, falls=True)
    yield "table: 10 classes, 5x, 100 images", table(10, 5, 100, 0.6, 0.95, falls=True)
    yield "table: 4 classes, 5x, 50 images", table(4, 5, 50, 0.6, 0.9, falls=True)
    yield "table: 2 classes, 9x, 50 images", table(2, 9, 50, 0.7, 0.95, falls=True)
    for name, counts, signal in (
        ("43 classes, 64x, 370 images", shares_of(43, 64, 370), 2.5),
        ("43 classes, 64x, 370 images, nearly right", shares_of(43, 64, 370), 4.0),
        ("2 classes, 4x, 400 images", shares_of(2, 4, 400), 2.0),
        ("10 classes, 20x, 2,000 images", shares_of(10, 20, 2000), 2.0),
        ("10 classes, 5x, 100 images", shares_of(10, 5, 100), 2.0),
        ("2 classes, 9x, 50 images", shares_of(2, 9, 50), 1.5),
    ):
        for word, temperature in (("calibrated", 1.0), ("overconfident", 0.6), ("timid", 2.0)):
            yield f"logits: {name}, {word}", LogitPopulation(counts, signal, temperature)
    yield "groups: 40 of 10 images", GroupPopulation(40, 10, 4, 0.3)
    yield "groups: 12 of 30 images", GroupPopulation(12, 30, 4, 0.2)
    yield "groups: 200 of 2 images", GroupPopulation(200, 2, 10, 0.5)
    yield from _held_out()


def _held_out() -> Iterator[tuple[str, Population]]:
    table = TablePopulation.held_out
    for classes, imbalance, images, skill, wrong in (
        (20, 10, 200, 0.8, "pairs"),
        (60, 30, 500, 0.75, "frequent"),
        (100, 1, 500, 0.7, "even"),
        (43, 64, 370, 0.9, "frequent"),
        (6, 8, 80, 0.8, "pairs"),
        (3, 3, 40, 0.75, "even"),
    ):
        name = f"held out: table: {classes} classes, {imbalance}x, {images} images, {wrong}"
        yield name, table(classes, imbalance, images, skill, wrong)
    for classes, imbalance, images, signal in (
        (2, 1, 40, 1.0), (2, 6, 120, 3.0), (3, 4, 100, 3.0), (5, 4, 80, 1.5),
    ):  # fmt: skip
        counts = shares_of(classes, imbalance, images)
        name = f"held out: logits: {classes} classes, {imbalance}x, {images} images"
        yield name, LogitPopulation(counts, signal, 1.0)
    yield "held out: groups: 8 of 40 images", GroupPopulation(8, 40, 3, 0.1, 0.92)
    yield "held out: groups: 20 of 15 images", GroupPopulation(20, 15, 5, 0.3, 0.7)


def coverage(population: Population, rounds: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Return the share of intervals that hold the truth, and their mean width, by score."""
    rng = np.random.default_rng(seed)
    truth = population.truth()
    held, widths = dict.fromkeys(truth, 0), dict.fromkeys(truth, 0.0)
    for _ in range(rounds):
        found = population.round(rng)
        for name, value in truth.items():
            held[name] += found[name].low <= value <= found[name].high
            widths[name] += found[name].high - found[name].low
    return {name: (held[name] / rounds, widths[name] / rounds) for name in truth}


def _losses(probabilities: npt.NDArray[np.float32], labels: Counts) -> Floats:
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(own, 1e-12))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--only", default="", help="part of a name; | between several")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {}
    for name, population in populations():
        if not any(part in name for part in options.only.split("|")):
            continue
        started = time.monotonic()
        found = coverage(population, options.rounds, options.seed)
        results[name] = found
        cells = "  ".join(
            f"{key} {100 * share:.1f} % ({width:.3f})" for key, (share, width) in found.items()
        )
        print(f"{name:<62} {cells}  ({time.monotonic() - started:.0f} s)")
        sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
