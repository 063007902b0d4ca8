"""Intervals of macro averages by a seeded bootstrap of the confusion matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classifier_training.metrics.from_confusion import macro_of, macro_scores, per_class_of
from classifier_training.metrics.intervals import LEVEL, Estimate, design_effect, student
from classifier_training.metrics.probabilistic import BINS, CalibrationError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

_RESAMPLES = 1000
_SEED = 0
# Drawn images held at once.
_CHUNK_IMAGES = 2_000_000

# What is known of other classes counts in each row for so many images (how many answers are right)
# and so many wrong answers (which classes they name). By coverage: benchmarks/interval_coverage.py.
_PRIOR_IMAGES = 4.0
_PRIOR_ERRORS = 0.5
# Classes are alike when their numbers of images differ by no more than about this factor.
_ALIKE = math.e
# Bounds of the shape of the gamma distribution of false alarms.
_SHAPES = (0.2, 10.0)
_FEWEST_FREEDOM = 4

MACRO = ("acc_macro", "f1_macro", "precision_macro")


def macro_intervals(
    confusion: Counts,
    labels: npt.NDArray[np.int64] | None = None,
    predicted: npt.NDArray[np.int64] | None = None,
    groups: npt.NDArray[np.int64] | None = None,
) -> dict[str, Estimate]:
    """Estimate the macro scores of a ``(C, C)`` confusion matrix.

    What varies is new images in the same class shares: each class draws as many images as it has
    (a stratified bootstrap). Drawing only among the images seen would give a class of one image no
    doubt at all, so each row of the matrix is mixed with what is known of other classes: the recall
    of classes of about its size, and how often which class is named wrongly. Bias and spread of the
    draws are taken on the scale of ``asin(sqrt(score))``, where the spread does not depend on the
    score; Student's quantile takes into account that few wrong answers tell the spread badly.

    Args:
        confusion: Rows are truth.
        labels: ``(N,)`` true classes, needed with ``groups``.
        predicted: ``(N,)`` answers, needed with ``groups``.
        groups: ``(N,)`` group of each image; None where images are independent.
    """
    rows = _SmoothedRows.of(confusion)
    draws = _draw(rows)
    expected = _angles(rows.expected())
    values = macro_scores(torch.from_numpy(confusion))
    hits = int(confusion.diagonal().sum())
    fewest = min(hits, int(confusion.sum()) - hits)
    estimates = {}
    for name in MACRO:
        effect = 1.0
        if groups is not None and labels is not None and predicted is not None:
            effect = design_effect(influence(confusion, name)[labels, predicted], groups)
        off = np.arcsin(np.sqrt(draws[name])) - expected[name]
        half = student(fewest + _FEWEST_FREEDOM) * float(off.std()) * math.sqrt(effect)
        value = float(values[name])
        centre = math.asin(math.sqrt(value)) - float(off.mean())
        low, high = (
            math.sin(min(max(bound, 0.0), math.pi / 2)) ** 2
            for bound in (centre - half, centre + half)
        )
        estimates[name] = Estimate(value, min(low, value), max(high, value), "bootstrap")
    return estimates


def influence(confusion: Counts, name: str) -> Floats:
    """Return ``(C, C)``: how one more image in a cell moves a macro score, up to a factor.

    The derivatives of recall ``h/s``, precision ``h/q`` and F1 ``2h/(s+q)`` by the counts.
    """
    hits = confusion.diagonal().astype(np.float64)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    by_row, by_column = {
        "acc_macro": (1.0, 0.0), "precision_macro": (0.0, 1.0), "f1_macro": (0.5, 0.5),
    }[name]  # fmt: skip
    whole = by_row * support + by_column * predicted
    per = np.divide(1.0, whole, out=np.zeros_like(hits), where=whole > 0)
    score = hits * per
    slope: Floats = np.diag(per) - by_row * (score * per)[:, None] - by_column * (score * per)
    return slope


@dataclass(frozen=True)
class _SmoothedRows:
    """What each class answers, mixed with what classes answer on the whole.

    Attributes:
        sizes: ``(C,)`` images of each class.
        recall: ``(C,)`` probability of the right answer.
        errors: ``(C, C)`` distribution of the wrong ones; rows sum to 1.
    """

    sizes: Counts
    recall: Floats
    errors: Floats

    @classmethod
    def of(cls, confusion: Counts) -> _SmoothedRows:
        sizes, hits = confusion.sum(axis=1), confusion.diagonal()
        pooled = _recall_of_alike(sizes, hits)
        errors = confusion * (1.0 - np.eye(len(confusion)))
        shares = _false_alarms(errors.sum(axis=0), sizes)
        elsewhere = shares * (1.0 - np.eye(len(confusion)))
        nowhere = elsewhere.sum(axis=1) == 0
        elsewhere[nowhere] = 1.0 - np.eye(len(confusion))[nowhere]
        mixed = errors + _PRIOR_ERRORS * elsewhere / elsewhere.sum(axis=1, keepdims=True)
        return cls(
            sizes,
            (hits + _PRIOR_IMAGES * pooled) / (sizes + _PRIOR_IMAGES),
            mixed / mixed.sum(axis=1, keepdims=True),
        )

    def expected(self) -> dict[str, float]:
        """Return the macro scores of the distribution itself."""
        # Counts below 1 would be taken for none.
        scale = 1e9
        hits = self.sizes * self.recall * scale
        predicted = hits + (self.sizes * (1 - self.recall) * scale) @ self.errors
        found = macro_of(
            per_class_of(
                *(torch.from_numpy(part) for part in (hits, self.sizes * scale, predicted))
            )
        )
        return {name: float(value) for name, value in found.items()}


def _recall_of_alike(sizes: Counts, hits: Counts) -> Floats:
    """Return ``(C,)`` recall over the classes of about the same size, and one hit of two images.

    Rare classes are often worse; the recall of all would lend errors to frequent classes, and these
    are so many images that the false alarms of all others would grow.
    """
    steps = np.log(np.maximum(sizes, 1)) / math.log(_ALIKE)
    weights = np.exp(-0.5 * (steps[:, None] - steps) ** 2)
    found: Floats = (weights @ hits + 1) / (weights @ sizes + 2)
    return found


def _false_alarms(alarms: Floats, sizes: Counts) -> Floats:
    """Return ``(C,)`` how often a class is expected to be named wrongly.

    Gamma-Poisson shrinkage of the counts seen, its shape by moments: alarms that differ no more
    than chance makes them are taken to be alike. A class that has none gets some, and the total
    stays. Classes without images that were never named get none.
    """
    occurs = (alarms > 0) | (sizes > 0)
    mean = float(alarms[occurs].mean())
    if mean == 0:
        return occurs.astype(np.float64)
    extra = float(alarms[occurs].var()) - mean
    shape = float(np.clip(mean**2 / extra, *_SHAPES)) if extra > 0 else _SHAPES[1]
    return np.where(occurs, (alarms + shape) / (1 + shape / mean), 0.0)


def _draw(rows: _SmoothedRows) -> dict[str, Floats]:
    """Return the macro scores of each resample, ``(_RESAMPLES,)``."""
    rng = np.random.default_rng(_SEED)
    cumulated = np.cumsum(rows.errors, axis=1)
    cumulated[:, -1] = 1.0
    # One sorted array for all classes: row c lies in [c, c + 1].
    flat = (cumulated + np.arange(len(rows.sizes))[:, None]).ravel()
    chunk = int(np.clip(_CHUNK_IMAGES // int(rows.sizes.sum()), 1, _RESAMPLES))
    found: dict[str, list[Tensor]] = {name: [] for name in MACRO}
    for start in range(0, _RESAMPLES, chunk):
        scores = _resample(rows, flat, min(chunk, _RESAMPLES - start), rng)
        for name in MACRO:
            found[name].append(scores[name])
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def _resample(
    rows: _SmoothedRows, flat: Floats, count: int, rng: np.random.Generator
) -> dict[str, Tensor]:
    classes = len(rows.sizes)
    hits = rng.binomial(rows.sizes, rows.recall, size=(count, classes))
    misses = rows.sizes - hits
    true = np.repeat(np.tile(np.arange(classes), count), misses.ravel())
    resample = np.repeat(np.arange(count), misses.sum(axis=1))
    drawn = np.searchsorted(flat, true + rng.random(len(true)), side="right") - true * classes
    cells = resample * classes + np.clip(drawn, 0, classes - 1)
    wrong = np.bincount(cells, minlength=count * classes).reshape(count, classes)
    support = np.broadcast_to(rows.sizes, hits.shape).copy()
    return macro_of(
        per_class_of(*(torch.from_numpy(part) for part in (hits, support, hits + wrong)))
    )


def _angles(scores: dict[str, float]) -> dict[str, float]:
    return {name: math.asin(math.sqrt(min(1.0, value))) for name, value in scores.items()}


_DRAWS = 2000
_HALVINGS = 40


def ece_interval(
    calibration: CalibrationError, groups: npt.NDArray[np.int64] | None = None
) -> Estimate:
    """Estimate the ECE by inverting a test.

    The measured ECE is a sum of absolute values and so too large: that of a perfectly calibrated
    network is never 0, and a plain bootstrap adds the same error again. Here the gaps of the bins
    are taken to be ``t`` times the measured ones plus normal noise of their standard error. The
    interval holds the ``t`` under which an ECE as measured is neither in the lower nor in the upper
    2.5 %; ``t = 0`` is perfect calibration, so the lower bound of a calibrated network is 0.
    """
    gaps = calibration.gaps()
    measured = calibration.error()
    errors = _standard_errors(calibration)
    influence = np.sign(gaps)[calibration.bins] * (calibration.confidence - calibration.correct)
    errors *= math.sqrt(design_effect(influence, groups))
    noise = np.random.default_rng(_SEED).standard_normal((_DRAWS, BINS)) * errors

    def quantile(factor: float, level: float) -> float:
        return float(np.quantile(np.abs(factor * gaps + noise).sum(axis=1), level))

    def factor_at(level: float) -> float:
        """Return the factor whose ``level`` quantile is what was measured, at least 0."""
        low, high = 0.0, 1.0
        if measured == 0.0 or quantile(0.0, level) >= measured:
            return 0.0
        while quantile(high, level) < measured:
            high *= 2
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if quantile(middle, level) < measured else (low, middle)
        return high

    low, high = (factor_at(level) * measured for level in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    # What noise alone can add is no part of the error; the value shown still is.
    return Estimate(measured, min(low, measured), min(1.0, max(high, measured)), "inversion")


def _standard_errors(calibration: CalibrationError) -> Floats:
    """Return ``(15,)`` standard errors of the gaps.

    The larger of the variance seen and the one that the confidences imply: a bin of ten right
    answers with confidence 0.9 shows no variance, but has some.
    """
    images = len(calibration.bins)
    counts = np.bincount(calibration.bins, minlength=BINS)
    gap = calibration.confidence - calibration.correct
    sums = np.bincount(calibration.bins, weights=gap, minlength=BINS)
    squares = np.bincount(calibration.bins, weights=gap**2, minlength=BINS)
    unbiased = counts / np.maximum(counts - 1, 1)
    seen = (squares - sums**2 / np.maximum(counts, 1)) * unbiased
    unsure = calibration.confidence * (1 - calibration.confidence)
    implied = np.bincount(calibration.bins, weights=unsure, minlength=BINS)
    return np.sqrt(np.maximum(np.maximum(seen, implied), 0.0)) / images
