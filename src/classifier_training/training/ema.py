"""Exponential moving average of the weights, useful from the first steps on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_Tensors = tuple[Tensor, ...] | list[Tensor]


class Ema(AveragedModel):
    """Averages parameters and floating-point buffers of a network.

    At update ``t`` (from 0) the decay is ``min(decay, (1 + t) / (10 + t))``; the first update
    copies. Without the ramp a short run would mostly average its random start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        super().__init__(network, multi_avg_fn=self._average, use_buffers=True)
        # Without this DistributedDataParallel waits for gradients that never come.
        self.requires_grad_(False)
        self.eval()

    def decay_at(self, updates: int) -> float:
        """Return the decay of the update that follows ``updates`` earlier ones."""
        return min(self.decay, (1 + updates) / (10 + updates))

    @torch.no_grad()
    def _average(self, averaged: _Tensors, current: _Tensors, _count: Tensor | int) -> None:
        if not averaged[0].is_floating_point():  # BatchNorm's counters
            torch._foreach_copy_(averaged, current)
            return
        weight = 1 - self.decay_at(int(self.n_averaged))
        torch._foreach_lerp_(averaged, current, weight)

    def train(self, mode: bool = True) -> Ema:
        """Stay in evaluation mode: BatchNorm statistics are averaged, not gathered."""
        return super().train(False)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Ema:
        # The counter stays on the CPU: it is read at every update, and on a GPU each read would
        # wait for the device.
        counter = self.n_averaged
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.n_averaged = counter
        return self
