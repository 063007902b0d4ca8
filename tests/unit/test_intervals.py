"""Intervals: published values, an independent bootstrap, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from classifier_training.evaluation.intervals import (
    Estimate,
    macro_intervals,
    mean_interval,
    wilson,
)
from classifier_training.evaluation.scores import score


def table(true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    classes = int(max(true.max(), predicted.max())) + 1
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (true, predicted), 1)
    return matrix


# Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (score without correction).
@pytest.mark.promise("N2")
@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        pytest.param(81, 263, 0.2553, 0.3662, id="81 of 263"),
        pytest.param(15, 148, 0.0624, 0.1605, id="15 of 148"),
        pytest.param(0, 20, 0.0000, 0.1611, id="none of 20"),
        pytest.param(1, 29, 0.0061, 0.1718, id="1 of 29"),
    ],
)
def test_wilson_gives_the_published_values(hits: int, total: int, low: float, high: float) -> None:
    estimate = wilson(hits, total)

    assert estimate.value == hits / total
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)


@pytest.mark.promise("N2")
@pytest.mark.parametrize("total", [1, 2, 17, 1000])
def test_wilson_contains_the_value_at_its_ends(total: int) -> None:
    none, every = wilson(0, total), wilson(total, total)

    assert none.low == 0 < none.high < 1
    assert 0 < every.low < every.high == 1


@pytest.mark.promise("N2")
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(2, 45), st.integers(1, 150), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_bootstrap_contains_the_value(classes: int, images: int, skill: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = np.minimum(rng.geometric(0.2, images) - 1, classes - 1)
    predicted = np.where(rng.random(images) < skill, true, rng.integers(0, classes, images))

    for name, estimate in macro_intervals(table(true, predicted)).items():
        assert estimate.low <= estimate.value <= estimate.high, name


@pytest.mark.promise("N2")
def test_bootstrap_is_that_of_drawing_images() -> None:
    rng = np.random.default_rng(3)
    true = rng.choice(6, 250, p=[0.4, 0.3, 0.1, 0.1, 0.06, 0.04])
    predicted = np.where(rng.random(250) < 0.8, true, rng.integers(0, 6, 250))

    found = macro_intervals(table(true, predicted))["f1_macro"]

    expected = stats.bootstrap(
        (true, predicted),
        lambda left, right: f1_score(left, right, average="macro", zero_division=0),
        paired=True,
        vectorized=False,
        n_resamples=600,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.015)
    assert found.high == pytest.approx(expected.high, abs=0.015)


@pytest.mark.promise("N2")
def test_bootstrap_of_a_mean_is_that_of_scipy() -> None:
    losses = np.random.default_rng(4).exponential(2, 180)

    found = mean_interval(losses)

    expected = stats.bootstrap(
        (losses,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert found.value == pytest.approx(losses.mean())
    assert found.low == pytest.approx(expected.low, abs=0.04)
    assert found.high == pytest.approx(expected.high, abs=0.04)


@pytest.mark.promise("N2")
def test_intervals_are_the_same_each_time_whatever_the_global_seed() -> None:
    rng = np.random.default_rng(8)
    matrix = rng.integers(0, 9, (5, 5))
    losses = rng.random(60)

    np.random.seed(1)  # noqa: NPY002
    first = macro_intervals(matrix), mean_interval(losses)
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    second = macro_intervals(matrix), mean_interval(losses)

    assert first == second
    np.random.seed(1)  # noqa: NPY002
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


@pytest.mark.promise("N2")
def test_a_perfect_table_has_no_doubt_but_for_its_size() -> None:
    for name, estimate in macro_intervals(np.diag([5, 1, 3])).items():
        assert (estimate.low, estimate.value, estimate.high) == (1, 1, 1), name


@pytest.mark.promise("N2")
def test_every_headline_score_has_an_interval_that_contains_it() -> None:
    rng = np.random.default_rng(1)
    scores = score(rng.normal(0, 1, (40, 7)).astype(np.float32), rng.integers(0, 7, 40))

    expected = {"acc_top1", "acc_top5", "acc_macro", "f1_macro", "precision_macro", "loss"}
    assert set(scores.estimates) == expected
    for name, estimate in scores.estimates.items():
        assert estimate.low <= estimate.value <= estimate.high, name
        assert estimate.low < estimate.high, name


@pytest.mark.promise("N2")
def test_one_image_is_enough_to_be_scored() -> None:
    scores = score(np.array([[0.0, 2.0, 1.0]], dtype=np.float32), np.array([1]))

    top1 = scores.estimates["acc_top1"]
    assert (top1.value, top1.high) == (1, 1)
    assert top1.low < 0.5
    assert scores.plain["auroc_macro"] is None


@pytest.mark.promise("N2")
def test_a_thousand_classes_take_seconds_not_minutes() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 1000, 5000)
    predicted = np.where(rng.random(5000) < 0.7, true, rng.integers(0, 1000, 5000))

    found = macro_intervals(table(true, predicted))["acc_top1"]  # the suite's time limit holds

    by_formula = wilson(int((true == predicted).sum()), 5000)
    assert found.low == pytest.approx(by_formula.low, abs=0.003)
    assert found.high == pytest.approx(by_formula.high, abs=0.003)


def covers(estimate: Estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


@pytest.mark.slow
@pytest.mark.promise("N2")
def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(12)
    # An imbalanced population of four classes with known confusions.
    shares = np.array([0.45, 0.3, 0.15, 0.1])
    confusions = np.array(
        [
            [0.90, 0.05, 0.03, 0.02],
            [0.10, 0.80, 0.05, 0.05],
            [0.10, 0.10, 0.70, 0.10],
            [0.05, 0.15, 0.20, 0.60],
        ]
    )
    joint = shares[:, None] * confusions
    truth = {
        "acc_top1": np.trace(joint),
        "acc_macro": np.diag(confusions).mean(),
        "f1_macro": np.mean(2 * np.diag(joint) / (joint.sum(axis=0) + joint.sum(axis=1))),
    }
    rounds, images = 400, 370  # as many as the first user has in test
    covered = dict.fromkeys([*truth, "wilson", "loss"], 0)
    for _ in range(rounds):
        matrix = rng.multinomial(images, joint.ravel()).reshape(4, 4)
        found = macro_intervals(matrix)
        for name, value in truth.items():
            covered[name] += covers(found[name], value)
        covered["wilson"] += covers(wilson(int(np.trace(matrix)), images), truth["acc_top1"])
        covered["loss"] += covers(mean_interval(rng.exponential(1, images)), 1.0)

    # 95 % less three standard errors of the simulation, and what a bootstrap of this size lacks.
    assert min(covered.values()) >= 0.91 * rounds, covered
    assert max(covered.values()) <= 0.985 * rounds, covered
