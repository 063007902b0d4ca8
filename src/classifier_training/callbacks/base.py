"""The base class of callbacks, and what several of them use."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl

from classifier_training.errors import InterruptedRunError
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import History
from classifier_training.run.log import log_failure
from classifier_training.system.files import replacing

# The hooks that Lightning calls on a callback, and ours; an error in one never stops training.
_HOOKS = frozenset(
    name
    for name in vars(pl.Callback)
    if name.startswith("on_") or name in ("setup", "teardown", "state_dict", "load_state_dict")
) | {"on_run_start", "on_epoch_recorded"}


class Callback(pl.Callback):
    """A callback that cannot stop training.

    Subclasses override Lightning's hooks as usual. The first exception of a hook is logged with its
    traceback, and the callback is off for the rest of the run: its state may be incomplete from
    then on. A signal (``InterruptedRunError``, ``KeyboardInterrupt``, ``SystemExit``) passes.

    Hooks run in the first process only, and not during the sanity check of validation. They must
    therefore take no part in communication between processes.
    """

    # It changes nothing that is trained: it may come and go between the parts of a run.
    observes: ClassVar[bool] = True
    is_off = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _HOOKS & vars(cls).keys():
            setattr(cls, name, _isolated(vars(cls)[name]))

    def on_run_start(self, folder: RunFolder, history: History) -> None:
        """Training starts or is resumed; ``history`` has the rows of the earlier parts of the run.

        Called once, after the checkpoint is restored and before the first step.
        """

    def on_epoch_recorded(self, folder: RunFolder, history: History) -> None:
        """An epoch is over: its row and its weights are saved.

        Called after each epoch, and once when a run is resumed, with the rows so far. Lightning's
        own ``on_train_epoch_end`` comes before the scores of that epoch are all known.
        """


def _isolated(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return the hook with its errors isolated."""

    @functools.wraps(hook)
    def guarded(self: Callback, *args: Any, **kwargs: Any) -> Any:
        trainer = next((arg for arg in args if isinstance(arg, pl.Trainer)), None)
        is_asked = trainer is None or (trainer.is_global_zero and not trainer.sanity_checking)
        try:
            if is_asked and not self.is_off:
                return hook(self, *args, **kwargs)
        except InterruptedRunError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, training matters more
            self.is_off = True
            log_failure(
                error,
                "{} failed in {} and is off for the rest of this run; training continues",
                type(self).__name__,
                hook.__name__,
            )
        return {} if hook.__name__ == "state_dict" else None

    return guarded


def log_scalars(trainer: pl.Trainer, values: Mapping[str, float], step: int) -> None:
    """Send values to every logger.

    Args:
        trainer: Its loggers; there may be none.
        values: By name.
        step: Optimiser steps done before the one they belong to (of an epoch: its last one), which
            is Lightning's count too. What a run that goes on does again has this number or more.
    """
    for tracker in trainer.loggers:
        tracker.log_metrics({**values, "epoch": trainer.current_epoch}, step=step)


def is_logged_step(trainer: pl.Trainer, step: int) -> bool:
    """Say whether ``trainer.log_every_n_steps`` falls on an optimiser step (from 0)."""
    every = int(trainer.log_every_n_steps)  # type: ignore[attr-defined]  # set untyped
    return (step + 1) % every == 0


def epoch_name(epoch: int) -> str:
    """Return how the files of an epoch (from 0) begin, as those of checkpoints do."""
    return f"epoch={epoch:04d}"


def is_drawn(trainer: pl.Trainer, every: int) -> bool:
    """Say whether this epoch is drawn: every so many, beginning with the first, and the last."""
    epoch = trainer.current_epoch
    return epoch % every == 0 or epoch + 1 == trainer.max_epochs


def keep_pictures(folder: Path, newest: int, best_epoch: int) -> None:
    """Remove the PNGs of all epochs but the ``newest`` so many and the best.

    Other files of a folder, and of an epoch, stay.
    """
    found: dict[int, list[Path]] = {}
    for path in folder.glob("epoch=*.png"):
        number = re.match(r"epoch=(\d+)", path.name)
        if number:
            found.setdefault(int(number[1]), []).append(path)
    kept = {*sorted(found)[-newest:], best_epoch}
    for epoch in found.keys() - kept:
        for path in found[epoch]:
            path.unlink()


class StepTable:
    """Appends rows; what a resumed run measures again replaces what was there.

    Rows are flushed but not synced: after a crash the last ones may be missing or cut, and then
    the run goes on from an earlier step anyway.

    Args:
        path: The CSV.
        columns: Its columns; the first one grows from row to row (a step or an epoch).
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._columns = tuple(columns)

    def go_on(self, start: int) -> None:
        """Keep the rows before ``start``, and drop those that come again."""
        kept = [row for row in self._rows() if int(row[0]) < start]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._path) as temporary:
            _write(temporary, "w", [self._columns, *kept])

    def append(self, row: Mapping[str, float | None]) -> None:
        """Add a row; None is an empty cell.

        Raises:
            KeyError: A column is missing.
        """
        _write(self._path, "a", [[_cell(row[name]) for name in self._columns]])

    def _rows(self) -> list[list[str]]:
        """Return the whole rows of the file, if it has our columns."""
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        if tuple(header) != self._columns:
            return []
        return [row for row in rows if len(row) == len(header) and row[0].isdigit()]


def _write(path: Path, mode: str, rows: Sequence[Sequence[str]]) -> None:
    with path.open(mode, newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.9g}"
