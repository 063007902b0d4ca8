"""Cut units into train and the parts taken from it, each class by the same shares."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from classifier_training.data.records import Record

_Counts = Mapping[str, Counter[str]]  # part -> label -> images


@dataclass(frozen=True, eq=False)
class SplitGroup:
    """Images that stay together; each is its own key in a dict.

    Attributes:
        rank: Eight bytes that order units; a function of the seed and of the unit's own names.
        paths: Its images, in the order of the records.
        counts: Number of its images by label.
    """

    rank: bytes
    paths: tuple[str, ...]
    counts: Mapping[str, int]


def make_split_groups(
    records: Sequence[Record], contents: Mapping[str, bytes], seed: int
) -> tuple[SplitGroup, ...]:
    """Join the records of a group, and those with the same content.

    Args:
        records: Each with its own path.
        contents: Hash of the content, by path; a path that is not in it has no copies.
        seed: Chooses the order.

    Returns:
        Units by rank: a function of (seed, names), not of the order of the records.
    """
    joined = _Joined(len(records))
    first: dict[tuple[str, str | bytes], int] = {}
    for index, record in enumerate(records):
        for kind, key in (("group", record.group), ("content", contents.get(record.path, b""))):
            if key:
                joined.join(index, first.setdefault((kind, key), index))
    members: dict[int, list[Record]] = {}
    for index, record in enumerate(records):
        members.setdefault(joined.root(index), []).append(record)
    return tuple(sorted((_unit(rows, seed) for rows in members.values()), key=_order))


def rank(name: str, seed: int) -> bytes:
    """Return eight bytes that depend on nothing but the name and the seed."""
    text = f"{seed}:{name}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=8).digest()


def _unit(rows: list[Record], seed: int) -> SplitGroup:
    if len(rows) == 1:  # nearly all of them, and there may be a million
        (record,) = rows
        return SplitGroup(
            rank(record.group or record.path, seed), (record.path,), {record.label: 1}
        )
    first = min(rank(record.group or record.path, seed) for record in rows)
    paths = tuple(record.path for record in rows)
    return SplitGroup(first, paths, Counter(record.label for record in rows))


def images_by_label(units: Iterable[SplitGroup]) -> Counter[str]:
    """Return the number of images of each label."""
    totals: Counter[str] = Counter()
    for unit in units:
        for label, count in unit.counts.items():
            totals[label] += count
    return totals


def _order(unit: SplitGroup) -> tuple[bytes, str]:
    return unit.rank, min(unit.paths)


class _Joined:
    """Disjoint sets (union by lower index, with path halving)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, index: int) -> int:
        parents = self._parents
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._parents[high] = low


def split_groups(
    units: Sequence[SplitGroup],
    shares: Mapping[str, float],
    seed: int,
    fixed: Mapping[SplitGroup, str],
) -> dict[SplitGroup, str]:
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

    def __init__(self, free: Sequence[SplitGroup], trained: Mapping[str, int]) -> None:
        self._left = Counter(label for unit in free for label in unit.counts)
        self._is_trained = {label for label, count in trained.items() if count}

    def left(self, label: str) -> int:
        return self._left[label] - (label not in self._is_trained)

    def may_leave(self, unit: SplitGroup) -> bool:
        return all(self.left(label) > 0 for label in unit.counts)

    def take(self, unit: SplitGroup, part: str) -> None:
        self._left.subtract(dict.fromkeys(unit.counts, 1))
        if part == "train":
            self._is_trained.update(unit.counts)


def _most_lacking(
    unit: SplitGroup,
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
    singles: Sequence[SplitGroup],
    placed: _Counts,
    totals: Mapping[str, int],
    shares: Mapping[str, float],
    spare: _Spare,
    seed: int,
) -> dict[str, list[SplitGroup]]:
    """Take single images out of train, the first of each class by rank."""
    by_class: dict[str, list[SplitGroup]] = defaultdict(list)
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
    taken: dict[str, list[SplitGroup]] = {}
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


def _take_some(
    parts: dict[SplitGroup, str], free: Sequence[SplitGroup], shares: Mapping[str, float]
) -> None:
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


def assign_folds(
    units: Sequence[SplitGroup], folds: int
) -> tuple[dict[SplitGroup, int], tuple[SplitGroup, ...]]:
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
    dealt: dict[SplitGroup, int] = {}
    kept: list[SplitGroup] = []
    for unit in _by_size(units):
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


def _by_size(units: Sequence[SplitGroup]) -> list[SplitGroup]:
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

    def may_take(self, fold: int, unit: SplitGroup) -> bool:
        taken = self._taken[fold]
        return all(taken[label] + 1 < self._spread[label] for label in unit.counts)

    def take(self, fold: int, unit: SplitGroup) -> None:
        for label in unit.counts:
            self._taken[fold][label] += 1
