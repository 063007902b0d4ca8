"""Batches from worker processes, for training and for evaluation."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from classifier_training.data.dataset import Batch, EvaluationDataset, TrainingDataset
from classifier_training.data.sampling import EpochBatchSampler
from classifier_training.system.resources import (
    LoaderPlan,
    available_cores,
    can_start_processes,
    fit_shared_memory,
)

_MOST_WORKERS = 8
_EVALUATION_PREFETCH = 2

# Parameter numbers of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def resolve_workers(asked: int | Literal["auto"]) -> int:
    """Return the number of loader processes; ``auto``: the allowed cores, at most 8.

    None where the system lets none be started.
    """
    if not can_start_processes():
        return 0
    return min(available_cores(), _MOST_WORKERS) if asked == "auto" else asked


def training_loader(
    dataset: TrainingDataset,
    sampler: EpochBatchSampler,
    *,
    workers: int,
    prefetch: int,
    pin_memory: bool,
) -> DataLoader[Batch]:
    """Return a loader that yields :class:`Batch` in the sampler's order."""
    batch_bytes = sampler.batch_size * dataset.spec.image_bytes
    workers, prefetch = fit_shared_memory(LoaderPlan(workers, prefetch), batch_bytes)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=_as_is,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        generator=torch.Generator(),
    )


def evaluation_loader(
    dataset: EvaluationDataset,
    rows: npt.NDArray[np.int64],
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool,
) -> DataLoader[Batch]:
    """Return a loader over ``rows`` (manifest indices) in their order, last batch included.

    Its workers end with the last batch: between two validations they would only hold memory.
    """
    batches = [
        [int(index) for index in rows[start : start + batch_size]]
        for start in range(0, len(rows), batch_size)
    ]
    batch_bytes = min(batch_size, len(rows)) * dataset.spec.image_bytes
    workers, prefetch = fit_shared_memory(LoaderPlan(workers, _EVALUATION_PREFETCH), batch_bytes)
    return _EndingLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_as_is,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        generator=torch.Generator(),
    )


class _EndingLoader(DataLoader[Batch]):
    """Ends its workers when the last batch is there.

    Lightning never asks for the batch after the last, which is when a DataLoader would notice.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # narrower than torch's own
        if not len(self):
            return
        batches = super().__iter__()
        for _ in range(len(self) - 1):
            yield next(batches)
        last = next(batches)
        del batches
        yield last


@contextlib.contextmanager
def shared_heap(workers: int) -> Iterator[None]:
    """Keep the objects that exist by now in memory that loader processes share.

    The garbage collector writes into every object it looks at, and after a fork each page it writes
    to is copied: 250 MB a worker for the imported modules alone. Without loader processes nothing
    is done.
    """
    if not workers:
        yield
        return
    gc.collect()
    gc.freeze()
    # What reading the data left empty would count for every worker.
    _call_libc("malloc_trim", 0)
    try:
        yield
    finally:
        gc.unfreeze()


def _as_is(loaded: Any) -> Any:
    return loaded  # the dataset already makes whole batches


def start_worker(_worker: int) -> None:
    """Leave the process group, and the shared heap as it is.

    Terminals and supervisors send SIGTERM and SIGINT to the whole group; a worker that dies of one
    would surface as a crash in mid-batch, before the main process could save. Ignoring SIGTERM
    instead would also ignore the main process, which ends leftover workers with it.
    """
    os.setpgid(0, 0)
    gc.freeze()
    bound_heap()


def bound_heap() -> None:
    """Give whole batches back to the system instead of growing the heap around them.

    glibc raises its threshold for that by itself; images of many sizes then leave holes that came
    to 200 MB a worker.
    """
    _call_libc("mallopt", _M_MMAP_THRESHOLD, 1 << 20)
    _call_libc("mallopt", _M_TRIM_THRESHOLD, 32 << 20)


def _call_libc(name: str, *arguments: int) -> None:
    """Call a function that glibc has; other C libraries have neither it nor the habit it fixes."""
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)
