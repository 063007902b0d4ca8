"""Causes that lie in the training itself, or in how the splits differ."""

from __future__ import annotations

import numpy as np
from scipy import stats

from classifier_training.report.evidence import LEVEL, Cause, Evidence, SplitScore
from classifier_training.report.words import percent

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
