"""Counts of the data, written to ``data/statistics.json`` and shown at the start of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from classifier_training.data.index import DataIndex
from classifier_training.data.records import SPLITS


def statistics(index: DataIndex) -> dict[str, Any]:
    """Return counts per split and class as plain JSON values.

    ``imbalance_ratio`` is the most frequent class's count over that of the rarest present one;
    ``entropy_ratio`` the entropy of the class shares over its maximum (1.0: balanced).
    """
    manifest = index.manifest
    names = manifest.class_map.names
    splits: dict[str, Any] = {}
    for split in SPLITS:
        counts = manifest.counts(split)
        present = counts[counts > 0]
        if not len(present):
            continue
        shares = present / present.sum()
        entropy = float(-(shares * np.log(shares)).sum())
        splits[split] = {
            "images": int(counts.sum()),
            "classes_present": len(present),
            "imbalance_ratio": float(present.max() / present.min()),
            "entropy_ratio": entropy / float(np.log(len(names))),
            "per_class": {name: int(count) for name, count in zip(names, counts, strict=True)},
        }
    return {
        "num_classes": len(names),
        "loaded": len(manifest),
        "skipped": index.skipped,
        "notes": list(index.notes),
        "fingerprint": manifest.fingerprint(),
        "splits": splits,
    }
