"""Whether decoded pixels are kept, and where."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from loguru import logger

from classifier_training.config.schema import DataConfig
from classifier_training.data.cache import PixelCache
from classifier_training.data.cache_build import (
    CacheFullError,
    CacheJob,
    cache_in_memory,
    cache_on_disk,
)
from classifier_training.data.manifest import Manifest
from classifier_training.data.recipe import Recipe, read_file
from classifier_training.runtime.memory import available_memory
from classifier_training.runtime.progress import progress

# Share of what is free that a cache may take: automatically, and when it was asked for.
_MODEST, _BOLD = 0.5, 0.9
_SAMPLE = 16
_SPARE = 1.1  # the sample's mean is not that of all images


@dataclass(frozen=True)
class Place:
    """Where a cache goes.

    Attributes:
        folder: On disk; None is memory.
        limit: Bytes it may take.
        reason: Why, for the log.
    """

    folder: Path | None
    limit: int
    reason: str


def open_caches(
    manifest: Manifest,
    recipes: Mapping[str, Recipe],
    config: DataConfig,
    *,
    workers: int,
    processes: int,
    why_not: str | None,
) -> dict[str, PixelCache]:
    """Open or build the caches of some splits; those that do not fit are left out.

    Args:
        manifest: The images.
        recipes: What is made of the images of each split.
        config: Says which kind.
        workers: Processes that decode.
        processes: Training processes on this machine, each of which holds its own memory.
        why_not: Why ``auto`` would not pay; None when it does.

    Raises:
        DataError: An image cannot be read or decoded.
    """
    if config.cache == "none":
        return {}
    if config.cache == "auto" and why_not is not None:
        logger.info("cache: none ({})", why_not)
        return {}
    rows = {split: manifest.rows(split) for split in recipes}
    needed = sum(_estimate(manifest, rows[split], recipes[split]) for split in recipes)
    place = choose_place(config, needed, available_memory(), processes)
    if isinstance(place, str):
        logger.log("INFO" if config.cache == "auto" else "WARNING", "cache: none ({})", place)
        return {}
    logger.info("cache: {}, about {:,.0f} MB", place.reason, needed / 1e6)
    caches, left = {}, place.limit
    for split, recipe in recipes.items():
        try:
            with progress(f"cache {split}") as on_images:
                job = CacheJob(manifest, rows[split], recipe, workers, left, on_images)
                if place.folder is None:
                    caches[split] = cache_in_memory(job)
                else:
                    caches[split] = cache_on_disk(job, place.folder)
        except CacheFullError as error:
            logger.warning("cache: {} is read from its files: {}", split, error)
        else:
            left -= len(caches[split].pixels)
    return caches


def choose_place(
    config: DataConfig, needed: int, memory: int | None, processes: int
) -> Place | str:
    """Return where the cache goes, or why there is none.

    Args:
        config: Says which kind.
        needed: Bytes, about.
        memory: Bytes that are free; None when unknown.
        processes: How many share them.
    """
    share = _BOLD if config.cache == "ram" else _MODEST
    room = int(share * memory / processes) if memory and hasattr(os, "memfd_create") else 0
    if config.cache in ("auto", "ram") and 0 < needed <= room:
        return Place(None, room, f"in memory, of which {room / 1e9:.1f} GB may be used")
    reason = f"it needs {needed / 1e9:.1f} GB, and {room / 1e9:.1f} GB of memory may be used"
    if config.cache_dir is None or config.cache == "ram":
        return reason
    folder = Path(config.cache_dir).expanduser().absolute()
    try:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = int(_BOLD * shutil.disk_usage(existing).free)
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    # What is already there needs no room.
    limit = max(free, needed * 2 if any(folder.glob("*.pixels")) else 0)
    if needed > limit:
        return f"it needs {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB"
    return Place(folder, limit, f"in {folder}")


def _estimate(manifest: Manifest, rows: npt.NDArray[np.int64], recipe: Recipe) -> int:
    """Return the bytes that the pixels of ``rows`` take, from a sample of them."""
    if not len(rows):
        return 0
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64))]
    sizes = [
        recipe.pixels(read_file(manifest, int(row)), manifest.describe(int(row))).size
        for row in sample
    ]
    return int(_SPARE * np.mean(sizes) * len(rows))
