"""Images of different splits that look nearly alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from classifier_training.data.checks.duplicates import copy_groups
from classifier_training.data.checks.findings import Finding, Item, Limits
from classifier_training.data.checks.pictures import single_coloured
from classifier_training.data.image_stats import ImageStats
from classifier_training.data.manifest import Manifest

_BITS = 64
_BITS_OF_BYTE = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)
Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]


def near_duplicates(manifest: Manifest, facts: ImageStats, limits: Limits) -> Iterator[Finding]:
    """Report, for each image, the most similar one in an earlier split, when it is close.

    Exact copies are reported elsewhere, and a single colour is like every other.
    """
    rows = np.flatnonzero(facts.decoded & ~single_coloured(facts))
    distance = limits.near_duplicate_distance
    items = [
        Item((int(rows[first]), int(rows[second])), f"distance {found} of {_BITS}")
        for first, second, found in _closest_in_earlier_split(
            facts.perceptual_hashes[rows],
            manifest.splits[rows],
            copy_groups(manifest, facts)[rows],
            distance,
        )
    ]
    if items:
        yield Finding(
            "near-duplicate-across-splits",
            "warning",
            f"{len(items):,} images look nearly like one of another split",
            f"a perceptual hash that differs in over data.near_duplicate_distance={distance} of "
            f"{_BITS} bits",
            "look at the pairs; keep those of one scene in one split (data.group_by)",
            tuple(items),
        )


def _closest_in_earlier_split(
    hashes: npt.NDArray[np.uint64],
    splits: npt.NDArray[np.uint8],
    groups: npt.NDArray[np.int64],
    distance: int,
) -> list[tuple[int, int, int]]:
    """Return (place in an earlier split, place, distance) for each place with a close one."""
    # One representative of equal (hash, split, exact copy) is enough, and the pairs stay few even
    # when thousands of images have one hash.
    keys = np.rec.fromarrays((hashes, splits, groups))
    _, kept, member = np.unique(keys, return_index=True, return_inverse=True)
    first, second, apart = close_pairs(hashes[kept], distance)
    first, second = np.concatenate((first, second)), np.concatenate((second, first))
    apart = np.concatenate((apart, apart))
    is_wanted = (splits[kept[first]] < splits[kept[second]]) & (
        groups[kept[first]] != groups[kept[second]]
    )
    first, second, apart = first[is_wanted], second[is_wanted], apart[is_wanted]
    order = np.lexsort((first, apart, second))
    second_sorted = second[order]
    best = order[np.flatnonzero(np.diff(second_sorted, prepend=-1))]
    partner = np.full(len(kept), -1, dtype=np.int64)
    partner[second[best]] = best
    found = partner[member.reshape(-1)]
    return [
        (int(kept[first[found[place]]]), int(place), int(apart[found[place]]))
        for place in np.flatnonzero(found >= 0)
    ]


def close_pairs(hashes: npt.NDArray[np.uint64], distance: int) -> Pairs:
    """Find all pairs of 64-bit hashes that differ in at most ``distance`` bits.

    The hashes are cut into ``distance + 2`` bands; of two that are close, at least two bands are
    equal. Only hashes with two equal bands are compared (after Norouzi et al.: Fast Exact Search in
    Hamming Space with Multi-Index Hashing, 2014), a hundred thousand in seconds.

    Args:
        hashes: ``(N,)`` uint64.
        distance: Bits.

    Returns:
        ``(P,)`` first place, second place and distance of the pairs, each once, first < second.
    """
    edges = np.linspace(0, _BITS, distance + 3).astype(int)
    bands = [(1 << int(high)) - (1 << int(low)) for low, high in itertools.pairwise(edges)]
    found: list[npt.NDArray[np.int64]] = []
    for one, other in itertools.combinations(bands, 2):
        found.extend(_pairs_that_agree(hashes, np.uint64(one | other), distance))
    pairs = np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 3), dtype=np.int64)
    return pairs[:, 0], pairs[:, 1], pairs[:, 2]


def _pairs_that_agree(
    hashes: npt.NDArray[np.uint64], mask: np.uint64, distance: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the close ones, as rows (place, place, distance), of those equal under the mask."""
    masked = hashes & mask
    order = np.argsort(masked, kind="stable")
    masked = masked[order]
    # The places whose neighbour ``step`` further agrees; fewer with every step.
    here = np.arange(len(order))
    for step in itertools.count(1):
        here = here[here + step < len(order)]
        here = here[masked[here] == masked[here + step]]
        if not len(here):
            return
        first, second = order[here], order[here + step]
        differing = (hashes[first] ^ hashes[second]).view(np.uint8).reshape(-1, 8)
        apart = _BITS_OF_BYTE[differing].sum(axis=1)
        close = apart <= distance
        if close.any():
            first, second = first[close], second[close]
            yield np.stack(
                (np.minimum(first, second), np.maximum(first, second), apart[close]), axis=1
            ).astype(np.int64)
