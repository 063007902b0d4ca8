"""Whether a run that was trained again gave the same numbers, and what was different around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Rows = list[dict[str, float]]


@dataclass(frozen=True)
class Condition:
    """Something that results may depend on, when the run was trained and now."""

    name: str
    then: str
    now: str

    @property
    def is_same(self) -> bool:
        """Whether nothing changed."""
        return self.then == self.now


@dataclass(frozen=True)
class Outcome:
    """How two tables of epochs compare.

    Attributes:
        verdict: ``equal``: bit by bit; ``close``: within the tolerance; ``different``.
        epochs: Epochs that were compared.
        largest: The largest difference, relative to values above 1.
        where: The metric and epoch of it; empty when all is equal.
    """

    verdict: Literal["equal", "close", "different"]
    epochs: int
    largest: float
    where: str


def conditions(record: dict[str, Any], now: dict[str, Any]) -> list[Condition]:
    """Put side by side what ``run.json`` recorded and what is found now.

    Args:
        record: Content of ``run.json``.
        now: ``git``, ``versions``, ``hardware`` and ``data_fingerprint``, as a run records them.
    """
    then_git, now_git = record.get("git"), now["git"]
    found = [
        Condition("code", _commit(then_git), _commit(now_git)),
        Condition("data", str(record["data_fingerprint"])[:12], str(now["data_fingerprint"])[:12]),
    ]
    for section in ("versions", "hardware"):
        then, current = record.get(section) or {}, now[section]
        found += [
            Condition(name, str(then.get(name, "not recorded")), str(current.get(name, "none")))
            for name in dict.fromkeys([*then, *current])
            if name != "reason"
        ]
    return found


def compare_epochs(then: Rows, now: Rows, *, is_finished: bool, tolerance: float) -> Outcome:
    """Compare ``metrics.csv`` of both.

    Args:
        then: Rows of the run.
        now: Rows of its repetition.
        is_finished: Whether the run was; if not, the repetition may have more epochs.
        tolerance: How much a value may differ and still count as close.
    """
    pairs = list(zip(then, now, strict=False))
    if len(now) < len(then) or (is_finished and len(now) != len(then)):
        where = f"number of epochs: {len(then)} then, {len(now)} now"
        return Outcome("different", len(pairs), math.inf, where)
    largest, place = 0.0, ""
    for before, after in pairs:
        for name in dict.fromkeys([*before, *after]):
            difference = _difference(before.get(name), after.get(name))
            if difference == 0.0:
                continue
            if difference > largest or not place:
                largest, place = difference, f"{name} of epoch {int(before['epoch']) + 1}"
    if not place:
        return Outcome("equal", len(pairs), 0.0, "")
    return Outcome("close" if largest <= tolerance else "different", len(pairs), largest, place)


def _difference(then: float | None, now: float | None) -> float:
    if then == now:
        return 0.0
    if then is None or now is None:
        return math.inf
    if math.isnan(then) or math.isnan(now):
        return 0.0 if math.isnan(then) and math.isnan(now) else math.inf
    return abs(then - now) / max(1.0, abs(then), abs(now))


def _commit(git: dict[str, Any] | None) -> str:
    if not git:
        return "outside a git checkout"
    return str(git["commit"])[:12] + (" with uncommitted changes" if git["dirty"] else "")
