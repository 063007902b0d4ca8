"""Classes that are too small, or not in every split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from classifier_training.data.checks.findings import Finding, Item, Limits
from classifier_training.data.manifest import Manifest


def class_counts(manifest: Manifest, limits: Limits) -> Iterator[Finding]:
    """Report classes without training images, small ones, and those that val or test lacks."""
    names = manifest.class_map.names
    train = manifest.counts("train")
    if missing := _items(names, train == 0, "no training image"):
        yield Finding(
            "class-without-training-images",
            "warning",
            f"{len(missing):,} classes have no training image",
            "images for each class of data.classes",
            "add images, or take the classes out of data.classes",
            missing,
        )
    small = (train > 0) & (train < limits.min_class_images)
    if small.any():
        yield Finding(
            "small-class",
            "warning",
            f"{int(small.sum()):,} classes have fewer than {limits.min_class_images} training "
            "images",
            f"at least data.min_class_images={limits.min_class_images}, to be learnt and split",
            "add images, merge classes, or leave the classes out",
            tuple(
                Item((), f"class {names[index]!r}: {train[index]} training image(s)")
                for index in np.flatnonzero(small)
            ),
        )
    for split in ("val", "test"):
        counts = manifest.counts(split)
        absent = _items(names, (counts == 0) & (train > 0), f"no image in {split}")
        if counts.sum() and absent:
            yield Finding(
                f"class-missing-in-{split}",
                "warning" if split == "val" else "note",
                f"{len(absent):,} classes of the training data have no image in {split}",
                f"every class in {split}: without images, its score is unknown",
                f"move images of these classes to {split}, or let the data be split again",
                absent,
            )


def _items(names: tuple[str, ...], chosen: npt.NDArray[np.bool_], what: str) -> tuple[Item, ...]:
    return tuple(Item((), f"class {names[index]!r}: {what}") for index in np.flatnonzero(chosen))
