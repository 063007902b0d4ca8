"""CSV tables: UTF-8 with undecodable bytes kept, read with checks and written atomically."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from classifier_training.errors import DataError
from classifier_training.system.files import replacing

Row = dict[str, str]


def read_table(path: Path, columns: tuple[str, ...], *, fix: str) -> list[Row]:
    """Read the rows of a CSV file that has at least these columns.

    Raises:
        DataError: It cannot be read, is not a table, or lacks a column.
    """
    limit = csv.field_size_limit(sys.maxsize)  # metadata may be long
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            cells = list(csv.reader(file, strict=True))
        header = cells[0] if cells else []
        missing = [column for column in columns if column not in header]
        if missing:
            raise csv.Error(f"it has no column {', '.join(missing)}")
        odd = [number for number, row in enumerate(cells, start=1) if len(row) != len(header)]
        if odd:
            raise csv.Error(f"row {odd[0]} has not the {len(header)} columns of the header")
    except (OSError, csv.Error) as error:
        raise DataError(
            f"cannot read {path}: {error}",
            expected=f"a CSV file with the columns {', '.join(columns)}",
            fix=fix,
        ) from error
    finally:
        csv.field_size_limit(limit)
    return [dict(zip(header, row, strict=True)) for row in cells[1:]]


def write_table(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file, complete or not at all; None is an empty cell."""
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
