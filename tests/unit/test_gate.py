"""The gate for CI: what it passes, what it fails, and what a baseline holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifier_training.errors import ConfigError, DataError
from classifier_training.evaluation.comparison import compare
from classifier_training.evaluation.gate import GateResult, gate, split_hash, write_baseline
from classifier_training.evaluation.predictions import pair_predictions
from classifier_training.run.predictions import Predictions
from tests.helpers.answers import make_answers, noisy

pytestmark = pytest.mark.promise("N2")


def model(skill: float, seed: int, images: int = 400, loss: float = 1.0) -> Predictions:
    true = np.random.default_rng(0).integers(0, 5, images)
    rng = np.random.default_rng(seed)
    return make_answers(
        true, noisy(rng, true, skill, 5), losses=loss * rng.exponential(1, images), classes=5
    )


def result(metric: str, low: float, high: float, margin: float) -> GateResult:
    return GateResult(metric, 0.8, 0.8 + (low + high) / 2, low, high, margin, 100, True)


@pytest.mark.parametrize(
    ("metric", "low", "high", "passes"),
    [
        ("acc_top1", -0.009, 0.05, True),
        ("acc_top1", -0.011, 0.05, False),  # not shown to be within the margin
        ("acc_top1", -0.01, 0.0, True),  # at the margin itself
        ("acc_top1", 0.01, 0.03, True),
        ("acc_top1", -0.05, -0.03, False),
        ("loss", -0.05, 0.009, True),  # less loss is better: the upper bound counts
        ("loss", -0.05, 0.011, False),
    ],
)
def test_the_rule(metric: str, low: float, high: float, passes: bool) -> None:
    assert result(metric, low, high, margin=0.01).passed is passes


def test_the_baseline_itself_passes_with_no_margin_at_all(tmp_path: Path) -> None:
    answers = model(0.7, 1)
    write_baseline(answers, "test", tmp_path / "base.json")

    for metric in ("acc_top1", "f1_macro", "acc_macro"):
        found = gate(answers, tmp_path / "base.json", metric, 0.0)
        assert found.passed
        assert (found.low, found.high) == (0, 0)
    # Losses are written with six digits.
    assert gate(answers, tmp_path / "base.json", "loss", 1e-5).passed


def test_a_baseline_file_is_as_good_as_the_answers_it_was_made_of(tmp_path: Path) -> None:
    old, new = model(0.7, 1), model(0.75, 2)
    write_baseline(old, "test", tmp_path / "base.json")

    found = gate(new, tmp_path / "base.json", "f1_macro", 0.01)

    expected = compare(pair_predictions(old, new)).metrics["f1_macro"]
    assert (found.low, found.high, found.paired) == (expected.low, expected.high, True)
    assert found == gate(new, old, "f1_macro", 0.01)


def test_a_worse_model_fails_and_a_better_one_passes(tmp_path: Path) -> None:
    write_baseline(model(0.7, 1), "test", tmp_path / "base.json")

    assert not gate(model(0.5, 2), tmp_path / "base.json", "f1_macro", 0.02).passed
    assert gate(model(0.9, 3), tmp_path / "base.json", "f1_macro", 0.02).passed
    assert gate(model(0.7, 4, loss=0.5), tmp_path / "base.json", "loss", 0.02).passed
    assert not gate(model(0.7, 4, loss=2.0), tmp_path / "base.json", "loss", 0.02).passed


def test_too_few_images_to_tell_fail_and_say_so() -> None:
    found = gate(model(0.8, 2, images=40), model(0.8, 1, images=40), "acc_top1", 0.01)

    assert not found.passed
    assert found.low < -0.05
    assert gate(model(0.8, 1, images=40), model(0.8, 1, images=40), "acc_top1", 0.01).inside


def test_scores_alone_give_a_wider_interval_that_says_so(tmp_path: Path) -> None:
    old = model(0.7, 1)
    nearly = old.predicted.copy()
    nearly[:6] = (nearly[:6] + 1) % 5  # the same model but for six images
    new = replace(old, predicted=nearly)
    write_baseline(old, "test", tmp_path / "whole.json")
    write_baseline(old, "test", tmp_path / "scores.json", with_images=False)

    paired = gate(new, tmp_path / "whole.json", "acc_top1", 0.03)
    unpaired = gate(new, tmp_path / "scores.json", "acc_top1", 0.03)

    assert "predicted" not in json.loads((tmp_path / "scores.json").read_text())
    assert unpaired.new - unpaired.baseline == pytest.approx(paired.new - paired.baseline)
    assert unpaired.high - unpaired.low > 3 * (paired.high - paired.low)
    assert (paired.passed, unpaired.passed) == (True, False)
    assert "unpaired" in str(unpaired)
    # Two independent shares of 400 images: 1.96 sqrt(2 p (1 - p) / 400)
    p = unpaired.baseline
    assert (unpaired.high - unpaired.low) / 2 == pytest.approx(
        1.96 * np.sqrt(2 * p * (1 - p) / 400), rel=0.08
    )


def test_another_split_or_other_labels_are_refused(tmp_path: Path) -> None:
    old = model(0.7, 1)
    write_baseline(old, "test", tmp_path / "base.json")
    moved = replace(old, paths=(*old.paths[:-1], "zz.png"))
    relabelled = replace(old, true=(old.true + 1) % 5)

    for other in (moved, relabelled, model(0.7, 1, images=399)):
        with pytest.raises(DataError, match="other images or labels"):
            gate(other, tmp_path / "base.json", "f1_macro", 0.01)


def test_the_hash_knows_paths_and_truth_but_no_index() -> None:
    answers = make_answers([0, 1, 1], [0, 0, 1])
    turned = replace(answers, classes=("c1", "c0"), true=1 - answers.true)

    assert split_hash(turned) == split_hash(answers)
    assert split_hash(replace(answers, predicted=answers.true)) == split_hash(answers)
    # Where a path ends and the label begins cannot be shifted.
    one = replace(answers, classes=("c0", "bc1"))
    other = replace(answers, paths=tuple(f"{path}b" for path in answers.paths))
    assert split_hash(one) != split_hash(other)


def test_classes_in_another_order_change_nothing(tmp_path: Path) -> None:
    old = model(0.7, 1)
    order = np.array([3, 1, 4, 0, 2])
    turned = replace(
        old,
        classes=tuple(f"c{int(np.flatnonzero(order == index)[0])}" for index in range(5)),
        true=order[old.true],
        predicted=order[old.predicted],
    )
    write_baseline(old, "test", tmp_path / "base.json")

    assert gate(turned, tmp_path / "base.json", "f1_macro", 0.0).passed


def test_a_baseline_holds_no_path_and_is_written_the_same_each_time(tmp_path: Path) -> None:
    answers = replace(model(0.7, 1, images=50), name="/secret/runs/a")
    for name in ("one.json", "two.json"):
        write_baseline(answers, "test", tmp_path / name)

    text = (tmp_path / "one.json").read_text()
    assert text == (tmp_path / "two.json").read_text()
    assert ".png" not in text
    assert "secret" not in text
    assert len(text.splitlines()) < 15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "two.json"]


def damage(content: dict[str, Any], key: str) -> dict[str, Any]:
    changed = {
        "kind": {"kind": "something else"},
        "version": {"schema_version": 99},
        "short": {"predicted": content["predicted"][:-1]},
        "class": {"predicted": [99, *content["predicted"][1:]]},
        "word": {"predicted": ["a", *content["predicted"][1:]]},
        "nan": {"losses": [float("nan"), *content["losses"][1:]]},
        "metrics": {"metrics": [1]},
        "score": {"metrics": {"f1_macro": {"value": "x", "spread": 1}}},
    }[key]
    return {**content, **changed}


@pytest.mark.parametrize(
    "key", ["kind", "version", "short", "class", "word", "nan", "metrics", "score"]
)
def test_damaged_baselines_are_refused(tmp_path: Path, key: str) -> None:
    answers, path = model(0.7, 1, images=20), tmp_path / "base.json"
    write_baseline(answers, "test", path)
    path.write_text(json.dumps(damage(json.loads(path.read_text()), key)))

    with pytest.raises(DataError, match="cannot read the baseline"):
        gate(answers, path, "f1_macro", 0.01)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", "{", "\x00"])
def test_what_is_no_baseline_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "base.json"
    path.write_text(content)

    with pytest.raises(DataError, match="cannot read the baseline") as caught:
        gate(model(0.7, 1, images=20), path, "f1_macro", 0.01)
    assert "--write-baseline" in caught.value.expected


@pytest.mark.parametrize("margin", [-0.01, float("nan"), float("inf")])
def test_an_odd_margin_is_refused(margin: float) -> None:
    with pytest.raises(ConfigError, match="no margin"):
        gate(model(0.7, 1, images=20), model(0.7, 1, images=20), "f1_macro", margin)
