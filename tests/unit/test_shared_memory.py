"""Loader processes hand batches over in /dev/shm, which in a container is small."""

from __future__ import annotations

import multiprocessing.synchronize
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from loguru import logger

from classifier_training.data.loading import resolve_workers
from classifier_training.system.parallel import map_parts
from classifier_training.system.resources import (
    LoaderPlan,
    available_memory,
    can_start_processes,
    fit_shared_memory,
)
from tests.helpers.data import write_folder

MB = 1 << 20


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system with 64 MB free, as docker gives."""
    real = os.statvfs(tmp_path)
    size = {"f_bavail": 64 * MB // real.f_frsize}
    fields = [name for name in dir(real) if name.startswith("f_")]

    def statvfs(path: object) -> object:
        if Path(str(path)) != tmp_path:
            return real
        return type("Statvfs", (), {name: getattr(real, name) for name in fields} | size)

    monkeypatch.setattr(os, "statvfs", statvfs)
    return tmp_path


@pytest.mark.promise("D12")
@pytest.mark.parametrize(
    ("asked", "batch_bytes", "expected"),
    [
        (LoaderPlan(2, 4), 5 * MB, LoaderPlan(2, 4)),  # 10 batches, 50 MB
        (LoaderPlan(2, 4), 6 * MB, LoaderPlan(2, 3)),  # 8 batches, 48 MB
        (LoaderPlan(8, 4), 5 * MB, LoaderPlan(8, 1)),  # 10 batches
        (LoaderPlan(8, 4), 10 * MB, LoaderPlan(3, 1)),  # 5 batches
        (LoaderPlan(8, 4), 17 * MB, LoaderPlan(1, 1)),  # 3 batches
        (LoaderPlan(8, 4), 18 * MB, LoaderPlan(0, 1)),  # not even those
        (LoaderPlan(0, 4), 900 * MB, LoaderPlan(0, 4)),  # without processes it takes nothing
    ],
)
def test_plan_is_lowered_until_it_fits_four_fifths(
    place: Path, asked: LoaderPlan, batch_bytes: int, expected: LoaderPlan
) -> None:
    assert fit_shared_memory(asked, batch_bytes, place) == expected


@pytest.mark.promise("D12")
def test_without_shared_memory_nothing_is_lowered(tmp_path: Path) -> None:
    asked = LoaderPlan(8, 4)

    assert fit_shared_memory(asked, 1 << 40, tmp_path / "missing") == asked


LOAD = """
import sys
from pathlib import Path
from loguru import logger
from classifier_training.data.dataset import EvaluationDataset, TrainingDataset, unwrap
from classifier_training.data.index import index_data
from classifier_training.data.loading import evaluation_loader, training_loader
from classifier_training.data.sampling import EpochBatchSampler
from classifier_training.inference.preprocess import PreprocessSpec
from tests.helpers.config import data_config
manifest = index_data(data_config(sys.argv[1])).manifest
spec = PreprocessSpec(128, "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
rows = manifest.rows("train")
sampler = EpochBatchSampler(rows, batch_size=8, seed=0)
train = training_loader(
    TrainingDataset(manifest, spec, None, 0), sampler, workers=2, prefetch=4, pin_memory=False
)
val = evaluation_loader(
    EvaluationDataset(manifest, spec), rows, batch_size=8, workers=2, pin_memory=False
)
print("LOADED", [sum(len(unwrap(batch).labels) for batch in loader) for loader in (train, val)])
"""


@pytest.mark.promise("D12")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a tiny disk")
def test_small_shared_memory_does_not_kill_a_worker(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images")
    mount = "mount -t tmpfs -o size=1600k none /dev/shm"  # four batches; eight are wanted
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && exec {sys.executable} -c "$0" {root}', LOAD],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip("mounting is not allowed here")

    assert "LOADED [48, 48]" in done.stdout, done.stderr
    assert "/dev/shm has 1 MB free" in done.stderr
    assert "--shm-size" in done.stderr


@pytest.mark.promise("D12")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8 << 30),
        ({"memory.max": "max\n"}, 8 << 30),
        (
            {
                "memory.max": f"{4 << 30}\n",
                "memory.current": f"{3 << 30}\n",
                "memory.stat": f"anon 1\ninactive_file {1 << 30}\n",
            },
            2 << 30,
        ),
        (
            {
                "memory/memory.limit_in_bytes": f"{2 << 30}\n",
                "memory/memory.usage_in_bytes": f"{1 << 30}\n",
                "memory/memory.stat": "total_inactive_file 1024\n",
            },
            (1 << 30) + 1024,
        ),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 8 << 30),
        (
            {"memory.max": "1000\n", "memory.current": "5000\n", "memory.stat": "anon 1\n"},
            0,
        ),
        ({"memory.max": "nonsense\n"}, 8 << 30),
    ],
    ids=["none", "unlimited", "version 2", "version 1", "no usage", "over", "unreadable"],
)
def test_free_memory_is_that_of_the_container(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 99 kB\nMemAvailable:   {8 << 20} kB\n")

    assert available_memory(tmp_path / "cgroup", meminfo) == expected


def test_free_memory_is_unknown_without_linux(tmp_path: Path) -> None:
    assert available_memory(tmp_path, tmp_path / "missing") is None


@pytest.mark.promise("D12")
def test_where_no_process_can_be_started_images_are_read_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A container may forbid writing to /dev/shm, and every semaphore with it."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", refused)
    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    can_start_processes.cache_clear()
    try:
        assert resolve_workers("auto") == resolve_workers(4) == 0
        doubled = map_parts(len, iter(["a"] * 200), 200, workers=4)
        assert sum(doubled) == 200
        assert len([line for line in said if "no semaphore" in line]) == 1
    finally:
        logger.remove(sink)
        can_start_processes.cache_clear()
