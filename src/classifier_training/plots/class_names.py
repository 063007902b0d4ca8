"""Class names in pictures and tables: readable with 2 classes, 43 or 300."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

# Beyond so many classes their names no longer fit under the bars.
_MOST_NAMES = 80
_FEWEST_BARS = 8  # so that two classes do not make two walls
_LONGEST = 14


def short_name(name: str, longest: int = _LONGEST) -> str:
    """Shorten a class name, with ``?`` for what cannot be printed (lone surrogates too)."""
    printable = "".join(char if char.isprintable() else "?" for char in name)
    return printable if len(printable) <= longest else f"{printable[: longest - 1]}…"


def name_classes(axes: Axes, names: Sequence[str], order: str) -> None:
    """Give an axis one place a class: 0 to ``len(names) - 1``.

    Args:
        axes: Its x axis is set.
        names: Of the classes, in their order on the axis.
        order: What the order is; written instead of names when these do not fit.
    """
    axes.set_xlim(-0.6, max(len(names), _FEWEST_BARS) - 0.4)
    if len(names) > _MOST_NAMES:
        axes.set_xlabel(order)
        return
    shown = [short_name(name) for name in names]
    rotation = 90 if _is_turned(names) else 0
    # A class may be called "$x$"; that is no formula.
    axes.set_xticks(np.arange(len(names)), shown, rotation=rotation, parse_math=False)
    axes.tick_params(axis="x", labelsize=9 if len(names) <= 45 else 7, length=0)


def room_for_names(names: Sequence[str]) -> float:
    """Return the inches below an axis that :func:`name_classes` needs."""
    if len(names) > _MOST_NAMES:
        return 0.55
    return 0.35 + (0.068 * _longest(names) if _is_turned(names) else 0.0)


def bar_width(names: Sequence[str]) -> float:
    """Return the width of a class's bar; many bars leave no gaps, which would flicker."""
    return 0.8 if len(names) <= 150 else 1.0


def _longest(names: Sequence[str]) -> int:
    return max(len(short_name(name)) for name in names)


def _is_turned(names: Sequence[str]) -> bool:
    """Say whether the names stand upright because they do not fit side by side."""
    return len(names) * max(3, _longest(names) + 1) > 150
