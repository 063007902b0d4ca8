"""SIGTERM and SIGINT: stop the run at the next point from which it can be resumed."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import NoReturn

import lightning.pytorch as pl
from loguru import logger

from classifier_training.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, InterruptedRunError
from classifier_training.training.distributed import Processes

_OURS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Remembers the two signals, and stops the run at a point from which it can be resumed.

    A second SIGINT stops at once. As a context manager it restores the previous handlers. Outside
    the main thread, where Python allows no handlers, it does nothing.

    Args:
        grace_s: Seconds between a signal and the moment when the process may be killed.
        resume_command: What to type to resume the run.
        processes: Connects the processes of the run.
    """

    def __init__(self, grace_s: float, resume_command: str, processes: Processes) -> None:
        self._grace_s = grace_s
        self._resume_command = resume_command
        self._processes = processes
        self._received = 0
        self._received_at = 0.0
        self._clock = 0.0
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

    def take_over(self, trainer: pl.Trainer) -> None:
        """Handle both signals from here on, in place of Lightning's own handlers.

        Raises:
            InterruptedRunError: SIGTERM arrived while Lightning was setting up.
        """
        self.install()
        if trainer.received_sigterm:
            raise interrupted(signal.SIGTERM, "what was saved before", self._resume_command)

    def install(self) -> None:
        """Handle both signals."""
        for number in _OURS:
            if _is_main_thread():
                signal.signal(number, self._remember)

    def start_clock(self) -> None:
        """Start to measure how long the batches of a validation take."""
        self._clock = time.monotonic()

    def stop_if_received(self, trainer: pl.Trainer, received: int, saved: str) -> None:
        """End the run after a save, if any process received a signal.

        Args:
            trainer: The trainer.
            received: The largest number of a signal that a process received, 0 for none.
            saved: What is on the disk.

        Raises:
            InterruptedRunError: Its exit code is that of the signal.
        """
        if not received:
            return
        if not self._received:
            self._received, self._received_at = received, time.monotonic()
        seconds = time.monotonic() - self._received_at
        logger.info("signals: saved {:.2f} s after the signal", seconds)
        self._stop(trainer, f"{saved} ({seconds:.2f} s after the signal)")

    def stop_if_late(
        self, trainer: pl.Trainer, saved: str, *, done: int = 1, total: int = 1, then_s: float = 0.0
    ) -> None:
        """End the run without a save, if the grace would be over before the next save is done.

        Several processes need not have the same number of batches here; they always finish.

        Args:
            trainer: The trainer.
            saved: What is on the disk.
            done: Batches of the validation that are done since :meth:`start_clock`.
            total: All of them.
            then_s: Seconds that the save after them takes.

        Raises:
            InterruptedRunError: Its exit code is that of the signal.
        """
        if not self._received or not self._processes.is_alone:
            return
        now = time.monotonic()
        remaining_s = (now - self._clock) / done * (total - done) + then_s
        if now + remaining_s - self._received_at > self._grace_s:
            self._stop(trainer, saved)

    def _stop(self, trainer: pl.Trainer, saved: str) -> NoReturn:
        self._processes.part(trainer)
        raise interrupted(self._received, saved, self._resume_command)

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
        resume_command: What to type to resume the run.
    """
    return InterruptedRunError(
        f"stopped by {signal.Signals(number).name}; saved is {saved}",
        expected="the run to be continued later",
        fix=f"resume with: {resume_command}",
        exit_code=EXIT_TERMINATED if number == signal.SIGTERM else EXIT_INTERRUPTED,
    )


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
