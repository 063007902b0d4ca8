"""Scores against scikit-learn (and torchmetrics for what it lacks) on tables of every shape."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from classifier_training.config.metric_names import SCORES
from classifier_training.evaluation.scores import Scores, score
from classifier_training.inference.agreement import softmax
from classifier_training.inference.class_map import ClassMap
from classifier_training.metrics.classification import ClassificationMetrics
from classifier_training.metrics.probabilistic import auroc_macro, expected_calibration_error

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@st.composite
def tables(draw: st.DrawFn) -> tuple[Logits, Labels]:
    """Draw logits and labels; some classes may be absent, some never predicted."""
    classes = draw(st.sampled_from([2, 3, 5, 6, 12, 40]))
    images = draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    present = rng.permutation(classes)[: draw(st.integers(1, classes))]
    labels = rng.choice(present, images).astype(np.int64)
    logits = rng.normal(0, draw(st.sampled_from([0.01, 1.0, 8.0])), (images, classes))
    logits[np.arange(images), labels] += draw(st.sampled_from([-2.0, 0.0, 3.0, 30.0]))
    never = rng.permutation(classes)[: draw(st.integers(0, classes - 1))]
    logits[:, never] -= draw(st.sampled_from([0.0, 20.0]))
    return logits.astype(np.float32), labels


def names(classes: int) -> ClassMap:
    return ClassMap(tuple(f"class {index}" for index in range(classes)))


def measured(scores: Scores, name: str) -> float:
    return scores.estimates[name].value


by_examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@pytest.mark.promise("N1")
@pytest.mark.promise("T9")
@by_examples
@given(tables())
def test_scores_of_classes_are_those_of_scikit_learn(table: tuple[Logits, Labels]) -> None:
    logits, labels = table
    classes = logits.shape[1]

    rows = score(logits, labels).per_class_rows(names(classes))

    expected = sk.precision_recall_fscore_support(
        labels, logits.argmax(axis=1), labels=range(classes), zero_division=0
    )
    for key, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose([float(row[key]) for row in rows], column, atol=5.1e-7)
    counts = np.bincount(logits.argmax(axis=1), minlength=classes)
    assert [int(row["predicted"]) for row in rows] == counts.tolist()


@pytest.mark.promise("N1")
@pytest.mark.promise("T9")
@by_examples
@given(tables())
def test_averages_are_those_of_scikit_learn(table: tuple[Logits, Labels]) -> None:
    logits, labels = table
    predicted = logits.argmax(axis=1)

    scores = score(logits, labels)

    with warnings.catch_warnings():  # it warns of predicted classes that have no images
        warnings.simplefilter("ignore")
        expected = {
            "acc_top1": sk.accuracy_score(labels, predicted),
            "acc_macro": sk.balanced_accuracy_score(labels, predicted),
            "f1_macro": sk.f1_score(labels, predicted, average="macro", zero_division=0),
            "precision_macro": sk.precision_score(
                labels, predicted, average="macro", zero_division=0
            ),
        }
    for name, value in expected.items():
        assert measured(scores, name) == pytest.approx(value, abs=1e-12), name


@pytest.mark.promise("N1")
@pytest.mark.promise("T9")
@by_examples
@given(tables())
def test_top5_is_that_of_scikit_learn(table: tuple[Logits, Labels]) -> None:
    logits, labels = table
    classes = logits.shape[1]

    value = measured(score(logits, labels), "acc_top5")

    if classes <= 5:
        assert value == 1.0
    else:
        expected = sk.top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
        assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.promise("N1")
@pytest.mark.promise("T9")
@by_examples
@given(tables())
def test_log_loss_is_that_of_scikit_learn(table: tuple[Logits, Labels]) -> None:
    logits, labels = table

    value = measured(score(logits, labels), "loss")

    probabilities = special.softmax(logits.astype(np.float64), axis=1)
    if probabilities[np.arange(len(labels)), labels].min() > 1e-15:  # below, scikit-learn clips
        expected = sk.log_loss(labels, probabilities, labels=range(logits.shape[1]))
        assert value == pytest.approx(expected, abs=1e-9)


@pytest.mark.promise("N1")
@pytest.mark.promise("T9")
@by_examples
@given(tables())
def test_auroc_is_that_of_scikit_learn(table: tuple[Logits, Labels]) -> None:
    logits, labels = table
    probabilities = softmax(logits)

    value = auroc_macro(probabilities, labels)

    present = [index for index in range(logits.shape[1]) if 0 < (labels == index).mean() < 1]
    if present:
        areas = [sk.roc_auc_score(labels == index, probabilities[:, index]) for index in present]
        assert value == pytest.approx(np.mean(areas), abs=1e-12)
    else:
        assert value is None


@pytest.mark.promise("N1")
def test_auroc_of_a_whole_table_is_scikit_learns_one_versus_rest() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(300) % 6
    logits = rng.normal(0, 2, (300, 6)).astype(np.float32)
    logits[np.arange(300), labels] += 1
    probabilities = special.softmax(logits.astype(np.float64), axis=1)

    expected = sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")

    assert score(logits, labels).value("auroc_macro") == pytest.approx(expected, abs=1e-6)


@pytest.mark.promise("N1")
@pytest.mark.promise("T9")
@by_examples
@given(tables())
def test_calibration_error_is_that_of_torchmetrics(table: tuple[Logits, Labels]) -> None:
    logits, labels = table
    probabilities = softmax(logits)

    value = expected_calibration_error(probabilities, labels)

    expected = multiclass_calibration_error(
        torch.from_numpy(probabilities).double(),
        torch.from_numpy(labels),
        num_classes=logits.shape[1],
        n_bins=15,
        norm="l1",
    )
    assert value == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.promise("N1")
def test_calibration_error_of_a_table_worked_out_by_hand() -> None:
    # Confidences 0.9 (2 of 3 right) and 0.6 (1 of 2 right): 3/5 * |0.9 - 2/3| + 2/5 * |0.6 - 0.5|.
    confidence = np.array([0.9, 0.9, 0.9, 0.6, 0.6], dtype=np.float32)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 0, 1, 0, 1])

    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.18, abs=1e-6)


@pytest.mark.promise("N1")
def test_a_perfectly_sure_and_right_model_is_calibrated() -> None:
    probabilities = np.eye(4, dtype=np.float32)

    assert expected_calibration_error(probabilities, np.arange(4)) == 0.0
    assert auroc_macro(probabilities, np.arange(4)) == 1.0


@pytest.mark.promise("N1")
@by_examples
@given(st.integers(0, 2**32 - 1), st.sampled_from([6, 10, 100]))
def test_of_equal_logits_the_first_class_wins_in_top1_and_top5_alike(
    seed: int, classes: int
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, 2, (50, classes)).astype(np.float32)  # full of ties
    labels = rng.integers(0, classes, 50)

    scores = score(logits, labels)

    stable = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert measured(scores, "acc_top1") == np.mean(stable[:, 0] == labels)
    assert measured(scores, "acc_top5") == np.mean((stable == labels[:, None]).any(axis=1))


@pytest.mark.promise("N1")
def test_a_network_that_says_nothing_has_top5_not_below_top1() -> None:
    scores = score(np.zeros((1000, 1000), dtype=np.float32), np.zeros(1000, dtype=np.int64))

    assert measured(scores, "acc_top1") == 1.0
    assert measured(scores, "acc_top5") == 1.0


@pytest.mark.promise("N1")
@by_examples
@given(tables(), st.integers(1, 9))
def test_batches_do_not_change_the_scores(table: tuple[Logits, Labels], size: int) -> None:
    logits, labels = torch.from_numpy(table[0]), torch.from_numpy(table[1])
    whole = ClassificationMetrics(logits.shape[1], persistent=False)
    parts = ClassificationMetrics(logits.shape[1], persistent=False)

    whole.update(logits, labels)
    for start in range(0, len(labels), size):
        parts.update(logits[start : start + size], labels[start : start + size])

    expected = whole.compute()
    for name, value in parts.compute().items():
        assert float(value) == pytest.approx(float(expected[name]), rel=1e-5), name


@pytest.mark.promise("N1")
@pytest.mark.promise("N3")
def test_scores_of_several_processes_are_those_of_one() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(90, 7), torch.arange(90) % 5
    whole = ClassificationMetrics(7, persistent=False)
    whole.update(logits, labels)
    processes = [ClassificationMetrics(7, persistent=False) for _ in range(3)]
    for rank, process in enumerate(processes):
        process.update(logits[rank::3], labels[rank::3])

    for process in processes[1:]:
        processes[0].merge_state(process)

    assert torch.equal(processes[0].confusion, whole.confusion)
    for name, value in processes[0].compute().items():
        assert float(value) == pytest.approx(float(whole.compute()[name]), rel=1e-6), name


@pytest.mark.promise("N1")
def test_training_scores_have_the_names_that_can_be_monitored() -> None:
    metric = ClassificationMetrics(3, persistent=False)
    metric.update(torch.eye(3), torch.arange(3))

    assert set(metric.compute()) == set(SCORES)


@pytest.mark.promise("N1")
@by_examples
@given(tables())
def test_training_and_evaluation_measure_the_same(table: tuple[Logits, Labels]) -> None:
    logits, labels = table
    metric = ClassificationMetrics(logits.shape[1], persistent=False)
    metric.update(torch.from_numpy(logits), torch.from_numpy(labels))

    scores = score(logits, labels)
    for name, value in metric.compute().items():
        assert measured(scores, name) == pytest.approx(float(value), rel=1e-5, abs=1e-6)


@pytest.mark.promise("R1")
def test_sums_survive_in_the_state_of_a_module_when_asked_to() -> None:
    first = ClassificationMetrics(3, persistent=True)
    first.update(torch.eye(3), torch.tensor([0, 1, 1]))
    second = ClassificationMetrics(3, persistent=True)

    second.load_state_dict(first.state_dict())
    second.update(torch.eye(3), torch.tensor([2, 2, 2]))
    first.update(torch.eye(3), torch.tensor([2, 2, 2]))

    assert {name: float(value) for name, value in second.compute().items()} == {
        name: float(value) for name, value in first.compute().items()
    }
    assert not ClassificationMetrics(3, persistent=False).state_dict()
