"""The files in ``checkpoints/``: their names, the list of what was written, and pruning."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loguru import logger

from classifier_training.run.folder import SAVING_NAME
from classifier_training.system.files import drafting, duplicate, move, write_json
from classifier_training.system.integrity import digest_of

MANIFEST = "manifest.json"
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

    @contextlib.contextmanager
    def saving(self) -> Iterator[Path]:
        """Give the place where a checkpoint is saved before :meth:`publish`."""
        with drafting(self._folder / SAVING_NAME) as draft:
            yield draft

    def publish(self, draft: Path, names: Sequence[str], *, epoch: int, step: int) -> None:
        """Let a saved file take these names, one after the other, each atomically."""
        self._note(draft, names, epoch, step)
        *others, last = names
        for name in others:
            duplicate(draft, self._folder / name)
        move(draft, self._folder / last)

    def restore(self, name: str, epoch: int) -> None:
        """Let ``name`` be the checkpoint of an epoch again, if a kill left it one of a later epoch.

        That happens between two names of one save. The epoch that follows is then trained again; on
        a GPU it may end with another score, and what ``name`` holds would be of neither.
        """
        kept = f"epoch={epoch:04d}.ckpt"
        held = self._entry_of(name)
        source = self._entry_of(kept)
        if held is None or source is None or held["epoch"] <= epoch:
            return
        self._write({**self._noted(), name: [source, held]})
        duplicate(self._folder / kept, self._folder / name)
        logger.info("run: {} is that of epoch {} again", self._folder / name, epoch)

    def drop_unfinished(self) -> None:
        """Remove a save that a kill kept from getting its names."""
        (self._folder / SAVING_NAME).unlink(missing_ok=True)

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
        return self._entry_of(path.name) is not None

    def _entry_of(self, name: str) -> dict[str, Any] | None:
        """Return what the manifest says of the content that a name has now."""
        try:
            digest = digest_of(self._folder / name)
        except (OSError, zipfile.BadZipFile):
            return None
        entries = self._noted().get(name, [])
        return next((entry for entry in entries if entry["digest"] == digest), None)

    def _note(self, draft: Path, names: Sequence[str], epoch: int, step: int) -> None:
        entry = {
            "digest": digest_of(draft),
            "bytes": draft.stat().st_size,
            "epoch": epoch,
            "step": step,
            "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        noted = {name: entries for name, entries in self._noted().items() if self._exists(name)} | {
            name: [entry, *self._noted().get(name, [])][:_REMEMBERED] for name in names
        }
        self._write(noted)

    def _write(self, noted: dict[str, list[dict[str, Any]]]) -> None:
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
