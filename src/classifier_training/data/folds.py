"""Deal units into folds of the same size and the same classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from classifier_training.data.units import Unit, images_by_label


def deal(units: Sequence[Unit], folds: int) -> tuple[dict[Unit, int], tuple[Unit, ...]]:
    """Give every unit the fold in which it is validated.

    Units of several images go first, the largest before the others, each to the fold that has
    least of its classes; single images are then dealt class by class, so that without groups each
    class, and the whole, differs by at most one image between folds. No fold takes a class whole:
    it would be missing from the training part.

    Args:
        units: By rank.
        folds: At least 2.

    Returns:
        The fold of each unit, and the units that are in none because a class would leave the
        training part: those always train.
    """
    totals = images_by_label(units)
    spread = Counter(label for unit in units for label in unit.counts)  # units, not images
    has = [Counter[str]() for _ in range(folds)]
    sizes = [0] * folds
    last = _LastUnits(spread, folds)
    dealt: dict[Unit, int] = {}
    kept: list[Unit] = []
    for unit in _order(units):
        allowed = [fold for fold in range(folds) if last.may_take(fold, unit)]
        if not allowed:
            kept.append(unit)
            continue
        fold = min(
            allowed,
            key=lambda fold: (
                sum(n * (2 * has[fold][c] + n) / totals[c] for c, n in unit.counts.items()),
                sizes[fold],
            ),
        )
        dealt[unit] = fold
        for label, count in unit.counts.items():
            has[fold][label] += count
        sizes[fold] += len(unit.paths)
        last.take(fold, unit)
    return dealt, tuple(kept)


def _order(units: Sequence[Unit]) -> list[Unit]:
    """Largest units first; single images class by class, each by rank (sorting is stable)."""
    return sorted(
        units,
        key=lambda unit: (-len(unit.paths), "" if len(unit.paths) > 1 else next(iter(unit.counts))),
    )


class _LastUnits:
    """Knows when a fold would take the last unit of a class that lies in no other."""

    def __init__(self, spread: Counter[str], folds: int) -> None:
        self._spread = spread
        self._taken = [Counter[str]() for _ in range(folds)]

    def may_take(self, fold: int, unit: Unit) -> bool:
        taken = self._taken[fold]
        return all(taken[label] + 1 < self._spread[label] for label in unit.counts)

    def take(self, fold: int, unit: Unit) -> None:
        for label in unit.counts:
            self._taken[fold][label] += 1
