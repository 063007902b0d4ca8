"""Which images make up each batch: a function of (seed, epoch), never of workers or history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from classifier_training.data.manifest import Manifest


class Draw(NamedTuple):
    """What a loader worker is asked for.

    ``epoch`` and ``position`` (in the epoch's order over all processes) seed the augmentation, so
    that an image drawn twice by a weighted sampler is augmented in two ways; ``row`` is the index
    into the manifest.
    """

    epoch: int
    position: int
    row: int


class EpochBatchSampler(Sampler[list[Draw]]):
    """Yields batches of :class:`Draw`.

    Lightning asks for an iterator before it tells the epoch, and a resumed run starts inside one:
    both are given here at construction. ``len`` is always that of a whole epoch.

    Args:
        rows: ``(N,)`` manifest indices of the training images.
        batch_size: Images a batch.
        seed: Seed of the run.
        weights: ``(N,)`` drawing probabilities (with replacement), or None for a permutation.
        epoch: The epoch of the first iterator.
        start_batch: Batches of that epoch that are already done.
        rank: Which of the processes this is.
        world_size: How many processes share an epoch.
    """

    def __init__(
        self,
        rows: npt.NDArray[np.int64],
        *,
        batch_size: int,
        seed: int,
        weights: npt.NDArray[np.float64] | None = None,
        epoch: int = 0,
        start_batch: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._rows = rows
        self.batch_size = batch_size
        self._seed = seed
        self._weights = weights
        self._epoch = epoch
        self._start = (epoch, start_batch)
        self._rank = rank
        self._world_size = world_size

    @property
    def sampler(self) -> EpochBatchSampler:
        """Itself: Lightning calls ``loader.batch_sampler.sampler.set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iterator."""
        self._epoch = epoch

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the manifest indices of an epoch in the order all processes draw them."""
        rng = np.random.default_rng([self._seed, epoch])
        if self._weights is None:
            return rng.permutation(self._rows)
        return rng.choice(self._rows, size=len(self._rows), replace=True, p=self._weights)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """``(N,)`` manifest indices of the training images."""
        return self._rows

    @property
    def weights(self) -> npt.NDArray[np.float64] | None:
        """``(N,)`` drawing probabilities, None when every image comes once an epoch."""
        return self._weights

    def drawn(self, epoch: int, batches: int) -> npt.NDArray[np.int64]:
        """Return the manifest indices that all processes draw in an epoch's first ``batches``."""
        share = len(self._rows) // self._world_size
        each = self._bounds(share)[:batches][-1][1]
        return self.order(epoch)[: each * self._world_size]

    def __len__(self) -> int:
        return len(self._bounds(len(self._rows) // self._world_size))

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch = self._epoch
        order = self.order(epoch)
        share = len(order) // self._world_size
        positions = range(self._rank, share * self._world_size, self._world_size)
        first_epoch, start_batch = self._start
        for start, end in self._bounds(share)[start_batch if epoch == first_epoch else 0 :]:
            yield [Draw(epoch, at, int(order[at])) for at in positions[start:end]]

    def _bounds(self, count: int) -> list[tuple[int, int]]:
        """Cut ``count`` images into batches.

        A last batch of one would break BatchNorm, so that image joins the batch before it.
        """
        starts = list(range(0, count, self.batch_size))
        if len(starts) > 1 and count - starts[-1] == 1:
            starts.pop()
        return list(zip(starts, [*starts[1:], count], strict=True))


@dataclass(frozen=True)
class ClassDraws:
    """Counts of one epoch, over all processes.

    Attributes:
        images: ``(C,)`` training images.
        expected: ``(C,)`` float64 draws to be expected.
        drawn: ``(C,)`` draws.
    """

    images: npt.NDArray[np.int64]
    expected: npt.NDArray[np.float64]
    drawn: npt.NDArray[np.int64]

    @property
    def deviations(self) -> npt.NDArray[np.float64]:
        """``(C,)`` ``drawn - expected`` in standard deviations of the binomial distribution.

        For draws with replacement; 0 where nothing else than ``expected`` can come.
        """
        total = max(1, int(self.drawn.sum()))
        spread = np.sqrt(self.expected * (1 - self.expected / total))
        return np.divide(
            self.drawn - self.expected, spread, out=np.zeros_like(spread), where=spread > 0
        )


def class_draws(
    manifest: Manifest, sampler: EpochBatchSampler, *, epoch: int, batches: int
) -> ClassDraws:
    """Count an epoch's draws from what the sampler is: a function of (seed, epoch).

    Nothing is counted while training, so nothing is lost when a run is cut inside an epoch, and
    every process knows the draws of all.

    Args:
        manifest: The images.
        sampler: Of any process.
        epoch: Counted from 0.
        batches: How many batches each process trains on in an epoch.
    """
    labels, classes = manifest.labels[sampler.rows], len(manifest.class_map)
    drawn = manifest.labels[sampler.drawn(epoch, batches)]
    count = len(labels)
    shares = np.full(count, 1 / count) if sampler.weights is None else sampler.weights
    expected = np.bincount(labels, weights=shares, minlength=classes) * float(len(drawn))
    return ClassDraws(
        images=np.bincount(labels, minlength=classes),
        expected=np.asarray(expected, dtype=np.float64),
        drawn=np.bincount(drawn, minlength=classes),
    )
