"""What holds for every data source; a new line in ``SOURCES`` needs a writer here."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from classifier_training.data.index import DataIndex, index_data
from classifier_training.data.sources import SOURCES
from classifier_training.errors import DataError
from tests.helpers.config import data_config
from tests.helpers.pixels import numbered, write_images

LABELS = ("0", "00", "08", "1e3", "NO", "null", "été", "日本")
SPLITS = {"train": 3, "val": 2, "test": 1}

Listing = list[tuple[str, str, str]]  # (split, path, label)


def images(root: Path, labels: tuple[str, ...] = LABELS) -> Listing:
    """Write ``SPLIT/LABEL/n.png``, every image different."""
    listing = [
        (split, f"{split}/{label}/{number}.png", label)
        for split, count in SPLITS.items()
        for label in labels
        for number in range(count)
    ]
    write_images(root, {path: numbered(at) for at, (_, path, _) in enumerate(listing)})
    return listing


def list_folder(root: Path, listing: Listing) -> None:
    """The folders say it all."""


def list_jsonl(root: Path, listing: Listing) -> None:
    """One file a split, beside its folder of images."""
    for split in dict.fromkeys(row[0] for row in listing):
        lines = [
            json.dumps({"image": path, "suffix": label}) + "\n"
            for found, path, label in listing
            if found == split
        ]
        (root / f"{split}.jsonl").write_text("".join(lines))


def list_csv(root: Path, listing: Listing) -> None:
    """One file with a split column."""
    with (root / "all.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("split", "label", "path"))
        writer.writerows((split, label, path) for split, path, label in listing)


WRITERS: dict[str, Callable[[Path, Listing], None]] = {
    "folder": list_folder,
    "jsonl": list_jsonl,
    "csv": list_csv,
}


def table(index: DataIndex) -> list[tuple[str, str, str]]:
    """What the manifest says about every image, without where it was said."""
    manifest, names = index.manifest, index.manifest.class_map.names
    return [
        (manifest.paths[row], names[manifest.labels[row]], split)
        for split in ("train", "val", "test")
        for row in manifest.rows(split)
    ]


@pytest.mark.promise("D1")
def test_every_source_is_under_contract() -> None:
    assert set(WRITERS) == set(SOURCES)


@pytest.mark.promise("D1")
def test_sources_give_the_same_manifest(tmp_path: Path) -> None:
    listing = images(tmp_path)
    for write in WRITERS.values():
        write(tmp_path, listing)

    indices = {source: index_data(data_config(tmp_path, source)) for source in SOURCES}

    expected = [(path, label, split) for split, path, label in listing]
    for index in indices.values():
        assert sorted(table(index)) == sorted(expected)
    assert len({index.manifest.fingerprint() for index in indices.values()}) == 1


@pytest.mark.promise("D1")
@pytest.mark.parametrize("source", sorted(SOURCES))
def test_order_of_the_listing_does_not_matter(tmp_path: Path, source: str) -> None:
    listing = images(tmp_path)
    WRITERS[source](tmp_path, listing)
    first = index_data(data_config(tmp_path, source))
    random.Random(1).shuffle(listing)
    WRITERS[source](tmp_path, listing)

    second = index_data(data_config(tmp_path, source))

    assert table(second) == table(first)
    assert second.manifest.fingerprint() == first.manifest.fingerprint()


@pytest.mark.promise("D1")
@pytest.mark.parametrize("source", sorted(SOURCES))
def test_fingerprint_follows_pixels_and_labels(tmp_path: Path, source: str) -> None:
    listing = images(tmp_path)
    WRITERS[source](tmp_path, listing)
    seen = {index_data(data_config(tmp_path, source)).manifest.fingerprint()}

    path = tmp_path / "train/00/1.png"
    path.write_bytes(numbered(999))
    seen.add(index_data(data_config(tmp_path, source)).manifest.fingerprint())
    (tmp_path / "train/NO").rename(tmp_path / "train/YES")
    for split in ("val", "test"):
        (tmp_path / split / "NO").rename(tmp_path / split / "YES")
    renamed = [
        (split, path.replace("/NO/", "/YES/"), "YES" if label == "NO" else label)
        for split, path, label in listing
    ]
    WRITERS[source](tmp_path, renamed)
    seen.add(index_data(data_config(tmp_path, source)).manifest.fingerprint())

    assert len(seen) == 3


@pytest.mark.promise("D2")
@pytest.mark.parametrize("source", sorted(SOURCES))
def test_lookalike_labels_stay_distinct(tmp_path: Path, source: str) -> None:
    listing = images(tmp_path)
    WRITERS[source](tmp_path, listing)

    index = index_data(data_config(tmp_path, source))

    assert set(index.manifest.class_map.names) == set(LABELS)
    assert index.manifest.counts("train").tolist() == [3] * len(LABELS)


@pytest.mark.promise("D3")
@pytest.mark.parametrize("source", sorted(SOURCES))
def test_class_missing_from_val_shifts_no_index(tmp_path: Path, source: str) -> None:
    listing = images(tmp_path)
    WRITERS[source](tmp_path, listing)
    whole = index_data(data_config(tmp_path, source)).manifest
    partial = [row for row in listing if row[0] == "train" or row[2] != "00"]
    for split, path, label in listing:
        if split != "train" and label == "00":
            (tmp_path / path).unlink()
    WRITERS[source](tmp_path, partial)

    index = index_data(data_config(tmp_path, source))

    assert index.manifest.class_map.names == whole.class_map.names
    at = whole.class_map.index("00")
    assert index.manifest.counts("val").tolist() == [
        0 if position == at else 2 for position in range(len(LABELS))
    ]
    assert any("val has no image of 1 class(es): 00" in note for note in index.notes)


@pytest.mark.promise("D3")
@pytest.mark.parametrize("source", sorted(SOURCES))
def test_unknown_label_is_refused_where_it_stands(tmp_path: Path, source: str) -> None:
    listing = images(tmp_path, ("00", "Bulldog"))
    write_images(tmp_path, {"val/bulldog/x.png": numbered(500)})
    listing.insert(2, ("val", "val/bulldog/x.png", "bulldog"))
    WRITERS[source](tmp_path, listing)
    where = {"folder": "val/bulldog/x.png: ", "jsonl": "val.jsonl:1: ", "csv": "all.csv:4: "}

    with pytest.raises(DataError) as caught:
        index_data(data_config(tmp_path, source))

    assert f"{where[source]}label 'bulldog' (val) is no class of the training data" in str(
        caught.value
    )
    assert "did you mean 'Bulldog'?" in str(caught.value)


@pytest.mark.promise("C5")
@pytest.mark.parametrize("source", sorted(SOURCES))
def test_empty_root_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(DataError) as caught:
        index_data(data_config(tmp_path, source))

    assert str(tmp_path) in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.promise("C5")
@pytest.mark.parametrize("source", sorted(SOURCES))
def test_root_may_be_written_in_any_way(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = images(tmp_path / "images")
    WRITERS[source](tmp_path / "images", listing)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    prints = {
        index_data(data_config(root, source)).manifest.fingerprint()
        for root in (f"{tmp_path}/images", f"{tmp_path}/images/", "~/images", "images", "./images/")
    }

    assert len(prints) == 1
