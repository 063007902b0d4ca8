"""What loggers are sent of a run, and a note of what they were sent."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from classifier_training.callbacks.base import Callback
from classifier_training.errors import InterruptedRunError
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import read_history
from classifier_training.run.log import log_failure
from classifier_training.system.files import write_json
from classifier_training.trackers.base import Outcome, TrackedRun
from classifier_training.trackers.isolation import IsolatedLogger


class Feed:
    """Sends epochs and pictures to all loggers of a run.

    What was sent is noted in ``logs/sent.json`` after it was: a run that was killed sends what is
    missing when it goes on, and a logger that is added later gets all epochs.

    Args:
        folder: Of the run; rows come from its ``metrics.csv``, pictures from its ``plots``.
        loggers: As built; those without a fence are passed over.
    """

    def __init__(self, folder: RunFolder, loggers: Sequence[Logger]) -> None:
        self._folder = folder
        self._loggers = [item for item in loggers if isinstance(item, IsolatedLogger)]
        self._ledger = folder.path / "logs" / "sent.json"
        self._pictures: dict[str, tuple[int, int]] = {}

    def begin(self, step: int | None = None) -> None:
        """Open the loggers, and send them the epochs that they miss.

        Args:
            step: Optimiser steps done so far; None: all of them, training is over.
        """
        if all(item.is_begun for item in self._loggers):
            return
        run = self._run(step)
        known = _read_ledger(self._ledger)
        last = int(run.rows[-1]["epoch"]) if run.rows else -1
        for item in self._loggers:
            # A run that lost its last checkpoint goes on from an older one.
            item.begin(run, min(int(known.get(item.key, -1)), last))
        behind = [item for item in self._loggers if item.sent < last]
        self._send_rows(run.rows)
        self._pictures = self._found_pictures()
        for item in behind:
            item.send_pictures(self._paths(self._pictures), int(run.rows[-1]["step"]))

    def send(self) -> None:
        """Send the rows and pictures that are new."""
        self._send_rows(self._rows())
        self.send_pictures()

    def send_pictures(self) -> None:
        """Send the pictures of the whole run that were drawn again, at the last row's step."""
        found, rows = self._found_pictures(), self._rows()
        changed = {name for name, state in found.items() if self._pictures.get(name) != state}
        self._pictures = found
        for item in self._loggers:
            if rows:
                item.send_pictures(self._paths(changed), int(rows[-1]["step"]))

    def conclude(self) -> None:
        """Send what is known when a run is finished."""
        self.begin()
        run, scores = self._run(None), _scores(self._folder)
        for item in self._loggers:
            item.conclude(scores, run)

    def close(self, outcome: Outcome) -> None:
        """Let the loggers go."""
        for item in self._loggers:
            item.close(outcome)

    def _send_rows(self, rows: list[dict[str, float]]) -> None:
        sent = False
        for row in rows:
            epoch = int(row["epoch"])
            drawn = self._folder.plots.glob(f"*/epoch={epoch:04d}.png")
            pictures = {path.parent.name: path for path in sorted(drawn)}
            for item in self._loggers:
                if item.sent < epoch:
                    item.send(row, pictures)
                    sent = True
        if sent:
            write_json(self._ledger, {item.key: item.sent for item in self._loggers})

    def _found_pictures(self) -> dict[str, tuple[int, int]]:
        """Return those of the whole run, each with what tells whether it was drawn again."""
        states = {path.stem: path.stat() for path in self._folder.plots.glob("*.png")}
        return {name: (state.st_mtime_ns, state.st_size) for name, state in states.items()}

    def _paths(self, names: Iterable[str]) -> dict[str, Path]:
        return {name: self._folder.plots / f"{name}.png" for name in sorted(names)}

    def _rows(self) -> list[dict[str, float]]:
        history = self._folder.history
        return read_history(history) if history.exists() else []

    def _run(self, step: int | None) -> TrackedRun:
        folder, rows = self._folder, self._rows()
        # A trainer without a run around it has neither file.
        record = folder.read_record() if folder.record_file.exists() else {}
        config: Any = {}
        if folder.config.exists():
            config = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
        done = int(rows[-1]["step"]) if rows else 0
        run_id = str(record.get("id") or folder.path.name)
        return TrackedRun(folder, run_id, config, done if step is None else step, rows)


class TrackerFeed(Callback, Checkpoint):
    """Feeds the loggers of a run while it trains.

    It saves nothing. It is a ``Checkpoint`` because Lightning calls those last: an epoch is sent
    after its checkpoint is saved, its row is in ``metrics.csv`` and its pictures are drawn.
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the loggers at the step that the run starts from."""
        self._feed.begin(trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send the epoch."""
        self._feed.send()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send what was drawn at the end."""
        self._feed.send_pictures()


@contextlib.contextmanager
def tracking(folder: RunFolder, loggers: Sequence[Logger]) -> Iterator[None]:
    """Conclude the loggers of a run when the block succeeds, and let them go in any case."""
    feed = Feed(folder, loggers)
    outcome: Outcome = "failed"
    try:
        yield
        outcome = "finished"
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            _conclude(feed)
    except (InterruptedRunError, KeyboardInterrupt, SystemExit):
        outcome = "interrupted"
        raise
    finally:
        feed.close(outcome)


def _conclude(feed: Feed) -> None:
    try:
        feed.conclude()
    except InterruptedRunError:
        raise
    except Exception as error:  # noqa: BLE001 - the run itself is finished and whole
        log_failure(error, "the loggers were not told that the run is finished")


def _read_ledger(path: Path) -> dict[str, int]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _scores(folder: RunFolder) -> dict[str, float]:
    """Return the best epoch, its score, and the scores of the test split."""
    record = folder.read_record() if folder.record_file.exists() else {}
    best, scores = record.get("best"), {}
    if best:
        scores["best/epoch"] = float(best["epoch"])
        scores[f"best/{str(best['metric']).rpartition('/')[2]}"] = float(best["score"])
    metrics = folder.evaluation("test") / "metrics.json"
    if metrics.exists():
        found = json.loads(metrics.read_text(encoding="utf-8"))["metrics"]
        scores |= {f"test/{name}": float(item["value"]) for name, item in found.items()}
    return scores
