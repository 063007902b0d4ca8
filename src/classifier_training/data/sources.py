"""The ways labelled images can lie on disk. A new one is a function and a line in ``SOURCES``."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from classifier_training.config.schema import DataConfig, FieldsConfig
from classifier_training.data.records import (
    SPLIT_NAMES,
    SPLITS,
    Intake,
    Record,
    escape,
    inside,
    is_file,
    is_folder,
    relative_to_root,
)
from classifier_training.errors import DataError
from classifier_training.runtime.images import IMAGE_EXTENSIONS
from classifier_training.runtime.walking import walk_files

# split name ("" when one place holds all splits) -> folder or file
Places = dict[str, Path]
Reader = Callable[[Intake, Places, DataConfig], None]


def read_source(config: DataConfig) -> Intake:
    """Read all rows that the configuration points at.

    Returns:
        Records with split ``""`` where the data does not say it, and what was skipped.

    Raises:
        DataError: The root or a named split does not exist, is empty, or has faulty rows.
    """
    root = Path(os.path.abspath(os.path.expanduser(config.data_root)))
    if not is_folder(root):
        raise DataError(
            f"data.data_root={config.data_root} is not a folder",
            expected="the folder that holds your labelled images",
            mend=_nearest_existing(root),
        )
    suffixes = {"folder": (), "jsonl": (".jsonl",), "csv": (".csv", ".tsv")}[config.source]
    places = _find_places(root, config, suffixes)
    intake = Intake(root)
    SOURCES[config.source](intake, places, config)
    _refuse_some_splits(intake)
    intake.raise_faults()
    if not intake.records:
        raise _no_images(root, places, config, intake)
    return intake


def read_folder(intake: Intake, places: Places, _config: DataConfig) -> None:
    """Read ``PLACE/CLASS/**/image``: the name of the first folder is the label."""
    for split, place in places.items():
        for class_folder in _children(intake, place):
            if class_folder.name.startswith("."):
                intake.skipped["hidden"] += 1
            elif not is_folder(class_folder):
                intake.skipped["not in a class folder"] += 1
            elif reason := _unfit_label(class_folder.name):
                intake.fault(relative_to_root(class_folder, intake.root), 0, reason)
            else:
                _read_class_folder(intake, split, place, class_folder)


def read_jsonl(intake: Intake, places: Places, config: DataConfig) -> None:
    """Read one JSON object a line; several files of a split are merged."""
    fields = _fields_of(config)
    for split, file in _annotation_files(intake, places, (".jsonl",)):
        source = relative_to_root(file, intake.root)
        for line, text in _lines(intake, file, source):
            row = _parse_json(intake, source, line, text)
            if row is not None:
                metadata = row.get(fields.metadata) if fields.metadata else None
                _take_row(intake, config, row, split=split, file=file, line=line, metadata=metadata)


def read_csv(intake: Intake, places: Places, config: DataConfig) -> None:
    """Read tables with a header; columns that ``data.fields`` does not name become metadata."""
    fields = _fields_of(config)
    named = {fields.image, fields.label, fields.split}
    for split, file in _annotation_files(intake, places, (".csv", ".tsv")):
        source = relative_to_root(file, intake.root)
        for line, row in _table(intake, fields, file, source):
            metadata = {key: value for key, value in row.items() if key not in named}
            _take_row(intake, config, row, split=split, file=file, line=line, metadata=metadata)


SOURCES: dict[str, Reader] = {"folder": read_folder, "jsonl": read_jsonl, "csv": read_csv}


def _refuse_some_splits(intake: Intake) -> None:
    if len({bool(record.split) for record in intake.records}) < 2:
        return
    for record in intake.records:
        if not record.split:
            intake.fault(record.source, record.line, "says no split, but other rows do")


def _find_places(root: Path, config: DataConfig, suffixes: tuple[str, ...]) -> Places:
    given = {"train": config.train_path, "val": config.val_path, "test": config.test_path}
    places: Places = {}
    for split in SPLITS:
        wanted = given[split]
        if wanted is not None:
            places[split] = _given_place(root, split, wanted, wants_file=bool(suffixes))
        elif found := _usual_place(root, split, suffixes):
            places[split] = found
    if "train" in places:
        return places
    if places:
        raise DataError(
            f"{root} has {', '.join(places)} but no train",
            expected="a split named train, or no splits at all (then they are made)",
            mend="rename the folder or file, or give data.train_path=PATH",
        )
    return {"": root}


def _given_place(root: Path, split: str, wanted: str, *, wants_file: bool) -> Path:
    place = Path(os.path.abspath(root / os.path.expanduser(wanted)))
    if not (is_folder(place) or (wants_file and is_file(place))):
        raise DataError(
            f"data.{split}_path={wanted} does not exist (looked for {place})",
            expected=f"an existing folder{' or file' if wants_file else ''}, "
            "absolute or relative to data.data_root",
            mend=_nearest_existing(place),
        )
    return place


def _usual_place(root: Path, split: str, suffixes: tuple[str, ...]) -> Path | None:
    found = [child for child in _listing(root) if _is_usual_place(child, split, suffixes)]
    if len(found) > 1:
        raise DataError(
            f"{root} has {' and '.join(child.name for child in found)}; which is {split}?",
            expected=f"one of them, or data.{split}_path to say which",
            mend=f"data.{split}_path={found[0].name}",
        )
    return found[0] if found else None


def _is_usual_place(child: Path, split: str, suffixes: tuple[str, ...]) -> bool:
    names = SPLIT_NAMES[split]
    if not suffixes:
        return child.name.lower() in names and is_folder(child)
    if is_file(child):
        return child.stem.lower() in names and child.suffix.lower() in suffixes
    # A folder of images beside the file that lists them is no annotation.
    is_named = child.name.lower() in names and is_folder(child)
    return is_named and next(_walk(Intake(root=child), child, suffixes), None) is not None


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"cannot list the folder {folder}: {error.strerror or error}",
            expected="a folder that this user may read",
            mend="give read and search permission on it",
        ) from error


def _nearest_existing(path: Path) -> str:
    parent = next(folder for folder in (*path.parents, path) if is_folder(folder))
    try:
        names = sorted(child.name for child in parent.iterdir() if not child.name.startswith("."))
    except OSError:
        return f"correct the path; {parent} exists but cannot be listed"
    listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"correct the path; {parent} exists and holds: {listed or 'nothing'}"


def _no_images(root: Path, places: Places, config: DataConfig, intake: Intake) -> DataError:
    looked = ", ".join(str(place) for place in places.values())
    skipped = ", ".join(f"{count} {reason}" for reason, count in intake.skipped.items())
    layouts = {
        "folder": "CLASS/image.jpg inside it, or train/CLASS/image.jpg",
        "jsonl": "*.jsonl files with one JSON object a line",
        "csv": "*.csv files with a header",
    }
    return DataError(
        f"no labelled images found in {looked}" + (f" (skipped: {skipped})" if skipped else ""),
        expected=layouts[config.source],
        mend=f"check data.data_root={root}, or choose data=folder, data=jsonl or data=csv"
        + ("; if train is a class, data.train_path=." if "train" in places else ""),
    )


def _children(intake: Intake, folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        _note_unlistable(intake, error)
        return []


def _note_unlistable(intake: Intake, error: OSError) -> None:
    name = relative_to_root(Path(str(error.filename)), intake.root)
    intake.fault(name, 0, f"cannot be listed: {error.strerror or error}")


def _walk(
    intake: Intake, top: Path, suffixes: Collection[str], other: str | None = None
) -> Iterator[Path]:
    """Yield the files below ``top`` with such an ending that are not hidden.

    Args:
        intake: Takes note of what is skipped, and of folders that cannot be listed.
        top: Where to begin.
        suffixes: Lower-case endings.
        other: The reason under which further files are counted; None does not count them.
    """

    def skip(reason: str) -> None:
        intake.skipped[reason] += 1

    for path in walk_files(
        top, on_skip=skip, on_error=lambda error: _note_unlistable(intake, error)
    ):
        is_wanted = path.suffix.lower() in suffixes
        if path.name.startswith("."):
            if is_wanted or other:
                skip("hidden")
        elif is_wanted:
            yield path
        elif other:
            skip(other)


def _read_class_folder(intake: Intake, split: str, place: Path, folder: Path) -> None:
    root = intake.root if place.is_relative_to(intake.root) else place
    for path in _walk(intake, folder, IMAGE_EXTENSIONS, other="not an image file"):
        source = relative_to_root(path, intake.root)
        if reason := escape(path, root):
            intake.fault(source, 0, reason)
        else:
            intake.records.append(Record(source, folder.name, split, source, 0, ""))


def _fields_of(config: DataConfig) -> FieldsConfig:
    assert config.fields is not None  # a conflict rule says so before anything is read
    return config.fields


def _annotation_files(
    intake: Intake, places: Places, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, Path]]:
    for split, place in places.items():
        if is_file(place):
            yield split, place
            continue
        files = sorted(_walk(intake, place, suffixes))
        if not files:
            intake.fault(str(place), 0, f"holds no {' or '.join(suffixes)} file")
        for file in files:
            yield split, file


def _content(intake: Intake, file: Path, source: str) -> bytes:
    try:
        return file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        intake.fault(source, 0, f"cannot be read: {error.strerror or error}")
        return b""


def _lines(intake: Intake, file: Path, source: str) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(_content(intake, file, source).splitlines(), start=1):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            intake.fault(source, number, "is not UTF-8 text")
            continue
        if text.strip():
            yield number, text


def _parse_json(intake: Intake, source: str, line: int, text: str) -> dict[str, Any] | None:
    try:
        row = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:  # not JSON; a number of 5,000 digits; [[[[[…
        intake.fault(source, line, f"is not JSON: {error}")
        return None
    if not isinstance(row, dict):
        intake.fault(source, line, f"is not a JSON object but {type(row).__name__}")
        return None
    return row


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"a key stands twice among {', '.join(repr(key) for key, _ in pairs)}")
    return row


def _table(
    intake: Intake, fields: FieldsConfig, file: Path, source: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a table with the line each begins on; a quoted cell may span lines."""
    content = _content(intake, file, source)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        intake.fault(source, content[: error.start].count(b"\n") + 1, "is not UTF-8 text")
        return
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins = 1
    try:
        header = next(reader, [])
        if fault := _header_fault(header, fields):
            intake.fault(source, 1, fault)
            return
        begins = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                intake.fault(source, begins, f"has {len(cells)} columns instead of {len(header)}")
            elif cells:
                yield begins, dict(zip(header, cells, strict=True))
            begins = reader.line_num + 1
    except csv.Error as error:
        intake.fault(source, begins, f"is not CSV: {error}")


