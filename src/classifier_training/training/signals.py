"""SIGTERM and SIGINT: remembered, and obeyed at the next point from which the run can go on."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

from loguru import logger

from classifier_training.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, InterruptedRunError


class StopSignals:
    """A flag that the two signals set. A second SIGINT stops at once."""

    def __init__(self) -> None:
        self._received: int | None = None

    @property
    def stop_asked(self) -> bool:
        """Whether a signal arrived."""
        return self._received is not None

    def install(self) -> None:
        """Handle both signals; call again after Lightning has put its own handlers in place."""
        signal.signal(signal.SIGTERM, self._remember)
        signal.signal(signal.SIGINT, self._remember)

    def uninstall(self) -> None:
        """Let the signals end the process again, as after training nothing is there to save."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def stop(self, resume_command: str) -> NoReturn:
        """End the run after it was saved.

        Raises:
            InterruptedRunError: Always; its exit code is that of the signal.
        """
        name = signal.Signals(self._received or signal.SIGTERM).name
        raise InterruptedRunError(
            f"stopped by {name}; everything up to the last optimiser step is saved",
            expected="the run to be continued later",
            mend=f"go on with: {resume_command}",
            exit_code=EXIT_TERMINATED if name == "SIGTERM" else EXIT_INTERRUPTED,
        )

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self._received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number
        logger.warning("{}: saving at the next step, then stopping", signal.Signals(number).name)
