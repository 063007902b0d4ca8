"""Two processes on one run: a signal to either ends both, and the run goes on exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import Callback

from classifier_training.run.folder import RunFolder
from classifier_training.run.history import read_history
from tests.helpers.checkpoints import differences, read, training_state
from tests.helpers.runs import TINY

_ROOT = Path(__file__).parents[2]


class KillRank(Callback):
    """Sends SIGTERM to one process of several, the first time it gets to a batch.

    Args:
        marker: A file that is made then.
        rank: Which process.
    """

    def __init__(self, marker: str, rank: int) -> None:
        self._marker, self._rank = Path(marker), rank

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        is_here = trainer.global_rank == self._rank and trainer.current_epoch == 1
        if is_here and batch_idx == 1 and not self._marker.exists():
            self._marker.touch()
            os.kill(os.getpid(), signal.SIGTERM)


def _train(data: Path, out: Path, marker: Path, rank: int) -> subprocess.CompletedProcess[str]:
    command = [
        *TINY,
        f"data.data_root={data}",
        "model.name=dropout",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "data.batch_size=4",
        f"allow_modules=[{__name__}]",
        f"callbacks.kill._target_={__name__}.KillRank",
        f"callbacks.kill.marker={marker}",
        f"callbacks.kill.rank={rank}",
        f"hydra.run.dir={out}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "tests.helpers.cli", "train", *command],
        cwd=_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.promise("R1")
@pytest.mark.promise("R3")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_of_two_ends_both(rank: int, folder_data: Path, tmp_path: Path) -> None:
    done = tmp_path / "already"
    done.touch()
    whole = _train(folder_data, tmp_path / "whole", done, rank)
    marker = tmp_path / "killed"

    # The output is a pipe that both processes hold: it ends when both have.
    stopped = _train(folder_data, tmp_path / "run", marker, rank)
    saved = read(tmp_path / "run" / "checkpoints" / "last.ckpt")
    went_on = _train(folder_data, tmp_path / "run", marker, rank)

    assert whole.returncode == 0, whole.stderr
    assert stopped.returncode == 143, stopped.stderr
    assert "s after the signal" in stopped.stderr
    assert saved["global_step"] == 6 + 2
    assert len(saved["ranks"]) == 2
    assert went_on.returncode == 0, went_on.stderr
    one, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "whole")
    for name in ("last.ckpt", "best.ckpt"):
        states = [training_state(folder.checkpoints / name) for folder in (one, other)]
        assert differences(*states) == []
    assert read_history(one.history) == read_history(other.history)
    assert not (one.path / "run.lock").exists()
