"""Confident learning: worked by hand, against a slow rewriting, and on planted label noise."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from classifier_training.evaluation.confident_learning import (
    class_thresholds,
    confident_joint,
    expected_counts,
    judge,
    leave_one_out,
    prune_by_noise_rate,
)
from tests.helpers.label_noise import DIGIT_PAIRS, plant

# Eight images of three classes; the fourth and the last are labelled wrongly.
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2])
PROBS = np.array(
    [
        [0.9, 0.1, 0.0],
        [0.8, 0.1, 0.1],
        [0.6, 0.3, 0.1],
        [0.1, 0.9, 0.0],
        [0.2, 0.7, 0.1],
        [0.2, 0.8, 0.0],
        [0.6, 0.3, 0.1],
        [0.7, 0.1, 0.2],
    ]
)


def test_hand_worked_thresholds_and_joint() -> None:
    # The means of 0.9, 0.8, 0.6, 0.1, of 0.7, 0.8, 0.3, and of 0.2.
    assert class_thresholds(LABELS, PROBS) == pytest.approx([0.6, 0.6, 0.2])

    # Image 6 reaches only the threshold of class 0; image 7 those of 0 and 2, and 0 is likelier.
    assert confident_joint(LABELS, PROBS).tolist() == [[3, 1, 0], [1, 2, 0], [1, 0, 0]]


def test_hand_worked_suspects() -> None:
    found = judge(LABELS, PROBS)

    assert np.flatnonzero(found.is_suspect).tolist() == [3, 6, 7]
    assert found.predicted.tolist() == [0, 0, 0, 1, 1, 1, 0, 0]
    assert found.margin[[0, 3, 6, 7]] == pytest.approx([0.8, -0.8, -0.3, -0.5])
    assert found.self_confidence[3] == pytest.approx(0.1)
    assert found.loss[3] == pytest.approx(-math.log(0.1))
    assert found.ranking()[:4].tolist() == [3, 7, 6, 2]


def test_counts_are_scaled_to_the_images_of_a_class() -> None:
    # Class 0: 2 of 3 counted images are given rightly, and there are 6 images in all.
    counts, labels = np.array([[2, 1], [0, 0]]), np.array([0] * 6 + [1] * 2)

    assert expected_counts(counts, labels).tolist() == [[4, 2], [0, 0]]


def test_the_widest_margins_are_taken() -> None:
    labels = np.zeros(4, dtype=np.int64)
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9]])
    expected = np.array([[2.0, 2.0], [0.0, 0.0]])

    assert prune_by_noise_rate(labels, probs, expected).tolist() == [False, True, False, True]


def test_a_label_that_the_prediction_agrees_with_is_no_suspect() -> None:
    # The threshold of class 0 is 0.7; image 1 stays below it and reaches that of class 1, 0.35.
    labels = np.array([0, 0, 1])
    probs = np.array([[0.85, 0.15], [0.55, 0.45], [0.65, 0.35]])

    assert confident_joint(labels, probs)[0].tolist() == [1, 1]
    assert not judge(labels, probs).is_suspect[:2].any()


def test_certainty_gives_finite_losses_and_absent_classes_no_suspects() -> None:
    labels = np.array([0, 0, 1])
    found = judge(labels, np.array([[1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]]))

    assert np.isfinite(found.loss).all()
    assert found.counts.sum(axis=0)[2] == 0, "class 2 has no label and so no threshold"


def _slow_suspects(labels: list[int], probs: list[list[float]]) -> tuple[list[list[int]], set[int]]:
    """The paper's equations in plain loops."""
    classes = range(len(probs[0]))
    thresholds = {}
    for j in classes:
        own = [row[j] for row, label in zip(probs, labels, strict=True) if label == j]
        if own:
            thresholds[j] = math.fsum(own) / len(own) * (1 - 1e-12)
    joint = [[0 for _ in classes] for _ in classes]
    for row, label in zip(probs, labels, strict=True):
        reached = [j for j in thresholds if row[j] >= thresholds[j]]
        if reached:
            joint[label][max(reached, key=lambda j: row[j])] += 1
    found = set()
    for i in classes:
        members = [n for n, label in enumerate(labels) if label == i]
        for j in classes:
            if i != j and joint[i][j]:
                count = int(len(members) * joint[i][j] / sum(joint[i]) + 0.5)
                ordered = sorted(members, key=lambda n: probs[n][i] - probs[n][j])
                found |= set(ordered[:count])
    best = [max(classes, key=lambda j: row[j]) for row in probs]
    return joint, {n for n in found if best[n] != labels[n]}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 60), st.floats(0.1, 5))
def test_equal_to_a_slow_rewriting(seed: int, classes: int, count: int, peak: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    probs = rng.dirichlet(np.full(classes, 1 / peak), count)

    found = judge(labels, probs)
    joint, suspects = _slow_suspects(labels.tolist(), probs.tolist())

    assert found.counts.tolist() == joint
    assert set(np.flatnonzero(found.is_suspect).tolist()) == suspects


def _digits() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    pixels, labels = load_digits(return_X_y=True)
    return pixels.astype(np.float32), labels.astype(np.int64)


@pytest.mark.promise("D13")
@pytest.mark.parametrize("share", [0.05, 0.10])
@pytest.mark.parametrize("kind", ["symmetric", "pairs"])
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_noise_is_found_by_neighbours(share: float, kind: str, seed: int) -> None:
    pixels, true = _digits()
    noisy = plant(true, share, seed=seed, pairs=DIGIT_PAIRS if kind == "pairs" else None)
    alone = np.zeros((len(true), 1), dtype=np.int64)

    probs, judged = leave_one_out(pixels, noisy, alone, 10)
    found, wrong = judge(noisy, probs), noisy != true

    assert judged.all()
    assert wrong.sum() == round(share * len(true))
    assert wrong[found.ranking()[: wrong.sum()]].mean() >= 0.85
    assert wrong[found.is_suspect].mean() >= 0.85
    assert (wrong & found.is_suspect).sum() / wrong.sum() >= 0.7


@pytest.mark.promise("D13")
@pytest.mark.parametrize("kind", ["symmetric", "pairs"])
def test_planted_noise_is_found_by_out_of_fold_predictions(kind: str) -> None:
    pixels, true = _digits()
    noisy = plant(true, 0.10, seed=0, pairs=DIGIT_PAIRS if kind == "pairs" else None)
    model = LogisticRegression(C=0.02, max_iter=200)
    probs = cross_val_predict(model, pixels / 16, noisy, cv=5, method="predict_proba")

    found, wrong = judge(noisy, probs), noisy != true

    assert wrong[found.ranking()[: wrong.sum()]].mean() >= 0.8


@pytest.mark.promise("D13")
def test_clean_data_has_few_suspects() -> None:
    pixels, true = _digits()
    probs, _ = leave_one_out(pixels, true, np.zeros((len(true), 1), dtype=np.int64), 10)

    assert judge(true, probs).is_suspect.mean() < 0.01
