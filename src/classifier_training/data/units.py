"""The smallest parts that a split may move: an image, a group, or copies of one image."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from classifier_training.data.records import Record


@dataclass(frozen=True, eq=False)
class Unit:
    """Images that stay together; each is its own key in a dict.

    Attributes:
        rank: Eight bytes that order units; a function of the seed and of the unit's own names.
        paths: Its images, in the order of the records.
        counts: Number of its images by label.
    """

    rank: bytes
    paths: tuple[str, ...]
    counts: Mapping[str, int]


def make_units(
    records: Sequence[Record], contents: Mapping[str, bytes], seed: int
) -> tuple[Unit, ...]:
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


def _unit(rows: list[Record], seed: int) -> Unit:
    if len(rows) == 1:  # nearly all of them, and there may be a million
        (record,) = rows
        return Unit(rank(record.group or record.path, seed), (record.path,), {record.label: 1})
    first = min(rank(record.group or record.path, seed) for record in rows)
    paths = tuple(record.path for record in rows)
    return Unit(first, paths, Counter(record.label for record in rows))


def images_by_label(units: Iterable[Unit]) -> Counter[str]:
    """Return the number of images of each label."""
    totals: Counter[str] = Counter()
    for unit in units:
        for label, count in unit.counts.items():
            totals[label] += count
    return totals


def _order(unit: Unit) -> tuple[bytes, str]:
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
