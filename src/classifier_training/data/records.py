"""What a data source yields, and how faulty rows are collected and told."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from classifier_training.errors import DataError

SPLITS = ("train", "val", "test")

# Names a split's folder or file may have, besides the split's own.
SPLIT_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}

_SHOWN = 10


class Record(NamedTuple):
    """One labelled image as a source found it.

    ``path`` is relative to the data root (absolute when it lies elsewhere), ``source`` names the
    annotation file (or folder), ``line`` counts from 1 (0 without lines), ``metadata`` is JSON
    text or empty, ``group`` names what must not be cut by a split (empty: the image alone).
    """

    path: str
    label: str
    split: str
    source: str
    line: int
    metadata: str
    group: str = ""


@dataclass
class RowCollector:
    """Collects records, the rows that were skipped by reason, and the faults.

    Faults are collected so that one run of the command shows many of them. ``empty_labels`` counts
    the records whose empty label was given a name. Where ``tolerated`` is a list, faults go there
    instead of being raised.
    """

    root: Path
    records: list[Record] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    empty_labels: int = 0
    tolerated: list[str] | None = None

    def fault(self, source: str, line: int, message: str) -> None:
        """Note a row that cannot be used."""
        self.faults.append(f"{source}:{line}: {message}" if line else f"{source}: {message}")

    def raise_faults(self) -> None:
        """Raise what was collected.

        Raises:
            DataError: There were faults; the first ten are listed.
        """
        if self.tolerated is not None:
            self.tolerated += self.faults
            self.faults.clear()
        if not self.faults:
            return
        shown = "\n    ".join(self.faults[:_SHOWN])
        more = len(self.faults) - _SHOWN
        rest = f"\n    … and {more} more" if more > 0 else ""
        count = len(self.faults)
        raise DataError(
            f"{count} faulty row{'s' if count != 1 else ''} in {self.root}:\n    {shown}{rest}",
            expected="each row to name an existing image inside the data root, and its label",
            fix="correct or remove these rows",
        )


def inside(path: str, folder: Path, root: Path) -> Path | str:
    """Resolve the path of a row, or say why it is refused.

    Args:
        path: As the row has it.
        folder: What it is relative to.
        root: Where it must stay, links followed.

    Returns:
        The path (not resolved), or the reason as text.
    """
    if not path:
        return "the image path is empty"
    if "\0" in path:
        return "the image path holds a NUL character"
    if os.path.isabs(path) or path.startswith("\\\\") or path[1:3] in (":\\", ":/"):
        return f"the image path {path!r} is absolute; it must be relative to {folder}"
    joined = Path(os.path.normpath(folder / path))
    return escape(joined, root) or joined


def escape(path: Path, root: Path) -> str:
    """Say how ``path`` leaves ``root``, links followed; empty when it stays inside."""
    try:
        resolved = os.path.realpath(path)
    except (OSError, ValueError) as error:
        return f"the image path {str(path)!r} cannot be resolved: {error}"
    inside_of = _real(root)
    if resolved != inside_of and not resolved.startswith(inside_of.rstrip(os.sep) + os.sep):
        return f"the image path {str(path)!r} leaves the data root {root}"
    return ""


@lru_cache(maxsize=64)  # asked for every image
def _real(root: Path) -> str:
    return os.path.realpath(root)


def relative_to_root(path: Path, root: Path) -> str:
    """Return ``path`` relative to ``root`` with forward slashes, absolute when outside."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def is_file(path: Path) -> bool:
    """Whether there is a file; a path that cannot be asked about (too long, no permission): no."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder; see :func:`is_file`."""
    try:
        return path.is_dir()
    except OSError:
        return False
