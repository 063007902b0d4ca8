"""Causes that lie in images and their labels."""

from __future__ import annotations

import numpy as np
from scipy import stats

from classifier_training.report.evidence import LEVEL, Cause, Evidence, SliceFact
from classifier_training.report.words import count, percent, quoted_name

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
