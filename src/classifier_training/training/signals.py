"""SIGTERM and SIGINT: remembered, and obeyed at the next point from which the run can go on."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import NoReturn

from loguru import logger

from classifier_training.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, InterruptedRunError

_OURS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """A flag that the two signals set. A second SIGINT stops at once.

    As a context manager it puts back whatever handled them before. Outside the main thread, where
    Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self._received = 0
        self._received_at = 0.0
        self._before = {number: signal.getsignal(number) for number in _OURS}

    def __enter__(self) -> StopSignals:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            if _is_main_thread() and handler is not None:
                signal.signal(number, handler)

    @property
    def received(self) -> int:
        """The number of the signal that arrived, 0 for none."""
        return self._received

    def adopt(self, number: int) -> None:
        """Take over a signal that another process of the run received."""
        if not self._received:
            self._received, self._received_at = number, time.monotonic()

    def is_late(self, grace_s: float, *, ahead: float = 0.0) -> bool:
        """Say whether a signal arrived and its grace is over after ``ahead`` more seconds."""
        if not self._received:
            return False
        return time.monotonic() + ahead - self._received_at > grace_s

    def install(self) -> None:
        """Handle both signals; call again after Lightning has put its own handlers in place."""
        for number in _OURS:
            if _is_main_thread():
                signal.signal(number, self._remember)

    def stop(self, saved: str, resume_command: str, *, is_saved: bool) -> NoReturn:
        """End the run.

        Args:
            saved: What is on the disk.
            resume_command: What to type to go on.
            is_saved: Whether it was saved because of the signal; then the time it took is told.

        Raises:
            InterruptedRunError: Always; its exit code is that of the signal.
        """
        seconds = time.monotonic() - self._received_at
        if is_saved:
            logger.info("signals: saved {:.2f} s after the signal", seconds)
            saved = f"{saved} ({seconds:.2f} s after the signal)"
        raise interrupted(self._received or signal.SIGTERM, saved, resume_command)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self._received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self._received:
            self._received_at = time.monotonic()
        self._received = number
        logger.warning("{}: saving at the next step, then stopping", signal.Signals(number).name)


def interrupted(number: int, saved: str, resume_command: str) -> InterruptedRunError:
    """Return the error that ends a run after a signal.

    Args:
        number: Of the signal.
        saved: What is on the disk.
        resume_command: What to type to go on.
    """
    return InterruptedRunError(
        f"stopped by {signal.Signals(number).name}; saved is {saved}",
        expected="the run to be continued later",
        fix=f"go on with: {resume_command}",
        exit_code=EXIT_TERMINATED if number == signal.SIGTERM else EXIT_INTERRUPTED,
    )


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
