"""The training loss against torch and against numpy in double precision."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from classifier_training.models.losses import ClassificationLoss

_RNG = np.random.default_rng(5)
_LOGITS = _RNG.normal(0, 3, (64, 7))
_LABELS = _RNG.integers(0, 7, 64)
_WEIGHTS = _RNG.uniform(0.2, 4, 7)

Doubles = npt.NDArray[np.float64]


def _reference(weights: Doubles | None, smoothing: float, gamma: float) -> float:
    """Equation 4 of Lin et al. 2017 over soft targets, each class's term with its weight."""
    total, norm = 0.0, 0.0
    for logits, label in zip(_LOGITS, _LABELS, strict=True):
        probabilities = np.exp(logits) / np.exp(logits).sum()
        target = np.full(7, smoothing / 7)
        target[label] += 1 - smoothing
        by_class = np.ones(7) if weights is None else weights
        entropy = -(target * by_class * np.log(probabilities)).sum()
        total += (1 - probabilities[label]) ** gamma * entropy
        norm += by_class[label]
    return float(total / norm)


def _ours(weights: Doubles | None, smoothing: float, gamma: float) -> float:
    given = None if weights is None else torch.tensor(weights, dtype=torch.float32)
    loss = ClassificationLoss(given, label_smoothing=smoothing, gamma=gamma)
    logits = torch.tensor(_LOGITS, dtype=torch.float32)
    return float(loss(logits, torch.tensor(_LABELS)))


@pytest.mark.promise("T9")
@pytest.mark.parametrize("weights", [None, _WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_matches_double_precision(weights: Doubles | None, smoothing: float, gamma: float) -> None:
    wanted = _reference(weights, smoothing, gamma)

    assert _ours(weights, smoothing, gamma) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


@pytest.mark.promise("T9")
@pytest.mark.parametrize("gamma", [0.0, 1e-9])
def test_without_focus_is_torchs_cross_entropy(gamma: float) -> None:
    """Also by the other branch: a gamma that is nearly zero must not change the normalisation."""
    wanted = F.cross_entropy(
        torch.tensor(_LOGITS),
        torch.tensor(_LABELS),
        weight=torch.tensor(_WEIGHTS),
        label_smoothing=0.1,
    )

    assert _ours(_WEIGHTS, 0.1, gamma) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.promise("T9")
def test_gradient_matches_finite_differences() -> None:
    loss = ClassificationLoss(torch.tensor(_WEIGHTS).float(), label_smoothing=0.1, gamma=2.0)
    logits = torch.tensor(_LOGITS[:4], dtype=torch.float32, requires_grad=True)
    labels = torch.tensor(_LABELS[:4])
    loss(logits, labels).backward()

    for row, column in ((0, 0), (1, 3), (2, 6), (3, int(_LABELS[3]))):
        sides = []
        for shift in (-1e-2, 1e-2):
            moved = logits.detach().clone()
            moved[row, column] += shift
            sides.append(float(loss(moved, labels)))
        slope = (sides[1] - sides[0]) / 2e-2
        assert float(logits.grad[row, column]) == pytest.approx(slope, abs=2e-4)


@pytest.mark.promise("T6")
@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("gap", [0.0, 15.0, 17.0, 20.0, 100.0, 1e4])
def test_gradient_is_finite_for_a_certain_answer(gamma: float, gap: float) -> None:
    loss = ClassificationLoss(None, label_smoothing=0.0, gamma=gamma)
    logits = torch.tensor([[gap, 0.0], [0.0, gap]], requires_grad=True)

    value = loss(logits, torch.tensor([0, 0]))
    value.backward()

    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.promise("T5")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_is_computed_in_fp32(dtype: torch.dtype) -> None:
    loss = ClassificationLoss(None, label_smoothing=0.1, gamma=2.0)
    logits, labels = torch.tensor(_LOGITS).to(dtype), torch.tensor(_LABELS)

    value = loss(logits, labels)

    assert value.dtype == torch.float32
    assert torch.equal(value, loss(logits.float(), labels))
