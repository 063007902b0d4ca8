"""What a sampler should draw of each class, and what it draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classifier_training.data.manifest import Manifest
from classifier_training.data.sampling import EpochBatchSampler


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
