"""``log.txt``: what the run said, from its first line on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from loguru import logger

from classifier_training.config.secrets import redacted
from classifier_training.system.files import replacing
from classifier_training.system.storage import probe

_FORMAT = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"
_COPY_EVERY_S = 30.0


class RunLog:
    """Keeps messages in memory until the run has a folder, then writes them there.

    A refused run writes nothing, so the file cannot be opened before the checks are done. Where
    files cannot grow (mounts of object storage), the whole text is kept and written again every
    half minute and at the end. A log that cannot be written never stops a run: what can, says so
    itself.
    """

    def __init__(self, *, copy_every_s: float = _COPY_EVERY_S) -> None:
        self._lines: list[str] = []
        self._path: Path | None = None
        self._appends = True
        self._copy_every_s = copy_every_s
        self._copied = 0.0
        self._sink: int | None = None
        self._process = os.getpid()

    def __enter__(self) -> RunLog:
        # loguru's diagnosis would write the values of variables into tracebacks: secrets too.
        self._sink = logger.add(self._take, format=_FORMAT, level="DEBUG", diagnose=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sink is not None:
            logger.remove(self._sink)
        if not self._appends:
            self._try(self._rewrite)

    def open(self, path: Path) -> None:
        """Write the earlier messages to ``path`` and go on there.

        Raises:
            OSError: It cannot be written now, at the start.
        """
        self._appends = probe(path.parent).append
        if not self._appends and path.exists():
            self._lines.insert(0, path.read_text(encoding="utf-8"))
        self._path = path
        self._write()

    def _take(self, message: str) -> None:
        # What a library puts into its messages may hold a secret.
        self._lines.append(redacted(message))
        # Loader processes are copies of this one: they may add to the file, not replace it.
        is_due = self._appends or (
            os.getpid() == self._process and time.monotonic() - self._copied > self._copy_every_s
        )
        if self._path is not None and is_due:
            self._try(self._write)

    def _write(self) -> None:
        if not self._appends:
            self._rewrite()
        elif self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(self._lines)
            self._lines.clear()

    def _rewrite(self) -> None:
        if self._path is not None:
            self._copied = time.monotonic()
            with replacing(self._path) as temporary:
                temporary.write_text("".join(self._lines), encoding="utf-8")

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            sys.stderr.write(f"the log cannot be written: {self._path}: {error.strerror}\n")
            self._path = None


def log_failure(error: Exception, message: str, *values: object) -> None:
    """Log that something failed which training does not depend on.

    An error of the operating system (a full disk) says all in its text; others get a traceback.
    """
    shown = None if isinstance(error, OSError) else error
    logger.opt(exception=shown, depth=1).error(
        message + " ({}: {})", *values, type(error).__name__, error
    )
