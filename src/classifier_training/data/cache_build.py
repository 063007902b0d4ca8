"""Filling a cache: in parallel, once, and never half."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import multiprocessing
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from loguru import logger

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
from classifier_training.data.loading import start_worker
from classifier_training.data.manifest import Manifest
from classifier_training.data.recipe import Recipe, read_file
from classifier_training.errors import ClassifierTrainingError, DataError
from classifier_training.runtime.files import replacing

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
    recipe: Recipe
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
        with _locked(folder / f".{job.key}.lock"):
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


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system gives back even when this process is killed."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("cache: another run is building it; waiting for {}", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            # A file system without locks: both build, and the last whole file stays.
            logger.debug("cache: {} cannot be locked", path)
        yield


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
    recipe: Recipe
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
            mend="run the same command again when nothing writes to the data any more",
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
