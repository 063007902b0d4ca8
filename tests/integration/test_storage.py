"""Run folders on mounts of object storage, and on disks that fill up or fail."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch

from classifier_training.run.history import read_history
from tests.helpers.storage import (
    OBJECT_STORAGE,
    finish,
    mount,
    object_mount,
    preloaded,
    small_disk,
    start,
    training,
)


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A folder on another file system than the temporary files of this machine."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("needs /dev/shm")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def _require_whole(run: Path, epochs: int = 2) -> None:
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert [row["epoch"] for row in read_history(run / "metrics.csv")] == list(range(epochs))
    for name in ("best", "last"):
        torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    onnx.checker.check_model(onnx.load(run / "model.onnx"))
    json.loads((run / "labels_mapping.json").read_text())
    assert not [path for path in run.rglob(".*") if not path.name.startswith(".probe")]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.promise("R9")
@pytest.mark.parametrize("kind", ["preloaded", "fuse"])
def test_a_run_completes_where_nothing_can_be_renamed_or_appended(
    kind: str, folder_data: Path, tmp_path: Path, memory_folder: Path
) -> None:
    def train(mounted: Path, **environment: str) -> str:
        run = mounted / "run"
        code, output = finish(start(*training(folder_data, run), **environment))
        assert code == 0, output
        _require_whole(run)
        first = (run / "log.txt").read_text()
        longer = training(folder_data, run, "trainer.max_epochs=3")
        code, output = finish(start(*longer, **environment))
        assert code == 0, output
        _require_whole(run, epochs=3)
        assert (run / "log.txt").read_text().startswith(first)  # goes on, is not begun anew
        return output

    if kind == "preloaded":
        train(memory_folder, **preloaded(tmp_path, memory_folder, STORAGE_REFUSE=OBJECT_STORAGE))
    else:
        with object_mount(tmp_path / "objects", tmp_path / "mounted") as mounted:
            train(mounted)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.promise("R8")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("ENOSPC", "No space left on device"),
        ("EIO", "Input/output error"),
        ("EROFS", "Read-only file system"),
    ],
)
def test_a_disk_that_fails_in_mid_run_is_named_and_the_same_command_goes_on(
    fault: str, said: str, folder_data: Path, tmp_path: Path, memory_folder: Path
) -> None:
    run = memory_folder / "run"
    command = training(folder_data, run)
    last = run / "checkpoints" / "last.ckpt"
    broken = preloaded(tmp_path, memory_folder, STORAGE_FAIL=fault, STORAGE_AFTER=str(last))

    code, output = finish(start(*command, **broken))

    assert code == 1
    assert "Traceback" not in output
    assert f"error: {said}: {run}" in output
    assert "fix: " in output
    torch.load(last, weights_only=True)  # whole

    code, output = finish(start(*command))

    assert code == 0, output
    assert "going on from" in output
    _require_whole(run)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.promise("R8")
def test_a_full_disk_is_named_and_a_larger_one_is_gone_on_with(
    folder_data: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        run = disk / "run"
        command = training(folder_data, run, "callbacks.dataset_statistics=null")

        code, output = finish(start(*command))

        assert code == 1, output
        assert "Traceback" not in output
        assert "No space left on device" in output

        mount("-o", "remount,size=16m", disk)
        code, output = finish(start(*command))

        assert code == 0, output
        _require_whole(run)
