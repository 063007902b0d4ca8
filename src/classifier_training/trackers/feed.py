"""What loggers are sent of a run, and a note of what they were sent."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from classifier_training.callbacks.base import Callback
from classifier_training.errors import InterruptedRunError
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import History
from classifier_training.run.log import log_failure
from classifier_training.run.reader import Run
from classifier_training.system.files import write_json
from classifier_training.trackers.base import Outcome, TrackedRun
from classifier_training.trackers.isolation import IsolatedLogger


class Feed:
    """Sends epochs and plots to all loggers of a run.

    What was sent is noted in ``logs/sent.json`` afterwards: a run that was killed sends what is
    missing when it is resumed, and a logger that is added later gets all epochs.

    Args:
        folder: The run folder; plots come from its ``plots``.
        run_id: Id of the run.
        config: The resolved configuration, as nested plain values.
        loggers: As built; those without error isolation are skipped.

    Attributes:
        loggers: As given.
        callback: Sends the run while it trains.
    """

    def __init__(
        self, folder: RunFolder, run_id: str, config: dict[str, Any], loggers: Sequence[Logger]
    ) -> None:
        self.loggers = list(loggers)
        self.callback = TrackerCallback(self)
        self._folder = folder
        self._run_id = run_id
        self._config = config
        self._isolated = [item for item in loggers if isinstance(item, IsolatedLogger)]
        self._ledger = folder.path / "logs" / "sent.json"
        self._plots: dict[str, tuple[int, int]] = {}
        self._rows: list[dict[str, float]] = []

    def start(self, history: History) -> None:
        """Open the loggers, and send them the epochs that they miss."""
        self._rows = history.rows
        run = self._run(history.step)
        known = _read_ledger(self._ledger)
        last = int(run.rows[-1]["epoch"]) if run.rows else -1
        for item in self._isolated:
            # A run that lost its last checkpoint resumes from an older one.
            item.begin(run, min(int(known.get(item.key, -1)), last))
        behind = [item for item in self._isolated if item.sent < last]
        self._send_rows()
        self._plots = self._found_plots()
        for item in behind:
            item.send_pictures(self._paths(self._plots), int(run.rows[-1]["step"]))

    def send(self, history: History) -> None:
        """Send the rows and plots that are new."""
        self._rows = history.rows
        self._send_rows()
        self.send_plots()

    def send_plots(self) -> None:
        """Send the plots of the run that changed, at the step of the last row."""
        found = self._found_plots()
        changed = {name for name, state in found.items() if self._plots.get(name) != state}
        self._plots = found
        for item in self._isolated:
            if self._rows:
                item.send_pictures(self._paths(changed), int(self._rows[-1]["step"]))

    def conclude(self) -> None:
        """Send the scores of the finished run."""
        done = int(self._rows[-1]["step"]) if self._rows else 0
        run, scores = self._run(done), _scores(self._folder)
        for item in self._isolated:
            item.conclude(scores, run)

    def close(self, outcome: Outcome) -> None:
        """Close the loggers."""
        for item in self._isolated:
            item.close(outcome)

    def _send_rows(self) -> None:
        sent = False
        for row in self._rows:
            epoch = int(row["epoch"])
            drawn = self._folder.plots.glob(f"*/epoch={epoch:04d}.png")
            plots = {path.parent.name: path for path in sorted(drawn)}
            for item in self._isolated:
                if item.sent < epoch:
                    item.send(row, plots)
                    sent = True
        if sent:
            write_json(self._ledger, {item.key: item.sent for item in self._isolated})

    def _found_plots(self) -> dict[str, tuple[int, int]]:
        """Return the plots of the whole run, each with what changes when it is drawn again."""
        states = {path.stem: path.stat() for path in self._folder.plots.glob("*.png")}
        return {name: (state.st_mtime_ns, state.st_size) for name, state in states.items()}

    def _paths(self, names: Iterable[str]) -> dict[str, Path]:
        return {name: self._folder.plots / f"{name}.png" for name in sorted(names)}

    def _run(self, step: int) -> TrackedRun:
        return TrackedRun(self._folder, self._run_id, self._config, step, self._rows)


class TrackerCallback(Callback):
    """Feeds the loggers of a run while it trains."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    def on_run_start(self, folder: RunFolder, history: History) -> None:
        """Open the loggers at the step that the run starts from."""
        self._feed.start(history)

    def on_epoch_recorded(self, folder: RunFolder, history: History) -> None:
        """Send the epoch, after its checkpoint is saved and its plots are drawn."""
        self._feed.send(history)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send what was drawn at the end."""
        self._feed.send_plots()


@contextlib.contextmanager
def tracking(feed: Feed) -> Iterator[None]:
    """Conclude the loggers of a run when the block succeeds, and close them in any case."""
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
        log_failure(error, "the loggers did not get the end of the run")


def _read_ledger(path: Path) -> dict[str, int]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _scores(folder: RunFolder) -> dict[str, float]:
    """Return the best epoch, its score, and the scores of the test split."""
    run, scores = Run(folder.path), {}
    if best := run.record["best"]:
        scores["best/epoch"] = float(best["epoch"])
        scores[f"best/{str(best['metric']).rpartition('/')[2]}"] = float(best["score"])
    if run.is_evaluated("test"):
        found = run.metrics("test")["metrics"]
        scores |= {f"test/{name}": float(item["value"]) for name, item in found.items()}
    return scores
