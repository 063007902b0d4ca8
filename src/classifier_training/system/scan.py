"""Files below a folder, the same ones for training and prediction."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk_files(
    top: Path, *, on_skip: Callable[[str], None], on_error: Callable[[OSError], None]
) -> Iterator[Path]:
    """Yield all files below ``top`` in sorted order, links followed, each folder once.

    Hidden folders are passed over (``.ipynb_checkpoints`` holds copies), and so are links back to
    a folder that contains them.

    Args:
        top: Where to begin.
        on_skip: Called with the reason for each folder that is passed over.
        on_error: Called for each folder that cannot be listed.
    """
    seen = {_identity(folder) for folder in (top, *top.absolute().parents)}

    def is_new(folder: Path) -> bool:
        if folder.name.startswith("."):
            on_skip("hidden")
            return False
        identity = _identity(folder)
        if identity in seen:
            on_skip("link to a folder already read")
            return False
        seen.add(identity)
        return True

    for parent, folders, names in os.walk(top, followlinks=True, onerror=on_error):
        folders[:] = [name for name in sorted(folders) if is_new(Path(parent, name))]
        for name in sorted(names):
            yield Path(parent, name)


def _identity(folder: Path) -> tuple[int, int]:
    try:
        found = folder.stat()
    except OSError:
        return -1, hash(folder)  # listing it will say what is wrong
    return found.st_dev, found.st_ino
