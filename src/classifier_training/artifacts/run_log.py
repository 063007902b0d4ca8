"""``log.txt``: what the run said, from its first line on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from loguru import logger

_FORMAT = "{time:YYYY-MM-DD HH:mm:ss} {level: <7} {message}"


class RunLog:
    """Keeps messages in memory until the run has a folder, then writes them there.

    A refused run writes nothing, so the file cannot be opened before the checks are done.
    """

    def __init__(self) -> None:
        self._early: list[str] = []
        self._sinks: list[int] = []

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

    def open(self, path: Path) -> None:
        """Write the earlier messages to ``path`` and go on there."""
        logger.remove(self._sinks.pop())
        with path.open("a", encoding="utf-8") as file:
            file.writelines(self._early)
        self._sinks.append(self._add(path))

    @staticmethod
    def _add(sink: Path | Callable[[str], None]) -> int:
        # loguru's diagnosis would write the values of variables into tracebacks: secrets too.
        return logger.add(sink, format=_FORMAT, level="DEBUG", diagnose=False)
