"""Class names that are probably one class written in two ways."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from classifier_training.data.checks.findings import Finding, Item
from classifier_training.data.manifest import Manifest


def look_alikes(manifest: Manifest, *, are_given: bool) -> Iterator[Finding]:
    """Report class names that differ only in blanks, case, Unicode form or leading zeros.

    Args:
        manifest: The images.
        are_given: Whether the user listed the class names, and so means each of them.
    """
    names = manifest.class_map.names
    counts = np.bincount(manifest.labels, minlength=len(names))
    images = dict(zip(names, map(int, counts), strict=True))
    items = [Item((), f"{_listed(alike, images)} differ in {how}") for alike, how in _alike(names)]
    if items:
        yield Finding(
            "look-alike-labels",
            "note" if are_given else "warning",
            f"{len(items):,} sets of class names look alike",
            "one spelling for a class",
            "correct the labels; if the names are different classes, list them in data.classes",
            tuple(items),
        )
    if odd := [name for name in names if name != _visible(name)]:
        yield Finding(
            "label-with-blanks",
            "note" if are_given else "warning",
            f"{len(odd):,} class names begin or end with a blank, or hold invisible characters",
            "names as they look",
            "correct the labels, or list the names in data.classes if they are meant so",
            tuple(Item((), f"class {name!a}") for name in odd),
        )


def _alike(names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each set of names that look alike once, with the first thing they differ in."""
    told: set[frozenset[str]] = set()
    for how, key in _KEYS:
        groups: dict[str, list[str]] = defaultdict(list)
        for name in names:
            groups[key(name)].append(name)
        for group in groups.values():
            if len(group) > 1 and not any(set(group) <= known for known in told):
                told.add(frozenset(group))
                yield tuple(group), how


def _visible(name: str) -> str:
    """Drop blanks around a name, and characters that cannot be seen."""
    seen = "".join(
        char for char in name if unicodedata.category(char) not in ("Cc", "Cf") or char == "\u200d"
    )
    return seen.strip()


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", _visible(name)).split())


def _number(name: str) -> str:
    plain = _plain(name).casefold()
    # 0 and 00 are two jersey numbers.
    return plain.lstrip("0") if plain.isdecimal() and plain.strip("0") else plain


# From what differs least; a set is told under the first key that makes its names equal.
_KEYS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("blanks or invisible characters", lambda name: " ".join(_visible(name).split())),
    ("their Unicode form", _plain),
    ("upper and lower case", lambda name: _plain(name).casefold()),
    ("leading zeros", _number),
)


def _listed(alike: tuple[str, ...], images: Mapping[str, int]) -> str:
    return ", ".join(f"{name!a} ({images[name]} images)" for name in alike)
