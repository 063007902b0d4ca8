"""Automatic splits: stratified by class and a function of (seed, path) alone."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from classifier_training.config.schema import SplitConfig
from classifier_training.data.records import Record


def assign_splits(records: Sequence[Record], config: SplitConfig) -> tuple[list[Record], str]:
    """Give every record a split, taking what the data does not bring from its training part.

    Data without any split is cut into train, val and test; data with a train but no val gives up
    a share of its train. A missing test stays missing when train and val exist: it was decided by
    whoever split the data.

    Returns:
        The records, and a sentence about what was done (empty when nothing was).
    """
    present = {record.split for record in records}
    if "" in present:
        parts = {"val": config.val, "test": config.test}
        note = f"split into train, val ({config.val:.0%}) and test ({config.test:.0%}), stratified"
        source = ""
    elif "val" not in present:
        parts = {"val": config.val}
        note = f"there is no val split: {config.val:.0%} of train is taken for it, stratified"
        source = "train"
    else:
        return list(records), ""
    by_class: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.split == source:
            by_class[record.label].append(record)
    assigned = {
        record.path: split
        for members in by_class.values()
        for record, split in _cut(members, parts, config.seed)
    }
    return [record._replace(split=assigned.get(record.path, record.split)) for record in records], (
        f"{note} (seed {config.seed})"
    )


def _cut(members: list[Record], parts: dict[str, float], seed: int) -> list[tuple[Record, str]]:
    """Assign the members of one class; at least one stays in train, a class of one never leaves."""
    ordered = sorted(members, key=lambda record: _rank(record.path, seed))
    counts = {split: int(share * len(ordered) + 0.5) for split, share in parts.items()}
    while sum(counts.values()) > len(ordered) - 1:
        largest = max(counts, key=lambda split: counts[split])
        counts[largest] -= 1
    names = [split for split, count in counts.items() for _ in range(count)]
    names += ["train"] * (len(ordered) - len(names))
    return list(zip(ordered, names, strict=True))


def _rank(path: str, seed: int) -> bytes:
    text = f"{seed}:{path}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=8).digest()
