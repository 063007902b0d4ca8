"""``log.txt``: what the run said, from its first line on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TextIO

from loguru import logger

from classifier_training.config.secrets import redacted

_FORMAT = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"


class RunLog:
    """Keeps messages in memory until the run has a folder, then writes them there.

    A refused run writes nothing, so the file cannot be opened before the checks are done.
    """

    def __init__(self) -> None:
        self._early: list[str] = []
        self._sinks: list[int] = []
        self._file: TextIO | None = None

    def __enter__(self) -> RunLog:
        self._sinks.append(self._add(self._early.append))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for sink in self._sinks:
            logger.remove(sink)
        if self._file is not None:
            self._file.close()

    def open(self, path: Path) -> None:
        """Write the earlier messages to ``path`` and go on there."""
        logger.remove(self._sinks.pop())
        file = path.open("a", encoding="utf-8")
        self._file = file

        def write(message: str) -> None:
            file.write(redacted(message))
            file.flush()

        for message in self._early:
            write(message)
        self._sinks.append(self._add(write))

    @staticmethod
    def _add(sink: Callable[[str], None]) -> int:
        # loguru's diagnosis would write the values of variables into tracebacks: secrets too. What
        # a library puts into its messages is struck out when they are written.
        return logger.add(sink, format=_FORMAT, level="DEBUG", diagnose=False)
