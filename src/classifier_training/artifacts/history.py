"""``metrics.csv``: one row an epoch, rewritten from the rows that the checkpoint holds."""

from __future__ import annotations

import csv
from pathlib import Path

from classifier_training.runtime.files import replacing


def write_history(path: Path, rows: list[dict[str, float]]) -> None:
    """Write all rows atomically; columns are those of any row, ``epoch`` and ``step`` first."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({name: _number(value) for name, value in row.items()} for row in rows)


def read_history(path: Path) -> list[dict[str, float]]:
    """Read the rows back as numbers."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, int) else repr(float(value))
