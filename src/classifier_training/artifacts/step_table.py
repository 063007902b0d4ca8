"""A CSV that grows row by row while training goes on, and stays right when a run goes on."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from classifier_training.runtime.files import replacing


class StepTable:
    """Appends rows; what a resumed run measures again replaces what was there.

    Rows are flushed but not synced: after a crash the last ones may be missing or cut, and then
    the run goes on from an earlier step anyway.

    Args:
        path: The CSV.
        columns: Its columns; the first one grows from row to row (a step or an epoch).
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._columns = tuple(columns)

    def go_on(self, start: int) -> None:
        """Keep the rows before ``start``, and drop those that come again."""
        kept = [row for row in self._rows() if int(row[0]) < start]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._path) as temporary:
            _write(temporary, "w", [self._columns, *kept])

    def append(self, row: Mapping[str, float | None]) -> None:
        """Add a row; None is an empty cell.

        Raises:
            KeyError: A column is missing.
        """
        _write(self._path, "a", [[_cell(row[name]) for name in self._columns]])

    def _rows(self) -> list[list[str]]:
        """Return the whole rows of the file, if it has our columns."""
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        if tuple(header) != self._columns:
            return []
        return [row for row in rows if len(row) == len(header) and row[0].isdigit()]


def _write(path: Path, mode: str, rows: Sequence[Sequence[str]]) -> None:
    with path.open(mode, newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.9g}"
