"""A corrections file: applied whole, or refused with file and line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier_training.data.corrections import apply_corrections
from classifier_training.data.index import DataIndex, index_data
from classifier_training.data.records import Record, RowCollector
from classifier_training.errors import DataError
from classifier_training.inference.class_map import ClassMap
from tests.helpers.config import data_config

Indexed = Callable[[str], DataIndex]


@pytest.fixture
def indexed(folder_data: Path, tmp_path: Path) -> Indexed:
    """Index the shared images with a corrections file of the given text."""

    def index(text: str) -> DataIndex:
        file = tmp_path / "fix.csv"
        file.write_text(text, encoding="utf-8")
        return index_data(data_config(folder_data, corrections=str(file)))

    return index


def _labels(index: DataIndex) -> dict[str, str]:
    manifest = index.manifest
    names = manifest.class_map.names
    return {path: names[manifest.labels[row]] for row, path in enumerate(manifest.paths)}


@pytest.mark.promise("D14")
def test_relabels_and_drops_and_leaves_everything_else(folder_data: Path, indexed: Indexed) -> None:
    before = index_data(data_config(folder_data))
    after = indexed(
        "rank,path,given,corrected,action\n"
        "1,train/0/000.png,0,00,\n"
        "2,train/NO/003.png,NO,1e3,relabel\n"
        "3,test/00/001.png,00,,drop\n"
        "4,val/0/000.png,0,,keep\n"
        "5,val/0/001.png,0,,\n"
    )

    expected = _labels(before) | {"train/0/000.png": "00", "train/NO/003.png": "1e3"}
    del expected["test/00/001.png"]
    assert _labels(after) == expected
    assert after.skipped["dropped by data.corrections"] == 1
    assert any("2 relabelled, 1 dropped" in note for note in after.notes)
    assert after.manifest.fingerprint() != before.manifest.fingerprint()


@pytest.mark.promise("D14")
def test_splits_stay_as_they_were(folder_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(folder_data / "train", root)
    file = tmp_path / "fix.csv"
    file.write_text("path,corrected\n" + "".join(f"0/{n:03d}.png,00\n" for n in range(5)))

    def splits(index: DataIndex) -> dict[str, int]:
        return dict(zip(index.manifest.paths, map(int, index.manifest.splits), strict=True))

    before = splits(index_data(data_config(root)))
    after = index_data(data_config(root, corrections=str(file)))

    assert len(set(before.values())) == 3
    assert splits(after) == before
    assert after.manifest.class_map.names == ("0", "00", "1e3", "NO")


@pytest.mark.promise("D14")
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("train/0/999.png,0,00,", "is no image of the data"),
        ("../train/0/000.png,0,00,", "is no image of the data"),
        ("train/0/000.png,0,nO,", "'nO' is no class of the data; did you mean 'NO'?"),
        ("train/0/000.png,0,00 ,", "'00 ' is no class of the data"),
        ("train/00/000.png,0,1e3,", "with the label '0', which now is '00' (spreadsheets"),
        ("train/0/000.png,0,,delete", "the action 'delete' is unknown"),
        ("train/0/000.png,0,00,drop", "asks to drop the image and for the label '00'"),
        ("train/0/000.png,0,,relabel", "asks to relabel the image, but the column corrected"),
        ("val/0/000.png,0,NO,", "contradicts line 2 about val/0/000.png"),
    ],
)
def test_rows_that_do_not_fit_are_refused_with_file_and_line(
    indexed: Indexed, row: str, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        indexed(f"path,given,corrected,action\nval/0/000.png,0,00,\n{row}\n")

    assert "fix.csv:3: " in caught.value.what
    assert said in caught.value.what


def test_a_label_that_is_right_already_is_counted(indexed: Indexed) -> None:
    index = indexed("path,given,corrected\ntrain/00/000.png,0,00\n")

    assert any("0 relabelled, 0 dropped, 1 right already" in note for note in index.notes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it has the columns (none)"),
        (b"path;given;corrected\n", "it has the columns 'path;given;corrected'"),
        (b"path,label\nx,y\n", "it has the columns 'path', 'label'"),
        (b"path,path,corrected\n", "a column stands twice"),
        (b"path,corrected\nx\n", "line 2: 1 columns instead of 2"),
        (b'path,corrected\n\n"x,y\n', "line 3: "),
    ],
)
def test_files_that_are_no_table_are_refused(
    folder_data: Path, tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "fix.csv"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        index_data(data_config(folder_data, corrections=str(file)))

    assert said in caught.value.what
    assert str(file) in caught.value.what


def test_a_missing_file_and_a_folder_are_refused(folder_data: Path, tmp_path: Path) -> None:
    for name in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match=r"cannot read data\.corrections="):
            index_data(data_config(folder_data, corrections=str(name)))


def test_found_in_the_data_root_and_with_a_byte_order_mark(
    folder_data: Path, tmp_path: Path
) -> None:
    root = tmp_path / "images"
    shutil.copytree(folder_data, root)
    (root / "fix.csv").write_bytes(b"\xef\xbb\xbfpath,corrected\r\ntrain/0/000.png,00\r\n")

    index = index_data(data_config(root, corrections="fix.csv"))

    assert _labels(index)["train/0/000.png"] == "00"


def test_dropping_a_whole_split_is_refused(indexed: Indexed) -> None:
    rows = "".join(
        f"val/{name}/{number:03d}.png,drop\n"
        for name in ("0", "00", "1e3", "NO")
        for number in range(6)
    )
    with pytest.raises(DataError, match=r"val split of .* has no images"):
        indexed("path,action\n" + rows)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80) | st.text(alphabet='path,corected\n"0ab\r', max_size=80))
def test_any_bytes_are_applied_or_refused(tmp_path: Path, content: bytes | str) -> None:
    file = tmp_path / "fix.csv"
    data = content if isinstance(content, bytes) else content.encode()
    file.write_bytes(b"path,corrected\n" + data)
    record = Record("a", "0", "train", "", 0, "")
    refusal = ""
    records = [record]
    try:
        records, _ = apply_corrections(
            [record], str(file), RowCollector(tmp_path), ClassMap(("0", "b"))
        )
    except DataError as error:
        refusal = error.what
    assert str(file) in refusal or not refusal
    assert [known.path for known in records] == ["a"]
    assert records[0].label in ("0", "b")
