"""The training loss against torch and against numpy in double precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from classifier_training.data.balance import log_priors
from classifier_training.data.manifest import Manifest
from classifier_training.data.records import Record
from classifier_training.inference.class_map import ClassMap
from classifier_training.models.losses import ClassificationLoss
from classifier_training.training.build import build_loss
from tests.helpers.config import config_of

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


@pytest.mark.promise("T9")
def test_logit_adjustment_is_as_published() -> None:
    """Equation 10 of Menon et al. 2021, worked by hand for priors of 3/4 and 1/4.

    Logits 0 and 1, true class 1, tau 1: log(1 + (0.75 / 0.25) ** 1 * e ** (0 - 1)) =
    log(1 + 3 / e) = 0.7436683806; with tau 2: log(1 + 9 / e) = 1.4611501717.
    """
    logits, labels = torch.tensor([[0.0, 1.0]]), torch.tensor([1])
    for tau, wanted in ((1.0, 0.7436683806), (2.0, 1.4611501717)):
        offsets = tau * torch.from_numpy(log_priors(np.array([30, 10])))
        loss = ClassificationLoss(None, label_smoothing=0, gamma=0, logit_offsets=offsets)
        assert float(loss(logits, labels)) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.promise("T9")
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_logit_adjustment_is_the_pairwise_form(gamma: float) -> None:
    """The left side of equation 10, in double precision, over random logits of 7 classes."""
    counts, tau = np.array([500, 200, 90, 40, 12, 3, 1]), 1.3
    priors = counts / counts.sum()
    losses = []
    for logits, y in zip(_LOGITS, _LABELS, strict=True):
        rivals = [
            (priors[other] / priors[y]) ** tau * np.exp(logits[other] - logits[y])
            for other in range(7)
            if other != y
        ]
        entropy = np.log1p(sum(rivals))
        losses.append((1 - np.exp(-entropy)) ** gamma * entropy)
    offsets = tau * torch.from_numpy(log_priors(counts))

    loss = ClassificationLoss(None, label_smoothing=0, gamma=gamma, logit_offsets=offsets)

    value = float(loss(torch.tensor(_LOGITS, dtype=torch.float32), torch.tensor(_LABELS)))
    assert value == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.promise("T6")
def test_class_without_images_keeps_the_adjusted_loss_finite() -> None:
    offsets = torch.from_numpy(log_priors(np.array([10, 0, 5])))
    loss = ClassificationLoss(None, label_smoothing=0.1, gamma=0, logit_offsets=offsets)

    assert torch.isfinite(loss(torch.zeros(2, 3), torch.tensor([0, 2])))


@pytest.mark.promise("T9")
def test_the_run_adjusts_by_its_own_training_counts(folder_data: Path) -> None:
    records = [
        Record(f"{split}/{label}/{at:03d}.png", label, split, "", 0, "")
        for split, label, count in (("train", "0", 3), ("train", "00", 1), ("val", "00", 6))
        for at in range(count)
    ]
    manifest = Manifest.build(records, ClassMap(("0", "00")), folder_data)
    config = config_of("data.data_root=x", "loss=logit_adjusted", "loss.label_smoothing=0")

    loss = build_loss(config.loss, manifest)

    value = float(loss(torch.tensor([[0.0, 1.0]]), torch.tensor([1])))
    assert value == pytest.approx(0.7436683806, abs=1e-6)
    plain = build_loss(config_of("data.data_root=x", "loss.label_smoothing=0").loss, manifest)
    assert plain.logit_offsets is None