def _header_fault(header: list[str], fields: FieldsConfig) -> str:
    known = ", ".join(map(repr, header)) or "nothing"
    for name in (fields.image, fields.label):
        if name not in header:
            return f"has no column {name!r}; it has: {known}"
    if len(set(header)) < len(header):
        return f"names a column twice: {known}"
    return ""


class _RowError(Exception):
    """What is wrong with one row."""


def _take_row(
    intake: Intake,
    config: DataConfig,
    row: Mapping[str, Any],
    *,
    split: str,
    file: Path,
    line: int,
    metadata: Any,
) -> None:
    fields = _fields_of(config)
    source = relative_to_root(file, intake.root)
    try:
        label = _label_of(row, fields.label)
        if not label and config.on_empty_label == "skip":
            intake.skipped["empty label"] += 1
            return
        if reason := _unfit_label(label):
            raise _RowError(reason)
        row_split = _split_of(row, fields.split, split)
        path = _image_of(row, fields.image, file, intake.root)
        stored = _metadata_text(metadata)
    except _RowError as error:
        intake.fault(source, line, str(error))
        return
    intake.records.append(Record(path, label, row_split, source, line, stored))


def _label_of(row: Mapping[str, Any], name: str) -> str:
    """Return the label, empty when there is only white space."""
    label = row.get(name)
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise _RowError(_no_text(row, name))
    text = str(label)
    return text if text.strip() else ""


