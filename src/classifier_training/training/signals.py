"""SIGTERM and SIGINT: remembered, and obeyed at the next point from which the run can go on."""

from __future__ import annotations

import signal
import threading
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
        self._received: int | None = None
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
    def stop_asked(self) -> bool:
        """Whether a signal arrived."""
        return self._received is not None

    def install(self) -> None:
        """Handle both signals; call again after Lightning has put its own handlers in place."""
        for number in _OURS:
            if _is_main_thread():
                signal.signal(number, self._remember)

    def stop(self, resume_command: str) -> NoReturn:
        """End the run after it was saved.

        Raises:
            InterruptedRunError: Always; its exit code is that of the signal.
        """
        number = self._received or signal.SIGTERM
        raise interrupted(number, "everything up to the last optimiser step", resume_command)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self._received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
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
        f"stopped by {signal.Signals(number).name}; {saved} is saved",
        expected="the run to be continued later",
        mend=f"go on with: {resume_command}",
        exit_code=EXIT_TERMINATED if number == signal.SIGTERM else EXIT_INTERRUPTED,
    )


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
