"""Baselines, slices' multiple comparisons and curves, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from classifier_training.evaluation.baselines import linear_probe, nearest_neighbours
from classifier_training.evaluation.slices import holm, metadata_facts
from classifier_training.metrics.curves import risk_coverage


def blobs(seed: int, classes: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1.5, (classes, 12))
    labels = rng.integers(0, classes, 150)
    train = centres[labels] + rng.normal(0, 1.5, (150, 12)) + 3
    test = centres[rng.integers(0, classes, 200)] + rng.normal(0, 1.5, (200, 12)) + 3
    train[:, 3] = 7.0  # a feature that says nothing
    test[:, 3] = 7.0
    return train, labels, test


@pytest.mark.promise("T9")
@pytest.mark.parametrize("seed", range(4))
def test_the_linear_probe_is_scikit_learns(seed: int) -> None:
    train, labels, test = blobs(seed)
    labels = np.where(labels == 2, 6, labels)  # class 2 has no training images

    scaler = StandardScaler().fit(train)
    reference = LogisticRegression(C=1.0, max_iter=5000, tol=1e-8).fit(
        scaler.transform(train), labels
    )

    expected = reference.predict(scaler.transform(test))
    assert (linear_probe(train, labels, test) == expected).mean() >= 0.995
    assert len(set(expected.tolist())) > 3


@pytest.mark.promise("T9")
@pytest.mark.parametrize("neighbours", [1, 5, 20])
def test_nearest_neighbours_are_scikit_learns(neighbours: int) -> None:
    train, labels, test = blobs(9)

    reference = KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute")

    expected = reference.fit(train, labels).predict(test)
    found = nearest_neighbours(train, labels, test, 5, neighbours=neighbours)
    assert (found == expected).all()


@pytest.mark.promise("T9")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_adjustment_rejects_as_its_definition_does(chances: list[float]) -> None:
    adjusted = holm(chances)

    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, index in enumerate(np.argsort(chances, kind="stable")):
            if chances[index] * (len(chances) - rank) > level:
                break
            rejected.add(int(index))
        assert {index for index, value in enumerate(adjusted) if value <= level} == rejected


@pytest.mark.promise("T9")
def test_holm_of_published_numbers() -> None:
    # Four p-values worked by hand: 4 * 0.005, 3 * 0.01, 2 * 0.03 and at least that.
    assert holm([0.01, 0.03, 0.04, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.promise("N1")
def test_risk_and_coverage_worked_by_hand() -> None:
    correct = np.array([True, False, True, False])

    curve = risk_coverage(np.array([0.9, 0.8, 0.7, 0.6]), correct)

    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    tied = risk_coverage(np.full(4, 0.5), correct)
    assert (tied.coverage.tolist(), tied.risk.tolist()) == ([1.0], [0.5])
    assert tied.area == pytest.approx(0.5)  # no order at all is a random order


@pytest.mark.promise("N1")
def test_the_area_of_ties_is_the_mean_over_their_orders() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.integers(0, 4, 30) / 4
    correct = rng.random(30) < 0.6
    jittered = [
        risk_coverage(confidence + 1e-6 * rng.permutation(30), correct).area for _ in range(4000)
    ]

    area = risk_coverage(confidence, correct).area

    assert area == pytest.approx(np.mean(jittered), abs=4 * float(stats.sem(jittered)))


def test_metadata_becomes_columns_with_gaps() -> None:
    found = metadata_facts(['{"a": 1, "b": {"c": "x", "d": [1]}}', "", '{"a": null, "e": true}'])

    assert found == {"a": [1, None, None], "b.c": ["x", None, None], "e": [None, None, True]}
