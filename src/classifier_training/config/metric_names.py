"""Names of the scores that training measures after each epoch, known before torch is imported."""

from __future__ import annotations

SCORES = ("loss", "acc_top1", "acc_top5", "acc_macro", "f1_macro", "precision_macro")

_LOWER_IS_BETTER = frozenset({"loss"})


def monitorable(*, raw: bool) -> tuple[str, ...]:
    """Return the metric keys that ``checkpoint.monitor`` may name.

    Args:
        raw: Whether the raw weights are scored beside the averaged ones.
    """
    prefixes = ("val", "val_raw") if raw else ("val",)
    return tuple(f"{prefix}/{name}" for prefix in prefixes for name in SCORES)


def mode_of(monitor: str) -> str:
    """Return ``"min"`` or ``"max"``: which direction of a metric is better."""
    return "min" if monitor.rpartition("/")[2] in _LOWER_IS_BETTER else "max"
