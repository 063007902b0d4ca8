"""How much memory this process may still take."""

from __future__ import annotations

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
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
