"""Learning rate of each optimizer step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from classifier_training.config.schema import ScheduleConfig


def warmup_cosine(
    config: ScheduleConfig, warmup_steps: int, total_steps: int
) -> Callable[[int], float]:
    """Build ``schedule.name=cosine``; see ``register_schedule``."""
    return WarmupCosine(warmup_steps, total_steps, config.final_lr_ratio).factor


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up to the base rate, then half a cosine down to a share of it.

    With ``W`` warm-up and ``T`` total optimiser steps, step ``k`` (from 0) uses the base rate times

    - ``(k + 1) / W`` for ``k < W``, so that step ``W - 1`` has the full rate;
    - ``r + (1 - r) * (1 + cos(pi * (k - W + 1) / (T - W))) / 2`` after that, so that the last step
      ``T - 1`` has exactly the share ``r``.

    Attributes:
        warmup_steps: ``W``.
        total_steps: ``T``, larger than ``W``.
        final_ratio: ``r``.
    """

    warmup_steps: int
    total_steps: int
    final_ratio: float

    def factor(self, step: int) -> float:
        """Return the factor of step ``step``; beyond the last one it stays at the final share."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        decay_steps = max(1, self.total_steps - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps + 1) / decay_steps)
        return self.final_ratio + (1 - self.final_ratio) * (1 + math.cos(math.pi * progress)) / 2
