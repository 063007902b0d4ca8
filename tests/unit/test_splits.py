from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier_training.config.schema import SplitConfig
from classifier_training.data.index import index_data
from classifier_training.data.manifest import Manifest
from classifier_training.data.records import Record
from classifier_training.data.splits import assign_splits
from tests.helpers.config import data_config
from tests.helpers.pixels import numbered, write_images

ROOT = Path("/nowhere")
PLAIN = SplitConfig(val=0.15, test=0.15, seed=0, manifest=None, folds=None, fold=None)

# A resumed run must find the split that it began with, whatever the release: never change this.
PINNED = {"val": ["a/1.png", "a/7.png"], "test": ["a/2.png", "a/4.png"]}


def records_of(counts: dict[str, int], split: str = "") -> list[Record]:
    return [
        Record(f"{label}/{number}.png", label, split, "", 0, "")
        for label, count in counts.items()
        for number in range(count)
    ]


def changed(**changes: Any) -> SplitConfig:
    return PLAIN.model_copy(update=changes)


def split(records: list[Record], config: SplitConfig = PLAIN) -> list[Record]:
    return assign_splits(records, config, root=ROOT)[0]


def by_class(records: list[Record]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for record in records:
        counts.setdefault(record.label, Counter())[record.split] += 1
    return counts


@pytest.mark.promise("D6")
def test_shares_hold_in_every_class() -> None:
    records, (note,) = assign_splits(records_of({"a": 200, "b": 100, "c": 20}), PLAIN, root=ROOT)

    assert by_class(records) == {
        "a": {"train": 140, "val": 30, "test": 30},
        "b": {"train": 70, "val": 15, "test": 15},
        "c": {"train": 14, "val": 3, "test": 3},
    }
    assert "15%" in note
    assert "stratified" in note


@pytest.mark.promise("D6")
@given(
    counts=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 30), min_size=1),
    val=st.floats(0.01, 0.99),
    test=st.floats(0, 0.98),
    seed=st.integers(0, 5),
)
def test_no_share_empties_the_training_part_of_a_class(
    counts: dict[str, int], val: float, test: float, seed: int
) -> None:
    records = split(records_of(counts), changed(val=val, test=test, seed=seed))

    found = by_class(records)
    assert {label: sum(splits.values()) for label, splits in found.items()} == counts
    for label, splits in found.items():
        assert set(splits) <= {"train", "val", "test"}
        assert splits["train"] >= 1
        if counts[label] == 1:
            assert splits == {"train": 1}
        if test < 0.5 and val + test < 0.9:  # else val, which a run needs, may come before test
            for part, share in (("val", val), ("test", test)):
                assert abs(splits[part] - share * counts[label]) <= 1.0


@pytest.mark.promise("D6")
def test_listing_order_does_not_matter() -> None:
    records = records_of({"a": 40, "b": 30, "c": 1})
    first = {row.path: row.split for row in split(records)}
    random.Random(0).shuffle(records)

    assert {row.path: row.split for row in split(records)} == first


@pytest.mark.promise("D6")
def test_seed_chooses_the_split() -> None:
    records = records_of({"a": 100})

    splits = [[row.split for row in split(records, changed(seed=seed))] for seed in (0, 0, 1)]

    assert splits[0] == splits[1] != splits[2]


@pytest.mark.promise("D6")
def test_split_is_the_same_in_every_process_and_version() -> None:
    records = split(records_of({"a": 10}), changed(val=0.2, test=0.2))

    taken = {part: [r.path for r in records if r.split == part] for part in ("val", "test")}

    assert taken == PINNED


@pytest.mark.promise("D6")
def test_val_is_carved_from_train_only_when_absent() -> None:
    train, test = records_of({"a": 20, "b": 20}, "train"), records_of({"z": 5}, "test")

    carved, (note,) = assign_splits(train + test, PLAIN, root=ROOT)
    val = [row._replace(split="val") for row in records_of({"y": 5})]
    kept, notes = assign_splits(train + val, PLAIN, root=ROOT)

    assert by_class(carved) == {
        "a": {"train": 17, "val": 3},
        "b": {"train": 17, "val": 3},
        "z": {"test": 5},
    }
    assert "no val split" in note
    assert kept == train + val
    assert notes == ()


@pytest.mark.promise("D6")
def test_split_is_saved_and_reread(tmp_path: Path) -> None:
    write_images(
        tmp_path / "images",
        {f"{label}/{at}.png": numbered(at) for label in ("00", "0") for at in range(20)},
    )
    config = data_config(tmp_path / "images")
    manifest = index_data(config).manifest
    manifest.write(tmp_path / "manifest.csv")

    again = Manifest.read(tmp_path / "manifest.csv", manifest.class_map, manifest.root)
    other_seed = config.model_copy(update={"split": changed(seed=1)})

    for part, count in {"train": 28, "val": 6, "test": 6}.items():
        assert len(again.rows(part)) == count
        assert again.rows(part).tolist() == manifest.rows(part).tolist()
    assert (
        again.fingerprint() == manifest.fingerprint() == index_data(config).manifest.fingerprint()
    )
    assert index_data(other_seed).manifest.fingerprint() != manifest.fingerprint()


@pytest.mark.promise("D6")
def test_class_of_one_in_an_unsplit_folder_stays_in_train(tmp_path: Path) -> None:
    write_images(
        tmp_path, {"rare/x.png": numbered(0), **{f"many/{at}.png": numbered(at) for at in range(9)}}
    )

    index = index_data(data_config(tmp_path))

    assert index.manifest.counts("train")[index.manifest.class_map.index("rare")] == 1
    assert any("val has no image of 1 class(es): rare" in note for note in index.notes)
