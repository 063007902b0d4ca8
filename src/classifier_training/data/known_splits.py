"""The splits of an earlier run: ``data.split.manifest``."""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from classifier_training.data.records import SPLITS, is_file
from classifier_training.data.units import Unit
from classifier_training.errors import DataError


def read_known_splits(name: str, root: Path) -> dict[str, str]:
    """Read the split of each path from a CSV with the columns ``path`` and ``split``.

    Args:
        name: ``data.split.manifest``: a path from the working directory, or from ``root``.
        root: The data root.

    Raises:
        DataError: It cannot be read, or a row is at fault (named by its line).
    """
    path = Path(os.path.expanduser(name))
    path = path if is_file(path) else root / path
    known: dict[str, str] = {}
    limit = csv.field_size_limit(sys.maxsize)  # metadata may be long
    line = 1
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            table = csv.reader(file, strict=True)
            path_column, split_column = _columns(next(table, []))
            line = table.line_num + 1
            for cells in table:
                if cells:  # not a blank line
                    if len(cells) <= max(path_column, split_column):
                        raise ValueError("has too few columns")
                    _take(known, cells[path_column], cells[split_column])
                line = table.line_num + 1
    except (OSError, ValueError, csv.Error) as error:
        where = "" if isinstance(error, OSError) else f":{line}"
        raise DataError(
            f"cannot use data.split.manifest={path}{where}: {error}",
            expected="the data/manifest.csv of an earlier run, or a CSV with columns path and split"
            f" ({', '.join(SPLITS)})",
            mend="correct the path (from here, absolute, or relative to data.data_root) or the row",
        ) from error
    finally:
        csv.field_size_limit(limit)
    return known


def _columns(header: list[str]) -> tuple[int, int]:
    for name in ("path", "split"):
        if header.count(name) != 1:
            raise ValueError(f"has {header.count(name) or 'no'} column {name!r}")
    return header.index("path"), header.index("split")


def _take(known: dict[str, str], name: str, split: str) -> None:
    if not name:
        raise ValueError("the path is empty")
    if split not in SPLITS:
        raise ValueError(f"split {split[:40]!r} is none of {', '.join(SPLITS)}")
    if known.setdefault(name, split) != split:
        raise ValueError(f"{name} is {split} here and {known[name]} further up")


def fix_units(units: tuple[Unit, ...], known: Mapping[str, str]) -> tuple[dict[Unit, str], int]:
    """Give units with known images the split of most of these.

    Returns:
        Split by unit, and the number of known images whose split changes because their group or a
        copy of theirs lies in another.
    """
    fixed: dict[Unit, str] = {}
    moved = 0
    for unit in units:
        votes = Counter(known[path] for path in unit.paths if path in known)
        if votes:
            fixed[unit] = max(SPLITS, key=lambda split: votes[split])
            moved += votes.total() - votes[fixed[unit]]
    return fixed, moved
