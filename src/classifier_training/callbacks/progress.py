"""How training is going: epoch, speed, loss, time left."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities.types import STEP_OUTPUT
from loguru import logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

from classifier_training.system.progress import duration

_REDRAW_EVERY_S = 0.5
_SHOWN_SCORES = ("val/acc_top1", "val/f1_macro", "val/loss")


class Progress(ProgressBar):
    """A rich bar on a terminal, plain lines elsewhere; both with img/s, loss and time left.

    The loss is read from the device only when something is drawn.

    Args:
        line_every_s: Seconds between two plain lines within an epoch.
    """

    def __init__(self, line_every_s: float) -> None:
        super().__init__()
        self._line_every_s = line_every_s
        self._bar: RichProgress | None = None
        self._drawn = 0.0
        self._images = 0
        self._training_s = 0.0
        self._batch_started = 0.0
        self._fit_started = 0.0
        self._first_batch = 0
        self._is_enabled = True

    def disable(self) -> None:
        """Stay silent (Lightning calls this on other processes than the first)."""
        self._is_enabled = False

    def enable(self) -> None:
        """Speak again."""
        self._is_enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and the bar when there is a terminal."""
        self._fit_started = self._batch_started = time.monotonic()
        self._first_batch = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if self._is_enabled and sys.stderr.isatty():
            self._bar = _rich_bar()
            self._bar.start()
            self._new_task(trainer)  # a run that goes on inside an epoch does not start it

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show which epoch it is."""
        self._batch_started = time.monotonic()
        self._new_task(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count, and draw when it is time."""
        now = time.monotonic()
        self._images += len(batch.labels) * trainer.world_size
        self._training_s += now - self._batch_started
        self._batch_started = now
        every = _REDRAW_EVERY_S if self._bar is not None else self._line_every_s
        if self._is_enabled and now - self._drawn >= every:
            self._drawn = now
            self._draw(trainer, batch_idx + 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how the epoch went."""
        if not self._is_enabled:
            return
        metrics = trainer.callback_metrics
        scores = "  ".join(
            f"{name} {float(metrics[name]):.4f}" for name in _SHOWN_SCORES if name in metrics
        )
        logger.info("{}: {}  {}", _epoch_name(trainer), scores, self._speed(trainer))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar."""
        self._stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Remove the bar, so that the error stands alone."""
        self._stop()

    def _new_task(self, trainer: pl.Trainer) -> None:
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._bar.add_task(_epoch_name(trainer), total=_batches(trainer), info="")

    def _draw(self, trainer: pl.Trainer, batches_done: int) -> None:
        loss = trainer.callback_metrics.get("train/loss_step")
        text = f"loss {float(loss):.3f}  " if loss is not None else ""
        info = f"{text}{self._speed(trainer)}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=batches_done, info=info)
        else:
            total = _batches(trainer)
            logger.info("{}: batch {}/{}  {}", _epoch_name(trainer), batches_done, total, info)

    def _speed(self, trainer: pl.Trainer) -> str:
        speed = self._images / max(self._training_s, 1e-9)
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        all_of_them = _batches(trainer) * (trainer.max_epochs or 1)
        # Includes validation and saving, which the time left must cover too.
        per_batch = (time.monotonic() - self._fit_started) / max(1, done - self._first_batch)
        return f"{speed:.0f} img/s  {duration(per_batch * (all_of_them - done))} left"

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _rich_bar() -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[info]}"),
        console=Console(stderr=True),
        transient=True,
    )


def _epoch_name(trainer: pl.Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"


def _batches(trainer: pl.Trainer) -> int:
    return int(trainer.num_training_batches)
