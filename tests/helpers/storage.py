"""Commands on folders whose file system refuses or fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.runs import TINY

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
OBJECT_STORAGE = "rename append link symlink fsync rewrite"

_CLASSIFIER = """
import sys
import torch
torch.set_num_threads(1)
from tests.helpers.tiny import register
register()
from classifier_training.cli.main import main
sys.argv[0] = "classifier"
main()
"""


def preloaded(build: Path, folder: Path, **more: str) -> dict[str, str]:
    """Compile the library that stands below Python, and return the environment that loads it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler")
    library = build / "refusing_storage.so"
    if not library.exists():
        source = HERE / "refusing_storage.c"
        command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library), "STORAGE_FOLDER": str(folder), **more}


def start(
    *arguments: str | Path, within: tuple[str, ...] = (), **environment: str
) -> subprocess.Popen[str]:
    """Start ``classifier ARGUMENTS`` with the tiny backbone registered, in a process of its own.

    ``within`` is a program that starts it, such as ``unshare``.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    searched = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
    return subprocess.Popen(
        [*within, sys.executable, "-c", _CLASSIFIER, *map(str, arguments)],
        env={**inherited, "PYTHONPATH": searched, "CUDA_VISIBLE_DEVICES": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 600) -> tuple[int, str]:
    """Return exit code and output."""
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, output


def training(data: Path, run: Path, *overrides: str) -> list[str]:
    """Return the arguments that train a tiny run."""
    return ["train", *TINY, f"data.data_root={data}", *overrides, f"hydra.run.dir={run}"]


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 300) -> None:
    """Wait until a running command has written a file."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.02)


@contextlib.contextmanager
def small_disk(point: Path, size: str) -> Iterator[Path]:
    """Mount a disk in memory; skips where that is not allowed."""
    point.mkdir()
    try:
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", point)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not allowed here")
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


def mount(*arguments: str | Path) -> None:
    """Call mount(8)."""
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


@contextlib.contextmanager
def object_mount(objects: Path, point: Path) -> Iterator[Path]:
    """Mount the FUSE file system of objects; skips where that is not possible."""
    pytest.importorskip("mfusepy", reason="needs mfusepy and libfuse", exc_type=ImportError)
    objects.mkdir()
    point.mkdir()
    server = subprocess.Popen([sys.executable, str(HERE / "refusing_mount.py"), objects, point])
    try:
        deadline = time.monotonic() + 30
        while not point.is_mount():
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.skip("FUSE does not mount here")
            time.sleep(0.05)
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)
        server.kill()
        server.wait()
