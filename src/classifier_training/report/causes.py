"""Why a model errs: each possible cause measured, the largest first; nothing without evidence.

A cause's share is the part of the errors that it *may* explain: how many fewer there would be if
the images it concerns were answered as well as the others. Causes overlap, so shares do not add up
to one, and none of them is proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from classifier_training.report.class_causes import confused_pairs, favoured_class, rare_classes
from classifier_training.report.data_causes import (
    contradicting_copies,
    sure_and_wrong,
    suspicious_labels,
    weak_slices,
)
from classifier_training.report.evidence import Cause, Evidence
from classifier_training.report.fit_causes import other_data, overfitting, underfitting

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
