"""Temporary files and folders that a killed process left in a run folder."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from loguru import logger

# As runtime.files names them: .NAME.PID.tmp
_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")
# As runtime.storage names the folders in which it tries a file system out: .probe-PID-RANDOM
_PROBE = re.compile(r"\.probe-(\d+)-.+")
# In a container every start may have the same process id.
_BEGUN = time.time()


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove what processes that are gone had not finished, and return it.

    Only by the holder of the folder's lock: on another machine its process would not be seen here.
    """
    removed = []
    for path in sorted(folder.rglob(".*.tmp")):
        found = _TEMPORARY.fullmatch(path.name)
        if found and path.is_file() and not path.is_symlink() and _is_left(path, int(found[1])):
            path.unlink(missing_ok=True)
            removed.append(path)
    for path in sorted(folder.rglob(".probe-*")):
        found = _PROBE.fullmatch(path.name)
        if found and path.is_dir() and not path.is_symlink() and _is_left(path, int(found[1])):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    if removed:
        logger.info("run: {} unfinished files of a killed process removed", len(removed))
    return removed


def _is_left(path: Path, pid: int) -> bool:
    """Whether who wrote it is gone; our own id may have been that of a process before us."""
    if pid != os.getpid():
        return not _is_alive(pid)
    try:
        return path.stat().st_mtime < _BEGUN
    except FileNotFoundError:
        return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
