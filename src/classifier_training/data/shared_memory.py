"""Whether the batches of loader processes fit into the shared memory they travel through."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from loguru import logger

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where torch puts batches, no place of ours

# Besides those prefetched: the one in use, and the one each side is just handling.
_IN_FLIGHT = 2
# Other processes use the place as well.
_SHARE = 0.8


class LoaderPlan(NamedTuple):
    """How batches are made: processes, and batches that each prepares ahead."""

    workers: int
    prefetch: int

    def bytes(self, batch_bytes: int) -> int:
        """Return the most that lies in shared memory at a time."""
        return (self.workers * self.prefetch + _IN_FLIGHT) * batch_bytes if self.workers else 0


def fit_shared_memory(
    asked: LoaderPlan, batch_bytes: int, place: Path = SHARED_MEMORY
) -> LoaderPlan:
    """Lower what was asked for until it fits; results do not depend on it.

    A write beyond the end kills the worker with SIGBUS, which tells a user nothing. Containers
    come with 64 MB: two batches of 160 images of 256 x 256 pixels.

    Args:
        asked: As configured.
        batch_bytes: Size of one batch.
        place: Where it is mounted; where it does not exist, nothing is lowered.
    """
    try:
        disk = os.statvfs(place)
    except OSError:
        return asked
    room = int(disk.f_bavail * disk.f_frsize * _SHARE)
    if asked.bytes(batch_bytes) <= room:
        return asked
    fewer = [LoaderPlan(asked.workers, prefetch) for prefetch in range(asked.prefetch - 1, 0, -1)]
    fewer += [LoaderPlan(workers, 1) for workers in range(asked.workers - 1, -1, -1)]
    plan = next(plan for plan in fewer if plan.bytes(batch_bytes) <= room)
    logger.warning(
        "{} has {:,} MB free, but data.num_workers={} and data.prefetch_factor={} need {:,} MB; "
        "using {} and {} (docker run --shm-size=2g gives more)",
        place,
        disk.f_bavail * disk.f_frsize >> 20,
        *asked,
        asked.bytes(batch_bytes) >> 20,
        *plan,
    )
    return plan
