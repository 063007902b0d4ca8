"""Numbers in words, the same way everywhere in a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TITLES = {
    "acc_top1": "Top-1 accuracy",
    "acc_top5": "Top-5 accuracy",
    "acc_macro": "Balanced accuracy",
    "f1_macro": "Macro F1",
    "precision_macro": "Macro precision",
    "auroc_macro": "Macro AUROC",
    "loss": "Log loss",
    "ece": "Calibration error",
}
# Written as they are; everything else is a share.
_NOT_SHARES = ("loss",)
_LONGEST_NAME = 40


@dataclass(frozen=True)
class Interval:
    """A score with its 95 % interval; nan bounds where it has none."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Interval:
        """Read an entry of ``metrics.json``."""
        return cls(*(float(content[key]) for key in ("value", "low", "high")))

    @property
    def has_bounds(self) -> bool:
        """Whether it has an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))


def percent(value: float, digits: int = 1) -> str:
    """Write a share: ``0.9234`` is ``92.3 %``; 100 % only for exactly all."""
    shown = f"{100 * value:.{digits}f}"
    if value < 1 and float(shown) == 100:
        shown = f"{100 - 10.0**-digits:.{digits}f}"
    if value == 1:
        shown = "100"
    return f"{shown}\u202f%"


def span(interval: Interval, name: str = "") -> str:
    """Write the bounds of an interval."""
    if not interval.has_bounds:
        return "no interval"
    if name in _NOT_SHARES:
        return f"{interval.low:.3f} to {interval.high:.3f}"
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}\u202f%"


def amount(value: float, name: str) -> str:
    """Write a score as its kind is written."""
    return f"{value:.3f}" if name in _NOT_SHARES else percent(value)


def count(number: int, one: str, several: str | None = None) -> str:
    """Write a number of things: ``1 image``, ``1,200 images``."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def quoted_name(name: str) -> str:
    """Quote a class name: shortened, and kept from turning the text around it (right to left)."""
    shown = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    return f"\u2018\u2068{shown}\u2069\u2019"  # first strong isolate, pop directional isolate


def listed(names: Sequence[str]) -> str:
    """Join quoted names with commas and "and"."""
    quoted = [quoted_name(name) for name in names]
    if len(quoted) < 2:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def size(numbytes: float) -> str:
    """Write a number of bytes."""
    for unit in ("bytes", "kB", "MB"):
        if numbytes < 1000:
            return f"{numbytes:.0f} {unit}" if unit == "bytes" else f"{numbytes:.1f} {unit}"
        numbytes /= 1000
    return f"{numbytes:.1f} GB"
