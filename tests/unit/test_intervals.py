"""Intervals: published values, an independent bootstrap, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from benchmarks.interval_coverage import GroupPopulation, coverage, populations
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from classifier_training.evaluation.scores import score
from classifier_training.metrics.bootstrap import ece_interval, macro_intervals
from classifier_training.metrics.intervals import (
    auroc_interval,
    auroc_of_class,
    design_effect,
    f1_interval,
    mean_interval,
    wilson,
)
from classifier_training.metrics.probabilistic import calibration, roc_areas


def table(true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    classes = max(2, int(max(true.max(), predicted.max())) + 1)
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
def test_with_many_images_the_bootstrap_is_the_plain_one() -> None:
    rng = np.random.default_rng(3)
    true = rng.choice(4, 1200, p=[0.4, 0.3, 0.2, 0.1])
    predicted = np.where(rng.random(1200) < 0.8, true, rng.integers(0, 4, 1200))

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
    assert found.low == pytest.approx(expected.low, abs=0.006)
    assert found.high == pytest.approx(expected.high, abs=0.006)


@pytest.mark.promise("N2")
def test_the_interval_of_a_mean_is_students_without_skew_and_leans_with_it() -> None:
    even = np.concatenate([np.linspace(-1, 1, 41)])
    expected = stats.t.interval(0.95, 40, loc=0, scale=stats.sem(even))
    found = mean_interval(even)
    assert (found.low, found.high) == pytest.approx(expected, abs=1e-9)

    losses = np.random.default_rng(4).exponential(2, 180)
    found = mean_interval(losses)
    # BCa is another way to second order: it leans to the same side by about as much.
    bca = stats.bootstrap(
        (losses,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert found.value == pytest.approx(losses.mean())
    assert found.low == pytest.approx(bca.low, abs=0.03)
    assert found.high == pytest.approx(bca.high, abs=0.06)
    assert found.high - found.value > found.value - found.low


@pytest.mark.promise("N2")
def test_the_f1_interval_holds_at_the_ends_and_in_the_middle() -> None:
    assert f1_interval(0, 7, 3).low == 0 < f1_interval(0, 7, 3).high < 0.7
    assert f1_interval(5, 5, 5).high == 1 > f1_interval(5, 5, 5).low > 0.5
    # Jaccard 81 of 263 has the published bounds 0.2553 and 0.3662; F1 = 2 J / (1 + J).
    found = f1_interval(81, 172, 172)
    assert found.value == pytest.approx(2 * 81 / 344)
    assert found.low == pytest.approx(2 * 0.2553 / 1.2553, abs=2e-4)
    assert found.high == pytest.approx(2 * 0.3662 / 1.3662, abs=2e-4)


@pytest.mark.promise("N2")
def test_copies_of_an_image_bring_no_more_certainty() -> None:
    rng = np.random.default_rng(0)
    right = (rng.random(100) < 0.8).astype(float)

    copied = design_effect(np.repeat(right, 5), np.repeat(np.arange(100), 5))

    few = (stats.t.ppf(0.975, 99) / stats.norm.ppf(0.975)) ** 2
    assert copied == pytest.approx(5 * few, rel=0.01)
    alone = wilson(int(right.sum()), 100)
    of_copies = wilson(int(5 * right.sum()), 500, copied)
    assert of_copies.low == pytest.approx(alone.low, abs=0.005)
    assert of_copies.high == pytest.approx(alone.high, abs=0.005)


@pytest.mark.promise("N2")
def test_the_freedom_of_few_groups_is_satterthwaites() -> None:
    """Twelve groups of 30: the kurtosis of the beta distribution is scipy's."""
    rights = [30, 30, 28, 30, 24, 18, 25, 20, 29, 24, 12, 22]
    right = np.concatenate([np.repeat([1.0, 0.0], [count, 30 - count]) for count in rights])
    found = design_effect(right, np.repeat(np.arange(12), 30))

    sums = np.array(rights) - 30 * right.mean()
    ratio = float(sums.var(ddof=1)) * 12 / (360 * float(right.var(ddof=1)))
    correlation = (ratio - 1) / 29
    both = 1 / correlation - 1
    shape = stats.beta(right.mean() * both, (1 - right.mean()) * both)
    share = correlation * 30 / (1 + 29 * correlation)
    excess = float(shape.stats("k")) * share**2
    freedom = max(2 / (excess / 12 + 2 / 11), 5.5)
    assert 5.5 < freedom < 10
    quantiles = stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975)
    assert found == pytest.approx(ratio * quantiles**2, rel=1e-6)


@pytest.mark.promise("N2")
def test_two_classes_have_one_area_with_one_interval() -> None:
    rng = np.random.default_rng(6)
    labels = np.repeat([0, 1], [45, 5])
    scores = (rng.normal(0, 1, 50) + 2.5 * labels).astype(np.float32)
    roc = roc_areas(np.stack([-scores, scores], axis=1), labels)

    macro = auroc_interval(roc, labels)

    assert roc.areas[0] == pytest.approx(roc.areas[1])
    own = auroc_of_class(float(roc.areas[1]), float(roc.own_variances[1]), 5, 45)
    assert macro is not None
    assert (macro.low, macro.high) == pytest.approx((own.low, own.high))


@pytest.mark.promise("N2")
def test_a_perfect_order_of_five_images_is_no_certainty() -> None:
    labels = np.repeat([0, 1], [45, 5])
    scores = labels.astype(np.float32)
    macro = auroc_interval(roc_areas(np.stack([1 - scores, scores], axis=1), labels), labels)

    assert macro is not None
    assert macro.high == 1
    # With five images, one of which could have been ranked anywhere.
    assert 0.5 < macro.low < 0.9


