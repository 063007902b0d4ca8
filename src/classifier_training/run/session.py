"""Ownership of a run folder: lock, copy, log, record and status."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol

from classifier_training.errors import InterruptedRunError
from classifier_training.run.folder import RunFolder
from classifier_training.run.identity import (
    Identity,
    check_folder,
    failure_of,
    refuse_after_failure,
)
from classifier_training.run.lock import RunLock, remove_stale_files, require_free
from classifier_training.run.log import RunLog
from classifier_training.run.mirror import Mirror, open_mirror
from classifier_training.run.record import is_finished, open_record, stage


class Exchange(Protocol):
    """Passes what the first process of a run decides to the others."""

    @property
    def is_main(self) -> bool:
        """Whether this process is the first one, which owns the folder."""

    def share(self, make: Callable[[], Any]) -> Any:
        """Return, in every process, what ``make`` returned in the first one (plain JSON values)."""


class RunSession:
    """Opens a run folder for one run. A context manager.

    The first process takes the lock, writes the record, the log and the copy at ``output_uri``, and
    decides whether the folder may be used; the others receive its decision and its record, and
    read no file of the folder for that. Nothing is written before :meth:`start`, except the lock
    file and what is fetched from ``output_uri``.

    Args:
        folder: The run folder; it need not exist.
        exchange: Connects the processes of the run.
        output_uri: Where the folder is copied to, if anywhere.

    Attributes:
        record: ``run.json`` of the earlier parts of the run, None for a new run; the current one
            after :meth:`start`.
        run_id: Id of the run, also of a new one.
    """

    def __init__(self, folder: RunFolder, exchange: Exchange, output_uri: str | None) -> None:
        self.folder = folder
        self.record: dict[str, Any] | None = None
        self.run_id = ""
        self._exchange = exchange
        self._output_uri = output_uri
        self._identity: Identity | None = None
        self._log = RunLog()
        self._mirror: Mirror | None = None
        self._has_lock = False
        self._held = contextlib.ExitStack()

    @property
    def is_main(self) -> bool:
        """Whether this process owns the folder."""
        return self._exchange.is_main

    @property
    def is_finished(self) -> bool:
        """Whether the claimed run has ended, with as many epochs as are requested now."""
        assert self._identity is not None  # claimed
        return self.record is not None and is_finished(self.record, self._identity)

    def __enter__(self) -> RunSession:
        """Start the log, and refuse a folder in use before the data is read, which may take long.

        Raises:
            ResumeError: Another process uses the folder.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._log)
            if self.is_main:
                require_free(self.folder.path)
            self._held = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def claim(self, identity: Identity) -> None:
        """Take the folder for this run, new or resumed.

        Raises:
            ResumeError: It holds another run, is in use, or the copy at ``output_uri`` differs.
            FailedBeforeError: The same submission of a job failed before.
            ConfigError: ``output_uri`` cannot be reached.
        """
        self._identity = identity
        claimed = self._exchange.share(lambda: self._claim(identity))
        self.record, self.run_id = claimed["record"], claimed["run_id"]

    def start(self, facts: Mapping[str, Any]) -> None:
        """Write or continue ``run.json``, open the log, and start copying to ``output_uri``.

        From here on the record says how the run ended.

        Args:
            facts: Further entries of the record: batch size, hardware, ….
        """
        self.record = self._exchange.share(lambda: self._start(facts))

    def lock(self) -> None:
        """Take the lock, if it is not held yet.

        Raises:
            ResumeError: Another process uses the folder.
        """
        if not self._has_lock:
            self._held.enter_context(RunLock(self.folder.path))
            self._has_lock = True

    def stage(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Add the wall time of the block to the record, in the first process."""
        return stage(self.folder, name) if self.is_main else contextlib.nullcontext()

    def copy(self) -> None:
        """Copy the folder to ``output_uri``, if there is one, until the session ends."""
        if self._mirror is not None:
            self._held.enter_context(self._mirror)

    def _claim(self, identity: Identity) -> dict[str, Any]:
        self._mirror = open_mirror(self._output_uri, self.folder)
        # Checked before the lock makes the folder, and again when nobody else can start in it.
        record = check_folder(self.folder, identity)
        if self._mirror is not None or record is None or not is_finished(record, identity):
            self.lock()
            if self._mirror is not None:
                self._mirror.restore(identity)
            record = check_folder(self.folder, identity)
        if record is not None:
            refuse_after_failure(record)
        return {"record": record, "run_id": record["id"] if record else uuid.uuid4().hex[:12]}

    def _start(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        assert self._identity is not None  # claimed
        record = open_record(self.folder, self._identity, self.record, self.run_id, facts)
        remove_stale_files(self.folder.path)
        self._log.open(self.folder.log)
        self.copy()
        self._held.enter_context(_status(self.folder))
        return record


@contextlib.contextmanager
def _status(folder: RunFolder) -> Iterator[None]:
    """Record how a run ended that did not finish; a finished one stays finished."""
    try:
        yield
    except BaseException as error:
        is_stop = isinstance(error, (InterruptedRunError, KeyboardInterrupt, SystemExit))
        failed = {} if is_stop else {"failure": failure_of(error)}
        with contextlib.suppress(OSError):  # the disk may be what failed
            if folder.read_record()["status"] != "finished":
                folder.update_record({"status": "interrupted" if is_stop else "failed", **failed})
        raise
