"""Filling a cache: in parallel, once, and never half."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import multiprocessing
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from loguru import logger

from classifier_training.config.schema import DataConfig
from classifier_training.data.cache import (
    ENTRY,
    DamagedCacheError,
    Entries,
    PixelCache,
    cache_key,
    map_cache,
    open_cache,
    write_at,
    write_index,
)
from classifier_training.data.decoding import DecodeSpec, read_file
from classifier_training.data.loading import start_worker
from classifier_training.data.manifest import Manifest
from classifier_training.errors import ClassifierTrainingError, DataError
from classifier_training.system.files import file_lock, replacing
from classifier_training.system.progress import progress
from classifier_training.system.resources import available_memory

_ROWS_A_TASK = 32

OnImages = Callable[[int, int], None]


class CacheFullError(Exception):
    """There is no room. Never reaches a user: the run reads the files instead."""


class _Counter(Protocol):
    value: int

    def get_lock(self) -> Any: ...


@dataclass
class _OwnCounter:
    """Of a process that decodes alone: needs no shared memory, which may be forbidden."""

    value: int = 0

    def get_lock(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


@dataclass(frozen=True)
class CacheJob:
    """What a cache is to hold.

    Attributes:
        manifest: The images.
        rows: Which of them.
        recipe: What is made of each.
        workers: Processes that decode; 0 does it here.
        limit: Bytes of pixels it may hold.
        on_images: Called with (done, total).
    """

    manifest: Manifest
    rows: npt.NDArray[np.int64]
    recipe: DecodeSpec
    workers: int
    limit: int
    on_images: OnImages

    @property
    def key(self) -> str:
        """See :func:`cache_key`."""
        return cache_key(self.manifest, self.rows, self.recipe)


def cache_in_memory(job: CacheJob) -> PixelCache:
    """Build a cache in memory without a name; it goes with the last process that maps it.

    Raises:
        CacheFullError: No room.
        DataError: An image cannot be read or decoded.
    """
    file = os.memfd_create("classifier-cache")
    try:
        _fill(file, job)
        return map_cache(file, job.key, job.manifest)
    finally:
        os.close(file)


def cache_on_disk(job: CacheJob, folder: Path) -> PixelCache:
    """Open the cache of this key, or build it; of two runs at once one builds, the other waits.

    Raises:
        CacheFullError: No room, or the folder cannot be used.
        DataError: An image cannot be read or decoded.
    """
    path = folder / f"{job.key}.pixels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / f".{job.key}.lock"):
            if (cache := _existing(path, job)) is not None:
                return cache
            with replacing(path) as temporary:
                file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
                try:
                    _fill(file, job)
                    cache = map_cache(file, job.key, job.manifest)
                finally:
                    os.close(file)
            return cache
    except OSError as error:
        raise CacheFullError(f"{folder}: {error.strerror or error}") from error


def _existing(path: Path, job: CacheJob) -> PixelCache | None:
    try:
        cache = open_cache(path, job.key, job.manifest)
    except FileNotFoundError:
        return None
    except DamagedCacheError as error:
        logger.warning("cache: {} is damaged ({}); building it again", path, error)
        return None
    logger.info("cache: found {}", path)
    return cache


def _fill(file: int, job: CacheJob) -> None:
    """Write pixels and index; each content once."""
    _, first = np.unique(job.manifest.hashes[job.rows], axis=0, return_index=True)
    rows = job.rows[np.sort(first)]
    tasks = [rows[start : start + _ROWS_A_TASK] for start in range(0, len(rows), _ROWS_A_TASK)]
    taken: _Counter = _OwnCounter()
    if job.workers:
        taken = multiprocessing.get_context("fork").Value("q", 0)
    store = partial(_store, _Target(file, job.manifest, job.recipe, job.limit, taken))
    entries, done = [], 0
    for found in _in_processes(store, tasks, job.workers):
        if isinstance(found, Exception):
            raise found
        entries.append(found)
        done += len(found)
        job.on_images(done, len(rows))
    whole: Entries = np.concatenate(entries)
    write_index(file, whole, taken.value, job.key)


@dataclass(frozen=True)
class _Target:
    file: int
    manifest: Manifest
    recipe: DecodeSpec
    limit: int
    taken: _Counter


_Found = Entries | ClassifierTrainingError | CacheFullError


def _store(target: _Target, rows: npt.NDArray[np.int64]) -> _Found:
    """Decode images and write them behind what is there; an error is returned, not raised.

    Pickled, an exception would lose its arguments by keyword or its cause.
    """
    entries: Entries = np.zeros(len(rows), dtype=ENTRY)
    try:
        for at, row in enumerate(rows):
            data = _unchanged(target.manifest, int(row))
            pixels = target.recipe.pixels(data, target.manifest.describe(int(row)))
            flat = np.ascontiguousarray(pixels).data.cast("B")
            with target.taken.get_lock():
                offset = target.taken.value
                target.taken.value += len(flat)
            if offset + len(flat) > target.limit:
                return CacheFullError(f"it would need more than {target.limit / 1e9:.1f} GB")
            write_at(target.file, flat, offset)
            height, width, _ = pixels.shape
            entries[at] = (target.manifest.hashes[row], offset, height, width, zlib.crc32(flat))
    except ClassifierTrainingError as error:
        return error
    except OSError as error:
        return CacheFullError(error.strerror or str(error))
    return entries


def _unchanged(manifest: Manifest, row: int) -> bytes:
    data = read_file(manifest, row)
    expected = manifest.hashes[row].tobytes()
    if hashlib.blake2b(data, digest_size=len(expected)).digest() != expected:
        raise DataError(
            f"image {manifest.describe(row)} changed since the run read its data",
            expected="the data to stay as it is while a run is working",
            fix="run the same command again when nothing writes to the data any more",
        )
    return data


# What a forked worker does; set before the fork, because a lock cannot be sent to a process.
_task: Callable[[npt.NDArray[np.int64]], _Found] | None = None


def _run_task(rows: npt.NDArray[np.int64]) -> _Found:
    assert _task is not None
    return _task(rows)


def _start(task: Callable[[npt.NDArray[np.int64]], _Found], parent: int) -> None:
    global _task  # noqa: PLW0603 - the process belongs to this pool alone
    _task = task
    start_worker(0)
    _die_with(parent)


def _die_with(parent: int) -> None:
    """Have Linux end this process when the one that waits for it was killed."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
        if os.getppid() != parent:
            os._exit(1)


