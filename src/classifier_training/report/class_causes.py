"""Causes that lie in classes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from classifier_training.report.evidence import LEVEL, Cause, Evidence, Indices, excess
from classifier_training.report.words import count, listed, quoted_name

_LEAST_PAIR = 3
_MOST_PAIRS = 3
_MOST_NAMED = 3


def confused_pairs(evidence: Evidence) -> list[Cause]:
    """Pairs of classes mistaken for each other more often than errors fall together by chance.

    By chance the errors of the two classes would spread over all other classes as all errors do;
    a binomial test, Bonferroni-corrected for the pairs that were seen.
    """
    classes, errors = len(evidence.classes), evidence.errors
    wrong = evidence.wrong
    if classes < 3:  # with two classes every error is of the one pair
        return []
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (evidence.true[wrong], evidence.predicted[wrong]), 1)
    expected = _expected_errors(matrix)
    together, by_chance = matrix + matrix.T, expected + expected.T
    pairs = [tuple(map(int, pair)) for pair in np.argwhere(np.triu(together) >= _LEAST_PAIR)]
    found = []
    for first, second in pairs:
        seen, chance = int(together[first, second]), float(by_chance[first, second])
        test = stats.binomtest(seen, errors, min(1.0, chance / errors), alternative="greater")
        if test.pvalue * len(pairs) < LEVEL:
            found.append((seen - chance, first, second, seen))
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    return [_confused_pair(evidence, matrix, more, *pair) for more, *pair in found[:_MOST_PAIRS]]


def _confused_pair(
    evidence: Evidence, matrix: Indices, more: float, first: int, second: int, seen: int
) -> Cause:
    names = evidence.classes
    there, back = int(matrix[first, second]), int(matrix[second, first])
    cell = (first, second) if there >= back else (second, first)
    a, b = quoted_name(names[first]), quoted_name(names[second])
    return Cause(
        code="confused-pair",
        title=f"{a} and {b} are mistaken for each other",
        share=more / evidence.errors,
        evidence=f"{seen:,} of {count(evidence.errors, 'error')} are between them ({a} taken for "
        f"{b} {count(there, 'time')}, {b} for {a} {count(back, 'time')}); by chance it would be "
        f"{seen - more:.1f}",
        action="look at these images: either some labels are wrong, or what tells the two apart is "
        "lost at this image size; add images of both that differ in nothing else",
        command=f"classifier suspects {evidence.run}",
        cell=cell,
    )


def _expected_errors(matrix: Indices) -> npt.NDArray[np.float64]:
    """Spread each class's errors over the other classes as all errors fall on them."""
    rows = matrix.sum(axis=1).astype(np.float64)
    columns = matrix.sum(axis=0).astype(np.float64)
    others = columns.sum() - columns  # without the class itself, which no error can fall on
    spread: npt.NDArray[np.float64] = (
        rows[:, None] * columns[None, :] / np.maximum(others, 1)[:, None]
    )
    np.fill_diagonal(spread, 0)
    return spread


def favoured_class(evidence: Evidence) -> list[Cause]:
    """The class that draws most wrong answers, beyond its share of the other classes' images.

    By chance the errors would fall on the classes as the images do; a binomial test,
    Bonferroni-corrected for the classes.
    """
    classes, errors = len(evidence.classes), evidence.errors
    if classes < 3:  # with two classes wrong answers can only name the other one
        return []
    drawn = np.bincount(evidence.predicted[evidence.wrong], minlength=classes)
    shares = np.bincount(evidence.true, minlength=classes) / len(evidence.true)
    by_class = np.bincount(evidence.true[evidence.wrong], minlength=classes)
    expected = np.array(
        [shares[k] * ((by_class / np.maximum(1 - shares, 1e-9)).sum() - by_class[k] /
         max(1 - shares[k], 1e-9)) for k in range(classes)]
    )  # fmt: skip
    most = int((drawn - expected).argmax())
    seen, chance = int(drawn[most]), float(expected[most])
    test = stats.binomtest(seen, errors, min(1.0, chance / errors), alternative="greater")
    if seen < _LEAST_PAIR or test.pvalue * classes >= LEVEL:
        return []
    name = quoted_name(evidence.classes[most])
    return [
        Cause(
            code="favoured-class",
            title=f"{name} is answered too often",
            share=(seen - chance) / errors,
            evidence=f"{seen:,} of {count(errors, 'error')} are answers {name}; spread over the "
            f"classes as the images are, it would be {chance:.1f}",
            action="look at its column of the matrix: a class that looks like many others needs "
            "more varied images, and a network that falls back on one class more training",
            command=f"classifier suspects {evidence.run}",
        )
    ]


def rare_classes(evidence: Evidence) -> list[Cause]:
    """Classes with less than half of the median number of training images, if they do worse."""
    counts = evidence.train_counts
    if counts is None:
        return []
    median = float(np.median(counts))
    rare = counts < median / 2
    lost = excess(evidence, rare[evidence.true])
    if lost is None:
        return []
    errors_of = np.bincount(evidence.true[evidence.wrong], minlength=len(counts))
    worst = [int(index) for index in np.argsort(-errors_of * rare, kind="stable")[:_MOST_NAMED]]
    named = [index for index in worst if rare[index] and errors_of[index]]
    few = ", ".join(f"{quoted_name(evidence.classes[row])} {counts[row]:,}" for row in named)
    names = listed([evidence.classes[row] for row in named])
    return [
        Cause(
            code="rare-classes",
            title="Classes with few training images",
            share=lost.share,
            evidence=f"{count(int(rare.sum()), 'class', 'classes')} with fewer than {median / 2:g} "
            f"training images (half of the median): {lost.said}. Training images: {few}",
            action=f"add images of {names} first; until then let the rare classes count more",
            command="loss=logit_adjusted   or   data.sampler=sqrt",
        )
    ]
