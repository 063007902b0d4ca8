"""The fence around loggers: whatever happens to one, training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_only

from classifier_training.errors import InterruptedRunError
from classifier_training.run.log import log_failure
from classifier_training.trackers.base import Outcome, TrackedRun, Tracker

T = TypeVar("T")


class IsolatedLogger(Logger):
    """Stands before a logger of ours or of Lightning.

    The first exception is logged with its traceback, and the logger is off for the rest of the
    run. A signal (``InterruptedRunError``, ``KeyboardInterrupt``, ``SystemExit``) passes. Only the
    first process reaches the logger.

    Args:
        key: Its name in the section ``logging``.
        inner: The logger.
    """

    def __init__(self, key: str, inner: Logger) -> None:
        super().__init__()
        self.key = key
        self.inner = inner
        self.is_off = False
        self.is_begun = False
        self.sent = -1

    @property
    def name(self) -> str | None:
        """Of the logger."""
        return self._guard("name", lambda: self.inner.name, None)

    @property
    def version(self) -> int | str | None:
        """Of the logger."""
        return self._guard("version", lambda: self.inner.version, None)

    @property
    def save_dir(self) -> str | None:
        """Of the logger."""
        return self._guard("save_dir", lambda: self.inner.save_dir, None)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What the logger's library offers; something that does nothing when it is off."""
        nothing: Any = DummyLogger().experiment
        return self._guard("experiment", lambda: getattr(self.inner, "experiment", None), nothing)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Pass on values of a single step."""
        self._guard("log_metrics", lambda: self.inner.log_metrics(dict(metrics), step), None)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Pass on what Lightning knows of hyper-parameters."""
        self._guard("log_hyperparams", lambda: self.inner.log_hyperparams(params, *args), None)

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Pass on."""
        self._guard("log_graph", lambda: self.inner.log_graph(model, input_array), None)

    def save(self) -> None:
        """Pass on."""
        self._guard("save", self.inner.save, None)

    def finalize(self, status: str) -> None:
        """Pass on."""
        self._guard("finalize", lambda: self.inner.finalize(status), None)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Pass on."""
        self._guard(
            "after_save_checkpoint",
            lambda: self.inner.after_save_checkpoint(checkpoint_callback),
            None,
        )

    def begin(self, run: TrackedRun, sent: int) -> None:
        """Open the run, once."""
        if self.is_begun:
            return
        self.is_begun = True
        inner = self.inner
        self.sent = sent
        if isinstance(inner, Tracker):
            self.sent = self._guard("begin", lambda: inner.begin(run, sent), sent)

    def send(self, row: Mapping[str, float], pictures: Mapping[str, Path]) -> None:
        """Send an epoch: its row, and the pictures that were drawn of it."""
        step, inner = int(row["step"]), self.inner
        if isinstance(inner, Tracker):
            self._guard("log_epoch", lambda: inner.log_epoch(row), None)
            self.send_pictures(pictures, step)
        else:
            scores = {name: value for name, value in row.items() if name != "step"}
            self._guard("log_metrics", lambda: inner.log_metrics(scores, step), None)
        if not self.is_off:
            self.sent = int(row["epoch"])

    def send_pictures(self, pictures: Mapping[str, Path], step: int) -> None:
        """Send pictures; loggers of Lightning have no common way to take them."""
        inner = self.inner
        if isinstance(inner, Tracker) and pictures:
            self._guard("log_pictures", lambda: inner.log_pictures(pictures, step), None)

    def conclude(self, scores: Mapping[str, float], run: TrackedRun) -> None:
        """Send the scores of the finished run."""
        inner = self.inner
        if isinstance(inner, Tracker):
            self._guard("conclude", lambda: inner.conclude(scores, run), None)

    def close(self, outcome: Outcome) -> None:
        """Let go of the run; also when off, so that no thread or process stays behind."""
        inner = self.inner
        if isinstance(inner, Tracker) and self.is_begun:
            was_off, self.is_off = self.is_off, False
            self._guard("close", lambda: inner.close(outcome), None, is_said=not was_off)

    def __getattr__(self, name: str) -> Any:
        """Pass on what else the logger has, as ``log_image`` of some."""
        if name.startswith("__") or "inner" not in self.__dict__:
            raise AttributeError(name)
        found = getattr(self.inner, name)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._guard(name, lambda: found(*args, **kwargs), None)

    def _guard(self, what: str, call: Callable[[], T], otherwise: T, *, is_said: bool = True) -> T:
        if self.is_off or rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return otherwise
        try:
            return call()
        except InterruptedRunError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, training matters more
            self.is_off = True
            if is_said:
                log_failure(
                    error,
                    "logging.{} failed in {} and is off for the rest of this run; training goes on",
                    self.key,
                    what,
                )
            return otherwise
