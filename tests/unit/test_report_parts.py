"""The parts of a report: words, charts, settings, and what stands behind a matrix."""

from __future__ import annotations

import numpy as np
import pytest

from classifier_training.report.charts import Line, line_chart, nice_ticks
from classifier_training.report.formatting import percent, quoted_name, size
from classifier_training.report.matrix import MOST_LISTED, MOST_RIGHT, MOST_WRONG, images_behind
from classifier_training.report.sections import again
from classifier_training.report.settings import given_overrides, settings_of
from classifier_training.run.predictions import Predictions
from classifier_training.system.progress import duration


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "50.0"), (1.0, "100"), (0.99999, "99.9"), (0.0, "0.0"), (0.12345, "12.3")],
)
def test_a_share_is_all_only_when_it_is(value: float, text: str) -> None:
    assert percent(value) == f"{text}\u202f%"


def test_a_name_is_shortened_and_turns_nothing_around_it() -> None:
    assert quoted_name("7") == "\u2018\u20687\u2069\u2019"
    assert len(quoted_name("x" * 200)) == 44


@pytest.mark.parametrize(
    ("low", "high", "whole", "ticks"),
    [
        (0.0, 1.0, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (2.1, 2.34, False, [2.1, 2.15, 2.2, 2.25, 2.3, 2.35]),
        (1, 3, True, [1, 2, 3]),
        (5, 5, False, [5]),
    ],
)
def test_ticks_are_round(low: float, high: float, whole: bool, ticks: list[float]) -> None:
    assert nice_ticks(low, high, most=5, whole=whole) == pytest.approx(ticks)


def test_a_line_ends_with_the_last_epoch_and_the_best_one_is_marked() -> None:
    line = Line("val", "s-val", tuple((epoch, 1 / epoch) for epoch in range(1, 6)))

    chart = line_chart("Loss", "", "Epoch", [line], mark=(3, "best: epoch 3"), whole_x=True)

    assert chart.lines[0].end[0] == chart.right
    assert chart.lines[0].dots[-1][2] == "val, epoch 5: 0.200"
    assert [tick.text for tick in chart.x_ticks] == ["1", "2", "3", "4", "5"]
    assert chart.marks[0].x == chart.x_ticks[2].at


def test_given_keys_are_read_from_both_kinds_of_commands() -> None:
    line = "classifier train --config-name demo data.data_root='/a b' +x.y=1 model=resnet50"
    call = "train(['data.data_root=/a b', 'model=resnet50'], root='train', out='/r')"

    assert given_overrides(line) == {"data.data_root": "/a b", "x.y": "1", "model": "resnet50"}
    assert given_overrides(call) == {"data.data_root": "/a b", "model": "resnet50"}
    assert given_overrides("classifier train 'open") == {}
    assert given_overrides("train([import os])") == {}


def test_given_keys_come_first_with_the_value_that_came_of_them() -> None:
    settings = settings_of({"seed": 3, "b": None, "a": ["NO"]}, "classifier train seed=3")

    assert [(item.key, item.value) for item in settings.given] == [("seed", "3")]
    assert [(item.key, item.value) for item in settings.rest] == [("a", "['NO']"), ("b", "null")]


def test_the_command_to_make_it_again_does_not_go_on_with_the_run() -> None:
    command = "classifier train data.data_root=/d hydra.run.dir=/runs/a seed=1"
    assert again(command) == "classifier train data.data_root=/d seed=1"


def _predictions(true: list[int], predicted: list[int]) -> Predictions:
    images, classes = len(true), max(*true, *predicted) + 1
    probabilities = np.zeros((images, classes), np.float32)
    probabilities[np.arange(images), predicted] = np.linspace(0.2, 0.9, images)
    return Predictions(
        name="a run",
        classes=tuple(map(str, range(classes))),
        paths=tuple(map(str, range(images))),
        true=np.array(true),
        predicted=np.array(predicted),
        probabilities=probabilities,
        losses=None,
    )


@pytest.mark.promise("N6")
def test_every_cell_is_shown_before_any_is_shown_in_full() -> None:
    predictions = _predictions([0] * 100 + [1] * 3, [1] * 50 + [0] * 50 + [0, 1, 1])

    rows = images_behind(predictions)

    # The most confident of each cell with mistakes first.
    assert rows[:2] == [49, 100]
    cells = [(int(predictions.true[row]), int(predictions.predicted[row])) for row in rows]
    assert cells.count((0, 1)) == MOST_WRONG
    assert cells.count((0, 0)) == MOST_RIGHT
    assert cells.count((1, 1)) == 2


@pytest.mark.promise("N6")
def test_images_behind_cells_are_bounded() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 300, (2, 50_000))
    rows = images_behind(_predictions(true.tolist(), predicted.tolist()))
    assert len(rows) == len(set(rows)) == MOST_LISTED


def test_times_and_sizes_are_written_in_the_unit_that_matters() -> None:
    assert [duration(2.34), duration(75), duration(600), duration(7300)] == [
        "2.3 s",
        "75 s",
        "10 min 0 s",
        "2 h 1 min",
    ]
    assert [size(12), size(44_800_000)] == ["12 bytes", "44.8 MB"]
