"""Reading listings: what loads, what is refused, and that the message names file and line."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier_training.data.index import index_data
from classifier_training.data.sources import read_source
from classifier_training.errors import DataError
from tests.helpers.config import data_config
from tests.helpers.pixels import numbered, write_images

GOOD = '{"image": "a.png", "suffix": "7"}'


def refusal(root: Path, source: str, **changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_source(data_config(root, source, **changes))
    assert caught.value.exit_code == 3
    return str(caught.value)


def rows(root: Path, source: str, **changes: Any) -> list[tuple[str, str, str]]:
    collector = read_source(data_config(root, source, **changes))
    return [(record.path, record.label, record.split) for record in collector.records]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_images(
        tmp_path, {"a.png": numbered(0), "b.png": numbered(1), "in/c.JPG": numbered(2)}
    )


# --- JSONL


@pytest.mark.promise("D3")
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ("[1, 2]", "is not a JSON object but list"),
        ("null", "is not a JSON object but NoneType"),
        ('{"image": "a.png"}', "'suffix' is missing; the row has 'image'"),
        ('{"suffix": "7"}', "'image' is missing"),
        ('{"image": 7, "suffix": "7"}', "'image' is no text but int"),
        ('{"image": "a.png", "suffix": 1e3}', "'suffix' is no text but float"),
        ('{"image": "a.png", "suffix": true}', "'suffix' is no text but bool"),
        ('{"image": "a.png", "suffix": null}', "'suffix' is no text but NoneType"),
        ('{"image": "a.png", "suffix": ["7"]}', "'suffix' is no text but list"),
        ('{"image": "a.png", "suffix": ""}', "the label is empty"),
        ('{"image": "a.png", "suffix": " \\t"}', "the label is empty"),
        ('{"image": "a.png", "suffix": "\\ud800"}', "is not Unicode text"),
        ('{"image": "a.png", "suffix": "7\\u0000"}', "NUL"),
        ('{"image": "a.png", "suffix": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"image": "a.png", "suffix": "7", "suffix": "8"}', "a key stands twice"),
        ('{"image": "none.png", "suffix": "7"}', "'none.png' does not exist"),
        ('{"image": "in", "suffix": "7"}', "'in' does not exist"),
        ('{"image": "", "suffix": "7"}', "the image path is empty"),
        ('{"image": "' + "x" * 5000 + '.png", "suffix": "7"}', "does not exist"),
        ('{"image": "\\ud800.png", "suffix": "7"}', "a.jsonl:2"),
        ("[" * 100_000, "is not JSON"),
        ('{"a":' * 50_000, "is not JSON"),
    ],
)
def test_faulty_line_is_named(root: Path, line: str, reason: str) -> None:
    (root / "a.jsonl").write_text(f"{GOOD}\n{line}\n{GOOD}\n")

    message = refusal(root, "jsonl")

    assert "a.jsonl:2: " in message
    assert reason in message
    assert "1 faulty row" in message


@pytest.mark.promise("D3")
def test_all_faults_are_counted_and_the_first_ten_shown(root: Path) -> None:
    (root / "a.jsonl").write_text("{\n" * 25)

    message = refusal(root, "jsonl")

    assert "25 faulty rows" in message
    assert "a.jsonl:10:" in message
    assert "a.jsonl:11:" not in message
    assert "… and 15 more" in message


@pytest.mark.promise("D3")
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_bom_line_ends_and_blank_lines_keep_the_count(root: Path, newline: str) -> None:
    text = newline.join((GOOD, "", "   ", "{"))
    (root / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())

    assert "a.jsonl:4: is not JSON" in refusal(root, "jsonl")


@pytest.mark.promise("D3")
@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_are_refused(root: Path, encoding: str) -> None:
    row = '{"image": "a.png", "suffix": "é"}'
    (root / "a.jsonl").write_bytes(row.encode(encoding))

    assert "a.jsonl:1: is not UTF-8 text" in refusal(root, "jsonl")


@pytest.mark.promise("D1")
def test_several_files_of_a_split_are_merged_and_metadata_kept(root: Path) -> None:
    metadata = {"match": 3, "Straße": ["x", None], "half": "\ud800"}
    write_images(root, {"train/a.png": numbered(3), "train/b.png": numbered(4)})
    (root / "train/1.jsonl").write_text(
        json.dumps({"image": "a.png", "suffix": "7", "metadata": metadata}) + "\n"
    )
    (root / "train/2.JSONL").write_text(json.dumps({"image": "b.png", "suffix": "8"}) + "\n")

    collector = read_source(data_config(root, "jsonl"))

    assert [(record.label, record.source, record.line) for record in collector.records] == [
        ("7", "train/1.jsonl", 1),
        ("8", "train/2.JSONL", 1),
    ]
    assert json.loads(collector.records[0].metadata) == metadata
    assert collector.records[1].metadata == ""


@pytest.mark.promise("D1")
def test_integer_labels_are_their_digits(root: Path) -> None:
    (root / "a.jsonl").write_text('{"image": "a.png", "suffix": 8}\n')

    assert rows(root, "jsonl") == [("a.png", "8", "")]


@pytest.mark.promise("D3")
def test_skipped_rows_are_counted(root: Path) -> None:
    lines = [GOOD, '{"image": "b.png", "suffix": ""}', '{"image": "b.png", "suffix": "  "}']
    (root / "a.jsonl").write_text("\n".join(lines))

    collector = read_source(data_config(root, "jsonl", on_empty_label="skip"))

    assert len(collector.records) == 1
    assert collector.skipped == {"empty label": 2}


@pytest.mark.promise("D3")
def test_row_without_split_beside_rows_with_one_is_refused(root: Path) -> None:
    fields = data_config(root, "jsonl").fields
    assert fields is not None
    (root / "a.jsonl").write_text(
        '{"image": "a.png", "suffix": "7", "split": "train"}\n{"image": "b.png", "suffix": "7"}\n'
    )

    message = refusal(root, "jsonl", fields=fields.model_copy(update={"split": "split"}))

    assert "a.jsonl:2: says no split" in message


# --- CSV


@pytest.mark.promise("D3")
@pytest.mark.parametrize(
    ("table", "line", "reason"),
    [
        ("", 1, "has no column 'path'; it has: nothing"),
        ("image,label\na.png,7\n", 1, "has no column 'path'; it has: 'image', 'label'"),
        ("path,label,label\na.png,7,8\n", 1, "names a column twice"),
        ("path,label\na.png\n", 2, "has 1 columns instead of 2"),
        ("path,label\na.png,7,x\n", 2, "has 3 columns instead of 2"),
        ("path,label\n\n\na.png,7,x\n", 4, "has 3 columns instead of 2"),
        ('path,label,note\na.png,7,"x\ny\r\nz"\nb.png,,\n', 5, "the label is empty"),
        ('path,label\na.png,7\nb.png,"8\n', 3, "is not CSV"),
        ('path,label\na.png,"7"8\n', 2, "is not CSV"),
        ("path,label,split\na.png,7,dev\n", 2, "split 'dev' is none of train, val, test"),
        ("path,label,split\na.png,7,\n", 2, "split '' is none of"),
        ("path,label\na.png," + "x" * 200_000 + "\n", 2, "is not CSV"),
    ],
)
def test_faulty_table_row_is_named_by_its_first_line(
    root: Path, table: str, line: int, reason: str
) -> None:
    (root / "all.csv").write_bytes(table.encode())

    message = refusal(root, "csv")

    assert f"all.csv:{line}: " in message
    assert reason in message


@pytest.mark.promise("D3")
def test_table_that_is_no_utf8_names_the_line(root: Path) -> None:
    (root / "all.csv").write_bytes(b"path,label\na.png,7\nb.png,\xe9\n")

    assert "all.csv:3: is not UTF-8 text" in refusal(root, "csv")


@pytest.mark.promise("D2")
def test_cells_are_kept_verbatim(root: Path) -> None:
    labels = (" 7", "7 ", "=cmd()", 'say "hi"', "a,b", "line\nbreak", "a\r\nb", "<script>", "00")
    write_images(root, {f"i/{at}.png": numbered(at) for at in range(len(labels))})
    quoted = ('"{}"'.format(label.replace('"', '""')) for label in labels)
    lines = ["path,label", *(f"i/{at}.png,{cell}" for at, cell in enumerate(quoted))]
    (root / "all.csv").write_bytes("\r\n".join(lines).encode())

    assert [label for _, label, _ in rows(root, "csv")] == list(labels)


@pytest.mark.promise("D1")
def test_tab_separated_table_and_further_columns(root: Path) -> None:
    (root / "all.TSV").write_bytes(b"\xef\xbb\xbfpath\tlabel\tcamera\r\na.png\t7\tleft, high\r\n")

    record = read_source(data_config(root, "csv")).records[0]

    assert (record.path, record.label, record.line) == ("a.png", "7", 2)
    assert json.loads(record.metadata) == {"camera": "left, high"}


@pytest.mark.promise("D3")
def test_split_column_that_contradicts_its_file_is_refused(root: Path) -> None:
    (root / "train.csv").write_text("path,label,split\na.png,7,train\nb.png,7,val\n")

    assert "train.csv:3: split 'val' contradicts the file" in refusal(root, "csv")


# --- paths that leave the root


LEAVING = [
    ("../outside.png", "leaves the data root"),
    ("in/../../outside.png", "leaves the data root"),
    ("/etc/hostname", "is absolute"),
    ("C:\\images\\a.png", "is absolute"),
    ("c:/images/a.png", "is absolute"),
    ("\\\\server\\share\\a.png", "is absolute"),
    ("file_link.png", "leaves the data root"),
    ("folder_link/outside.png", "leaves the data root"),
    ("a.png\0.txt", "NUL"),
    ("loop/a.png", "does not exist"),
]


@pytest.mark.promise("D7")
@pytest.mark.parametrize("source", ["jsonl", "csv"])
@pytest.mark.parametrize(("path", "reason"), LEAVING)
def test_path_that_leaves_the_root_is_refused(
    tmp_path: Path, source: str, path: str, reason: str
) -> None:
    write_images(tmp_path, {"outside.png": numbered(0), "root/a.png": numbered(1)})
    root = tmp_path / "root"
    (root / "file_link.png").symlink_to(tmp_path / "outside.png")
    (root / "folder_link").symlink_to(tmp_path, target_is_directory=True)
    (root / "loop").symlink_to(root / "loop")
    if source == "jsonl":
        lines = [json.dumps({"image": name, "suffix": "7"}) for name in ("a.png", path)]
        name, line = "list.jsonl", 2
    else:
        lines = ["path,label", "a.png,7", f"{path},7"]
        name, line = "list.csv", 3
    (root / name).write_text("\n".join(lines))

    message = refusal(root, source)

    assert f"{name}:{line}: " in message
    assert reason in message
    assert "1 faulty row" in message


@pytest.mark.promise("D7")
@pytest.mark.parametrize("is_folder", [False, True])
def test_link_out_of_the_root_is_refused_in_folders_too(tmp_path: Path, is_folder: bool) -> None:
    write_images(tmp_path, {"outside/x.png": numbered(0), "root/cat/a.png": numbered(1)})
    target = tmp_path / "outside" / ("" if is_folder else "x.png")
    (tmp_path / "root/cat" / ("link" if is_folder else "link.png")).symlink_to(target)

    message = refusal(tmp_path / "root", "folder")

    assert "cat/link" in message
    assert "leaves the data root" in message


@pytest.mark.promise("D7")
def test_path_that_stays_inside_may_take_any_way(root: Path) -> None:
    write_images(root, {"lists/x.png": numbered(9)})
    (root / "inner.png").symlink_to(root / "b.png")
    names = ("../a.png", "../in/../in/c.JPG", "./x.png", "../inner.png")
    (root / "lists/all.jsonl").write_text(
        "\n".join(json.dumps({"image": name, "suffix": "7"}) for name in names)
    )

    found = [path for path, _, _ in rows(root, "jsonl")]

    assert found == ["a.png", "in/c.JPG", "lists/x.png", "inner.png"]


# --- folders


@pytest.mark.promise("D1")
def test_folder_takes_nested_images_of_any_ending_and_counts_the_rest(tmp_path: Path) -> None:
    write_images(
        tmp_path,
        {
            "cat/1.JPG": numbered(1),
            "cat/deep/er/2.Png": numbered(2),
            " dog /3.webp": numbered(3),
            "train.txt": b"",
            "cat/notes.txt": b"",
            "cat/.DS_Store": b"",
            "cat/._1.JPG": b"",
            "cat/.ipynb_checkpoints/1-checkpoint.JPG": numbered(1),
            ".cache/x.png": numbered(4),
        },
    )

    collector = read_source(data_config(tmp_path))

    assert {(record.path, record.label) for record in collector.records} == {
        ("cat/1.JPG", "cat"),
        ("cat/deep/er/2.Png", "cat"),
        (" dog /3.webp", " dog "),
    }
    assert collector.skipped == {"not in a class folder": 1, "not an image file": 1, "hidden": 4}


@pytest.mark.promise("D1")
def test_links_in_a_circle_give_each_image_once(tmp_path: Path) -> None:
    write_images(tmp_path, {"cat/1.png": numbered(1), "dog/2.png": numbered(2)})
    (tmp_path / "cat/again").symlink_to(tmp_path / "cat", target_is_directory=True)
    (tmp_path / "cat/up").symlink_to(tmp_path, target_is_directory=True)

    collector = read_source(data_config(tmp_path))

    assert [record.path for record in collector.records] == ["cat/1.png", "dog/2.png"]
    assert collector.skipped == {"link to a folder already read": 2}


@pytest.mark.promise("D1")
@pytest.mark.parametrize("names", [("train", "val"), ("Train", "Valid"), ("TRAIN", "validation")])
def test_split_folders_have_several_names(tmp_path: Path, names: tuple[str, str]) -> None:
    train, val = names
    write_images(tmp_path, {f"{train}/cat/1.png": numbered(1), f"{val}/cat/2.png": numbered(2)})

    assert rows(tmp_path, "folder") == [
        (f"{train}/cat/1.png", "cat", "train"),
        (f"{val}/cat/2.png", "cat", "val"),
    ]


@pytest.mark.promise("C5")
def test_two_folders_for_one_split_are_a_question(tmp_path: Path) -> None:
    write_images(tmp_path, {f"{name}/cat/1.png": numbered(1) for name in ("train", "val", "valid")})

    message = refusal(tmp_path, "folder")

    assert "val and valid; which is val?" in message
    assert "data.val_path=val" in message
    assert len(rows(tmp_path, "folder", val_path="valid")) == 2


@pytest.mark.promise("C5")
def test_train_may_be_a_class(tmp_path: Path) -> None:
    write_images(tmp_path, {"train/1.png": numbered(1), "plane/2.png": numbered(2)})

    assert "if train is a class, data.train_path=." in refusal(tmp_path, "folder")
    assert {label for _, label, _ in rows(tmp_path, "folder", train_path=".")} == {
        "train",
        "plane",
    }


@pytest.mark.promise("C5")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"val_path": "vla"}, "data.val_path=vla does not exist"),
        ({"val_path": "v" * 300}, "does not exist"),
        ({"train_path": "train/cat/1.png"}, "does not exist"),
        (
            {"data_root": "/nonexistent/images"},
            "data.data_root=/nonexistent/images is not a folder",
        ),
        ({"data_root": "x" * 5000}, "is not a folder"),
        ({"data_root": "a\0b"}, "is not a folder"),
        ({"data_root": "~nobody-here/x"}, "is not a folder"),
    ],
)
def test_wrong_path_names_the_key_and_what_is_there(
    tmp_path: Path, changes: dict[str, str], expected: str
) -> None:
    write_images(tmp_path, {"train/cat/1.png": numbered(1), "valid/cat/2.png": numbered(2)})

    message = refusal(tmp_path, "folder", **changes)

    assert expected in message
    if "val_path" in changes:
        assert "holds: train, valid" in message


@pytest.mark.promise("D2")
def test_class_folder_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, {"cat/1.png": numbered(1)})
    write_images(tmp_path, {f"dog{os.fsdecode(bytes([255]))}/2.png": numbered(2)})

    assert "is not Unicode text" in refusal(tmp_path, "folder")


@pytest.mark.promise("C5")
@pytest.mark.parametrize("source", ["folder", "jsonl"])
@pytest.mark.parametrize("locked", ["", "cat", "cat/deep"])
def test_folder_that_may_not_be_read_is_not_passed_over(source: str, locked: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        root = write_images(Path(name), {"cat/deep/1.png": numbered(1), "dog/2.png": numbered(2)})
        (root / "cat/deep/a.jsonl").write_text('{"image": "1.png", "suffix": "7"}\n')
        (root / "dog/a.jsonl").write_text('{"image": "2.png", "suffix": "7"}\n')
        root.chmod(0o755)
        (root / locked).chmod(0)
        try:
            with unprivileged():
                message = refusal(root, source)
        finally:
            (root / locked).chmod(0o755)

    assert "cannot be listed: Permission denied" in message or "cannot list" in message
    assert str(root / locked) in message or f"{locked}: cannot" in message


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.promise("D1")
def test_folder_of_images_beside_its_listing_is_no_listing(tmp_path: Path) -> None:
    write_images(tmp_path, {"train/a.png": numbered(1), "val/b.png": numbered(2)})
    for split, name in (("train", "a"), ("val", "b")):
        (tmp_path / f"{split}.jsonl").write_text(
            json.dumps({"image": f"{split}/{name}.png", "suffix": "7"})
        )
    (tmp_path / "train/._x.jsonl").write_bytes(b"\x00\x05\x16\x07")

    assert rows(tmp_path, "jsonl") == [("train/a.png", "7", "train"), ("val/b.png", "7", "val")]


# --- contradictions between rows


@pytest.mark.promise("D3")
@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ("a.png,8,train", "a.png is '8' here and '7' in all.csv:2"),
        ("a.png,7,val", "a.png is in val here and in train in all.csv:2"),
        ("./a.png,8,train", "a.png is '8' here and '7' in all.csv:2"),
    ],
)
def test_contradicting_rows_are_refused(root: Path, second: str, expected: str) -> None:
    (root / "all.csv").write_text(f"path,label,split\na.png,7,train\n{second}\nb.png,8,val\n")

    with pytest.raises(DataError) as caught:
        index_data(data_config(root, "csv"))

    assert f"all.csv:3: {expected}" in str(caught.value)


@pytest.mark.promise("D3")
def test_repeated_rows_count_once(root: Path) -> None:
    (root / "all.csv").write_text(
        "path,label,split\na.png,7,train\na.png,7,train\nin/c.JPG,8,train\nb.png,8,val\n"
    )

    index = index_data(data_config(root, "csv"))

    assert len(index.manifest) == 3
    assert index.skipped == {"repeated row": 1}


@pytest.mark.promise("C5")
def test_split_without_train_says_so(root: Path) -> None:
    (root / "all.csv").write_text("path,label,split\na.png,7,val\nb.png,8,val\n")

    with pytest.raises(
        DataError, match=r"the train split .* has no images \(found: train 0, val 2"
    ):
        index_data(data_config(root, "csv"))


@pytest.mark.promise("C5")
def test_batch_larger_than_the_data_is_refused(root: Path) -> None:
    (root / "all.csv").write_text(
        "path,label,split\na.png,7,train\nin/c.JPG,8,train\nb.png,8,val\n"
    )

    with pytest.raises(DataError, match="batch_size=3 is larger than the 2 training images"):
        index_data(data_config(root, "csv", batch_size=3))


# --- class lists


@pytest.mark.promise("D2")
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_class_file_is_read_verbatim(root: Path, newline: str) -> None:
    names = ("NO", "00", "1e3", " 7 ", "a\x0bb", "a\u2028b", "é")
    text = newline.join((*names[:3], "", "  ", *names[3:], ""))
    (root / "classes.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (root / "all.csv").write_text("path,label,split\na.png,NO,train\nb.png,00,val\n")

    index = index_data(data_config(root, "csv", classes="classes.txt"))

    assert index.manifest.class_map.names == names
    assert index.manifest.labels.tolist() == [0, 1]


@pytest.mark.promise("C5")
@pytest.mark.parametrize(
    "classes", ["none.txt", "in", "binary.txt", "a\0b", "n" * 300, "one.txt", "twice.txt"]
)
def test_unusable_class_file_is_a_data_error(root: Path, classes: str) -> None:
    (root / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (root / "one.txt").write_text("7\n")
    (root / "twice.txt").write_text("7\n8\n7\n")
    (root / "all.csv").write_text("path,label,split\na.png,7,train\nb.png,7,val\n")

    with pytest.raises(DataError):
        index_data(data_config(root, "csv", classes=classes))


# --- anything at all


def loads_or_names_its_line(root: Path, source: str, name: str) -> None:
    try:
        records = read_source(data_config(root, source)).records
    except DataError as error:
        records, message = [], str(error)
    else:
        message = name

    assert name in message or "no labelled images" in message
    for record in records:
        assert (root / record.path).is_file()
        assert record.label.strip()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**20, 10**30)
    | st.floats()
    | st.text(alphabet=st.characters(exclude_categories=[]))
    | st.sampled_from(["a.png", "../a.png", "7", "in", "in/c.JPG", "split", "train"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
json_rows = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("image", "suffix", "metadata", "prefix"), json_values),
).map(json.dumps)
free_lines = st.binary(max_size=60) | json_rows.map(str.encode) | st.just(GOOD.encode())
fuzzing = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.promise("D3")
@fuzzing
@given(lines=st.lists(free_lines, max_size=5), newline=st.sampled_from([b"\n", b"\r\n"]))
def test_any_jsonl_loads_or_is_refused(root: Path, lines: list[bytes], newline: bytes) -> None:
    (root / "x.jsonl").write_bytes(newline.join(lines))

    loads_or_names_its_line(root, "jsonl", "x.jsonl")


@pytest.mark.promise("D3")
@fuzzing
@given(
    header=st.sampled_from([b"path,label\n", b"path,label,split\n", b"label,path,x\r\n", b""]),
    lines=st.lists(
        st.binary(max_size=40)
        | st.text('a.png,7"\r\n\0 \t', max_size=30).map(str.encode)
        | st.just(b"a.png,7\n"),
        max_size=5,
    ),
)
def test_any_csv_loads_or_is_refused(root: Path, header: bytes, lines: list[bytes]) -> None:
    (root / "x.csv").write_bytes(header + b"".join(lines))

    loads_or_names_its_line(root, "csv", "x.csv")


@pytest.mark.promise("D7")
@fuzzing
@given(
    path=st.lists(
        st.sampled_from(["..", ".", "in", "out", "a.png", "c.JPG", "", "up", "\\", "C:", "é"])
        | st.text(max_size=4),
        max_size=6,
    ).map("/".join)
)
def test_no_path_reaches_outside(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    base = tmp_path_factory.getbasetemp() / "fence"
    if not base.exists():
        write_images(base, {"secret.png": numbered(0), "root/in/c.JPG": numbered(1)})
        (base / "root/up").symlink_to(base, target_is_directory=True)
    root = base / "root"
    (root / "x.jsonl").write_text(json.dumps({"image": path, "suffix": "7"}))

    try:
        found = read_source(data_config(root, "jsonl")).records
    except DataError:
        return

    for record in found:
        assert (root / record.path).resolve().is_relative_to(root.resolve())
        assert unicodedata.normalize("NFC", Path(record.path).name) != "secret.png"


@pytest.mark.promise("D3")
@pytest.mark.parametrize("depth", [100, 400, 800, 950, 990, 1000, 3000, 30_000])
def test_metadata_of_any_depth_loads_or_is_refused(root: Path, depth: int) -> None:
    metadata = "[" * depth + "]" * depth
    row = f'{{"image": "a.png", "suffix": "7", "metadata": {metadata}}}'
    (root / "x.jsonl").write_text(row)

    loads_or_names_its_line(root, "jsonl", "x.jsonl:1")
