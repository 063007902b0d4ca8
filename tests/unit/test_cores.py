from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from classifier_training.data.loading import resolve_workers
from classifier_training.system.resources import available_cores


@pytest.mark.promise("D12")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="affinity is Linux's")
def test_affinity_bounds_the_workers() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        found = available_cores(), resolve_workers("auto"), resolve_workers(5)
    finally:
        os.sched_setaffinity(0, allowed)

    assert found == (1, 1, 5)


@pytest.mark.promise("D12")
@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "1000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_quota_bounds_the_cores(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    assert available_cores(tmp_path) == cores


@pytest.mark.promise("D12")
@pytest.mark.parametrize(
    "files",
    [
        {},
        {"cpu.max": "max 100000\n"},
        {"cpu.max": "9900000 100000\n"},
        {"cpu.max": ""},
        {"cpu.max": "100000 0\n"},
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
    ],
)
def test_without_a_tight_quota_affinity_counts(tmp_path: Path, files: dict[str, str]) -> None:
    unlimited = available_cores(tmp_path / "none")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    assert available_cores(tmp_path) == unlimited >= 1


@pytest.mark.promise("D12")
def test_workers_are_capped() -> None:
    assert 1 <= resolve_workers("auto") <= 8
    assert resolve_workers(0) == 0
    assert resolve_workers(12) == 12
