"""Images that decode but show too little: tiny, very long, or of a single colour."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from classifier_training.data.checks.findings import Finding, Item, Limits
from classifier_training.data.image_stats import ImageStats

# Deviation (of values 0..1) up to which an image counts as a single colour: half a grey level.
_SINGLE_COLOUR_STD = 0.5 / 255


def odd_pictures(facts: ImageStats, limits: Limits) -> Iterator[Finding]:
    """Report tiny images, extreme shapes and single colours, among those that decode."""
    decoded = facts.decoded
    shorter = np.minimum(facts.widths, facts.heights)
    aspect = np.maximum(facts.widths, facts.heights) / np.maximum(shorter, 1)
    if items := _sized(facts, decoded & (shorter < limits.min_image_side)):
        yield Finding(
            "tiny-image",
            "warning",
            f"{len(items):,} images are shorter than {limits.min_image_side} pixels on a side",
            f"at least data.min_image_side={limits.min_image_side} pixels",
            "remove them if nobody could tell their class",
            items,
        )
    if items := _sized(facts, decoded & (aspect > limits.max_aspect_ratio)):
        yield Finding(
            "extreme-aspect",
            "warning",
            f"{len(items):,} images are over {limits.max_aspect_ratio:g} times as long as wide",
            f"at most data.max_aspect_ratio={limits.max_aspect_ratio:g}; resizing distorts them",
            "crop or remove them, or keep the shape: transforms.resize=pad",
            items,
        )
    flat = np.flatnonzero(single_coloured(facts))
    if len(flat):
        colours = np.round(facts.means * 255).astype(int)
        yield Finding(
            "single-colour",
            "warning",
            f"{len(flat):,} images show a single colour",
            "pictures",
            "remove them; they often come from a failed download or a broken camera",
            tuple(Item((int(row),), f"rgb{tuple(map(int, colours[row]))}") for row in flat),
        )


def _sized(facts: ImageStats, chosen: npt.NDArray[np.bool_]) -> tuple[Item, ...]:
    return tuple(
        Item((int(row),), f"{facts.widths[row]} x {facts.heights[row]} pixels")
        for row in np.flatnonzero(chosen)
    )


def single_coloured(facts: ImageStats) -> npt.NDArray[np.bool_]:
    """``(N,)``: whether each image decodes to one colour, which says nothing about its content."""
    is_flat: npt.NDArray[np.bool_] = facts.stds.max(axis=1) <= _SINGLE_COLOUR_STD
    return facts.decoded & is_flat
