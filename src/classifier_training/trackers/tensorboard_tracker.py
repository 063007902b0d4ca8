"""TensorBoard event files in the run folder."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from PIL import Image

from classifier_training.run.stored_config import flatten
from classifier_training.trackers.base import Outcome, TrackedRun, Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardTracker(Tracker):
    """Writes ``RUN/tensorboard``.

    When a run goes on, a mark in the new file tells TensorBoard to forget the steps of the older
    ones that will come again, and those rows are sent again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._writer: SummaryWriter | None = None

    def begin(self, run: TrackedRun, sent: int) -> int:
        """Open a new event file beside those of earlier parts."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder.path / "tensorboard"
        is_going_on = any(folder.glob("events.*"))
        _await_later_name(folder)
        self._writer = SummaryWriter(str(folder), purge_step=run.step if is_going_on else None)
        if not is_going_on:
            listed = yaml.safe_dump(run.config, allow_unicode=True, sort_keys=False)
            indented = "".join(f"    {line}\n" for line in listed.splitlines())
            self._writer.add_text("config", indented, global_step=0)
        self._writer.flush()
        before = [int(row["epoch"]) for row in run.rows if row["step"] < run.step]
        return min(sent, max(before, default=-1))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the values of a step."""
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)

    def log_epoch(self, row: Mapping[str, float]) -> None:
        """Write a row, and flush: a kill must not lose what counts as sent."""
        values = {name: value for name, value in row.items() if name != "step"}
        self.log_metrics(values, int(row["step"]))
        self.save()

    def log_pictures(self, pictures: Mapping[str, Path], step: int) -> None:
        """Write the very bytes of the files."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._writer is None:
            return
        for name, path in pictures.items():
            with Image.open(path) as opened:
                width, height = opened.size
            image = Summary.Image(
                height=height,
                width=width,
                colorspace=3,
                encoded_image_string=path.read_bytes(),
            )
            summary = Summary(value=[Summary.Value(tag=name, image=image)])
            _add(self._writer, summary, step)
        self.save()

    def conclude(self, scores: Mapping[str, float], run: TrackedRun) -> None:
        """Write the final scores, and the hyper-parameters that led to them (tab HPARAMS)."""
        from torch.utils.tensorboard.summary import hparams

        if self._writer is None:
            return
        plain = {key: _plain(value) for key, value in flatten(run.config).items()}
        for summary in hparams(plain, dict(scores)):  # type: ignore[no-untyped-call]
            _add(self._writer, summary, None)
        self.log_metrics(scores, run.step)
        self.save()

    def save(self) -> None:
        """Flush."""
        if self._writer is not None:
            self._writer.flush()

    def close(self, outcome: Outcome) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _add(writer: SummaryWriter, summary: Any, step: int | None) -> None:
    """Add what has no method of its own."""
    file_writer: Any = writer.file_writer
    file_writer.add_summary(summary, step)


def _await_later_name(folder: Path) -> None:
    """Wait until a new file comes last: they are read by name, and that begins with a second."""
    pattern = re.compile(r"events\.out\.tfevents\.(\d+)\.")
    matches = (pattern.match(path.name) for path in folder.glob("events.*"))
    newest = max((int(match[1]) for match in matches if match), default=0)
    ahead = newest + 1 - time.time()
    if 0 < ahead <= 2:  # more is a clock that was set back, which nobody can wait for
        time.sleep(ahead)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
