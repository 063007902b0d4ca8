"""``logs/steps.csv``: what was logged at single steps."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from classifier_training.system.files import replacing
from classifier_training.trackers.base import Outcome, TrackedRun, Tracker

_COLUMNS = ("step", "epoch", "name", "value")


class StepsCsv(Tracker):
    """Appends a line ``step,epoch,name,value`` for each value, and flushes it.

    A long table needs no new header when a new name appears, so a file is never written anew
    while it grows. When a run goes on, lines of steps that will be trained again are cut off
    first, and a half line that a kill left behind with them. (Lightning's ``CSVLogger`` deletes
    the file of the earlier part.)

    The scores of epochs are not here: ``metrics.csv`` has them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._file: TextIO | None = None

    def begin(self, run: TrackedRun, sent: int) -> int:
        """Open the file for appending, after cutting off what will come again."""
        path = run.folder.path / "logs" / "steps.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _cut(path, run.step)
        is_new = not path.exists()
        self._file = path.open("a", encoding="utf-8", newline="")
        if is_new:
            self._write([_COLUMNS])
        return sent

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append the values of a step."""
        values = dict(metrics)
        epoch = int(values.pop("epoch", 0))
        lines = ((step or 0, epoch, name, repr(float(value))) for name, value in values.items())
        self._write(list(lines))

    def close(self, outcome: Outcome) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, lines: list[tuple[object, ...]]) -> None:
        if self._file is not None:
            csv.writer(self._file, lineterminator="\n").writerows(lines)
            self._file.flush()


def _cut(path: Path, step: int) -> None:
    """Keep the whole lines of steps before ``step``."""
    with (
        replacing(path) as temporary,
        path.open(encoding="utf-8", newline="") as old,
        temporary.open("w", encoding="utf-8", newline="") as new,
    ):
        for line in old:
            first = line.partition(",")[0]
            is_kept = first == _COLUMNS[0] or (first.isdigit() and int(first) < step)
            if line.endswith("\n") and is_kept:
                new.write(line)
