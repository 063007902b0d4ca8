"""The shortcut probe: silent on chance, loud on what really predicts."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from classifier_training.data.checks.shortcuts import probe


def test_chance_predicts_nothing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        classes = int(rng.integers(2, 40))
        count = int(rng.integers(50, 3000))
        labels = rng.choice(classes, count, p=rng.dirichlet(np.ones(classes)))
        found = probe(rng.integers(0, 32, count), labels, classes)
        assert found.of_all < 0.1
        assert found.of_class.max() < 0.1


def test_a_perfect_shortcut_of_one_class_is_told_for_that_class_alone() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, 1000)
    codes = np.where(labels == 3, 7, rng.integers(0, 7, 1000))
    found = probe(codes, labels, 10)
    assert found.of_class[3] > 0.65
    assert np.delete(found.of_class, 3).max() < 0.1


def test_the_gain_is_that_of_a_cross_validated_tree() -> None:
    rng = np.random.default_rng(2)
    labels = rng.choice(4, 4000, p=[0.4, 0.3, 0.2, 0.1])
    codes = np.clip(2 * labels + rng.integers(0, 4, 4000), 0, None)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    answers = cross_val_predict(DecisionTreeClassifier(), codes[:, None], labels, cv=folds)
    accuracy, majority = accuracy_score(labels, answers), np.bincount(labels).max() / len(labels)
    avoided = (accuracy - majority) / (1 - majority)
    lower = probe(codes, labels, 4).of_all
    assert avoided - 0.1 < lower < avoided


def test_few_images_are_no_evidence() -> None:
    labels = np.repeat([0, 1], 5)
    assert probe(labels.copy(), labels, 2).of_class.max() < 0.2
