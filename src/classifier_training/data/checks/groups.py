"""The group gate: what must not be cut is in one split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from classifier_training.data.checks.findings import Finding, Item
from classifier_training.data.manifest import Manifest
from classifier_training.data.records import SPLITS


def cut_groups(manifest: Manifest) -> Iterator[Finding]:
    """Report groups (``data.group_by``) with images in several splits."""
    members: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(manifest.groups):
        if group:
            members[group].append(row)
    items = []
    for group, rows in members.items():
        splits, firsts, counts = np.unique(
            manifest.splits[rows], return_index=True, return_counts=True
        )
        if len(splits) > 1:
            where = ", ".join(
                f"{count} in {SPLITS[split]}" for split, count in zip(splits, counts, strict=True)
            )
            shown = tuple(rows[first] for first in firsts)
            items.append(Item(shown, f"group {group!r}: {where}"))
    if items:
        yield Finding(
            "group-across-splits",
            "error",
            f"{len(items):,} groups of data.group_by are in several splits",
            "a group in one split alone, so that no score is of what was learnt by heart",
            "move the images of each group into one split, or let the data be split again",
            tuple(items),
        )