@pytest.mark.promise("N2")
def test_groups_widen_every_headline_interval_and_images_alone_none() -> None:
    rng = np.random.default_rng(5)
    labels = np.repeat(rng.integers(0, 4, 40), 10)
    logits = np.repeat(rng.normal(0, 1, (40, 4)), 10, axis=0).astype(np.float32)
    logits[np.arange(400), labels] += 1

    plain = score(logits, labels).estimates
    grouped = score(logits, labels, np.repeat(np.arange(40), 10)).estimates
    alone = score(logits, labels, np.arange(400)).estimates

    assert alone == plain
    for name in set(plain) - {"acc_top5"}:  # all images are among five of four classes
        assert grouped[name].value == plain[name].value
        wide = grouped[name].high - grouped[name].low
        # Ten copies: three times the width, less where a bound meets 0 or 1.
        assert wide > 1.5 * (plain[name].high - plain[name].low), name


@pytest.mark.promise("N2")
def test_the_calibration_error_of_a_calibrated_network_may_be_none() -> None:
    rng = np.random.default_rng(2)
    sure = rng.uniform(0.5, 1, 400).astype(np.float32)
    probabilities = np.stack([sure, 1 - sure], axis=1)
    honest = (rng.random(400) > sure).astype(np.int64)

    calibrated = ece_interval(calibration(probabilities, honest))
    boasting = ece_interval(calibration(probabilities, rng.integers(0, 2, 400)))

    assert calibrated.low == 0 < calibrated.value
    assert boasting.low > 0.15


@pytest.mark.promise("N1")
def test_the_variance_of_an_area_is_delongs() -> None:
    # Worked by hand: positives 0.9, 0.4 and negatives 0.5, 0.1 have placements 1, 1/2 and 1/2, 1.
    scores = np.array([0.9, 0.4, 0.5, 0.1], dtype=np.float32)
    probabilities = np.stack([1 - scores, scores], axis=1)

    roc = roc_areas(probabilities, np.array([1, 1, 0, 0]))

    assert roc.areas.tolist() == [0.75, 0.75]
    assert roc.own_variances[1] == pytest.approx(4 * 0.125**2)
    assert roc.deviations.sum() == pytest.approx(0)


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
def test_a_perfect_table_of_few_images_is_no_certainty() -> None:
    few, many = (macro_intervals(np.diag([5, 1, 3]) * times) for times in (1, 300))

    for name in few:
        assert few[name].value == few[name].high == 1
        assert 0.2 < few[name].low < 0.95, name
        assert many[name].low > 0.99, name


@pytest.mark.promise("N2")
def test_every_headline_score_has_an_interval_that_contains_it() -> None:
    rng = np.random.default_rng(1)
    scores = score(rng.normal(0, 1, (40, 7)).astype(np.float32), rng.integers(0, 7, 40))

    expected = {
        "acc_top1", "acc_top5", "acc_macro", "f1_macro", "precision_macro", "loss", "ece",
        "auroc_macro",
    }  # fmt: skip
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
    assert "auroc_macro" not in scores.estimates


@pytest.mark.promise("N2")
def test_a_thousand_classes_take_seconds_not_minutes() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 1000, 5000)
    predicted = np.where(rng.random(5000) < 0.7, true, rng.integers(0, 1000, 5000))

    found = macro_intervals(table(true, predicted))["acc_macro"]  # the suite's time limit holds

    by_formula = wilson(int((true == predicted).sum()), 5000)  # classes are about equally large
    assert found.low == pytest.approx(by_formula.low, abs=0.01)
    assert found.high == pytest.approx(by_formula.high, abs=0.01)


ROUNDS = 500
# What these populations must keep: 95 +- 1.5 % and three standard errors of so many rounds. The
# calibration error is conservative near 0 by design; all others are in benchmarks/.
ASSURED = {
    "table: 4 classes, 5x, 370 images": ("acc_top1", "acc_macro", "f1_macro"),
    "table: 10 classes, 20x, 2,000 images": ("acc_top1", "acc_macro", "f1_macro"),
    "table: 43 classes, 64x, 370 images, rare ones worse": ("acc_macro", "f1_macro"),
    "table: 43 classes, even, 370 images": ("acc_macro", "f1_macro", "precision_macro"),
    "logits: 10 classes, 20x, 2,000 images, calibrated": ("loss", "auroc_macro"),
    "logits: 2 classes, 4x, 400 images, overconfident": ("loss", "ece", "auroc_macro"),
    "groups: 40 of 10 images": ("acc_top1", "acc_macro", "f1_macro", "mean of values"),
}


@pytest.mark.slow
@pytest.mark.promise("N2")
@pytest.mark.parametrize("name", ASSURED)
def test_intervals_hold_the_truth_as_often_as_they_say(name: str) -> None:
    found = coverage(dict(populations())[name], ROUNDS, seed=12)

    allowed = 0.015 + 3 * (0.95 * 0.05 / ROUNDS) ** 0.5
    for score_name in ASSURED[name]:
        assert found[score_name][0] == pytest.approx(0.95, abs=allowed), (score_name, found)


@pytest.mark.promise("N2")
def test_in_groups_the_plain_interval_would_hold_far_too_seldom() -> None:
    found = coverage(GroupPopulation(30, 10, 3, 0.4), 150, seed=1)

    for name, (held, _) in found.items():
        assert held > 0.88, name


@pytest.mark.promise("N2")
def test_an_area_near_1_is_not_surer_than_its_classes() -> None:
    """DeLong's variance alone held the truth in half of these test sets."""
    name = "held out: logits: 3 classes, 4x, 100 images"

    held, width = coverage(dict(populations())[name], 150, seed=3)["auroc_macro"]

    assert held > 0.85
    assert width < 0.03
