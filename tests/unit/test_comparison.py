"""Whether B is better than A: the tests against references, and how often they are wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    recall_score,
)

from classifier_training.errors import ConfigError, DataError
from classifier_training.evaluation.comparison import Comparison, Difference, compare
from classifier_training.evaluation.comparison_report import sentence, table
from classifier_training.evaluation.predictions import pair_predictions
from classifier_training.metrics.paired import holm, mcnemar, weighted_scores
from tests.helpers.answers import make_answers, noisy

pytestmark = pytest.mark.promise("N2")


def two_models(images: int, classes: int, a: float, b: float, seed: int = 0) -> Comparison:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, images)
    return compare(
        pair_predictions(
            make_answers(true, noisy(rng, true, a, classes), name="old"),
            make_answers(true, noisy(rng, true, b, classes), name="new"),
        )
    )


@given(st.integers(1, 60), st.integers(2, 9), st.floats(0, 1), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_scikit_learn(
    images: int, classes: int, skill: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, images)  # often without an image of some class
    predicted = noisy(rng, true, skill, classes)
    times = rng.integers(0, 4, (3, images)).astype(np.float64)
    times[:, 0] += 1

    found = weighted_scores(true, predicted, None, times, classes)

    for row, weights in enumerate(times):
        kept = weights > 0  # scikit-learn counts classes of images that weigh nothing
        t, p, w = true[kept], predicted[kept], weights[kept]
        expected = {
            "acc_top1": accuracy_score(t, p, sample_weight=w),
            "acc_macro": recall_score(
                t, p, sample_weight=w, average="macro", labels=np.unique(t), zero_division=0
            ),
            "f1_macro": f1_score(t, p, sample_weight=w, average="macro", zero_division=0),
        }
        for name, value in expected.items():
            assert found.headline[name][row] == pytest.approx(value, abs=1e-12), name


def test_point_values_of_a_comparison_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    true = rng.integers(0, 5, 200)
    probabilities = [rng.dirichlet(np.ones(5), 200) for _ in range(2)]
    sides = [
        make_answers(true, p.argmax(axis=1), losses=-np.log(p[np.arange(200), true]))
        for p in probabilities
    ]

    found = compare(pair_predictions(*sides))

    for letter, p in zip("ab", probabilities, strict=True):
        said = p.argmax(axis=1)
        for name, value in {
            "acc_top1": accuracy_score(true, said),
            "acc_macro": balanced_accuracy_score(true, said),
            "f1_macro": f1_score(true, said, average="macro"),
            "loss": log_loss(true, p),
        }.items():
            assert getattr(found.metrics[name], letter) == pytest.approx(value, abs=1e-9), name
    for item in found.metrics.values():
        assert item.value == pytest.approx(item.b - item.a)
        assert item.low <= item.value <= item.high


@pytest.mark.parametrize(
    ("fixed", "broken", "exact", "mid"),
    [
        # 2 (C(10,0) + C(10,1) + C(10,2)) / 2^10; mid-p takes C(10,2) / 2^10 off
        (8, 2, 2 * 56 / 1024, 2 * 56 / 1024 - 45 / 1024),
        (2, 8, 2 * 56 / 1024, 2 * 56 / 1024 - 45 / 1024),
        (5, 0, 2 / 32, 1 / 32),
        (1, 0, 1.0, 0.5),
        (3, 3, 1.0, 1.0),
        (0, 0, 1.0, 1.0),
    ],
)
def test_mcnemar_worked_by_hand(fixed: int, broken: int, exact: float, mid: float) -> None:
    found = mcnemar(fixed, broken)

    assert found.p_exact == pytest.approx(exact, rel=1e-9)
    assert found.p_mid == pytest.approx(mid, rel=1e-9)


@pytest.mark.parametrize(("fixed", "broken"), [(40, 61), (700, 820), (20000, 20500)])
def test_mcnemar_of_many_images_is_the_binomial_test(fixed: int, broken: int) -> None:
    expected = stats.binomtest(fixed, fixed + broken).pvalue

    assert mcnemar(fixed, broken).p_exact == pytest.approx(expected, rel=1e-6)


def test_holm_worked_by_hand() -> None:
    found = holm([0.01, 0.04, 0.03, math.nan, 0.005])

    assert found[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(found[3])  # no test, so not one of the number corrected for
    assert found[4] == pytest.approx(0.02)
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_a_model_against_itself_is_an_exact_tie() -> None:
    rng = np.random.default_rng(1)
    true = rng.integers(0, 4, 90)
    answers = make_answers(true, noisy(rng, true, 0.7, 4), losses=rng.exponential(1, 90))

    found = compare(pair_predictions(answers, answers))

    for item in found.metrics.values():
        assert (item.value, item.low, item.high, item.p) == (0, 0, 0, 1)
        assert item.verdict == "tie"
        assert item.images_needed is None
    assert {item.verdict for item in found.classes} == {"tie"}
    assert sentence(found, "f1_macro").startswith("an exact tie")
    assert "90 images" in sentence(found, "f1_macro")


def test_swapping_a_and_b_swaps_the_verdict() -> None:
    rng = np.random.default_rng(2)
    true = rng.integers(0, 5, 400)
    weak, strong = (make_answers(true, noisy(rng, true, skill, 5)) for skill in (0.6, 0.8))

    one, other = compare(pair_predictions(weak, strong)), compare(pair_predictions(strong, weak))

    for name, item in one.metrics.items():
        back = other.metrics[name]
        assert (item.verdict, back.verdict) == ("better", "worse")
        assert back.value == pytest.approx(-item.value)
        assert (back.low, back.high) == pytest.approx((-item.high, -item.low))
    assert "B is better than A by" in sentence(one, "f1_macro")
    assert "points of macro F1" in sentence(one, "f1_macro")
    assert "B is worse than A by" in sentence(other, "f1_macro")


def test_less_loss_is_better() -> None:
    rng = np.random.default_rng(3)
    true = rng.integers(0, 3, 200)
    losses = rng.exponential(1, 200)
    a = make_answers(true, true, losses=losses, classes=3)
    b = make_answers(true, true, losses=0.8 * losses, classes=3)

    assert compare(pair_predictions(a, b)).metrics["loss"].verdict == "better"
    assert compare(pair_predictions(b, a)).metrics["loss"].verdict == "worse"
    assert "nats of NLL" in sentence(compare(pair_predictions(a, b)), "loss")


def test_interval_is_that_of_scipys_paired_bootstrap() -> None:
    rng = np.random.default_rng(4)
    true = rng.choice(5, 300, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    a, b = (noisy(rng, true, skill, 5) for skill in (0.7, 0.76))

    found = compare(pair_predictions(make_answers(true, a), make_answers(true, b)))

    def difference(t: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
        scores = [f1_score(t, said, average="macro", zero_division=0) for said in (y, x)]
        return float(scores[0] - scores[1])

    expected = stats.bootstrap(
        (true, a, b),
        difference,
        paired=True,
        vectorized=False,
        n_resamples=500,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    item = found.metrics["f1_macro"]
    assert item.low == pytest.approx(expected.low, abs=0.015)
    assert item.high == pytest.approx(expected.high, abs=0.015)


@pytest.mark.parametrize(("fixed", "broken"), [(9, 2), (30, 18), (4, 4)])
def test_swapping_answers_tests_accuracy_as_mcnemar_does(fixed: int, broken: int) -> None:
    true = np.zeros(120, dtype=np.int64)
    a, b = true.copy(), true.copy()
    a[:fixed] = 1
    b[fixed : fixed + broken] = 1

    found = compare(pair_predictions(make_answers(true, a), make_answers(true, b)), resamples=8000)

    assert (found.mcnemar.fixed, found.mcnemar.broken) == (fixed, broken)
    assert found.metrics["acc_top1"].p == pytest.approx(found.mcnemar.p_exact, abs=0.02)


def test_a_handful_of_fixed_images_is_no_evidence() -> None:
    # The bootstrap alone calls 4 : 0 a difference; 2 / 2^4 = 0.125 is what it is.
    true = np.zeros(200, dtype=np.int64)
    a, b = true.copy(), true.copy()
    a[:4] = 1

    item = compare(pair_predictions(make_answers(true, a), make_answers(true, b, classes=2)))

    assert item.metrics["acc_top1"].low > 0
    assert item.metrics["acc_top1"].p > 0.05
    assert item.metrics["acc_top1"].verdict == "tie"


def test_images_of_a_group_count_as_one() -> None:
    rng = np.random.default_rng(6)
    true = rng.integers(0, 4, 100)
    a, b = noisy(rng, true, 0.7, 4), noisy(rng, true, 0.75, 4)
    copies = np.arange(100).repeat(5)
    names = tuple(f"g{row}" for row in copies)

    single = compare(pair_predictions(make_answers(true, a), make_answers(true, b)))
    grouped = compare(
        pair_predictions(
            make_answers(true[copies], a[copies], groups=names),
            make_answers(true[copies], b[copies]),
        )
    )
    blind = compare(
        pair_predictions(
            make_answers(true[copies], a[copies]), make_answers(true[copies], b[copies])
        )
    )

    for name, item in grouped.metrics.items():
        alone = single.metrics[name]
        assert item.spread == pytest.approx(alone.spread, rel=0.1), name
        assert item.p == pytest.approx(alone.p, abs=0.05), name
        assert blind.metrics[name].spread < 0.6 * item.spread, name
    assert any("drawn together" in line for line in table(grouped))
    assert not any("drawn together" in line for line in table(single))


def test_a_class_whose_fixed_images_are_of_three_groups_has_three_pieces_of_evidence() -> None:
    true = np.repeat([0, 1], 30)
    a = true.copy()
    a[:15] = 1
    names = tuple(f"film {row // 5}" for row in range(60))
    sides = (make_answers(true, a, groups=names), make_answers(true, true))

    found = compare(pair_predictions(*sides)).classes[0]

    assert found.changes.p_exact == pytest.approx(2 / 2**15)  # which takes images as independent
    assert found.p == pytest.approx(2 / 2**3, abs=0.04)
    assert found.verdict == "tie"


def test_no_p_value_is_zero() -> None:
    true = np.zeros(100, dtype=np.int64)
    sides = (make_answers(true, true + 1), make_answers(true, true, classes=2))

    assert compare(pair_predictions(*sides)).metrics["acc_top1"].p == pytest.approx(1 / 2001)


def test_an_image_without_a_group_stands_alone() -> None:
    true = np.array([0, 1, 0, 1])
    answers = make_answers(true, true, groups=("", "g", "", "g"))

    assert pair_predictions(answers, answers).groups.tolist() == [0, 1, 2, 1]


def test_classes_are_matched_by_name_not_by_index() -> None:
    true, said = np.array([0, 1, 2, 2, 1]), np.array([0, 2, 2, 1, 1])
    a = make_answers(true, said)
    order = np.array([2, 0, 1])  # c0 is at 2, c1 at 0, c2 at 1
    b = replace(a, name="b", classes=("c1", "c2", "c0"), true=order[true], predicted=order[said])

    found = compare(pair_predictions(a, b))

    assert found.pair.names == ("a", "b")
    assert sentence(found, "acc_top1").startswith("an exact tie")


def test_a_class_that_one_model_alone_knows_takes_part() -> None:
    a = make_answers([0, 1, 1], [0, 1, 0])
    b = make_answers([0, 1, 1], [0, 1, 2], name="b")

    found = compare(pair_predictions(a, b))

    assert found.pair.classes == ("c0", "c1", "c2")
    assert found.metrics["f1_macro"].b == pytest.approx(
        f1_score([0, 1, 1], [0, 1, 2], average="macro")
    )
    assert found.classes[2].support == 0
    assert math.isnan(found.classes[2].p)


def test_differences_of_a_class_worked_by_hand() -> None:
    #       c0: 20 images, A has 5 right and B all; c1: 20 images, both right; c2: A right, B not
    true = np.repeat([0, 1, 2], [20, 20, 1])
    a, b = true.copy(), true.copy()
    a[5:20] = 1
    b[40] = 1

    found = compare(pair_predictions(make_answers(true, a), make_answers(true, b)))

    zero, one, two = found.classes
    assert zero.recall[:3] == pytest.approx((0.25, 1.0, 0.75))
    assert (zero.changes.fixed, zero.changes.broken) == (15, 0)
    assert zero.p == pytest.approx(2 / 2**15)
    assert zero.p_holm == pytest.approx(3 * 2 / 2**15)  # of three classes with images
    assert zero.recall[3] > 0.5
    assert zero.f1[:2] == pytest.approx((2 * 5 / (20 + 5), 1.0))
    assert (zero.verdict, one.verdict, two.verdict) == ("better", "tie", "tie")
    assert two.recall[2] == -1
    assert any("class 'c0': B is better" in line for line in table(found))


def test_different_images_are_refused_and_named() -> None:
    a = make_answers([0, 1, 0, 1], [0, 1, 1, 1], name="runs/a")
    b = replace(a, name="runs/b", paths=("00000.png", "00001.png", "x.png", "y.png"))

    with pytest.raises(DataError) as caught:
        pair_predictions(a, b)

    told = str(caught.value)
    assert "2 in common" in told
    assert "2 only in runs/a (00002.png, 00003.png)" in told
    assert "2 only in runs/b (x.png, y.png)" in told
    assert "--common" in told
    pair = pair_predictions(a, b, common=True)
    assert (pair.paths, pair.left_out) == (("00000.png", "00001.png"), 4)


def test_nothing_in_common_is_refused_always() -> None:
    a = make_answers([0, 1], [0, 1])
    b = replace(a, paths=("x", "y"))

    with pytest.raises(DataError, match="0 in common"):
        pair_predictions(a, b, common=True)


def test_another_truth_is_refused_and_named() -> None:
    a, b = make_answers([0, 1, 1], [0, 1, 1]), make_answers([0, 0, 1], [0, 1, 1], name="b")

    with pytest.raises(DataError, match=r"1 images differs .*00001.png \('c1' and 'c0'\)"):
        pair_predictions(a, b)


def test_rows_are_matched_by_path_whatever_their_order() -> None:
    rng = np.random.default_rng(8)
    true = rng.integers(0, 3, 50)
    a = make_answers(true, noisy(rng, true, 0.6, 3), losses=rng.random(50))
    kept = np.arange(0, 50, 2)
    half = replace(
        a,
        paths=tuple(a.paths[row] for row in kept),
        true=true[kept],
        predicted=a.predicted[kept],
        losses=a.losses[kept] if a.losses is not None else None,
    )

    found = compare(pair_predictions(a, half, common=True))

    assert sentence(found, "f1_macro").startswith("an exact tie")
    assert found.metrics["loss"].value == 0


def test_a_metric_without_probabilities_is_refused() -> None:
    found = compare(pair_predictions(make_answers([0, 1], [0, 1]), make_answers([0, 1], [1, 1])))

    assert "loss" not in found.metrics
    with pytest.raises(ConfigError, match="loss needs probabilities"):
        sentence(found, "loss")
    with pytest.raises(ConfigError, match="f1 is unknown"):
        sentence(found, "f1")


def test_images_needed_worked_by_hand() -> None:
    item = Difference("acc_top1", 0.8, 0.81, 0.01, -0.03, 0.05, 0.02, 0.6, 100)

    # (1.959964 + 0.841621)^2 = 7.848880; times (0.02 / 0.01)^2 = 4; times 100 images
    assert item.images_needed == 3140


def test_equal_seeds_give_equal_results_whatever_the_global_seed() -> None:
    np.random.seed(1)  # noqa: NPY002
    first = two_models(80, 4, 0.7, 0.75)
    np.random.seed(2)  # noqa: NPY002

    assert two_models(80, 4, 0.7, 0.75).metrics == first.metrics


def test_fifty_thousand_images_of_a_thousand_classes_need_no_more_memory_than_a_chunk() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 1000, 50_000)
    a, b = noisy(rng, true, 0.7, 1000), noisy(rng, true, 0.75, 1000)

    found = compare(pair_predictions(make_answers(true, a), make_answers(true, b)), resamples=60)

    assert found.metrics["acc_top1"].verdict == "better"


@pytest.mark.slow
def test_a_tie_is_called_a_difference_one_time_in_twenty_at_most() -> None:
    rng = np.random.default_rng(11)
    rounds, called = 600, dict.fromkeys(("acc_top1", "f1_macro", "acc_macro", "loss"), 0)
    for _ in range(rounds):
        true = rng.choice(6, 200, p=[0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
        sides = [
            make_answers(true, noisy(rng, true, 0.8, 6), losses=rng.exponential(1, 200), classes=6)
            for _ in range(2)
        ]
        found = compare(pair_predictions(*sides), resamples=400)
        for name in called:
            called[name] += found.metrics[name].verdict != "tie"

    # 5 % and three standard errors of the simulation; not far below it either.
    assert max(called.values()) <= (0.05 + 3 * 0.0089) * rounds, called
    assert min(called.values()) >= 0.015 * rounds, called


@pytest.mark.slow
def test_intervals_of_differences_cover_the_truth_and_find_a_real_one() -> None:
    rng = np.random.default_rng(12)
    rounds, images, covered, found_better = 400, 370, 0, 0
    truth = (0.85 - 0.75) * (1 - 1 / 4)  # a wrong guess is right one time in four
    for _ in range(rounds):
        true = rng.integers(0, 4, images)
        a, b = noisy(rng, true, 0.75, 4), noisy(rng, true, 0.85, 4)
        pair = pair_predictions(make_answers(true, a, classes=4), make_answers(true, b, classes=4))
        item = compare(pair, resamples=400).metrics["acc_top1"]
        covered += item.low <= truth <= item.high
        found_better += item.verdict == "better"

    assert 0.92 * rounds <= covered <= 0.98 * rounds
    # Known: variance of the difference of two independent proportions of 0.8125 and 0.8875.
    spread = math.sqrt((0.8125 * 0.1875 + 0.8875 * 0.1125) / images)
    power = stats.norm.sf(1.96 - truth / spread)
    assert found_better / rounds == pytest.approx(power, abs=0.08)
