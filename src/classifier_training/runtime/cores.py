"""How many CPU cores this process may really use."""

from __future__ import annotations

import os
from pathlib import Path

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
