from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

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

CONFIG = SplitConfig(val=0.15, test=0.15, seed=0)

# A resumed run must find the split that it began with, whatever the release: never change this.
PINNED = {"val": ["a/1.png", "a/7.png"], "test": ["a/2.png", "a/4.png"]}


def records_of(counts: dict[str, int], split: str = "") -> list[Record]:
    return [
        Record(f"{label}/{number}.png", label, split, "", 0, "")
        for label, count in counts.items()
        for number in range(count)
    ]


def by_class(records: list[Record]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for record in records:
        counts.setdefault(record.label, Counter())[record.split] += 1
    return counts


@pytest.mark.promise("D6")
def test_shares_hold_in_every_class() -> None:
    records, note = assign_splits(records_of({"a": 200, "b": 100, "c": 20}), CONFIG)

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
    config = SplitConfig(val=val, test=test, seed=seed)

    records, _ = assign_splits(records_of(counts), config)

    found = by_class(records)
    assert {label: sum(splits.values()) for label, splits in found.items()} == counts
    for label, splits in found.items():
        assert set(splits) <= {"train", "val", "test"}
        assert splits["train"] >= 1
        if counts[label] == 1:
            assert splits == {"train": 1}
        if val + test < 0.9:
            for split, share in (("val", val), ("test", test)):
                assert abs(splits[split] - share * counts[label]) <= 1.0


@pytest.mark.promise("D6")
def test_listing_order_and_other_classes_do_not_matter() -> None:
    records = records_of({"a": 40, "b": 30, "c": 1})
    first = {row.path: row.split for row in assign_splits(records, CONFIG)[0]}
    random.Random(0).shuffle(records)

    second = {row.path: row.split for row in assign_splits(records, CONFIG)[0]}
    alone = {row.path: row.split for row in assign_splits(records_of({"b": 30}), CONFIG)[0]}

    assert second == first
    assert alone == {path: split for path, split in first.items() if path.startswith("b/")}


@pytest.mark.promise("D6")
def test_seed_chooses_the_split() -> None:
    records = records_of({"a": 100})

    splits = [
        tuple(row.split for row in assign_splits(records, SplitConfig(val=0.2, test=0, seed=s))[0])
        for s in (0, 0, 1)
    ]

    assert splits[0] == splits[1] != splits[2]


@pytest.mark.promise("D6")
def test_split_is_the_same_in_every_process_and_version() -> None:
    records, _ = assign_splits(records_of({"a": 10}), SplitConfig(val=0.2, test=0.2, seed=0))

    taken = {split: [r.path for r in records if r.split == split] for split in ("val", "test")}

    assert taken == PINNED


@pytest.mark.promise("D6")
def test_val_is_carved_from_train_only_when_absent() -> None:
    train, test = records_of({"a": 20, "b": 20}, "train"), records_of({"z": 5}, "test")

    carved, note = assign_splits(train + test, CONFIG)
    val = [row._replace(split="val") for row in records_of({"y": 5})]
    kept, no_note = assign_splits(train + val, CONFIG)

    assert by_class(carved) == {
        "a": {"train": 17, "val": 3},
        "b": {"train": 17, "val": 3},
        "z": {"test": 5},
    }
    assert "no val split" in note
    assert kept == train + val
    assert no_note == ""


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
    other_seed = config.model_copy(update={"split": SplitConfig(val=0.15, test=0.15, seed=1)})

    for split, count in {"train": 28, "val": 6, "test": 6}.items():
        assert len(again.rows(split)) == count
        assert again.rows(split).tolist() == manifest.rows(split).tolist()
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
