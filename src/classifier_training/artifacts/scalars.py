"""Numbers that observers measure, on their way to the loggers of a run.

They do not go through ``LightningModule.log``: what is logged there becomes a column of
``metrics.csv`` and part of every checkpoint, and a time or a gradient norm is not the same in two
equal runs.
"""

from __future__ import annotations

from collections.abc import Mapping

import lightning.pytorch as pl


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
