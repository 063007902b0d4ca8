"""``output_uri``: the run folder, copied elsewhere while it grows, and fetched from there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from loguru import logger

from classifier_training.errors import ClassifierTrainingError, ConfigError, ResumeError
from classifier_training.run.folder import RUN_JSON, SAVING_NAME, RunFolder
from classifier_training.run.identity import Identity, check_folder
from classifier_training.run.lock import LOCK_NAME
from classifier_training.run.object_store import ObjectStore, StoreError, digest_of

INVENTORY = "upload.json"
_HISTORY = "metrics.csv"
_LAST = "checkpoints/last.ckpt"
_CHECKPOINTS = "checkpoints/"
_PRUNED = (f"{_CHECKPOINTS}epoch=", "plots/confusion_matrix/epoch=", "plots/samples/epoch=")
# Of this machine and moment.
_TRANSIENT = (LOCK_NAME, f"{_CHECKPOINTS}{SAVING_NAME}")
_HELD = ".upload-"
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


class Content(NamedTuple):
    """What a file holds: its bytes and their SHA-256."""

    bytes: int
    sha256: str


class _Stamp(NamedTuple):
    """What changes when a file is replaced or grows."""

    inode: int
    modified_ns: int
    bytes: int


class Mirror:
    """Copies what changes in a run folder to an object store, from a thread of its own.

    Files of a run are replaced as a whole (or grow), so the folder itself says what there is to do:
    nobody has to announce a file, the newest content wins, and training never waits. As a context
    manager it ends with everything copied and read back; after an error or a signal it takes at
    most ``grace_s`` for what is left.

    Args:
        store: Where to.
        folder: What.
        every_s: How often the folder is looked at.
        patience_s: How long, at the end, a store may fail before that is an error.
        grace_s: How long a run that was stopped waits for its last checkpoint to be copied.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: RunFolder,
        *,
        every_s: float = 10.0,
        patience_s: float = 300.0,
        grace_s: float = 20.0,
    ) -> None:
        self._store = store
        self._folder = folder
        self._every_s = every_s
        self._patience_s = patience_s
        self._grace_s = grace_s
        self._known: dict[str, Content] = {}
        self._stamps: dict[str, _Stamp] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="output_uri", daemon=True)

    def restore(self, identity: Identity) -> None:
        """Fetch the run into its folder if that is empty. Call it before the folder is checked.

        Raises:
            ConfigError: The store does not answer.
            ResumeError: It holds another run.
        """
        try:
            stored = self._store.read(RUN_JSON)
            if stored is None:
                return
            inventory = json.loads(self._store.read(INVENTORY) or b"{}").get("files", {})
            self._known = {name: Content(**content) for name, content in inventory.items()}
            if self._folder.record_file.exists():
                self._require_same_run(stored)
                return
            self._require_fitting(identity)
            self._fetch()
        except StoreError as error:
            raise ConfigError(
                str(error),
                expected="a place that can be read and written",
                fix="check the network, the name and the credentials (classifier doctor), or "
                "output_uri=null",
            ) from error

    def __enter__(self) -> Mirror:
        for left in self._folder.path.glob(f"{_HELD}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._thread.start()
        logger.info("output_uri: copying to {}", self._store.uri)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        if kind is None:
            self._thread.join()
            self._finish()
            return
        self._thread.join(self._grace_s)
        if self._thread.is_alive() or self._changed():
            logger.warning(
                "output_uri: {} does not have everything yet; the same command on this machine "
                "copies the rest",
                self._store.uri,
            )

    def _work(self) -> None:
        """Copy what changed, again and again; a store that fails is asked less and less often."""
        pause = _FIRST_PAUSE_S
        is_last = False
        while True:
            try:
                self._round()
                pause, wait = _FIRST_PAUSE_S, self._every_s
            except StoreError as error:
                if pause == _FIRST_PAUSE_S:
                    logger.warning("output_uri: {}; trying again, training goes on", error)
                wait, pause = pause, min(2 * pause, _LONGEST_PAUSE_S)
            except OSError as error:  # the run itself will meet it too
                logger.warning("output_uri: {}", error)
                wait = self._every_s
            if is_last:
                return
            is_last = self._stopping.wait(wait)

    def _finish(self) -> None:
        """Copy what is left and read everything back.

        Raises:
            ClassifierTrainingError: The store failed for too long, or does not return what was
                written to it.
        """
        started = time.monotonic()
        pause = _FIRST_PAUSE_S
        while True:
            try:
                self._round()
                wrong = self._wrong()
                if not wrong:
                    self._write_inventory(is_complete=True)
                    logger.info(
                        "output_uri: {} files are at {}, read back and equal",
                        len(self._known),
                        self._store.uri,
                    )
                    return
                problem = f"{self._store.uri} does not return what was written: {', '.join(wrong)}"
            except StoreError as error:
                problem = str(error)
            if time.monotonic() - started + pause > self._patience_s:
                raise ClassifierTrainingError(
                    f"{problem}; the run is finished and whole in {self._folder.path}",
                    expected=f"all of it at {self._store.uri} as well",
                    fix="fix the place or the credentials and run the same command again: it "
                    "copies what is missing",
                )
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _round(self) -> None:
        """Copy what changed, in an order that leaves a run to go on from at every moment.

        The content of ``last`` and of ``run.json`` is held first and copied last: beside them lies
        what is at least as new, never an older best checkpoint or a missing artefact.
        """
        changed = self._changed()
        last_of_all = sorted(filter(_is_late, changed), key=lambda name: (name == RUN_JSON, name))
        with contextlib.ExitStack() as held:
            late = {name: held.enter_context(self._held(name)) for name in last_of_all}
            for name in changed.keys() - late.keys():
                with self._held(name) as snapshot:
                    self._copy(snapshot, name)
            for name, snapshot in late.items():
                self._copy(snapshot, name)
        self._stamps.update(changed)
        # Epochs that are no longer among the best or newest. Anything else missing here was lost.
        pruned = [
            name
            for name in self._known
            if name.startswith(_PRUNED) and not (self._folder.path / name).exists()
        ]
        for name in pruned:
            self._store.remove(name)
            del self._known[name]
            self._stamps.pop(name, None)
        if changed or pruned:
            self._write_inventory(is_complete=False)

    def _copy(self, snapshot: Path | None, name: str) -> None:
        if snapshot is None:  # gone meanwhile
            return
        with snapshot.open("rb") as file:
            content = Content(*digest_of(file))
        if self._known.get(name) != content:
            self._store.put(snapshot, name)
            self._known[name] = content

    @contextlib.contextmanager
    def _held(self, name: str) -> Iterator[Path | None]:
        """Give a second name for what a file holds now, whatever takes its place; None if gone."""
        path = self._folder.path / name
        with tempfile.TemporaryDirectory(prefix=_HELD, dir=self._folder.path) as folder:
            snapshot = Path(folder) / path.name
            try:
                try:
                    if not name.startswith(_CHECKPOINTS):  # logs and tables of steps grow
                        raise OSError
                    os.link(path, snapshot)
                except OSError:
                    shutil.copyfile(path, snapshot)
            except FileNotFoundError:
                yield None
                return
            yield snapshot

    def _changed(self) -> dict[str, _Stamp]:
        found = {}
        for path in sorted(self._folder.path.rglob("*")):
            name = path.relative_to(self._folder.path).as_posix()
            if name in _TRANSIENT or any(part.startswith(".") for part in Path(name).parts):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                stamp = _Stamp(status.st_ino, status.st_mtime_ns, status.st_size)
                if path.is_file() and self._stamps.get(name) != stamp:
                    found[name] = stamp
        return found

    def _wrong(self) -> list[str]:
        """Read every object back; forget, so that it is copied again, what is not as it was."""
        wrong = [
            name for name, content in self._known.items() if self._store.digest(name) != content
        ]
        for name in wrong:
            del self._known[name]
            self._stamps.pop(name, None)
        return wrong

    def _write_inventory(self, *, is_complete: bool) -> None:
        content = {
            "schema_version": 1,
            "complete": is_complete,
            "files": {name: known._asdict() for name, known in sorted(self._known.items())},
        }
        self._store.write(json.dumps(content, indent=2).encode(), INVENTORY)

    def _require_same_run(self, stored: bytes) -> None:
        here = self._folder.read_record()["id"]
        there = json.loads(stored).get("id")
        if here != there:
            raise ResumeError(
                f"{self._store.uri} holds run {there}, {self._folder.path} holds run {here}",
                expected="the same run in both places, or one of them empty",
                fix="choose another output_uri",
            )
        rows = self._folder.history.read_bytes() if self._folder.history.exists() else b""
        done_here, done_there = rows.count(b"\n"), (self._store.read(_HISTORY) or b"").count(b"\n")
        if done_there > done_here:
            raise ResumeError(
                f"{self._store.uri} has {done_there - done_here} epochs more of this run than "
                f"{self._folder.path}, which would be copied over it",
                expected="a folder that is as far as the copy",
                fix="go on from the copy: the same command with an empty hydra.run.dir",
            )

    def _require_fitting(self, identity: Identity) -> None:
        """Compare with the stored run before anything is written here."""
        with tempfile.TemporaryDirectory(prefix="classifier-") as place:
            copy = RunFolder(Path(place))
            for path in (copy.record_file, copy.config):
                self._store.get(path.name, path)
            try:
                check_folder(copy, identity)
            except ResumeError as error:
                raise ResumeError(
                    error.what.replace(place, self._store.uri),
                    expected=error.expected,
                    fix=error.fix.replace("hydra.run.dir", "output_uri"),
                ) from error

    def _fetch(self) -> None:
        """Fetch all files; ``run.json`` last, so that a fetch that was cut off is begun again."""
        sizes = self._store.sizes()
        names = sorted(sizes.keys() - {INVENTORY}, key=lambda name: (name == RUN_JSON, name))
        for name in names:
            target = self._folder.path / name
            if not target.resolve().is_relative_to(self._folder.path.resolve()):
                raise StoreError(f"{self._store.uri} has an object with a strange name: {name!r}")
            self._store.get(name, target)
        total = sum(sizes[name] for name in names)
        logger.info(
            "output_uri: fetched {} files ({:,} MB) from {}",
            len(names),
            total >> 20,
            self._store.uri,
        )


def _is_late(name: str) -> bool:
    """Whether a file speaks of others, which must be there before it."""
    is_index = name.startswith(_CHECKPOINTS) and name.endswith(".json")
    return name in (_LAST, RUN_JSON) or is_index


def open_mirror(output_uri: str | None, folder: RunFolder) -> Mirror | None:
    """Return the mirror of a run folder; None without an ``output_uri``.

    Raises:
        ConfigError: A package that the protocol needs is missing.
    """
    return None if output_uri is None else Mirror(ObjectStore(output_uri), folder)
