"""Two processes on one run: a signal to either ends both, and the run goes on exactly."""

from __future__ import annotations

import json
import os
import signal
import socket
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


def _torchrun(data: Path, out: Path, *overrides: str) -> list[subprocess.CompletedProcess[str]]:
    """Start one process on each of two nodes, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *TINY,
        *overrides,
        f"data.data_root={data}",
        "data.batch_size=4",
        "callbacks=none",
        "trainer.num_nodes=2",
        "trainer.strategy=ddp",
        f"hydra.run.dir={out}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
    nodes = [
        subprocess.Popen(
            [
                sys.executable,
                *("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
                *("--node-rank", str(rank), "--master-addr", "127.0.0.1"),
                *("--master-port", str(port), "-m", "tests.helpers.cli", "train", *command),
            ],
            cwd=_ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    texts = [node.communicate(timeout=400) for node in nodes]
    return [
        subprocess.CompletedProcess(node.args, node.returncode, *text)
        for node, text in zip(nodes, texts, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.promise("R4")
@pytest.mark.promise("N3")
def test_two_nodes_open_one_session(folder_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    trained = _torchrun(folder_data, out)
    record = RunFolder(out).read_record()
    again = _torchrun(folder_data, out)
    refused = _torchrun(folder_data, out, "optimizer.learning_rate=0.5")

    assert [node.returncode for node in trained] == [0, 0], trained[0].stderr
    assert record["status"] == "finished"
    for split, images in (("val", 24), ("test", 16)):
        scores = json.loads((RunFolder(out).evaluation(split) / "metrics.json").read_text())
        assert scores["images"] == images
    assert [node.returncode for node in again] == [0, 0]
    assert "nothing to do" in again[0].stderr
    assert RunFolder(out).read_record() == record
    for node in refused:  # torchrun itself ends with 1
        assert "holds another run" in node.stderr
        assert "optimizer.learning_rate" in node.stderr
    assert "rank 0" in refused[1].stderr
    assert RunFolder(out).read_record() == record
