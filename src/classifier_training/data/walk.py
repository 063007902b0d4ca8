"""Files below a folder, with what is left out counted and what cannot be listed noted."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from classifier_training.data.records import RowCollector, relative_to_root
from classifier_training.system.scan import walk_files


def note_unlistable(collector: RowCollector, error: OSError) -> None:
    """Note a folder that this user may not read."""
    name = relative_to_root(Path(str(error.filename)), collector.root)
    collector.fault(name, 0, f"cannot be listed: {error.strerror or error}")


def walk(
    collector: RowCollector, top: Path, suffixes: Collection[str], other: str | None = None
) -> Iterator[Path]:
    """Yield the files below ``top`` with such an ending that are not hidden.

    Args:
        collector: Takes note of what is skipped, and of folders that cannot be listed.
        top: Where to begin.
        suffixes: Lower-case endings.
        other: The reason under which further files are counted; None does not count them.
    """

    def skip(reason: str) -> None:
        collector.skipped[reason] += 1

    for path in walk_files(
        top, on_skip=skip, on_error=lambda error: note_unlistable(collector, error)
    ):
        is_wanted = path.suffix.lower() in suffixes
        if path.name.startswith("."):
            if is_wanted or other:
                skip("hidden")
        elif is_wanted:
            yield path
        elif other:
            skip(other)