def _unfit_label(label: str) -> str:
    """Say why a label cannot be a class name; empty when it can."""
    if not label.strip():
        return "the label is empty (data.on_empty_label=skip leaves such rows out)"
    try:
        label.encode("utf-8")
    except UnicodeEncodeError:
        return f"the label {label!r} is not Unicode text"
    return "the label holds a NUL character" if "\0" in label else ""


def _no_text(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return f"{name!r} is missing; the row has {', '.join(map(repr, row))[:80] or 'nothing'}"
    return f"{name!r} is no text but {type(row[name]).__name__}"


def _split_of(row: Mapping[str, Any], name: str | None, split: str) -> str:
    if name is None or name not in row:
        return split
    said = row[name]
    known = next((known for known, names in SPLIT_NAMES.items() if said in names), "")
    if split and known and known != split:
        raise _RowError(f"split {said!r} contradicts the file, which is listed as {split}")
    if not split and not known:
        raise _RowError(f"split {str(said)[:40]!r} is none of train, val, test")
    return split or known


def _image_of(row: Mapping[str, Any], name: str, file: Path, root: Path) -> str:
    """Return the path of the row's image, relative to the data root."""
    image = row.get(name)
    if not isinstance(image, str):
        raise _RowError(_no_text(row, name))
    found = inside(image, file.parent, root if file.is_relative_to(root) else file.parent)
    if isinstance(found, str):
        raise _RowError(found)
    if not is_file(found):
        raise _RowError(f"the image {image!r} does not exist (looked for {found})")
    return relative_to_root(found, root)


def _metadata_text(metadata: Any) -> str:
    if not metadata:
        return ""
    try:
        text = json.dumps(metadata, ensure_ascii=False, sort_keys=True)
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair: kept as an escape
        return json.dumps(metadata, sort_keys=True)
    except RecursionError as error:
        raise _RowError("its metadata is nested too deeply") from error
    return text
