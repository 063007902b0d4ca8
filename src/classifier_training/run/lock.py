"""One process at a time works in a run folder.

Where the file system has locks, the kernel holds one for as long as the process lives, ``kill -9``
included. Where it has none, or only among the processes of one machine (object-storage mounts),
the lock file says who holds it, and a heartbeat in it says whether that machine is still there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from loguru import logger

from classifier_training.errors import ResumeError

LOCK_NAME = "run.lock"
HEARTBEAT_S = 15.0
# A machine that is gone has not written for this long while we looked.
SILENCE_S = 3 * HEARTBEAT_S
# A killed process is gone for the kernel when the last of its forked children has let go.
ORPHANS_S = 5.0

_held_here: dict[Path, int] = {}


def _leave_to_parent() -> None:
    """In a forked process: let go of the lock files, or they would stay locked when it outlives."""
    for descriptor in _held_here.values():
        os.close(descriptor)
    _held_here.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


@dataclass(frozen=True)
class Holder:
    """Who works in a run folder, as its lock file says.

    Attributes:
        token: Of this one use.
        pid: Process id on its machine.
        started: When that process started, in the kernel's own count; tells a reused id apart.
        host: Name of the machine.
        machine: Its boot and process namespace; a process id means something only within it.
        since: When the lock was taken (UTC).
        beats: How often the heartbeat was written.
    """

    token: str
    pid: int
    started: str
    host: str
    machine: str
    since: str
    beats: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class RunLock:
    """The right to write into a run folder. Taken as a context manager.

    Leaving removes the lock file, and the folder itself if it is still empty and was made here.

    Args:
        folder: The run folder; it need not exist.
        heartbeat_s: Seconds between two signs of life.
        silence_s: How long the holder on another machine must be silent to count as gone.
        take: Locks an open file for this process, as ``fcntl.flock`` does; tests replace it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        silence_s: float = SILENCE_S,
        take: Callable[[int], None] | None = None,
    ) -> None:
        self._folder = folder
        self._path = folder / LOCK_NAME
        self._heartbeat_s = heartbeat_s
        self._silence_s = silence_s
        self._take = take or _flock
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        self._me = _myself()
        self._descriptor = -1
        self._has_kernel_lock = False
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def __enter__(self) -> RunLock:
        """Take the lock.

        Raises:
            ResumeError: Another process works in the folder.
        """
        place = self._path.absolute()
        if place in _held_here:
            raise _refusal(self._folder, self._me)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._acquire()
        except BaseException:
            self._close()
            self._remove_made()
            raise
        _held_here[place] = self._descriptor
        self._heart = threading.Thread(target=self._beat, name="run-lock", daemon=True)
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._heart is not None:
            self._heart.join()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        _held_here.pop(self._path.absolute(), None)
        self._close()
        self._remove_made()

    def _acquire(self) -> None:
        while True:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            self._has_kernel_lock = self._lock()
            before = _parsed(self._content())
            if before is not None:
                self._require_gone(before)
            if self._is_in_place():
                break
            self._close()  # whoever held it removed the file in the meantime
        if before is not None:
            logger.warning("run: the lock of {} was left behind; it is taken over", before)
        self._write()
        if not self._has_kernel_lock:
            time.sleep(min(1.0, self._heartbeat_s))
            now = _parsed(self._content())
            if now is None or now.token != self._me.token:  # another one was a little later
                raise _refusal(self._folder, now or self._me)

    def _lock(self) -> bool:
        """Ask the kernel; False where the file system has no locks.

        Raises:
            ResumeError: A living process holds it.
        """
        until = time.monotonic() + ORPHANS_S
        while True:
            try:
                self._take(self._descriptor)
            except (BlockingIOError, PermissionError) as error:
                holder = _parsed(self._content())
                if not _is_dead_here(holder) or time.monotonic() > until:
                    raise _refusal(self._folder, holder) from error
                time.sleep(0.05)
            except OSError as error:
                logger.debug("run: no kernel lock here ({}); the heartbeat decides", error)
                return False
            else:
                return True

    def _require_gone(self, holder: Holder) -> None:
        if holder.machine.partition("/")[0] == self._me.machine.partition("/")[0]:
            if self._has_kernel_lock:
                return  # one kernel, and it says that nobody holds it
            if _is_dead_here(holder):
                return
            if holder.machine == self._me.machine:
                raise _refusal(self._folder, holder)
        logger.info(
            "run: locked by {}; waiting up to {:.0f} s for a sign of life", holder, self._silence_s
        )
        until = time.monotonic() + self._silence_s
        before = self._content()
        while time.monotonic() < until:
            time.sleep(min(1.0, self._silence_s / 10))
            if not self._is_in_place():
                return  # it ended in peace
            now = self._content()
            if now != before:  # also when it is just being written
                raise _refusal(self._folder, _parsed(now) or holder)

    def _is_in_place(self) -> bool:
        try:
            return os.fstat(self._descriptor).st_ino == self._path.stat().st_ino
        except FileNotFoundError:
            return False

    def _content(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError:
            return b""

    def _write(self) -> None:
        data = json.dumps(asdict(self._me)).encode()
        if self._has_kernel_lock:
            with contextlib.suppress(OSError):  # a mount may have locks, and files only as a whole
                os.pwrite(self._descriptor, data, 0)
                os.ftruncate(self._descriptor, len(data))
                with contextlib.suppress(OSError):
                    os.fsync(self._descriptor)
                return
        self._path.write_bytes(data)

    def _beat(self) -> None:
        is_told = False
        while not self._ended.wait(self._heartbeat_s):
            self._me = replace(self._me, beats=self._me.beats + 1)
            try:
                self._write()
            except OSError as error:
                if not is_told:
                    logger.warning("run: cannot write {}: {}", self._path, error)
                is_told = True

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _remove_made(self) -> None:
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:  # not empty
                return


def require_free(folder: Path) -> None:
    """Refuse a folder that a living process of this machine works in. Nothing is written.

    Raises:
        ResumeError: It is in use.
    """
    path = folder / LOCK_NAME
    if path.absolute() in _held_here:
        raise _refusal(folder, _myself())
    try:
        with path.open("r+b") as file:
            try:
                _flock(file.fileno())
            except (BlockingIOError, PermissionError) as error:
                holder = _parsed(file.read())
                if not _is_dead_here(holder):
                    raise _refusal(folder, holder) from error
    except OSError:  # no lock file, no locks, or nothing may be written: seen when it is taken
        return


def _flock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _parsed(data: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):  # empty, or cut short by a kill
        return None


def _is_dead_here(holder: Holder | None) -> bool:
    """Whether the process was one of this machine and is no more."""
    return (
        holder is not None
        and holder.machine == _machine()
        and _start_of(holder.pid) != holder.started
    )


def _refusal(folder: Path, holder: Holder | None) -> ResumeError:
    return ResumeError(
        f"{folder} is in use by {holder or 'another process'}",
        expected="one process at a time in a run folder",
        fix="wait for that process or stop it, or choose another hydra.run.dir",
    )


def _myself() -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        pid=os.getpid(),
        started=_start_of(os.getpid()),
        host=socket.gethostname(),
        machine=_machine(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - it is no path
    except OSError:  # not Linux
        return f"{socket.gethostname()}/"


def _start_of(pid: int) -> str:
    """Return when a process started, "" if there is none (or it is only waited for)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


# As runtime.files names them: .NAME.PID.tmp
_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")
# As runtime.storage names the folders in which it tries a file system out: .probe-PID-RANDOM
_PROBE = re.compile(r"\.probe-(\d+)-.+")
# In a container every start may have the same process id.
_BEGUN = time.time()


def remove_stale_files(folder: Path) -> list[Path]:
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
