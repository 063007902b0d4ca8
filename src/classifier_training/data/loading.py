"""Batches from worker processes, for training and for evaluation."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from classifier_training.data.dataset import Batch, EvaluationDataset, TrainingDataset
from classifier_training.data.sampling import EpochBatchSampler
from classifier_training.runtime.cores import available_cores

_MOST_WORKERS = 8


def resolve_workers(asked: int | Literal["auto"]) -> int:
    """Return the number of loader processes; ``auto``: the allowed cores, at most 8."""
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
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=_as_is,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_leave_process_group,
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
    """Return a loader over ``rows`` (manifest indices) in their order, last batch included."""
    batches = [
        [int(index) for index in rows[start : start + batch_size]]
        for start in range(0, len(rows), batch_size)
    ]
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_as_is,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        worker_init_fn=_leave_process_group,
        generator=torch.Generator(),
    )


def _as_is(loaded: Any) -> Any:
    return loaded  # the dataset already makes whole batches


def _leave_process_group(_worker: int) -> None:
    """Leave SIGTERM and SIGINT to the main process.

    Terminals and supervisors send both to the whole process group; a worker that dies of one
    would surface as a crash in mid-batch, before the main process could save. Ignoring SIGTERM
    instead would also ignore the main process, which ends leftover workers with it.
    """
    os.setpgid(0, 0)
