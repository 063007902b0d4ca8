"""Whether something that is not the picture predicts the label.

A network learns what is easiest. When all images of a class are brighter, smaller or of another
camera than the rest, it learns that, scores well here and fails elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from classifier_training.data.checks.findings import Finding, Item
from classifier_training.data.image_stats import ImageStats
from classifier_training.data.manifest import Manifest

_FOLDS = 5
_BINS = 32
_LEAST_IMAGES = 50
# Standard errors that the limits below must be exceeded by: one false alarm in 740 looks, and
# there are a few features times the classes.
_SURE = 3.0
# The share of a class, and of the mistakes of always answering the majority class, from which on a
# feature is reported. On photographs of ten classes of clothing the highest are 0.00 and 0.05.
_WARN_CLASS, _WARN_ALL = 0.3, 0.2

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shortcut:
    """How well one feature alone predicts.

    Attributes:
        of_all: Goodman and Kruskal's lambda on held-out folds: the share of the majority answer's
            mistakes that the feature avoids; its lower limit.
        of_class: ``(C,)`` the same for each class against the rest: the share of its images that
            the feature finds, false alarms subtracted (of the rest's, for a class of over half).
    """

    of_all: float
    of_class: npt.NDArray[np.float64]


def shortcuts(manifest: Manifest, facts: ImageStats) -> Iterator[Finding]:
    """Report features of the files that predict the label of training images.

    Each feature alone is put into bins, and each bin answers with what its images in the other
    four of five folds mostly are.
    """
    rows = manifest.rows("train")
    rows = rows[facts.decoded[rows]]
    labels = manifest.labels[rows]
    names = manifest.class_map.names
    if len(rows) < _LEAST_IMAGES:
        return
    items = []
    for feature, codes in _features(manifest, facts, rows):
        found = probe(codes, labels, len(names))
        told = [
            f"{share:.0%} of class {names[label]!r}"
            for label, share in sorted(enumerate(found.of_class), key=lambda pair: -pair[1])
            if share >= _WARN_CLASS
        ]
        if found.of_all >= _WARN_ALL:
            told.insert(0, f"{found.of_all:.0%} of what the majority answer misses")
        if told:
            shown = ", ".join(told[:4]) + (", …" if len(told) > 4 else "")
            items.append(Item((), f"{feature} alone tells at least {shown}"))
    if items:
        yield Finding(
            "shortcut",
            "warning",
            f"{len(items):,} facts about the files predict the label",
            "labels that only the picture tells; else the network may learn the fact instead",
            "make the images of all classes in the same way, or train with augmentation that hides "
            "the fact",
            tuple(items),
        )


def _features(
    manifest: Manifest, facts: ImageStats, rows: npt.NDArray[np.int64]
) -> Iterator[tuple[str, Codes]]:
    widths, heights = facts.widths[rows].astype(float), facts.heights[rows].astype(float)
    yield "the file size", _binned(facts.file_bytes[rows].astype(float))
    yield "the shape (width / height)", _binned(widths / heights)
    yield "the number of pixels", _binned(widths * heights)
    yield "the brightness", _binned(facts.means[rows].mean(axis=1).astype(float))
    yield "the file format", _coded([facts.formats[int(row)] for row in rows])
    yield "the folder", _coded([_folder(manifest, int(row)) for row in rows])


def _folder(manifest: Manifest, row: int) -> str:
    """Return the folder of an image; nothing where the label names it."""
    parent = PurePosixPath(manifest.paths[row]).parent
    label = manifest.class_map.names[manifest.labels[row]]
    is_layout = not manifest.lines[row] or label in parent.parts
    return "" if is_layout else str(parent)


def _binned(values: npt.NDArray[np.float64]) -> Codes:
    """Cut values into at most 32 bins of about equally many images."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.digitize(values, edges).astype(np.int64)


def _coded(values: list[str]) -> Codes:
    return np.unique(np.array(values), return_inverse=True)[1].reshape(-1).astype(np.int64)


def probe(codes: Codes, labels: npt.NDArray[np.int64], classes: int) -> Shortcut:
    """Measure how well ``codes`` alone predict ``labels``, on held-out folds.

    Args:
        codes: ``(N,)`` bins, from 0.
        labels: ``(N,)`` class indices.
        classes: Number of classes.

    Returns:
        Lower limits, three standard errors below what was measured. An answer that differs from
        the majority's gains or loses one image, so that the variance of the gain is at most the
        number of such answers (as in McNemar's test).
    """
    folds = np.random.default_rng(0).permutation(len(labels)) % _FOLDS
    bins = int(codes.max()) + 1
    cells = np.ravel_multi_index((folds, codes, labels), (_FOLDS, bins, classes))
    counts = np.bincount(cells, minlength=_FOLDS * bins * classes).reshape(_FOLDS, bins, classes)
    others = counts.sum(axis=0) - counts  # what the other folds say, for each fold

    majority = others.sum(axis=1).argmax(axis=1)
    answers = others.argmax(axis=2)
    answers[others.sum(axis=2) == 0] = -1
    answer, usual = answers[folds, codes], majority[folds]
    answer = np.where(answer < 0, usual, answer)
    gain = (answer == labels).astype(int) - (usual == labels)
    mistakes = max(1, int((usual != labels).sum()))
    of_all = (gain.sum() - _SURE * np.sqrt(np.abs(gain).sum())) / mistakes

    # Each class against the rest: a bin says "this class" when most of it is.
    says = 2 * others > others.sum(axis=2, keepdims=True)
    images = np.bincount(labels, minlength=classes)
    always = 2 * images > len(labels)  # the better constant answer
    rest = counts.sum(axis=2, keepdims=True) - counts
    right = (np.where(always, rest, counts) * (says != always)).sum(axis=(0, 1))
    wrong = (np.where(always, counts, rest) * (says != always)).sum(axis=(0, 1))
    avoidable = np.maximum(1, np.minimum(images, len(labels) - images))
    return Shortcut(float(of_all), (right - wrong - _SURE * np.sqrt(right + wrong)) / avoidable)
