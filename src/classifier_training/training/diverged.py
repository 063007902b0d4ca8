"""The batch whose loss was not finite, in a file from which the step can be replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from loguru import logger

from classifier_training.artifacts.run_folder import RunFolder
from classifier_training.data.datamodule import ImageDataModule
from classifier_training.data.dataset import Batch
from classifier_training.errors import ClassifierTrainingError, DivergedError
from classifier_training.runtime.files import replacing
from classifier_training.training.finite import BadBatch, NonFiniteLossError

SCHEMA_VERSION = 1
# A larger batch is written without its images: epoch and batch say how to make them again.
MOST_BYTES = 256 << 20


def with_dump(
    error: NonFiniteLossError, folder: RunFolder, data: ImageDataModule, rank: int
) -> DivergedError:
    """Write the bad batch beside the run, and return the error that names the file.

    Training keeps no images of past steps, which would hold memory for nothing: a batch is a
    function of (seed, epoch, place), so it is made anew here.
    """
    bad = error.batch
    if bad is None or bad.place is None:
        return error
    path = folder.diverged / f"step={bad.step:06d}{f'-rank={rank}' if rank else ''}.pt"
    try:
        _write(path, bad, data)
    except (OSError, ClassifierTrainingError) as failure:
        logger.warning("run: the batch could not be written to {}: {}", path, failure)
        return error
    return DivergedError(
        f"{error.what}\n    the batch is in {path}", expected=error.expected, mend=error.mend
    )


def _write(path: Path, bad: BadBatch, data: ImageDataModule) -> None:
    assert bad.place is not None
    indices = bad.indices.cpu()
    names = [data.manifest.describe(int(index)) for index in indices]
    is_small = len(indices) * data.spec.image_bytes <= MOST_BYTES
    batch: Batch | None = data.batch_of(bad.place.epoch, bad.place.batch) if is_small else None
    if batch is not None and not torch.equal(batch.indices, indices):
        raise DivergedError(
            "the batch that was made anew holds other images",
            expected="the batch of the bad step",
            mend="this is a fault of this program; please report it",
        )
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "step": bad.step,
        "epoch": bad.place.epoch,
        "batch": bad.place.batch,
        "images": None if batch is None else batch.images,
        "labels": torch.from_numpy(data.manifest.labels[indices.numpy()]),
        "indices": indices,
        "files": names,
        "rng": bad.place.rng,
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)
