"""``metrics.csv``: one row an epoch, rewritten from the rows that the checkpoint holds."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from classifier_training.system.tables import write_table


@dataclass(frozen=True)
class History:
    """What a run measured so far; passed to callbacks and trackers.

    Attributes:
        rows: One an epoch, in order: ``epoch``, ``step`` and the scores by their names.
        monitor: The score that decides which epoch is best.
        best_epoch: That epoch; -1 while there is none.
        step: Optimizer steps done.
    """

    rows: list[dict[str, float]]
    monitor: str
    best_epoch: int
    step: int


def write_history(path: Path, rows: list[dict[str, float]]) -> None:
    """Write all rows atomically; columns are those of any row, ``epoch`` and ``step`` first."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = ([_number(row[name]) if name in row else "" for name in columns] for row in rows)
    write_table(path, columns, cells)


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the rows back as numbers."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, int) else repr(float(value))
