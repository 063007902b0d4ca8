"""Cut units into train and the parts taken from it, each class by the same shares."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from classifier_training.data.units import Unit, images_by_label, rank

_Counts = Mapping[str, Counter[str]]  # part -> label -> images


def cut(
    units: Sequence[Unit], shares: Mapping[str, float], seed: int, fixed: Mapping[Unit, str]
) -> dict[Unit, str]:
    """Give every unit a part.

    Units of several images go first, the largest before the others, each to the part whose shares
    of the unit's classes lack most (the greedy of scikit-learn's ``StratifiedGroupKFold``). Single
    images then fill each class up to its share, rounded down or up; which classes are rounded up
    is decided by the largest remainders, so that the sum over all classes is right too.

    Every class keeps an image in ``train``: a class that is one unit stays there whole.

    Args:
        units: By rank.
        shares: Of each part besides ``train``; together below 1.
        seed: Breaks ties between classes.
        fixed: Units whose part is known.

    Returns:
        The part of every unit, also of the fixed ones.
    """
    totals = images_by_label(units)
    parts = dict(fixed)
    placed: dict[str, Counter[str]] = {part: Counter() for part in ("train", *shares)}
    for unit, part in fixed.items():
        placed.setdefault(part, Counter()).update(unit.counts)
    free = [unit for unit in units if unit not in fixed]
    spare = _Spare(free, placed["train"])
    several = sorted((unit for unit in free if len(unit.paths) > 1), key=lambda u: -len(u.paths))
    for unit in several:
        part = _most_lacking(unit, placed, totals, shares, may_leave=spare.may_leave(unit))
        parts[unit] = part
        placed[part].update(unit.counts)
        spare.take(unit, part)
    singles = [unit for unit in free if len(unit.paths) == 1]
    for part, chosen in _fill(singles, placed, totals, shares, spare, seed).items():
        parts.update((unit, part) for unit in chosen)
    parts.update((unit, "train") for unit in singles if unit not in parts)
    _take_some(parts, free, shares)
    return parts


class _Spare:
    """How many units of each class may still leave ``train``."""

    def __init__(self, free: Sequence[Unit], trained: Mapping[str, int]) -> None:
        self._left = Counter(label for unit in free for label in unit.counts)
        self._is_trained = {label for label, count in trained.items() if count}

    def left(self, label: str) -> int:
        return self._left[label] - (label not in self._is_trained)

    def may_leave(self, unit: Unit) -> bool:
        return all(self.left(label) > 0 for label in unit.counts)

    def take(self, unit: Unit, part: str) -> None:
        self._left.subtract(dict.fromkeys(unit.counts, 1))
        if part == "train":
            self._is_trained.update(unit.counts)


def _most_lacking(
    unit: Unit,
    placed: _Counts,
    totals: Mapping[str, int],
    shares: Mapping[str, float],
    *,
    may_leave: bool,
) -> str:
    """Return the part where the unit takes most off the chi-square distance to the shares."""
    if not may_leave:
        return "train"
    wanted = {"train": 1 - sum(shares.values()), **shares}

    def growth(part: str) -> float:
        if wanted[part] <= 0:
            return math.inf
        return sum(
            count
            * (2 * (placed[part][label] - wanted[part] * totals[label]) + count)
            / (wanted[part] * totals[label])
            for label, count in unit.counts.items()
        )

    return min(wanted, key=growth)


def _fill(
    singles: Sequence[Unit],
    placed: _Counts,
    totals: Mapping[str, int],
    shares: Mapping[str, float],
    spare: _Spare,
    seed: int,
) -> dict[str, list[Unit]]:
    """Take single images out of train, the first of each class by rank."""
    by_class: dict[str, list[Unit]] = defaultdict(list)
    for unit in singles:
        by_class[next(iter(unit.counts))].append(unit)
    room = {label: min(len(own), spare.left(label)) for label, own in by_class.items()}
    lacking = {
        part: {label: max(0.0, share * totals[label] - placed[part][label]) for label in by_class}
        for part, share in shares.items()
    }
    # Rounding one part up must not take what the next has a whole claim to.
    floors = {
        part: {label: math.floor(value) for label, value in wanted.items()}
        for part, wanted in lacking.items()
    }
    claimed = Counter[str]()
    for wanted_whole in floors.values():
        claimed.update(wanted_whole)
    taken: dict[str, list[Unit]] = {}
    for part, share in shares.items():
        claimed.subtract(floors[part])
        least = {label: min(floors[part][label], room[label]) for label in by_class}
        most = {label: max(least[label], room[label] - claimed[label]) for label in by_class}
        total = _nearest(share * sum(totals.values())) - sum(placed[part].values())
        numbers = _apportion(lacking[part], least, most, total, f"{part}:", seed)
        taken[part] = []
        for label, number in numbers.items():
            own = by_class[label]
            taken[part] += own[:number]
            by_class[label] = own[number:]
            room[label] -= number
    return taken


def _apportion(
    wanted: Mapping[str, float],
    least: Mapping[str, int],
    most: Mapping[str, int],
    total: int,
    salt: str,
    seed: int,
) -> dict[str, int]:
    """Round to whole numbers whose sum is nearest to ``total`` (largest remainders, Hamilton).

    Each number is the least one or, where ``wanted`` and ``most`` leave room, one more.
    """
    numbers = dict(least)
    able = [
        label
        for label, value in wanted.items()
        if value > numbers[label] and numbers[label] < most[label]
    ]
    able.sort(key=lambda label: (numbers[label] - wanted[label], rank(salt + label, seed)))
    for label in able[: max(0, total - sum(numbers.values()))]:
        numbers[label] += 1
    return numbers


def _nearest(value: float) -> int:
    return int(value + 0.5)


def _take_some(parts: dict[Unit, str], free: Sequence[Unit], shares: Mapping[str, float]) -> None:
    """Move the smallest unit that can be spared into ``val`` when rounding left it empty."""
    if "val" not in shares or "val" in parts.values():
        return
    left = Counter(
        label for unit, part in parts.items() if part == "train" for label in unit.counts
    )
    can = [
        unit
        for unit in free
        if parts[unit] == "train" and all(left[label] > 1 for label in unit.counts)
    ]
    can = can or [unit for unit in free if parts[unit] == "test"]
    if can:
        parts[min(can, key=lambda unit: len(unit.paths))] = "val"
