"""The files in ``checkpoints/``: their names, the list of what was written, and pruning."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loguru import logger

from classifier_training.models.archive import digest_of
from classifier_training.runtime.files import replacing, write_json

MANIFEST = "manifest.json"
# What a save is called until all its names are given; one that is found was cut short by a kill.
SAVING = "saving.ckpt"
SCHEMA_VERSION = 1
_REMEMBERED = 2


class CheckpointFiles:
    """Gives one saved file its names, and notes in ``manifest.json`` what was written.

    The note is made before the names are given, and keeps the one before: whenever the process is
    killed, a file that this run wrote has one of the digests noted for its name.

    Args:
        folder: ``checkpoints/`` of a run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def saving(self) -> Path:
        """Where a checkpoint is saved before :meth:`publish`."""
        return self._folder / SAVING

    def publish(self, names: Iterable[str], *, epoch: int, step: int) -> None:
        """Let the file at :attr:`saving` take these names, one after the other, each atomically."""
        names = tuple(names)
        self._note(names, epoch, step)
        for name in names:
            _link(self.saving, self._folder / name)
        self.saving.unlink()

    def drop_unfinished(self) -> None:
        """Remove a save that a kill kept from getting its names."""
        self.saving.unlink(missing_ok=True)

    def prune(self, names: Iterable[str]) -> None:
        """Delete these files where they are what this run wrote under these names."""
        for name in names:
            path = self._folder / name
            if not path.exists():
                continue
            if self.is_ours(path):
                path.unlink()
            else:
                logger.warning("run: {} is kept, it is not what this run wrote", path)

    def is_listed(self, name: str) -> bool:
        """Say whether the manifest has a name."""
        return name in self._noted()

    def is_ours(self, path: Path) -> bool:
        """Say whether the manifest lists what a file holds."""
        try:
            digest = digest_of(path)
        except (OSError, zipfile.BadZipFile):
            return False
        return digest in {entry["digest"] for entry in self._noted().get(path.name, [])}

    def _note(self, names: Iterable[str], epoch: int, step: int) -> None:
        entry = {
            "digest": digest_of(self.saving),
            "bytes": self.saving.stat().st_size,
            "epoch": epoch,
            "step": step,
            "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        noted = {name: entries for name, entries in self._noted().items() if self._exists(name)} | {
            name: [entry, *self._noted().get(name, [])][:_REMEMBERED] for name in names
        }
        content = {"schema_version": SCHEMA_VERSION, "files": dict(sorted(noted.items()))}
        write_json(self._folder / MANIFEST, content)

    def _noted(self) -> dict[str, list[dict[str, Any]]]:
        """Return the newest entries of each name, newest first; a lost manifest is begun anew."""
        try:
            content = json.loads((self._folder / MANIFEST).read_text(encoding="utf-8"))
            files = content["files"] if content["schema_version"] == SCHEMA_VERSION else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return files if isinstance(files, dict) else {}

    def _exists(self, name: str) -> bool:
        return (self._folder / name).exists()


def _link(source: Path, target: Path) -> None:
    """Give a file a second name atomically, as a hard link where the file system has them."""
    with replacing(target) as temporary:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
