"""What trackers hold, read back by their own clients (W&B has none for a file: by its messages)."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from PIL import Image

from classifier_training.callbacks.base import Callback
from classifier_training.trackers.base import Outcome, TrackedRun, Tracker

_BLOCK = 32768


MODULE = "tests.helpers.trackers"


class Draws(Callback):
    """Draws what other observers draw: pictures of an epoch, and one of the whole run."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        plots, epoch = Path(trainer.default_root_dir) / "plots", trainer.current_epoch
        for name in ("confusion_matrix", "samples"):
            self._draw(plots / name / f"epoch={epoch:04d}.png", epoch)
        self._draw(plots / "history.png", 10 + epoch)

    @staticmethod
    def _draw(path: Path, number: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number, 8), (number, 0, 0)).save(path)


class StopsServer(Callback):
    """Kills a server, and what it started, after the first epoch.

    Args:
        group: Its process group.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self._group = group

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            os.killpg(self._group, signal.SIGKILL)


class Fails(Tracker):
    """Raises in one method; ``$FAILS_WITH`` is the message.

    Args:
        method: Its name.
    """

    def __init__(self, method: str) -> None:
        super().__init__()
        self._method = method
        self.calls: list[str] = []
        type(self).last = self

    last: ClassVar[Any] = None

    def _call(self, method: str) -> None:
        self.calls.append(method)
        if method == self._method:
            raise ConnectionError(os.environ.get("FAILS_WITH", "the server has vanished"))

    @property
    def version(self) -> str:
        self._call("version")
        return ""

    @property
    def experiment(self) -> None:
        self._call("experiment")

    def begin(self, run: TrackedRun, sent: int) -> int:
        self._call("begin")
        return sent

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._call("log_metrics")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._call("log_hyperparams")

    def log_epoch(self, row: Any) -> None:
        self._call("log_epoch")

    def log_pictures(self, pictures: Any, step: int) -> None:
        self._call("log_pictures")

    def save(self) -> None:
        self._call("save")

    def finalize(self, status: str) -> None:
        self._call("finalize")

    def conclude(self, scores: Any, run: TrackedRun) -> None:
        self._call("conclude")

    def close(self, outcome: Outcome) -> None:
        self._call("close")


class Plain(Logger):
    """A logger as Lightning's are, which knows nothing of runs; notes what it gets."""

    rows: ClassVar[list[tuple[int | None, dict[str, float]]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.rows.clear()

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


def use_logger(name: str, **arguments: object) -> list[str]:
    """Return the overrides that add a logger of this module to a run."""
    given = [f"logging.{name}.{key}={value}" for key, value in arguments.items()]
    return [f"allow_modules=[{MODULE}]", f"logging.{name}._target_={MODULE}.{name}", *given]


def use_draws() -> list[str]:
    """Return the overrides that draw pictures."""
    return [f"allow_modules=[{MODULE}]", f"callbacks.draws._target_={MODULE}.Draws"]


def wandb_records(path: Path) -> Iterator[Any]:
    """Read a ``.wandb`` file: protocol messages in LevelDB's log format after 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        if kind == 0:
            return
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def wandb_files(run: Path) -> list[Path]:
    """Return the files of a run's parts, oldest first."""
    return sorted(run.glob("wandb/*run-*/run-*.wandb"))


def wandb_history(path: Path) -> dict[int, dict[str, Any]]:
    """Return what was logged, by step.

    Raises:
        AssertionError: A step stands there twice.
    """
    history: dict[int, dict[str, Any]] = {}
    for record in wandb_records(path):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            row = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}
            step = int(row["_step"])
            assert step not in history, f"step {step} twice"
            history[step] = row
    return history


def wandb_run(path: Path) -> Any:
    """Return the message that describes the run."""
    return next(r.run for r in wandb_records(path) if r.WhichOneof("record_type") == "run")


def wandb_summary(path: Path) -> dict[str, Any]:
    """Return the last value of each key of the summary."""
    summary: dict[str, Any] = {}
    for record in wandb_records(path):
        if record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return summary


def tensorboard(run: Path) -> Any:
    """Read all event files of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(
        str(run / "tensorboard"), size_guidance=dict.fromkeys(("scalars", "images", "tensors"), 0)
    )
    return found.Reload()
