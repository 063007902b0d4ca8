"""Saving at the moments from which a run can be resumed exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT

from classifier_training.callbacks.base import Callback
from classifier_training.config.schema import CheckpointConfig
from classifier_training.errors import DivergedError, ResumeError
from classifier_training.run.checkpoint_files import CheckpointFiles
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import History, write_history
from classifier_training.training.distributed import Processes
from classifier_training.training.ranking import Ranking, epoch_file
from classifier_training.training.signals import StopSignals


class RunCheckpoint(Checkpoint):
    """Saves ``last``, ``best`` and the top k, and holds the history of the run.

    It saves (a) after an epoch, when validation, early stopping and all scores are done, and (b)
    inside an epoch, after an optimizer step that is not the epoch's last: when a signal requests a
    stop, and every so many steps or minutes. A save in a validation hook would lose that epoch's
    score on resume, one inside an accumulation window its gradients.

    Args:
        run: Where files go.
        config: What decides which epoch is best, and when to save.
        signals: Requests to stop.
        processes: Connects the processes of the run.
    """

    def __init__(
        self, run: RunFolder, config: CheckpointConfig, signals: StopSignals, processes: Processes
    ) -> None:
        super().__init__()
        self._run = run
        self._config = config
        self._signals = signals
        self._processes = processes
        self._files = CheckpointFiles(run.checkpoints)
        self._saved_at = time.monotonic()
        self._save_s = 0.0
        self._is_stopped_early = False
        self.ranking = Ranking(config)
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals from Lightning, and bring the files to the restored epoch."""
        self._signals.take_over(trainer)
        self._processes.connect(trainer.world_size)
        self._saved_at = time.monotonic()
        # A run that continues one of another folder brings that one's state but not its files.
        existing = [path.name for path in self._run.checkpoints.glob("epoch=*.ckpt")]
        self.ranking.keep_only(existing, has_best=self._run.best.exists())
        if trainer.is_global_zero:
            self.tidy()
            callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # untyped
            self.notify(callbacks, is_start=True, step=trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save where a run can be resumed, if it is due or a signal requests a stop."""
        is_exact = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not is_exact or trainer.is_last_batch:
            self._signals.stop_if_late(trainer, "the newest checkpoint")
            return
        received, is_due = self._processes.largest(
            self._signals.received, self._is_due(trainer.global_step)
        )
        if received or is_due:
            self._publish(trainer, [self._run.last.name])
        self._signals.stop_if_received(
            trainer, received, "everything up to the last optimizer step"
        )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._signals.start_clock()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop without saving, if validation would outlast the grace that a signal leaves."""
        total = sum(int(count) for count in trainer.num_val_batches)
        self._signals.stop_if_late(
            trainer,
            "the newest checkpoint (the validation would have taken too long)",
            done=batch_idx + 1,
            total=total,
            then_s=self._save_s,
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row, save once, and let best, top k and last follow in this order."""
        row = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        row.pop("train/loss_step", None)
        epoch = trainer.current_epoch
        self.rows.append({"epoch": epoch, "step": trainer.global_step, **row})
        self._is_stopped_early = trainer.should_stop
        self._save_epoch(trainer, epoch, row[self._config.monitor])
        if trainer.is_global_zero:
            self.write_history()
            callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # untyped
            self.notify(callbacks)
        (received,) = self._processes.largest(self._signals.received)
        self._signals.stop_if_received(trainer, received, "everything up to the end of the epoch")

    def write_history(self) -> None:
        """Write ``metrics.csv``."""
        if self.rows:
            write_history(self._run.history, self.rows)

    def notify(
        self, callbacks: Iterable[pl.Callback], *, is_start: bool = False, step: int | None = None
    ) -> None:
        """Pass the history to our callbacks; in the first process only.

        Args:
            callbacks: All of the trainer.
            is_start: Whether training starts or is resumed here.
            step: Optimizer steps done; None: those of the last row.
        """
        done = step if step is not None else int(self.rows[-1]["step"]) if self.rows else 0
        history = History(list(self.rows), self._config.monitor, self.ranking.best_epoch, step=done)
        for callback in callbacks:
            if isinstance(callback, Callback):
                if is_start:
                    callback.on_run_start(self._run, history)
                if self.rows:
                    callback.on_epoch_recorded(self._run, history)

    def tidy(self) -> None:
        """Finish what a kill cut short after the last save: pruning, and ``metrics.csv``."""
        past = {epoch_file(int(row["epoch"])) for row in self.rows}
        there = {path.name for path in self._run.checkpoints.glob("epoch=*.ckpt")}
        self._files.drop_unfinished()
        if self.ranking.best_epoch >= 0:
            self._files.restore(self._run.best.name, self.ranking.best_epoch)
        self._files.prune(sorted((past & there) - self.ranking.kept.keys()))
        self.write_history()

    def require_best(self) -> None:
        """Refuse to end a run whose best epoch is lost.

        Raises:
            ResumeError: There is no ``best.ckpt``.
        """
        if self._run.best.exists():
            return
        raise ResumeError(
            f"all epochs are trained, but {self._run.best} (epoch {self.ranking.best_epoch}) is "
            "missing",
            expected="the checkpoint of the best epoch beside the last one",
            fix="put it back, or train longer: trainer.max_epochs",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return plain types: rows, the best so far, and the files that are ours to prune."""
        return {
            "rows": self.rows,
            **self.ranking.state_dict(),
            "stopped_early": self._is_stopped_early,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.rows = state_dict["rows"]
        self.ranking.load_state_dict(state_dict)

    def _is_due(self, step: int) -> bool:
        steps, minutes = self._config.every_n_steps, self._config.every_minutes
        is_time = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        return is_time or (steps is not None and step % steps == 0)

    def _save_epoch(self, trainer: pl.Trainer, epoch: int, score: float) -> None:
        if math.isnan(score):
            raise DivergedError(
                f"{self._config.monitor} of epoch {epoch} is not a number",
                expected="a finite score",
                fix="a lower optimizer.learning_rate, or trainer.precision=32-true",
            )
        dropped = self.ranking.add(epoch, score)
        # The ranking is part of what is saved. Last comes last: a kill in between leaves the epoch
        # to be trained again, to the same best.
        name = epoch_file(epoch)
        is_best = self.ranking.best_epoch == epoch
        names = [name] * (name in self.ranking.kept) + [self._run.best.name] * is_best
        self._publish(trainer, [*names, self._run.last.name])
        if trainer.is_global_zero:
            self._files.prune(dropped)

    def _publish(self, trainer: pl.Trainer, names: list[str]) -> None:
        """Save once, under these names; when it returns, that is so for all processes."""
        started = time.monotonic()
        with self._files.saving() as draft:
            trainer.save_checkpoint(draft)
            if trainer.is_global_zero:
                self._files.publish(
                    draft, names, epoch=trainer.current_epoch, step=trainer.global_step
                )
        self._processes.wait()
        self._saved_at = time.monotonic()
        self._save_s = self._saved_at - started
