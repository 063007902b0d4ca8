"""Notices a loss that is not finite without waiting for the device at each step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import Tensor

from classifier_training.data.datamodule import ImageDataModule
from classifier_training.data.dataset import Batch
from classifier_training.errors import ClassifierTrainingError, DivergedError
from classifier_training.run.folder import RunFolder
from classifier_training.system.files import replacing
from classifier_training.training.distributed import RngStates

_SHOWN = 8


@dataclass(frozen=True)
class BatchPlace:
    """Where a batch stands in the run, and what the network was about to draw from.

    Attributes:
        epoch: From 0.
        batch: In the epoch, from 0.
        rng: The random states before the step.
    """

    epoch: int
    batch: int
    rng: RngStates


@dataclass(frozen=True)
class BadBatch:
    """A batch whose loss is not finite.

    Attributes:
        step: The optimiser step it belonged to, from 0.
        indices: ``(N,)`` int64 manifest indices.
        place: None where nobody said.
    """

    step: int
    indices: Tensor
    place: BatchPlace | None


class NonFiniteLossError(DivergedError):
    """The loss was not finite; knows the batch, if it is recent enough.

    Args:
        batch: The first bad one.
    """

    def __init__(self, what: str, *, expected: str, fix: str, batch: BadBatch | None) -> None:
        super().__init__(what, expected=expected, fix=fix)
        self.batch = batch


class FiniteGuard:
    """Keeps a flag on the device, and which images the recent steps saw.

    Args:
        every: How many steps pass between two looks at the flag.
        name_of: Names the image of a manifest index.
    """

    def __init__(self, every: int, name_of: Callable[[int], str]) -> None:
        self._every = every
        self._name_of = name_of
        self._first_bad: Tensor | None = None
        self._recent: deque[tuple[int, BadBatch]] = deque(maxlen=every + 1)
        self._seen = 0

    def observe(
        self, loss: Tensor, indices: Tensor, step: int, place: BatchPlace | None = None
    ) -> None:
        """Note the loss of a batch; look at the flag every ``every`` batches.

        Args:
            loss: Scalar, on the device.
            indices: ``(N,)`` manifest indices.
            step: The optimiser step that this batch belongs to, from 0.
            place: Where it stands, for the record of a bad one.

        Raises:
            NonFiniteLossError: A loss since the last look was not finite.
        """
        self._recent.append((self._seen, BadBatch(step, indices, place)))
        if self._first_bad is None:
            self._first_bad = torch.full((2,), -1, dtype=torch.int64, device=loss.device)
        now = torch.tensor([self._seen, step], dtype=torch.int64)
        if loss.device.type == "cuda":
            now = now.pin_memory()  # else the copy would wait
        now = now.to(loss.device, non_blocking=True)
        is_first = ~torch.isfinite(loss.detach()) & (self._first_bad[0] < 0)
        self._first_bad = torch.where(is_first, now, self._first_bad)
        self._seen += 1
        if self._seen % self._every == 0:
            self.check()

    def check(self) -> None:
        """Read the flag.

        Raises:
            NonFiniteLossError: A loss was not finite; the message names the step and the images.
        """
        if self._first_bad is None:
            return
        batch, step = self._first_bad.tolist()
        if batch < 0:
            return
        bad = next((bad for number, bad in self._recent if number == batch), None)
        names = [] if bad is None else [self._name_of(int(index)) for index in bad.indices]
        listed = "\n    ".join(names[:_SHOWN])
        more = f"\n    … and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise NonFiniteLossError(
            f"the loss is not finite at optimiser step {step}; its batch was:\n    {listed}{more}",
            expected="a finite loss",
            fix="a lower optimizer.learning_rate, trainer.gradient_clip_val=1.0, or "
            "trainer.precision=32-true; look at these images too. The checkpoints hold the last "
            "finite weights",
            batch=bad,
        )


def require_finite_weights(tensors: Iterable[Tensor], what: str) -> None:
    """Refuse to save weights that are not finite.

    Raises:
        DivergedError: One value is infinite or no number.
    """
    floats = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
    # A finite Euclidean norm has finite values only, and is the quickest to compute. It is infinite
    # for large finite values too (beyond 1e19): then the largest magnitude, which takes six times
    # as long, decides. One read from the device for all tensors.
    if not any(_all_finite(floats, order) for order in (2.0, float("inf"))):
        raise DivergedError(
            f"{what} are not finite",
            expected="finite weights",
            fix="a lower optimizer.learning_rate, trainer.gradient_clip_val=1.0, or "
            "trainer.precision=32-true. The checkpoints hold the last finite weights",
        )


def _all_finite(tensors: list[Tensor], order: float) -> bool:
    norms = torch._foreach_norm(tensors, ord=order)
    return bool(torch.isfinite(torch.stack(norms)).all())


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
        f"{error.what}\n    the batch is in {path}", expected=error.expected, fix=error.fix
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
            fix="this is a fault of this program; please report it",
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
