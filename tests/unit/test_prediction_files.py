from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.prediction_files import write_evaluated, write_predictions
from classifier_training.inference.predictor import Prediction

paths = st.binary(min_size=1, max_size=12).map(
    lambda raw: raw.replace(b"\0", b"x").decode("utf-8", "surrogateescape")
)
labels = st.text(min_size=1, max_size=8).filter(lambda text: "\0" not in text)
tables = st.tuples(
    st.lists(labels, min_size=2, max_size=4, unique=True), st.lists(paths, min_size=1, max_size=4)
)


def predictions_of(names: list[str], files: list[str]) -> list[Prediction]:
    rng = np.random.default_rng(len(names))
    items = []
    for at, path in enumerate(files):
        row = rng.dirichlet(np.ones(len(names))).astype(np.float32)
        items.append(Prediction(path, names[at % len(names)], float(row.max()), row))
    return items


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.mark.promise("S2")
@settings(max_examples=80, deadline=None)
@given(table=tables)
def test_predictions_csv_gives_back_every_character(
    out: Path, table: tuple[list[str], list[str]]
) -> None:
    names, files = table
    items = predictions_of(names, files)
    list(write_predictions(out / "p", ClassMap(tuple(names)), items, as_jsonl=False))

    with (out / "p").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file, strict=True)

    assert header == ["path", "predicted", "confidence", *(f"prob:{name}" for name in names)]
    assert [row[0] for row in rows] == files
    assert [row[1] for row in rows] == [item.label for item in items]
    for row, item in zip(rows, items, strict=True):
        assert np.array_equal(np.array(row[3:], dtype=np.float32), item.probabilities)


@pytest.mark.promise("S2")
@settings(max_examples=80, deadline=None)
@given(table=tables)
def test_predictions_jsonl_is_json_for_any_path(
    out: Path, table: tuple[list[str], list[str]]
) -> None:
    names, files = table
    items = predictions_of(names, files)
    list(write_predictions(out / "p", ClassMap(tuple(names)), items, as_jsonl=True))

    lines = (out / "p").read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    rows = [json.loads(line) for line in lines]

    assert [row["path"] for row in rows] == files
    assert [row["predicted"] for row in rows] == [item.label for item in items]
    for row, item in zip(rows, items, strict=True):
        assert list(row["probabilities"]) == names
        values = np.array(list(row["probabilities"].values()), dtype=np.float32)
        assert np.array_equal(values, item.probabilities)


@pytest.mark.promise("N3")
@settings(max_examples=80, deadline=None)
@given(table=tables)
def test_evaluated_csv_gives_back_every_character(
    out: Path, table: tuple[list[str], list[str]]
) -> None:
    names, files = table
    probabilities = np.stack([item.probabilities for item in predictions_of(names, files)])
    true = np.arange(len(files)) % len(names)
    with (out / "e").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        write_evaluated(file, ClassMap(tuple(names)), files, true, probabilities)

    with (out / "e").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file, strict=True)

    assert header[:5] == ["path", "true", "predicted", "correct", "confidence"]
    for at, row in enumerate(rows):
        best = names[int(probabilities[at].argmax())]
        assert row[:3] == [files[at], names[true[at]], best]
        assert row[3] == ("true" if best == names[true[at]] else "false")
        assert np.float32(row[4]) == probabilities[at].max()


@pytest.mark.promise("D2")
def test_lookalike_classes_have_their_own_columns(out: Path) -> None:
    names = ("0", "00", "08", "1e3", "NO", "null", "é")
    items = predictions_of(list(names), ["a.png"])
    list(write_predictions(out / "c", ClassMap(names), items, as_jsonl=False))

    header = (out / "c").read_text(encoding="utf-8").splitlines()[0]

    assert header == (
        "path,predicted,confidence,prob:0,prob:00,prob:08,prob:1e3,prob:NO,prob:null,prob:é"
    )
