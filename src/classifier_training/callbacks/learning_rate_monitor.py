"""The learning rate of every parameter group, step by step, in the loggers."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from classifier_training.callbacks.base import Callback, is_logged_step, log_scalars


class LearningRateMonitor(Callback):
    """Logs ``lr/GROUP`` every ``trainer.log_every_n_steps``; without a logger it does nothing.

    Lightning's own refuses to run without a logger. The rate at the end of each epoch is a column
    of ``metrics.csv`` in any case.
    """

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log the rates that this batch's step is done with."""
        steps_now = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        if not (trainer.loggers and steps_now and is_logged_step(trainer, trainer.global_step)):
            return
        groups = trainer.optimizers[0].param_groups
        rates = {f"lr/{_key(group['name'])}": float(group["lr"]) for group in groups}
        log_scalars(trainer, rates, trainer.global_step)


def _key(group: str) -> str:
    return group.replace(", ", "-").replace(" ", "-")
