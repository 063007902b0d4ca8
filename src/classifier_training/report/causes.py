"""Why a model errs: each possible cause measured, the largest first; nothing without evidence.

A cause's share is the part of the errors that it *may* explain: how many fewer there would be if
the images it concerns were answered as well as the others. Causes overlap, so shares do not add up
to one, and none of them is proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from classifier_training.report.evidence import (
    LEVEL,
    Cause,
    Evidence,
    Indices,
    SliceFact,
    SplitScore,
    excess,
)
from classifier_training.report.formatting import count, listed, percent, quoted_name

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


SIZE_KEY = "image:shorter_side"
_CAMERA_FAULTS = ("blur", "dark", "fault", "light", "noise", "exposure", "brightness", "quality")
_LEAST_SURE = 3
_SURE = 0.9  # an answer with this confidence leaves hardly any room for error


def suspicious_labels(evidence: Evidence) -> list[Cause]:
    """Errors whose label ``classifier suspects`` found suspect."""
    if evidence.suspects is None:
        return []
    wrong = np.flatnonzero(evidence.wrong)
    found = [row for row in wrong if evidence.paths[row] in evidence.suspects]
    if not found:
        return []
    return [
        Cause(
            code="suspicious-labels",
            title="Labels that are probably wrong",
            share=len(found) / len(wrong),
            evidence=f"{len(found):,} of {count(len(wrong), 'error')} are on images whose label "
            "`classifier suspects` found suspect",
            action="look at suspects.png, write the right labels into suspects.csv, train again",
            command=f"data.corrections={evidence.run}/suspects/suspects.csv",
        )
    ]


def sure_and_wrong(evidence: Evidence) -> list[Cause]:
    """More errors among the very sure answers than their confidence allows, labels unexamined."""
    if evidence.suspects is not None:
        return []
    sure = evidence.confidence >= _SURE
    seen = int((sure & evidence.wrong).sum())
    allowed = float((1 - evidence.confidence[sure]).sum())
    if seen < _LEAST_SURE or stats.poisson.sf(seen - 1, allowed) >= LEVEL:
        return []
    return [
        Cause(
            code="sure-and-wrong",
            title="Sure and wrong: labels to check",
            share=(seen - allowed) / evidence.errors,
            evidence=f"{seen:,} of {count(int(sure.sum()), 'answer')} with a confidence of "
            f"{_SURE:.0%} or more are wrong; their confidence allows {allowed:.1f}. Wrong labels "
            "look like this, and so does a network that is too sure",
            action="look at the gallery of worst mistakes, and let the labels be judged",
            command=f"classifier suspects {evidence.run}",
        )
    ]


def weak_slices(evidence: Evidence) -> list[Cause]:
    """Images that share a fact (small, dark, of one camera) and do worse than the others."""
    worst: dict[str, SliceFact] = {}
    for item in evidence.worse_slices:
        best_so_far = worst.get(item.key)
        if best_so_far is None or _lost(item) > _lost(best_so_far):
            worst[item.key] = item
    return [_weak_slice(evidence, item) for item in worst.values() if _lost(item) > 0]


def _weak_slice(evidence: Evidence, item: SliceFact) -> Cause:
    is_size = item.key == SIZE_KEY
    shown = item.key.replace("_", " ")
    where = f"shorter side {item.value} pixels" if is_size else f"{item.key} = {item.value}"
    return Cause(
        code="low-resolution" if is_size else "weak-slice",
        title="Small images" if is_size else f"Images with {shown} {quoted_name(item.value)}",
        share=_lost(item) / evidence.errors,
        evidence=f"{count(item.images, 'image')} with {where}: {percent(item.accuracy)} right, "
        f"{percent(item.rest)} of the others (p = {item.p_value:.2g} after Holm)",
        action="take larger images, or train with such ones made small on purpose"
        if is_size
        else "add training images of this kind, or augment the others to look like them",
        command="transforms=jersey" if is_size or _is_camera_fault(item) else
        f"classifier evaluate {evidence.run} --split train   (then compare slices.csv)",
    )  # fmt: skip


def _is_camera_fault(item: SliceFact) -> bool:
    return any(word in f"{item.key} {item.value}".lower() for word in _CAMERA_FAULTS)


def _lost(item: SliceFact) -> float:
    """Return the errors that a slice has beyond those of the rest."""
    return item.images * (item.rest - item.accuracy)


def contradicting_copies(evidence: Evidence) -> list[Cause]:
    """Errors on images that have a near copy under another label in another split."""
    wrong = np.flatnonzero(evidence.wrong)
    found = [row for row in wrong if evidence.paths[row] in evidence.contradicting]
    if not found:
        return []
    return [
        Cause(
            code="contradicting-copies",
            title="Near copies with different labels",
            share=len(found) / len(wrong),
            evidence=f"{len(found):,} of {count(len(wrong), 'error')} are on images that also stand"
            " in another split, nearly the same, under another label",
            action="decide which label is right; keep one scene in one split",
            command=f"data/check.json in {evidence.run} lists the pairs",
        )
    ]


_LEAST_GAP = 0.03
_LEAST_GAIN = 0.02  # of the errors that are left


def overfitting(evidence: Evidence) -> list[Cause]:
    """Train accuracy above val beyond chance: what was learnt by heart does not carry over."""
    val = _val_score(evidence)
    row = next((item for item in evidence.history if item.number == evidence.best_epoch), None)
    if row is None or val is None:
        return []
    gap = row.train - val.accuracy
    test = stats.binomtest(val.right, val.images, min(1.0, max(0.0, row.train)), alternative="less")
    if gap < _LEAST_GAP or test.pvalue >= LEVEL:
        return []
    return [
        Cause(
            code="overfitting",
            title="The training images are learnt by heart",
            share=gap / (1 - val.accuracy),
            evidence=f"in the best epoch {percent(row.train)} of the (augmented) training images "
            f"are right, but {percent(val.accuracy)} of {val.images:,} val images",
            action="more data helps most; then stronger augmentation, pretrained weights, more "
            "weight decay or label smoothing",
            command="optimizer.weight_decay=0.1 loss.label_smoothing=0.1",
        )
    ]


def underfitting(evidence: Evidence) -> list[Cause]:
    """The best epoch is the last one and val was still rising: training stopped too early.

    The share is the last fifth's gain over the errors that are left: as much again may be gained.
    """
    rows = evidence.history
    if len(rows) < 3 or rows[-1].number != evidence.best_epoch or rows[-1].val >= 1:
        return []
    back = max(1, round(len(rows) / 5))
    before, last = rows[-1 - back], rows[-1]
    gain = last.val - before.val
    if gain < _LEAST_GAIN * (1 - last.val):
        return []
    epochs = rows[-1].number + 1
    return [
        Cause(
            code="underfitting",
            title="Training stopped while it was still improving",
            share=min(1.0, gain / (1 - last.val)),
            evidence=f"the best epoch is the last one ({epochs}), and val accuracy rose from "
            f"{percent(before.val)} to {percent(last.val)} in the last "
            f"{'epoch' if back == 1 else f'{back} epochs'}",
            action="train longer",
            command=f"trainer.max_epochs={2 * epochs}",
        )
    ]


def other_data(evidence: Evidence) -> list[Cause]:
    """Test images do worse than val beyond chance: they are of another kind, or val was chosen."""
    val = _val_score(evidence)
    if val is None or evidence.split == "val":
        return []
    right, images = len(evidence.true) - evidence.errors, len(evidence.true)
    table = np.array([[right, images - right], [val.right, val.images - val.right]])
    if stats.fisher_exact(table, alternative="less")[1] >= LEVEL:
        return []
    return [
        Cause(
            code="other-data",
            title=f"The {evidence.split} images are harder than the val images",
            share=(val.accuracy - evidence.accuracy) / (1 - evidence.accuracy),
            evidence=f"{percent(evidence.accuracy)} of {images:,} {evidence.split} images are "
            f"right, {percent(val.accuracy)} of {val.images:,} val images",
            action="find out how the two differ (camera, day, source); if images come in groups, "
            "keep each group in one split",
            command="data.group_by=...   and   classifier check data.data_root=...",
        )
    ]


def _val_score(evidence: Evidence) -> SplitScore | None:
    if evidence.split == "val":
        images = len(evidence.true)
        return SplitScore("val", images - evidence.errors, images)
    return next((score for score in evidence.others if score.name == "val"), None)


# An effect smaller than this share of the errors is not worth a reader's time.
LEAST_SHARE = 0.02

CAUSES: Sequence[Callable[[Evidence], list[Cause]]] = (
    confused_pairs,
    favoured_class,
    rare_classes,
    suspicious_labels,
    sure_and_wrong,
    weak_slices,
    contradicting_copies,
    overfitting,
    underfitting,
    other_data,
)


def ranked_causes(evidence: Evidence) -> list[Cause]:
    """Return all causes with evidence, the one that may explain most errors first."""
    if not evidence.errors:
        return []
    found = [cause for look in CAUSES for cause in look(evidence)]
    return sorted(
        (cause for cause in found if cause.share >= LEAST_SHARE), key=lambda cause: -cause.share
    )
