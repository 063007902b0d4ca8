from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier_training.data.manifest import Manifest, PackedStrings
from classifier_training.data.records import Record
from classifier_training.errors import DataError
from classifier_training.inference.class_map import ClassMap
from tests.helpers.pixels import numbered, write_images

LABELS = ("0", "00", "08", "1e3", "NO", "null", "été", "日本", "a,b", 'say "hi"', "x\ny", "=cmd()")

# What a path can hold on Linux: everything but NUL, also bytes that are no UTF-8.
file_names = st.binary(min_size=1, max_size=12).map(
    lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape")
)
label_texts = st.text(min_size=1, max_size=8).filter(lambda text: text.strip() and "\0" not in text)


def build(root: Path, records: list[Record]) -> Manifest:
    return Manifest.build(records, ClassMap.from_labels(row.label for row in records), root)


def records_of(root: Path, labels: tuple[str, ...] = LABELS) -> list[Record]:
    names = [f"i/{at}.png" for at in range(len(labels))]
    write_images(root, {name: numbered(at) for at, name in enumerate(names)})
    return [
        Record(
            name, label, "train", "list.jsonl", at + 1, '{"a": 1}' if at % 2 else "", f"g{at // 3}"
        )
        for at, (name, label) in enumerate(zip(names, labels, strict=True))
    ]


def described(manifest: Manifest) -> list[tuple[object, ...]]:
    names = manifest.class_map.names
    return [
        (
            manifest.paths[row],
            names[manifest.labels[row]],
            int(manifest.splits[row]),
            manifest.sources[row],
            int(manifest.lines[row]),
            manifest.hashes[row].tobytes(),
            manifest.metadata[row],
            manifest.groups[row],
        )
        for row in range(len(manifest))
    ]


@pytest.mark.promise("D2")
def test_manifest_is_reread_as_it_was(tmp_path: Path) -> None:
    manifest = build(tmp_path, records_of(tmp_path))
    manifest.write(tmp_path / "manifest.csv")

    again = Manifest.read(tmp_path / "manifest.csv", manifest.class_map, tmp_path)

    assert described(again) == described(manifest)
    assert again.fingerprint() == manifest.fingerprint()


@pytest.mark.promise("D6")
def test_manifest_from_before_groups_is_read(tmp_path: Path) -> None:
    manifest = build(tmp_path, records_of(tmp_path))
    manifest.write(tmp_path / "new.csv")
    with (tmp_path / "new.csv").open(newline="", encoding="utf-8") as file:
        rows = [row[:5] + row[6:] for row in csv.reader(file)]
    with (tmp_path / "old.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)

    old = Manifest.read(tmp_path / "old.csv", manifest.class_map, tmp_path)

    assert rows[0] == ["path", "label", "split", "source", "line", "hash", "metadata"]
    assert list(old.groups) == [""] * len(LABELS)
    assert [row[:-1] for row in described(old)] == [row[:-1] for row in described(manifest)]
    assert old.fingerprint() == manifest.fingerprint()


@pytest.mark.promise("D2")
def test_labels_stand_in_the_csv_verbatim(tmp_path: Path) -> None:
    build(tmp_path, records_of(tmp_path)).write(tmp_path / "manifest.csv")

    with (tmp_path / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["path"]: row["label"] for row in csv.DictReader(file)}

    assert rows == {f"i/{at}.png": label for at, label in enumerate(LABELS)}


@pytest.mark.promise("D1")
def test_metadata_may_be_long(tmp_path: Path) -> None:
    records = records_of(tmp_path, ("0", "1"))
    records[0] = records[0]._replace(metadata='["' + "x" * 300_000 + '"]')
    manifest = build(tmp_path, records)
    manifest.write(tmp_path / "manifest.csv")
    limit = csv.field_size_limit()

    again = Manifest.read(tmp_path / "manifest.csv", manifest.class_map, tmp_path)

    assert described(again) == described(manifest)
    assert csv.field_size_limit() == limit


@pytest.mark.promise("S2")
@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(file_names.filter(bool), min_size=2, max_size=5, unique=True),
    labels=st.lists(label_texts, min_size=2, max_size=4, unique=True),
)
def test_any_path_and_label_survive_the_csv(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], labels: list[str]
) -> None:
    root = tmp_path_factory.getbasetemp() / "any"
    root.mkdir(exist_ok=True)
    image = root / "image.png"
    image.write_bytes(numbered(1))
    records = [
        Record(name, labels[at % len(labels)], "train", name, at, "")
        for at, name in enumerate(names)
    ]
    hashed = build(
        root, [row._replace(path="image.png", source=row.path, line=row.line) for row in records]
    )
    manifest = Manifest(
        root=root,
        class_map=ClassMap(tuple(labels)),
        paths=PackedStrings(names),
        labels=np.array([at % len(labels) for at in range(len(names))], dtype=np.int64),
        splits=hashed.splits,
        sources=PackedStrings(names),
        lines=hashed.lines,
        hashes=hashed.hashes,
        metadata=PackedStrings(labels[at % len(labels)] for at in range(len(names))),
        groups=PackedStrings(names),
    )
    manifest.write(root / "manifest.csv")

    again = Manifest.read(root / "manifest.csv", manifest.class_map, root)

    assert described(again) == described(manifest)


@pytest.mark.promise("S2")
@given(st.lists(file_names | st.text(st.characters(codec="utf-8"), max_size=6)))
def test_packed_strings_give_back_what_they_got(values: list[str]) -> None:
    packed = PackedStrings(values)

    assert list(packed) == values
    assert len(packed) == len(values)


@pytest.mark.promise("R8")
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-20],
        lambda data: data.replace(b"path,label", b"label,path"),
        lambda data: data.replace(b",train,", b",trane,"),
        lambda data: data.replace(b"list.jsonl,1,", b"list.jsonl,one,"),
        lambda data: data.replace(b"list.jsonl,1,", b"list.jsonl,99999999999,"),
        lambda data: data.replace(b"i/1.png,00,", b"i/1.png,000,"),
        lambda data: data.replace(b"list.jsonl,1,g0,", b"list.jsonl,1,g0,zz"),
        lambda data: data.replace(b"list.jsonl,1,g0,", b"list.jsonl,1,g0,ab"),
    ],
)
def test_damaged_manifest_is_a_data_error(tmp_path: Path, damage: object) -> None:
    manifest = build(tmp_path, records_of(tmp_path))
    path = tmp_path / "manifest.csv"
    manifest.write(path)
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(DataError, match="cannot read the manifest") as caught:
        Manifest.read(path, manifest.class_map, tmp_path)

    assert str(path) in caught.value.what


@pytest.mark.promise("D4")
def test_row_is_named_by_path_and_line(tmp_path: Path) -> None:
    manifest = build(tmp_path, records_of(tmp_path))

    assert manifest.describe(3) == "i/11.png (list.jsonl:12)"


@pytest.mark.promise("D4")
def test_image_that_vanished_is_named(tmp_path: Path) -> None:
    records = records_of(tmp_path)
    (tmp_path / "i/3.png").unlink()

    with pytest.raises(DataError, match=r"cannot read image .*i/3\.png: No such file"):
        build(tmp_path, records)
