"""The same image more than once: under two labels, in two splits, or twice in one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from classifier_training.data.checks.findings import Finding, Item
from classifier_training.data.image_stats import ImageStats, equal_rows
from classifier_training.data.manifest import Manifest


def duplicates(manifest: Manifest, facts: ImageStats | None) -> Iterator[Finding]:
    """Report exact copies: equal files, and with facts also equal pixels in different files."""
    relabelled, leaked, repeated = [], [], []
    for rows, is_same_file in _copies(manifest, facts):
        how = "the same file" if is_same_file else "the same pixels in different files"
        item = Item(tuple(map(int, rows)), how)
        labels = np.unique(manifest.labels[rows])
        is_split = len(np.unique(manifest.splits[rows])) > 1
        if len(labels) > 1:
            names = ", ".join(repr(manifest.class_map.names[label]) for label in labels)
            relabelled.append(item._replace(detail=f"{how}, labelled {names}"))
        if is_split:
            leaked.append(item)
        if len(labels) == 1 and not is_split:
            repeated.append(item)
    if relabelled:
        yield Finding(
            "duplicate-with-other-label",
            "error",
            f"{len(relabelled):,} images are there under several labels",
            "one label for an image",
            "keep the copy with the right label",
            tuple(relabelled),
        )
    if leaked:
        yield Finding(
            "duplicate-across-splits",
            "error",
            f"{len(leaked):,} images are in several splits",
            "no image to be learnt in one split and scored in another",
            "keep one copy of each (in train, or where it is scored)",
            tuple(leaked),
        )
    if repeated:
        yield Finding(
            "duplicate-in-split",
            "note",
            f"{len(repeated):,} images are there several times in their split",
            "each image once; copies count double in training and in scores",
            "keep one copy of each",
            tuple(repeated),
        )


def copy_groups(manifest: Manifest, facts: ImageStats | None) -> npt.NDArray[np.int64]:
    """Number the distinct images: ``(N,)``, equal for exact copies, -1 for what is no image."""
    groups = np.full(len(manifest), -1, dtype=np.int64)
    if facts is None:
        empty = np.frombuffer(
            hashlib.blake2b(digest_size=manifest.hashes.shape[1]).digest(), dtype=np.uint8
        )
        rows = np.flatnonzero((manifest.hashes != empty).any(axis=1))
        hashes = manifest.hashes
    else:
        rows, hashes = np.flatnonzero(facts.decoded), facts.pixel_hashes
    groups[rows] = equal_rows(hashes[rows])
    return groups


def _copies(
    manifest: Manifest, facts: ImageStats | None
) -> Iterator[tuple[npt.NDArray[np.int64], bool]]:
    """Yield the rows of each repeated image, and whether the files themselves are equal."""
    groups = copy_groups(manifest, facts)
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] >= 0]
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    found = [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]
    for rows in sorted(found, key=lambda rows: int(rows[0])):
        hashes = manifest.hashes[rows]
        yield rows, bool((hashes == hashes[0]).all())
