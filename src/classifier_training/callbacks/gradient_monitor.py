"""Gradient norm, scale of the gradient scaler and skipped steps."""

from __future__ import annotations

import math
import statistics
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from loguru import logger
from torch import Tensor
from torch.optim import Optimizer

from classifier_training.callbacks.base import Callback, StepTable, is_logged_step, log_scalars
from classifier_training.run.folder import RunFolder

COLUMNS = ("step", "epoch", "gradient_norm", "scale", "skipped_steps")
# So many norms make a level that another one can be compared with; older ones are forgotten.
_FEWEST, _REMEMBERED = 5, 50


class _Measured(NamedTuple):
    step: int
    norm: Tensor
    skipped: int


class GradientMonitor(Callback):
    """Measures the norm of all gradients before clipping, every ``trainer.log_every_n_steps``.

    The norm is computed on the device and read when the step is over, once in so many steps, where
    the loss is read too. It goes to the loggers and to ``plots/gradients.csv``.

    Args:
        warn_ratio: A norm so many times the median of those before it is called exploding, once.
    """

    def __init__(self, warn_ratio: float) -> None:
        super().__init__()
        self._warn_ratio = warn_ratio
        self._is_warned = False
        self._known: deque[float] = deque(maxlen=_REMEMBERED)
        self._measured: _Measured | None = None
        self._table: StepTable | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the table; steps that are done again get new rows."""
        folder = RunFolder(Path(trainer.default_root_dir))
        self._table = StepTable(folder.plots / "gradients.csv", COLUMNS)
        self._table.go_on(trainer.global_step)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Compute the norm of this step; its gradients are unscaled and not yet clipped."""
        if is_logged_step(trainer, trainer.global_step):
            module: Any = pl_module
            self._measured = _Measured(
                trainer.global_step, gradient_norm(optimizer), module.skipped_steps
            )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Read and write what was measured."""
        measured, self._measured = self._measured, None
        if measured is None:
            return
        module: Any = pl_module
        norm, scale = float(measured.norm), _scale(trainer)
        values = {"gradient_norm": norm, "skipped_steps": module.skipped_steps}
        if scale is not None:
            values["scale"] = scale
        assert self._table is not None
        self._table.append(
            {"step": measured.step, "epoch": trainer.current_epoch, "scale": scale, **values}
        )
        log_scalars(
            trainer, {f"gradients/{name}": value for name, value in values.items()}, measured.step
        )
        if module.skipped_steps == measured.skipped:  # else the scaler took care of it
            self._compare(norm, measured.step)

    def _compare(self, norm: float, step: int) -> None:
        level = statistics.median(self._known) if len(self._known) >= _FEWEST else math.inf
        if norm <= self._warn_ratio * level:
            self._known.append(norm)
            return
        if not self._is_warned:
            self._is_warned = True
            logger.warning(
                "gradients: the norm is {:.3g} at step {}, and was {:.3g} (median) before; a lower "
                "optimizer.learning_rate, a longer schedule.warmup_epochs or "
                "trainer.gradient_clip_val can help",
                norm,
                step,
                level,
            )


def gradient_norm(optimizer: Optimizer) -> Tensor:
    """Return the Euclidean norm over all gradients, a scalar on their device."""
    gradients = [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    return torch.nn.utils.get_total_norm(gradients)


def _scale(trainer: pl.Trainer) -> float | None:
    scaler: Any = getattr(trainer.precision_plugin, "scaler", None)
    return None if scaler is None else float(scaler.get_scale())
