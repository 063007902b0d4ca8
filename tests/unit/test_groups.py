"""Groups of images, rows without a label, and further fields of rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from classifier_training.data.index import DataIndex, index_data
from classifier_training.data.sources import read_source
from classifier_training.errors import DataError
from tests.helpers.config import data_config
from tests.helpers.pixels import numbered, write_images


def write_listing(root: Path, rows: list[dict[str, Any]], name: str = "all.jsonl") -> Path:
    """Write ``rows`` as JSONL, and an image of its own for each."""
    folder = (root / name).parent
    write_images(folder, {row["image"]: numbered(at) for at, row in enumerate(rows)})
    (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def matches(count: int = 12, size: int = 5) -> list[dict[str, Any]]:
    return [
        {"image": f"{match}_{at}.png", "suffix": str(at % 2), "match": f"m{match}"}
        for match in range(count)
        for at in range(size)
    ]


def split_of(index: DataIndex) -> dict[str, int]:
    manifest = index.manifest
    return {manifest.paths[row]: int(manifest.splits[row]) for row in range(len(manifest))}


@pytest.mark.promise("D6")
@pytest.mark.parametrize("group_by", ["field:match", r"path:^(?:.*/)?(\d+)_\d+[.]png$"])
@pytest.mark.parametrize("as_table", [False, True], ids=["jsonl", "csv"])
def test_groups_are_never_cut(tmp_path: Path, group_by: str, as_table: bool) -> None:
    rows = matches()
    write_listing(tmp_path, rows)
    if as_table:
        lines = [f"{row['image']},{row['suffix']},{row['match']}" for row in rows]
        (tmp_path / "all.csv").write_text("\n".join(["path,label,match", *lines]))

    index = index_data(data_config(tmp_path, "csv" if as_table else "jsonl", group_by=group_by))

    manifest = index.manifest
    groups: dict[str, set[int]] = {}
    for row in range(len(manifest)):
        groups.setdefault(manifest.groups[row], set()).add(int(manifest.splits[row]))
    assert len(groups) == 12
    assert all(len(splits) == 1 for splits in groups.values())
    assert {len(manifest.rows(split)) > 0 for split in ("train", "val", "test")} == {True}
    assert any("12 groups by" in note for note in index.notes)


@pytest.mark.promise("D6")
def test_images_without_a_group_stand_alone_and_are_counted(tmp_path: Path) -> None:
    rows = matches()
    rows[0]["match"] = None
    rows[1]["match"] = ""
    del rows[2]["match"]
    rows[3]["match"] = 7
    write_listing(tmp_path, rows)

    index = index_data(data_config(tmp_path, "jsonl", group_by="field:match"))

    manifest = index.manifest
    group = {manifest.paths[row]: manifest.groups[row] for row in range(len(manifest))}
    assert [group[f"0_{at}.png"] for at in range(5)] == ["", "", "", "7", "m0"]
    assert any("3 images have none" in note for note in index.notes)


@pytest.mark.promise("D6")
@pytest.mark.parametrize(
    ("group_by", "reason"),
    [
        ("field:mach", "did you|data.group_by=field:match"),
        ("field:zzz", "no row has a 'zzz'"),
        ("path:(zzz)", "finds a group in no path"),
    ],
)
def test_group_by_that_finds_nothing_is_refused(tmp_path: Path, group_by: str, reason: str) -> None:
    write_listing(tmp_path, matches())

    with pytest.raises(DataError, match=reason) as caught:
        index_data(data_config(tmp_path, "jsonl", group_by=group_by))

    assert f"data.group_by={group_by}" in str(caught.value)


@pytest.mark.promise("D6")
def test_group_that_is_no_name_is_refused_with_its_line(tmp_path: Path) -> None:
    rows = matches()
    rows[4]["match"] = ["m0"]
    write_listing(tmp_path, rows)

    with pytest.raises(DataError, match=r"all\.jsonl:5: 'match' is no group name but list"):
        index_data(data_config(tmp_path, "jsonl", group_by="field:match"))


@pytest.mark.promise("D6")
def test_copies_of_an_image_stay_together(tmp_path: Path) -> None:
    files = {f"{label}/{at}.png": numbered(at // 5) for label in "ab" for at in range(60)}
    write_images(tmp_path, files)

    index = index_data(data_config(tmp_path))

    splits: dict[bytes, set[int]] = {}
    for path, split in split_of(index).items():
        splits.setdefault(files[path], set()).add(split)
    assert len(splits) == 12
    assert all(len(found) == 1 for found in splits.values())
    together = "120 images stay together in 12 group(s) or set(s) of copies"
    assert any(together in note for note in index.notes)


@pytest.mark.promise("D6")
def test_manifest_of_an_earlier_run_keeps_its_splits(tmp_path: Path) -> None:
    write_images(
        tmp_path / "images",
        {f"{c}/{at}.png": numbered(at + 50 * (c == "b")) for c in "ab" for at in range(30)},
    )
    config = data_config(tmp_path / "images")
    first = index_data(config)
    first.manifest.write(tmp_path / "manifest.csv")
    write_images(
        tmp_path / "images",
        {
            f"{c}/new{at}.png": numbered(at + 200 + 50 * (c == "b"))
            for c in "abc"
            for at in range(30)
        },
    )
    (tmp_path / "images/a/0.png").unlink()
    known = config.split.model_copy(update={"manifest": str(tmp_path / "manifest.csv"), "seed": 9})

    second = index_data(config.model_copy(update={"split": known}))

    before, after = split_of(first), split_of(second)
    assert {path: after[path] for path in before if path in after} == {
        path: split for path, split in before.items() if path != "a/0.png"
    }
    assert any(
        "59 images keep their split" in note and "90 are new" in note for note in second.notes
    )
    assert any("1 of its images are not among" in note for note in second.notes)
    for split in ("val", "test"):
        assert second.manifest.counts(split).sum() == pytest.approx(0.15 * 149, abs=1)
        assert second.manifest.counts(split).min() >= 4


# --- the export of the jersey numbers


def write_jerseys(root: Path) -> Path:
    """Write flat folders, each with its ``annotations.jsonl``, as the data set is exported."""
    number = 0
    for split, count in {"train": 8, "val": 3, "test": 2}.items():
        folder = root / split
        rows = []
        for label in ("0", "00", "7", ""):
            for _ in range(count):
                name = f"{number:05d}.png"
                rows.append(
                    {
                        "image": name,
                        "prefix": "Read the number.",
                        "suffix": label,
                        "jersey_color": "white" if number % 2 else "red",
                    }
                )
                write_images(folder, {name: numbered(number)})
                number += 1
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "annotations.jsonl").write_text(text)
    return root


@pytest.mark.promise("D3")
@pytest.mark.parametrize("name", ["unreadable", "07?"])
def test_unreadable_crops_are_a_class_only_when_named(tmp_path: Path, name: str) -> None:
    root = write_jerseys(tmp_path)
    jerseys = "basketball_jersey_numbers"

    skipped = index_data(data_config(root, jerseys))
    named = index_data(data_config(root, jerseys, on_empty_label="class", empty_label_name=name))

    assert skipped.manifest.class_map.names == ("0", "00", "7")
    assert skipped.skipped == {"empty label": 13}
    assert set(named.manifest.class_map.names) == {"0", "00", "7", name}
    assert named.manifest.counts("train").tolist() == [8, 8, 8, 8]
    assert named.manifest.counts("val").tolist() == [3, 3, 3, 3]
    assert named.skipped == {}
    assert any(f"13 row(s) with an empty label are of class '{name}'" in n for n in named.notes)
    with pytest.raises(DataError, match="13 faulty rows"):
        index_data(data_config(root, jerseys, on_empty_label="error"))


@pytest.mark.promise("D1")
def test_further_keys_of_a_row_are_metadata(tmp_path: Path) -> None:
    manifest = index_data(
        data_config(write_jerseys(tmp_path), "basketball_jersey_numbers")
    ).manifest

    assert json.loads(manifest.metadata[1]) == {
        "prefix": "Read the number.",
        "jersey_color": "white",
    }


@pytest.mark.promise("D1")
@pytest.mark.parametrize(
    ("further", "expected"),
    [
        ({"metadata": {"a": 1}}, {"a": 1}),
        ({"metadata": {"a": 1}, "b": 2}, {"a": 1, "b": 2}),
        ({"metadata": {"a": 1}, "a": 1}, {"a": 1}),
        ({"metadata": "told", "b": 2}, {"metadata": "told", "b": 2}),
        ({"metadata": None}, None),
    ],
)
def test_metadata_object_and_further_keys_stand_side_by_side(
    tmp_path: Path, further: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    write_listing(tmp_path, [{"image": "a.png", "suffix": "7", **further}])

    stored = read_source(data_config(tmp_path, "jsonl")).records[0].metadata

    assert (json.loads(stored) if stored else None) == expected


@pytest.mark.promise("D1")
def test_key_with_two_meanings_is_refused(tmp_path: Path) -> None:
    write_listing(tmp_path, [{"image": "a.png", "suffix": "7", "a": 1, "metadata": {"a": 2}}])

    with pytest.raises(DataError, match=r"all\.jsonl:1: 'a' is different in the row"):
        read_source(data_config(tmp_path, "jsonl"))
