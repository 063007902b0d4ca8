"""Temperature, threshold, conformal sets and energy: references, hand-worked cases, simulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from classifier_training.inference.calibration import Calibration, ConformalRule, energies
from classifier_training.metrics.calibration import (
    conformal_threshold,
    coverage_curve,
    energy_limit,
    fit_temperature,
    threshold_for_accuracy,
    threshold_for_coverage,
)


def drawn(
    seed: int, images: int, classes: int, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits whose labels are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (images, classes)).astype(np.float32)
    noise = rng.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(axis=1)


def by_lbfgs(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fit as the authors of the method do: LBFGS on the cross-entropy (Guo et al. 2017)."""
    values, truth = torch.from_numpy(logits).double(), torch.from_numpy(labels)
    log_temperature = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(values / log_temperature.exp(), truth)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return log_temperature.exp().item()


@pytest.mark.promise("N5")
@pytest.mark.parametrize("true", [0.4, 1.0, 2.5, 8.0])
@pytest.mark.parametrize("classes", [2, 43])
def test_temperature_is_that_of_two_other_minimisers(true: float, classes: int) -> None:
    logits, labels = drawn(int(10 * true) + classes, 400, classes, true)

    fitted = fit_temperature(logits, labels)

    def loss(beta: float) -> float:
        log_p = special.log_softmax(beta * logits.astype(np.float64), axis=1)
        return -float(log_p[np.arange(len(labels)), labels].mean())

    brent = optimize.minimize_scalar(loss, bounds=(0.01, 100), method="bounded")
    assert fitted.reason is None
    assert fitted.value == pytest.approx(by_lbfgs(logits, labels), rel=1e-4)
    assert fitted.value == pytest.approx(1 / brent.x, rel=1e-3)
    assert fitted.value == pytest.approx(true, rel=0.5)


@pytest.mark.promise("N5")
def test_temperature_of_a_case_worked_by_hand() -> None:
    # Three of four right with logits (L, 0): the best probability is 3/4, so L / T = ln 3.
    logits = np.tile(np.array([[4.0, 0.0]], dtype=np.float32), (40, 1))
    labels = np.array([0, 0, 0, 1] * 10)

    assert fit_temperature(logits, labels).value == pytest.approx(4 / np.log(3), rel=1e-9)


@pytest.mark.promise("N5")
@pytest.mark.parametrize(
    ("images", "right", "reason"),
    [
        (19, 15, "too few"),
        (0, 0, "too few"),
        (40, 40, "every answer is right"),
        (40, 20, "no better than chance"),
        (40, 0, "no better than chance"),
    ],
)
def test_no_temperature_where_there_is_none(images: int, right: int, reason: str) -> None:
    logits = np.tile(np.array([[9.0, -9.0]], dtype=np.float32), (images, 1))
    labels = np.arange(images) >= right

    fitted = fit_temperature(logits, labels.astype(np.int64))

    assert fitted.value is None
    assert fitted.reason is not None
    assert reason in fitted.reason


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-1e4, 1e4),
    classes=st.integers(2, 9),
)
def test_temperature_never_raises_the_loss(
    seed: int, scale: float, shift: float, classes: int
) -> None:
    logits, labels = drawn(seed, 60, classes, 1.5)
    logits = (logits * np.float32(scale) + np.float32(shift)).astype(np.float32)

    fitted = fit_temperature(logits, labels)

    def loss(temperature: float) -> float:
        log_p = special.log_softmax(logits.astype(np.float64) / temperature, axis=1)
        return -float(log_p[np.arange(60), labels].mean())

    if fitted.value is not None:
        best = loss(fitted.value)
        assert best <= loss(1.0) + 1e-9
        assert best <= loss(fitted.value * 1.05) + 1e-9
        assert best <= loss(fitted.value / 1.05) + 1e-9


def test_curve_of_a_case_worked_by_hand() -> None:
    confidence = np.array([0.9, 0.5, 0.7, 0.9, 0.2])
    correct = np.array([True, False, True, False, True])

    curve = coverage_curve(confidence, correct)

    assert curve.thresholds.tolist() == [0.9, 0.7, 0.5, 0.2]  # the two 0.9 are inseparable
    assert curve.answered.tolist() == [2, 3, 4, 5]
    assert curve.coverage.tolist() == [0.4, 0.6, 0.8, 1.0]
    np.testing.assert_allclose(curve.accuracy, [1 / 2, 2 / 3, 2 / 4, 3 / 5])


def graded(right: str) -> tuple[np.ndarray, np.ndarray]:
    """Return descending confidences, and which answers are right: ``"1110..."``."""
    correct = np.array([letter == "1" for letter in right])
    return np.linspace(0.99, 0.3, len(right)), correct


