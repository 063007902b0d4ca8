"""Whether the batches of loader processes fit into the shared memory they travel through."""

from __future__ import annotations

import functools
import multiprocessing
import os
from pathlib import Path
from typing import NamedTuple

from loguru import logger

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where torch puts batches, no place of ours

# Besides those prefetched: the one in use, and the one each side is just handling.
_IN_FLIGHT = 2
# Other processes use the place as well.
_SHARE = 0.8


@functools.cache
def can_start_processes() -> bool:
    """Whether processes can be started that this one talks to; said once if not.

    They need semaphores, which lie in shared memory; a container may forbid writing there.
    """
    try:
        multiprocessing.get_context().Lock()
    except OSError as error:
        logger.warning(
            "no semaphore can be made here ({}): images are read by this process alone; mount {} "
            "so that it can be written, for speed",
            error.strerror,
            SHARED_MEMORY,
        )
        return False
    return True


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
