"""How many CPU cores this process may really use."""

from __future__ import annotations

import functools
import multiprocessing
import os
from pathlib import Path
from typing import NamedTuple

from loguru import logger

_CGROUPS = Path("/sys/fs/cgroup")


def available_cores(cgroups: Path = _CGROUPS) -> int:
    """Return the smaller of CPU affinity and cgroup quota, at least 1.

    ``os.cpu_count()`` counts the machine's cores, which in a container are mostly someone else's.

    Args:
        cgroups: Where the control groups are mounted (version 2, or 1 with a ``cpu`` folder).
    """
    if hasattr(os, "sched_getaffinity"):
        affinity = len(os.sched_getaffinity(0))
    else:  # macOS
        affinity = os.cpu_count() or 1
    quota = _cgroup_quota(cgroups)
    return max(1, min(affinity, int(quota + 0.5)) if quota else affinity)


def _cgroup_quota(cgroups: Path) -> float | None:
    version_2, version_1 = cgroups / "cpu.max", cgroups / "cpu"
    try:
        if version_2.exists():
            quota, period = version_2.read_text().split()
            return None if quota == "max" else int(quota) / int(period)
        if (version_1 / "cpu.cfs_quota_us").exists():
            micros = int((version_1 / "cpu.cfs_quota_us").read_text())
            period_us = int((version_1 / "cpu.cfs_period_us").read_text())
            return None if micros <= 0 else micros / period_us
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return None


_MEMINFO = Path("/proc/meminfo")


def available_memory(cgroups: Path = _CGROUPS, meminfo: Path = _MEMINFO) -> int | None:
    """Return the bytes that the machine and the control group still give; None when unknown.

    ``MemAvailable`` alone is the whole machine's, which in a container is mostly someone else's.

    Args:
        cgroups: Where the control groups are mounted (version 2, or 1 with a ``memory`` folder).
        meminfo: The kernel's table.
    """
    limits = [_machine(meminfo), _group(cgroups)]
    known = [limit for limit in limits if limit is not None]
    return max(0, min(known)) if known else None


def _machine(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


def _group(cgroups: Path) -> int | None:
    if (cgroups / "memory.max").exists():
        folder, limit, usage, reclaimable = cgroups, "memory.max", "memory.current", "inactive_file"
    else:
        folder, limit = cgroups / "memory", "memory.limit_in_bytes"
        usage, reclaimable = "memory.usage_in_bytes", "total_inactive_file"
    try:
        most = (folder / limit).read_text().strip()
        if most == "max":
            return None
        statistics = dict(
            line.split() for line in (folder / "memory.stat").read_text().splitlines()
        )
        # Pages of files that were read count as used, but are given back when needed.
        return int(most) - int((folder / usage).read_text()) + int(statistics.get(reclaimable, "0"))
    except (OSError, ValueError):
        return None


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
