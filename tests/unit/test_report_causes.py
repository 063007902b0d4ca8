"""Causes of error: each is found where it was planted, with its share, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from classifier_training.report.causes import (
    confused_pairs,
    contradicting_copies,
    favoured_class,
    other_data,
    overfitting,
    ranked_causes,
    rare_classes,
    sure_and_wrong,
    suspicious_labels,
    underfitting,
    weak_slices,
)
from classifier_training.report.evidence import Epoch, Evidence, SplitScore, worse_slices

CLASSES, EACH = 10, 50


def make_evidence(errors: list[tuple[int, int, int]], **changes: object) -> Evidence:
    """500 images of ten classes; ``errors`` are (true, predicted, how many)."""
    true = np.repeat(np.arange(CLASSES), EACH)
    predicted = true.copy()
    used = np.zeros(CLASSES, dtype=int)
    for label, said, number in errors:
        start = label * EACH + used[label]
        predicted[start : start + number] = said
        used[label] += number
    evidence = Evidence(
        run="runs/a",
        split="test",
        classes=tuple(f"c{index}" for index in range(CLASSES)),
        true=true,
        predicted=predicted,
        confidence=np.full(len(true), 0.6),
        paths=tuple(f"{row}.png" for row in range(len(true))),
        train_counts=np.full(CLASSES, 100),
        worse_slices=(),
        suspects=None,
        contradicting=frozenset(),
        history=tuple(Epoch(number, 0.9, 0.9) for number in range(10)),
        best_epoch=7,
        others=(SplitScore("val", 180, 200),),
    )
    return replace(evidence, **changes)


def scattered() -> list[tuple[int, int, int]]:
    """Five errors a class, each on another class: no pattern."""
    return [(k, (k + step) % CLASSES, 1) for k in range(CLASSES) for step in range(1, 6)]


def test_scattered_errors_have_no_cause() -> None:
    assert ranked_causes(make_evidence(scattered())) == []


def test_no_errors_have_no_cause() -> None:
    assert ranked_causes(make_evidence([])) == []


def test_a_planted_pair_is_found_with_its_errors() -> None:
    evidence = make_evidence([*scattered(), (2, 7, 20), (7, 2, 10)])

    (cause,) = confused_pairs(evidence)

    assert "c2" in cause.title
    assert "c7" in cause.title
    assert cause.cell == (2, 7)
    # 30 planted and up to two scattered ones of 80 errors, less what falls there by chance.
    assert 0.2 < cause.share < 32 / 80
    seen = int(cause.evidence.split()[0])
    assert 30 <= seen <= 32
    assert "classifier suspects runs/a" in cause.command


def test_one_pair_of_many_that_stands_out_by_chance_is_no_cause() -> None:
    pairs = [(k, k + 1, 2) for k in range(9)]

    # By itself that pair would have a p-value of 0.02; it is one of ten that were seen.
    assert confused_pairs(make_evidence([*scattered(), *pairs, (2, 7, 6)])) == []
    assert len(confused_pairs(make_evidence([*scattered(), *pairs, (2, 7, 12)]))) == 1


def test_what_is_expected_of_a_pair_leaves_out_the_class_itself() -> None:
    """Errors of a class cannot fall on it, so they fall on the others more often."""
    evidence = make_evidence([(0, 1, 20), (1, 0, 20), (2, 3, 20), (3, 2, 20)])

    causes = confused_pairs(evidence)

    # 20 errors fall on each. Of the 20 of c0, a third would fall on each of the three others, and
    # as many of c1's on c0: 13.3 instead of 40.
    assert [cause.cell for cause in causes] == [(0, 1), (2, 3)]
    assert all("by chance it would be 13.3" in cause.evidence for cause in causes)


def test_a_class_that_draws_answers_is_found() -> None:
    drawn = [(k, 4, 8) for k in range(CLASSES) if k != 4]
    evidence = make_evidence([*scattered(), *drawn])

    (cause,) = favoured_class(evidence)

    assert "c4" in cause.title
    assert 0.4 < cause.share < 72 / 122
    assert confused_pairs(evidence) == []  # it is one class, not a pair


@pytest.mark.parametrize("look", [confused_pairs, favoured_class])
def test_two_classes_are_no_pair_worth_telling(look: object) -> None:
    true = np.repeat([0, 1], 50)
    predicted = true.copy()
    predicted[:20] = 1
    evidence = make_evidence([], true=true, predicted=predicted, classes=("a", "b"))

    assert look(evidence) == []  # type: ignore[operator]


def test_rare_classes_that_do_worse_are_found_and_named() -> None:
    counts = np.full(CLASSES, 100)
    counts[[3, 5]] = [8, 12]
    wrong = [(3, k, 4) for k in (0, 1, 2, 4, 6)] + [(5, k, 4) for k in (0, 1, 2, 4, 6)]
    evidence = make_evidence([*scattered(), *wrong], train_counts=counts)

    (cause,) = rare_classes(evidence)

    # 50 of 100 images of rare classes are wrong, 40 of 400 others: 40 of 90 errors are too many.
    assert cause.share == pytest.approx(40 / 90)
    assert "c3" in cause.action
    assert "c5" in cause.action
    assert "50.0" in cause.evidence
    assert "loss=logit_adjusted" in cause.command


def test_rare_classes_that_do_as_well_are_no_cause() -> None:
    counts = np.full(CLASSES, 100)
    counts[3] = 8
    assert rare_classes(make_evidence(scattered(), train_counts=counts)) == []
    others = [(k, 3, 20) for k in range(CLASSES) if k != 3]
    assert rare_classes(make_evidence(others, train_counts=counts)) == [], "it does better"
    counts[3] = 60  # fewer than the median, but more than half of it
    wrong = [(3, k, 8) for k in (0, 1, 2, 4)]
    assert rare_classes(make_evidence([*scattered(), *wrong], train_counts=counts)) == []
    assert rare_classes(make_evidence(scattered(), train_counts=None)) == []


def test_suspect_labels_among_the_errors_are_counted() -> None:
    evidence = make_evidence(scattered())
    wrong = np.flatnonzero(evidence.wrong)
    suspects = frozenset(evidence.paths[row] for row in [*wrong[:10], 49])
    (cause,) = suspicious_labels(replace(evidence, suspects=suspects))

    assert cause.share == 10 / 50
    assert "10 of 50 errors" in cause.evidence
    assert cause.command == "data.corrections=runs/a/suspects/suspects.csv"
    assert suspicious_labels(replace(evidence, suspects=frozenset({"49.png"}))) == []
    assert suspicious_labels(evidence) == []


def test_sure_and_wrong_answers_beyond_what_confidence_allows() -> None:
    evidence = make_evidence(scattered())
    confidence = np.where(evidence.wrong, 0.6, 0.99)
    confidence[np.flatnonzero(evidence.wrong)[:20]] = 0.99
    evidence = replace(evidence, confidence=confidence)

    (cause,) = sure_and_wrong(evidence)

    assert cause.share == pytest.approx((20 - 470 * 0.01) / 50)
    assert sure_and_wrong(replace(evidence, suspects=frozenset())) == []  # examined already
    honest = np.where(evidence.wrong, 0.6, 0.99)
    honest[np.flatnonzero(evidence.wrong)[:5]] = 0.99  # 455 sure answers may have 4.6 errors
    assert sure_and_wrong(replace(evidence, confidence=honest)) == []


def test_only_slices_marked_as_worse_are_causes_one_a_key() -> None:
    row = {"key": "light", "value": "dark", "images": "40", "acc_top1": "0.5",
           "acc_top1_rest": "0.9", "p_value_adjusted": "0.001", "worse": "true"}  # fmt: skip
    rows = [
        row,
        {**row, "value": "dusk", "images": "20"},
        {**row, "key": "image:shorter_side", "value": "16 to below 24", "images": "10"},
        {**row, "key": "team", "value": "home", "images": "8"},
        {**row, "key": "camera", "worse": "false"},
    ]
    evidence = make_evidence(scattered(), worse_slices=worse_slices(rows))

    causes = weak_slices(evidence)

    assert [cause.code for cause in causes] == ["weak-slice", "low-resolution", "weak-slice"]
    assert [cause.share for cause in causes] == pytest.approx([16 / 50, 4 / 50, 3.2 / 50])
    # What a camera does to images can be imitated; what they show cannot.
    assert [cause.command == "transforms=jersey" for cause in causes] == [True, True, False]
    assert "light = dark" in causes[0].evidence


def test_errors_on_copies_with_another_label_are_counted() -> None:
    evidence = make_evidence(scattered())
    wrong = np.flatnonzero(evidence.wrong)
    copies = frozenset([evidence.paths[wrong[0]], evidence.paths[wrong[1]], "49.png"])

    (cause,) = contradicting_copies(replace(evidence, contradicting=copies))

    assert cause.share == 2 / 50


def test_a_train_val_gap_beyond_chance_is_overfitting() -> None:
    history = tuple(Epoch(number, 0.99, 0.8) for number in range(5))
    evidence = make_evidence(
        scattered(), history=history, best_epoch=4, others=(SplitScore("val", 160, 200),)
    )

    (cause,) = overfitting(evidence)

    assert cause.share == pytest.approx(0.19 / 0.2)
    small = replace(evidence, others=(SplitScore("val", 9, 10),))
    assert overfitting(small) == []  # ten images may be 90 % right by chance
    assert overfitting(replace(evidence, history=())) == []
    little = replace(evidence, others=(SplitScore("val", 97_000, 100_000),))
    assert overfitting(little) == []  # surely less than 99 %, but only by 2 points


def test_still_improving_at_the_last_epoch_is_underfitting() -> None:
    rising = tuple(Epoch(number, 0.5, 0.3 + 0.05 * number) for number in range(10))
    evidence = make_evidence(scattered(), history=rising, best_epoch=9)

    (cause,) = underfitting(evidence)

    assert cause.share == pytest.approx(0.1 / 0.25)
    assert cause.command == "trainer.max_epochs=20"
    flat = tuple(Epoch(number, 0.5, 0.75) for number in range(10))
    assert underfitting(replace(evidence, history=flat)) == []
    assert underfitting(replace(evidence, best_epoch=5)) == []


def test_a_test_split_that_is_harder_than_val_is_told() -> None:
    evidence = make_evidence(scattered(), others=(SplitScore("val", 399, 400),))

    (cause,) = other_data(evidence)

    assert cause.share == pytest.approx((399 / 400 - 0.9) / 0.1)
    assert other_data(replace(evidence, others=(SplitScore("val", 361, 400),))) == []
    assert other_data(replace(evidence, split="val", others=())) == []


def test_the_largest_share_comes_first_and_small_ones_are_left_out() -> None:
    evidence = make_evidence([*scattered(), (2, 7, 20), (7, 2, 10)])
    wrong = np.flatnonzero(evidence.wrong)
    several = ranked_causes(
        replace(evidence, suspects=frozenset(evidence.paths[row] for row in wrong[:60]))
    )
    one_of_80 = ranked_causes(replace(evidence, suspects=frozenset([evidence.paths[wrong[0]]])))

    assert several[0].code == "suspicious-labels"
    assert [cause.share for cause in several] == sorted(
        (cause.share for cause in several), reverse=True
    )
    assert "suspicious-labels" not in {cause.code for cause in one_of_80}