def _in_processes(
    task: Callable[[npt.NDArray[np.int64]], _Found],
    batches: list[npt.NDArray[np.int64]],
    workers: int,
) -> Iterator[_Found]:
    if workers == 0 or len(batches) == 1:
        yield from map(task, batches)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(batches)),
        mp_context=multiprocessing.get_context("fork"),
        initializer=_start,
        initargs=(task, os.getpid()),
    )
    try:
        yield from pool.map(_run_task, batches)
    except BrokenProcessPool as error:
        raise CacheFullError("a process that decoded was killed, mostly for memory") from error
    finally:
        pool.shutdown(cancel_futures=True)


# Share of what is free that a cache may take: automatically, and when it was asked for.
_MODEST, _BOLD = 0.5, 0.9
_SAMPLE = 16
_SPARE = 1.1  # the sample's mean is not that of all images


@dataclass(frozen=True)
class CacheLocation:
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
    recipes: Mapping[str, DecodeSpec],
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
) -> CacheLocation | str:
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
        return CacheLocation(None, room, f"in memory, of which {room / 1e9:.1f} GB may be used")
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
    return CacheLocation(folder, limit, f"in {folder}")


def _estimate(manifest: Manifest, rows: npt.NDArray[np.int64], recipe: DecodeSpec) -> int:
    """Return the bytes that the pixels of ``rows`` take, from a sample of them."""
    if not len(rows):
        return 0
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64))]
    sizes = [
        recipe.pixels(read_file(manifest, int(row)), manifest.describe(int(row))).size
        for row in sample
    ]
    return int(_SPARE * np.mean(sizes) * len(rows))
