"""The leave-one-out neighbours, against scikit-learn and against copies."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from classifier_training.evaluation import confident_learning
from classifier_training.evaluation.confident_learning import leave_one_out


def _blobs(count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    return (3 * np.eye(8)[labels] + rng.normal(size=(count, 8))).astype(np.float32), labels


def _alone(count: int) -> np.ndarray:
    return np.zeros((count, 2), dtype=np.int64)


def test_equal_to_scikit_learn_without_the_image_itself() -> None:
    features, labels = _blobs()
    found, judged = leave_one_out(features, labels, _alone(len(labels)), 3)

    prior = np.bincount(labels) / len(labels)
    for row in range(0, len(labels), 7):
        others = np.arange(len(labels)) != row
        model = KNeighborsClassifier(
            30,
            metric="cosine",
            algorithm="brute",
            weights=lambda distances: np.exp(-(distances - distances.min()) / 0.07),
        ).fit(features[others], labels[others])
        expected = 0.99 * model.predict_proba(features[[row]])[0] + 0.01 * prior
        assert found[row] == pytest.approx(expected, abs=1e-4)
    assert judged.all()
    assert found.sum(axis=1) == pytest.approx(np.ones(len(labels)))


@pytest.mark.parametrize("column", [0, 1])
def test_a_copy_does_not_vouch_for_a_wrong_label(column: int) -> None:
    features, labels = _blobs()
    features[1], labels[0], labels[1] = features[0], 2, 2  # a pair of copies, labelled wrongly
    features[:2] = 3 * np.eye(8)[0]
    apart = _alone(len(labels))

    vouched, _ = leave_one_out(features, labels, apart, 3)
    apart[:2, column] = 1
    judged_alone, _ = leave_one_out(features, labels, apart, 3)

    assert judged_alone[0, 2] < 0.02 < vouched[0, 2]


def test_an_image_without_another_of_its_label_is_not_judged() -> None:
    features, labels = _blobs()
    labels[5] = 3
    labels[[7, 9]] = 4
    apart = _alone(len(labels))
    apart[[7, 9], 0] = 1

    _, judged = leave_one_out(features, labels, apart, 5)

    assert np.flatnonzero(~judged).tolist() == [5, 7, 9]


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = _blobs()
    whole, _ = leave_one_out(features, labels, _alone(len(labels)), 3)
    monkeypatch.setattr(confident_learning, "_CHUNK", 7)
    steps: list[tuple[int, int]] = []
    parts, _ = leave_one_out(
        features, labels, _alone(len(labels)), 3, on_images=lambda *step: steps.append(step)
    )

    assert parts == pytest.approx(whole, abs=1e-5)
    assert steps[0] == (7, 120)
    assert steps[-1] == (120, 120)


def test_large_data_asks_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = _blobs(400)
    monkeypatch.setattr(confident_learning, "MOST_REFERENCES", 100)
    sampled, judged = leave_one_out(features, labels, _alone(400), 3)

    assert judged.all()
    assert (sampled.argmax(axis=1) == labels).mean() > 0.9


@pytest.mark.parametrize("count", [1, 2])
def test_hardly_any_images(count: int) -> None:
    found, judged = leave_one_out(
        np.zeros((count, 4), np.float32), np.arange(count), _alone(count), 2
    )

    assert np.isfinite(found).all()
    assert not judged.any()
