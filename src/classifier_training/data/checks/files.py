"""Files that are no complete images, and names that say another format than the content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

import numpy as np

from classifier_training.data.checks.findings import Finding, Item, Severity
from classifier_training.data.image_stats import ImageStats
from classifier_training.data.manifest import Manifest
from classifier_training.inference.images import IMAGE_EXTENSIONS, IMAGE_FORMATS

_MESSAGES = {
    "empty-file": "files are empty",
    "truncated-image": "images end too early",
    "not-an-image": "files are no images in a known format",
    "too-large-image": "images have more pixels than can be decoded safely",
    "damaged-image": "images are damaged",
    "unreadable-file": "files cannot be read",
}


def bad_images(facts: ImageStats, *, is_skipped: bool) -> Iterator[Finding]:
    """Report images that cannot be decoded completely.

    Args:
        facts: What decoding found.
        is_skipped: Whether they are left out (a warning) instead of stopping the run (an error).
    """
    items: dict[str, list[Item]] = {code: [] for code in _MESSAGES}
    for row in np.flatnonzero(~facts.decoded):
        code = bad_image_code(facts, int(row))
        items[code].append(Item((int(row),), facts.errors[int(row)]))
    severity: Severity = "warning" if is_skipped else "error"
    for code, found in items.items():
        if found:
            yield Finding(
                code,
                severity,
                f"{len(found):,} {_MESSAGES[code]}" + (", and left out" if is_skipped else ""),
                "complete images of a common format",
                "replace the files, remove their rows, or leave them out: data.on_bad_image=skip",
                tuple(found),
            )


def bad_image_code(facts: ImageStats, row: int) -> str:
    """Say what kind of fault an image has that could not be decoded."""
    error = facts.errors[row]
    if error.startswith("cannot be read"):
        return "unreadable-file"
    if not facts.file_bytes[row]:
        return "empty-file"
    if "pixels, the limit is" in error:
        return "too-large-image"
    if not facts.formats[row]:
        return "not-an-image"
    is_cut = any(
        word in error.lower() for word in ("truncated", "not enough", "end of", "too short")
    )
    return "truncated-image" if is_cut else "damaged-image"


def wrong_names(manifest: Manifest, facts: ImageStats) -> Iterator[Finding]:
    """Report images whose ending says another format than their first bytes."""
    items = []
    for row in np.flatnonzero(facts.decoded):
        ending = PurePath(manifest.paths[int(row)]).suffix.lower()
        found = facts.formats[int(row)]
        if found and ending in IMAGE_EXTENSIONS and ending not in IMAGE_FORMATS[found]:
            items.append(Item((int(row),), f"{ending} is {found}"))
    if items:
        yield Finding(
            "wrong-extension",
            "warning",
            f"{len(items):,} images are of another format than their name says",
            "names that end as the format does; other programs go by the name",
            "rename the files; training reads them as they are",
            tuple(items),
        )
