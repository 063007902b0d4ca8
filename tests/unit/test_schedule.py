"""The learning rate of each optimiser step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from classifier_training.training.schedules import WarmupCosine
from tests.helpers.observers import Watch, use
from tests.helpers.training import train_only

_BASE = 0.01


def _by_torch(warmup: int, total: int, ratio: float) -> list[float]:
    """The same rates from torch's own schedulers: a line up, then ``CosineAnnealingLR``."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=_BASE)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=total - warmup, eta_min=_BASE * ratio
    )
    rates = list(np.linspace(0, _BASE, warmup + 1)[1:])
    for _ in range(total - warmup):
        optimizer.step()
        cosine.step()
        rates.append(cosine.get_last_lr()[0])
    return rates


@pytest.mark.promise("T4")
@pytest.mark.promise("T9")
@pytest.mark.parametrize(
    ("warmup", "total", "ratio"),
    [(0, 10, 0.0), (4, 12, 0.1), (1, 2, 0.01), (0, 1, 0.5), (5, 100, 1.0), (99, 100, 0.0)],
)
def test_is_torchs_cosine_after_a_line(warmup: int, total: int, ratio: float) -> None:
    schedule = WarmupCosine(warmup, total, ratio)

    rates = [_BASE * schedule.factor(step) for step in range(total)]

    assert rates == pytest.approx(_by_torch(warmup, total, ratio), rel=1e-6, abs=1e-12)
    assert schedule.factor(total - 1) == ratio
    assert schedule.factor(total + 5) == ratio


@pytest.mark.promise("T4")
@pytest.mark.parametrize(
    ("accumulate", "batches", "steps"),
    # 48 images in batches of 8: six an epoch; a window of four leaves a partial one of two.
    [(1, 1.0, 12), (2, 1.0, 6), (4, 1.0, 4), (5, 1.0, 4), (1, 4, 8), (3, 4, 4)],
)
def test_rate_of_every_step_of_a_run(
    accumulate: int, batches: float, steps: int, folder_data: Path, tmp_path: Path
) -> None:
    train_only(
        folder_data, tmp_path / "run",
        f"trainer.accumulate_grad_batches={accumulate}", f"trainer.limit_train_batches={batches}",
        f"optimizer.learning_rate={_BASE}", "optimizer.head_lr_multiplier=3.0",
        "schedule.warmup_epochs=1.0", "schedule.final_lr_ratio=0.1", *use("Watch"),
    )  # fmt: skip

    wanted = _by_torch(steps // 2, steps, 0.1)
    assert [rates[0] for rates in Watch.seen["lr"]] == pytest.approx(wanted, rel=1e-6)
    assert [rates[-1] for rates in Watch.seen["lr"]] == pytest.approx(
        [3 * rate for rate in wanted], rel=1e-6
    )
    assert Watch.seen["lr"][-1][0] == _BASE * 0.1


@pytest.mark.promise("T4")
def test_warm_up_that_rounds_to_the_whole_run_still_ends_at_the_last_step(
    folder_data: Path, tmp_path: Path
) -> None:
    train_only(
        folder_data, tmp_path / "run", "trainer.max_epochs=1", "schedule.warmup_epochs=0.99",
        "schedule.final_lr_ratio=0.1", *use("Watch"),
    )  # fmt: skip

    assert Watch.seen["lr"][-1][0] == pytest.approx(_BASE * 0.1)
