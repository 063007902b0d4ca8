"""One process at a time in a run folder; what a dead one left behind is taken over."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from classifier_training.errors import EXIT_RESUME, ResumeError
from classifier_training.run.lock import (
    LOCK_NAME,
    RunLock,
    _myself,
    remove_stale_files,
    require_free,
)

# Holds the lock of a folder until it is killed; with a child that outlives it, as loaders do.
_HOLDER = """
import os, sys, time
from pathlib import Path
from classifier_training.run.lock import RunLock
with RunLock(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(30)
        os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


# Its child keeps the lock for a second after it was killed.
_SLOW_TO_GO = """
import os, sys, time
from pathlib import Path
from classifier_training.run.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
with lock:
    kept = os.dup(lock._descriptor)
    if os.fork() == 0:
        print("held", flush=True)
        while os.getppid() == os.getpgrp():
            time.sleep(0.01)
        time.sleep(1)
        os._exit(0)
    time.sleep(60)
"""


def _no_locks(_descriptor: int) -> None:
    """What a mount without locks answers."""
    raise OSError(95, "Operation not supported")


def _hold(folder: Path, program: str = _HOLDER) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.promise("R10")
def test_a_second_process_is_refused_and_a_killed_one_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = _hold(folder)
    try:
        for refused in (lambda: require_free(folder), RunLock(folder).__enter__):
            with pytest.raises(ResumeError) as caught:
                refused()
            assert caught.value.exit_code == EXIT_RESUME
            assert f"process {holder.pid} on {os.uname().nodename}, since 20" in caught.value.what
        assert [path.name for path in folder.iterdir()] == [LOCK_NAME]

        holder.kill()
        holder.wait()
        started = time.monotonic()
        with RunLock(folder):
            assert time.monotonic() - started < 5, "its forked child holds nothing"
        assert not folder.exists() or not list(folder.iterdir())
    finally:
        os.killpg(holder.pid, signal.SIGKILL)


@pytest.mark.promise("R10")
def test_the_last_child_of_a_killed_process_is_waited_for(tmp_path: Path) -> None:
    holder = _hold(tmp_path, _SLOW_TO_GO)
    try:
        holder.kill()
        holder.wait()
        require_free(tmp_path)
        started = time.monotonic()
        with RunLock(tmp_path):
            assert time.monotonic() - started > 0.5, "the child held it"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(holder.pid, signal.SIGKILL)


@pytest.mark.promise("R10")
def test_a_second_run_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with RunLock(tmp_path / "run"), pytest.raises(ResumeError, match=f"process {os.getpid()}"):
        RunLock(tmp_path / "run").__enter__()

    with RunLock(tmp_path / "run"):
        pass


@pytest.mark.promise("R10")
@pytest.mark.promise("C8")
def test_leaves_nothing_that_it_made(tmp_path: Path) -> None:
    with RunLock(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []

    with RunLock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "mine").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["mine"]


@pytest.mark.promise("R10")
@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "\x00"])
def test_a_damaged_lock_file_is_no_obstacle(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(content)

    for take in (None, _no_locks):
        with RunLock(tmp_path, take=take, heartbeat_s=0.1):
            assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


@pytest.mark.promise("R10")
def test_without_locks_a_living_process_of_this_machine_is_seen(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    other = replace(_myself(), token="other", pid=child.pid, started=fields[19])
    (tmp_path / LOCK_NAME).write_text(json.dumps(asdict(other)))

    with pytest.raises(ResumeError, match=f"process {child.pid}"):
        RunLock(tmp_path, take=_no_locks, heartbeat_s=0.1).__enter__()

    reused = replace(other, started="1")  # the process of that id is another one by now
    (tmp_path / LOCK_NAME).write_text(json.dumps(asdict(reused)))
    with RunLock(tmp_path, take=_no_locks, heartbeat_s=0.1):
        pass
    child.communicate(b"\n")


@pytest.mark.promise("R10")
@pytest.mark.parametrize("is_alive", [True, False])
@pytest.mark.parametrize("take", [None, _no_locks], ids=["locks of this machine", "no locks"])
def test_another_machine_counts_as_gone_when_its_heart_is_silent(
    is_alive: bool, take: object, tmp_path: Path
) -> None:
    other = replace(_myself(), token="other", host="elsewhere", machine="another boot/1")
    path = tmp_path / LOCK_NAME
    path.write_text(json.dumps(asdict(other)))
    ended = threading.Event()

    def beat() -> None:
        beats = 0
        while not ended.wait(0.1):
            beats += 1
            path.write_text(json.dumps(asdict(replace(other, beats=beats))))

    heart = threading.Thread(target=beat)
    if is_alive:
        heart.start()
    lock = RunLock(tmp_path, heartbeat_s=0.1, silence_s=2.0, take=take)  # type: ignore[arg-type]
    try:
        if is_alive:
            with pytest.raises(ResumeError, match="elsewhere"):
                lock.__enter__()
        else:
            with lock:
                assert json.loads(path.read_text())["host"] == _myself().host
    finally:
        ended.set()
        if is_alive:
            heart.join()


@pytest.mark.promise("R10")
@pytest.mark.parametrize("take", [None, _no_locks], ids=["locks", "no locks"])
def test_the_heart_beats(take: object, tmp_path: Path) -> None:
    with RunLock(tmp_path, heartbeat_s=0.05, take=take):  # type: ignore[arg-type]
        deadline = time.monotonic() + 20
        beats = 0
        while beats < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
            try:
                beats = json.loads((tmp_path / LOCK_NAME).read_text())["beats"]
            except ValueError:  # read while it was written
                continue
    assert beats >= 3


# Starts to write a file and is killed.
_WRITER = """
import os, signal, sys
from pathlib import Path
from classifier_training.system.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.promise("R2")
def test_unfinished_files_of_dead_processes_go_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "plots" / "file.json"
    subprocess.run([sys.executable, "-c", _WRITER, str(target)], check=False)
    (left,) = target.parent.iterdir()
    dead = left.name.split(".")[-2]
    kept = [
        f".mine.{os.getpid()}.tmp",
        f"mine.{dead}.tmp",
        ".mine.tmp",
        ".mine.x7.tmp",
        f".mine.{dead}.tmp.old",
    ]
    for name in kept:
        (tmp_path / name).touch()
    probes = [tmp_path / f".probe-{pid}-k3x" for pid in (dead, os.getpid())]
    for probe in probes:
        probe.mkdir()

    assert remove_stale_files(tmp_path) == [left, probes[0]]

    assert probes[1].is_dir()
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


@pytest.mark.promise("R2")
def test_what_a_process_of_the_same_id_left_is_removed(tmp_path: Path) -> None:
    """In a container every start is process 1."""
    old, new = (tmp_path / f".{name}.{os.getpid()}.tmp" for name in ("old", "new"))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))

    assert remove_stale_files(tmp_path) == [old]


@pytest.mark.promise("R10")
def test_reading_the_lock_file_does_not_open_the_lock(tmp_path: Path) -> None:
    """Whoever copies the folder from within the run opens and closes every file of it."""
    with RunLock(tmp_path / "run"):
        (tmp_path / "run" / LOCK_NAME).read_bytes()
        command = [sys.executable, "-c", _HOLDER, str(tmp_path / "run")]
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "ResumeError" in second.stderr
    assert "held" not in second.stdout
