"""How many CPU cores this process may really use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_CGROUP_V1_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def available_cores() -> int:
    """Return the smaller of CPU affinity and cgroup quota, at least 1.

    ``os.cpu_count()`` counts the machine's cores, which in a container are mostly someone else's.
    """
    if hasattr(os, "sched_getaffinity"):
        affinity = len(os.sched_getaffinity(0))
    else:  # macOS
        affinity = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(affinity, int(quota + 0.5)) if quota else affinity)


def _cgroup_quota() -> float | None:
    try:
        if _CGROUP_V2.exists():
            quota, period = _CGROUP_V2.read_text().split()
            return None if quota == "max" else int(quota) / int(period)
        if _CGROUP_V1_QUOTA.exists():
            micros = int(_CGROUP_V1_QUOTA.read_text())
            return None if micros <= 0 else micros / int(_CGROUP_V1_PERIOD.read_text())
    except (OSError, ValueError):
        return None
    return None