@pytest.mark.promise("N5")
def test_threshold_answers_as_many_as_the_target_allows() -> None:
    # 20 right, 1 wrong, 9 right, 10 wrong: accuracy 1, then 0.952, then up to 29/30, then down.
    confidence, correct = graded("1" * 20 + "0" + "1" * 9 + "0" * 10)
    curve = coverage_curve(confidence, correct)

    answered = {
        target: int((confidence >= threshold_for_accuracy(curve, target).value).sum())
        for target in (0.999, 0.96, 0.9, 0.7)
    }

    # 29/32 > 0.9 > 29/33; 29/40 is above 0.7, so that every image may be answered.
    assert answered == {0.999: 20, 0.96: 30, 0.9: 32, 0.7: 40}
    assert threshold_for_accuracy(curve, 0.7).value == 0


@pytest.mark.promise("N5")
@pytest.mark.parametrize(
    ("right", "reason"),
    [("0" * 40, "the highest is 0.000"), ("1" * 19 + "0" * 30, "at least 20"), ("1", "fewer")],
)
def test_target_out_of_reach_gives_no_threshold(right: str, reason: str) -> None:
    found = threshold_for_accuracy(coverage_curve(*graded(right)), 0.99)

    assert found.value is None
    assert found.reason is not None
    assert reason in found.reason


@pytest.mark.promise("N5")
def test_threshold_for_coverage() -> None:
    confidence, correct = graded("10" * 20)
    threshold = threshold_for_coverage(coverage_curve(confidence, correct), 0.75).value

    assert threshold is not None
    assert (confidence >= threshold).sum() == 30
    assert threshold_for_coverage(coverage_curve(*graded("10")), 0.75).value is None


@pytest.mark.promise("N5")
@pytest.mark.parametrize(
    ("images", "coverage", "rank"),
    [(9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (99, 0.95, 95), (19, 0.55, 11), (20, 0.55, 12)],
)
def test_conformal_rank(images: int, coverage: float, rank: int) -> None:
    # The rank-th smallest of 1 - p, which is the rank-th largest p.
    probabilities = np.random.default_rng(images).permutation(np.arange(1, images + 1)) / 1000

    fitted = conformal_threshold(probabilities, coverage)

    assert fitted.value == pytest.approx((images + 1 - rank) / 1000)


@pytest.mark.promise("N5")
@pytest.mark.parametrize(
    ("images", "coverage", "least"), [(8, 0.9, 9), (18, 0.95, 19), (0, 0.5, 1)]
)
def test_too_few_images_for_a_coverage(images: int, coverage: float, least: int) -> None:
    fitted = conformal_threshold(np.full(images, 0.5), coverage)

    assert fitted.value is None
    assert f"at least {least})" in str(fitted.reason)
    assert conformal_threshold(np.full(least, 0.5), coverage).value is not None


@pytest.mark.promise("N5")
@pytest.mark.parametrize(("images", "coverage"), [(30, 0.9), (200, 0.8)])
def test_conformal_coverage_by_simulation(images: int, coverage: float) -> None:
    # For continuous scores, coverage of a new image is Beta(k, n + 1 - k) distributed.
    trials, new = 600, 50
    covered = 0
    for trial in range(trials):
        logits, labels = drawn(trial, images + new, 5, 2.0)
        probabilities = special.softmax(logits, axis=1)
        true = probabilities[np.arange(len(labels)), labels]
        least = conformal_threshold(true[:images], coverage).value
        covered += int((true[images:] >= least).sum())

    rank = int(np.ceil((images + 1) * coverage))
    expected = stats.beta(rank, images + 1 - rank)
    deviation = np.sqrt(expected.var() / trials + coverage * (1 - coverage) / (trials * new))
    assert covered / (trials * new) == pytest.approx(expected.mean(), abs=4 * deviation)
    assert expected.mean() >= coverage


def test_energy_is_minus_logsumexp_and_its_limit_keeps_the_share() -> None:
    logits = np.random.default_rng(0).normal(0, 50, (100, 7)).astype(np.float32)
    energy = energies(logits)
    limit = energy_limit(energy, 0.95).value

    np.testing.assert_allclose(energy, -special.logsumexp(logits.astype(float), axis=1), rtol=1e-12)
    assert limit is not None
    assert (energy <= limit).sum() == 96  # at least 95; the limit is an energy that occurred
    assert np.isfinite(energies(np.array([[3e38, -3e38]], dtype=np.float32))).all()
    assert energy_limit(energy[:19], 0.95).value is None


def test_sets_are_ordered_and_may_be_empty() -> None:
    calibration = Calibration(100, 1.0, None, ConformalRule(0.9, 0.25), None)

    assert calibration.candidates(np.array([0.25, 0.4, 0.35], dtype=np.float32)) == [1, 2, 0]
    assert calibration.candidates(np.array([0.2] * 5, dtype=np.float32)) == []
    assert calibration.is_unsure(0.1) is None
    assert calibration.is_out_of_distribution(1e9) is None
