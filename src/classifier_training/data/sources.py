"""The ways labelled images can lie on disk. A new one is a function and a line in ``SOURCES``."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from classifier_training.config.schema import DataConfig, FieldsConfig
from classifier_training.data.locations import Places, find_places, nearest_existing
from classifier_training.data.records import (
    SPLIT_NAMES,
    Record,
    RowCollector,
    escape,
    inside,
    is_file,
    is_folder,
    relative_to_root,
)
from classifier_training.data.walk import note_unlistable, walk
from classifier_training.errors import DataError
from classifier_training.inference.images import IMAGE_EXTENSIONS


def fields_of(config: DataConfig) -> FieldsConfig:
    """Return the names of the columns."""
    assert config.fields is not None  # a conflict rule says so before anything is read
    return config.fields


class _RowError(Exception):
    """What is wrong with one row."""


def take_row(
    collector: RowCollector,
    config: DataConfig,
    row: Mapping[str, Any],
    *,
    split: str,
    file: Path,
    line: int,
) -> None:
    """Take a row into the collector, as a record, a skipped row or a fault.

    Args:
        collector: Takes it.
        config: Names of the fields, and what an empty label means.
        row: By column name or key.
        split: The split that its file stands for, empty when it stands for all.
        file: Where the row stands.
        line: The line in it, from 1.
    """
    fields = fields_of(config)
    source = relative_to_root(file, collector.root)
    try:
        label = _label_of(row, fields.label)
        is_empty = not label
        if is_empty and config.on_empty_label == "skip":
            collector.skipped["empty label"] += 1
            return
        if is_empty and config.on_empty_label == "class":
            label = str(config.empty_label_name)
        if reason := unfit_label(label):
            raise _RowError(reason)
        row_split = _split_of(row, fields.split, split)
        path = _image_of(row, fields.image, file, collector.root)
        stored = _metadata_text(_further_facts(row, fields))
    except _RowError as error:
        collector.fault(source, line, str(error))
        return
    except RecursionError:
        collector.fault(source, line, "its metadata is nested too deeply")
        return
    collector.empty_labels += is_empty
    collector.records.append(Record(path, label, row_split, source, line, stored))


def _label_of(row: Mapping[str, Any], name: str) -> str:
    """Return the label, empty when there is only white space."""
    label = row.get(name)
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise _RowError(_no_text(row, name))
    text = str(label)
    return text if text.strip() else ""


def unfit_label(label: str) -> str:
    """Say why a label cannot be a class name; empty when it can."""
    if not label.strip():
        return "the label is empty (data.on_empty_label=skip leaves such rows out, class names it)"
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


def _further_facts(row: Mapping[str, Any], fields: FieldsConfig) -> Any:
    """Return what a row says besides image, label and split, JSON-like.

    Keys of the object under ``fields.metadata`` and further keys of the row stand side by side.

    Raises:
        _RowError: A key stands in both with different values.
    """
    named = {fields.image, fields.label, fields.split, fields.metadata}
    further = {key: value for key, value in row.items() if key not in named}
    metadata = row.get(fields.metadata) if fields.metadata is not None else None
    if not metadata:
        return further
    if not isinstance(metadata, Mapping):
        return {fields.metadata: metadata, **further}
    for key in further.keys() & metadata.keys():
        if further[key] != metadata[key]:
            raise _RowError(f"{key!r} is different in the row and in its {fields.metadata!r}")
    return {**further, **metadata}


def _metadata_text(metadata: Any) -> str:
    if not metadata:
        return ""
    try:
        text = json.dumps(metadata, ensure_ascii=False, sort_keys=True)
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair: kept as an escape
        return json.dumps(metadata, sort_keys=True)
    return text


Reader = Callable[[RowCollector, Places, DataConfig], None]


def read_source(config: DataConfig, *, tolerated: list[str] | None = None) -> RowCollector:
    """Read all rows that the configuration points at.

    Args:
        config: Says where and what.
        tolerated: Takes faults of rows, which are then left out; None: they are raised.

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
            fix=nearest_existing(root),
        )
    suffixes = {"folder": (), "jsonl": (".jsonl",), "csv": (".csv", ".tsv")}[config.source]
    places = find_places(root, config, suffixes)
    collector = RowCollector(root, tolerated=tolerated)
    SOURCES[config.source](collector, places, config)
    _refuse_some_splits(collector)
    collector.raise_faults()
    if not collector.records:
        raise _no_images(root, places, config, collector)
    return collector


def read_folder(collector: RowCollector, places: Places, _config: DataConfig) -> None:
    """Read ``PLACE/CLASS/**/image``: the name of the first folder is the label."""
    for split, place in places.items():
        for class_folder in _children(collector, place):
            if class_folder.name.startswith("."):
                collector.skipped["hidden"] += 1
            elif not is_folder(class_folder):
                collector.skipped["not in a class folder"] += 1
            elif reason := unfit_label(class_folder.name):
                collector.fault(relative_to_root(class_folder, collector.root), 0, reason)
            else:
                _read_class_folder(collector, split, place, class_folder)


def read_jsonl(collector: RowCollector, places: Places, config: DataConfig) -> None:
    """Read one JSON object a line; several files of a split are merged."""
    for split, file in _annotation_files(collector, places, (".jsonl",)):
        source = relative_to_root(file, collector.root)
        for line, text in _lines(collector, file, source):
            row = _parse_json(collector, source, line, text)
            if row is not None:
                take_row(collector, config, row, split=split, file=file, line=line)


def read_csv(collector: RowCollector, places: Places, config: DataConfig) -> None:
    """Read tables with a header; further columns become metadata."""
    fields = fields_of(config)
    for split, file in _annotation_files(collector, places, (".csv", ".tsv")):
        source = relative_to_root(file, collector.root)
        for line, row in _table(collector, fields, file, source):
            take_row(collector, config, row, split=split, file=file, line=line)


SOURCES: dict[str, Reader] = {"folder": read_folder, "jsonl": read_jsonl, "csv": read_csv}


def _refuse_some_splits(collector: RowCollector) -> None:
    if len({bool(record.split) for record in collector.records}) < 2:
        return
    for record in collector.records:
        if not record.split:
            collector.fault(record.source, record.line, "says no split, but other rows do")
    collector.records = [record for record in collector.records if record.split]


def _no_images(
    root: Path, places: Places, config: DataConfig, collector: RowCollector
) -> DataError:
    looked = ", ".join(str(place) for place in places.values())
    skipped = ", ".join(f"{count} {reason}" for reason, count in collector.skipped.items())
    layouts = {
        "folder": "CLASS/image.jpg inside it, or train/CLASS/image.jpg",
        "jsonl": "*.jsonl files with one JSON object a line",
        "csv": "*.csv files with a header",
    }
    return DataError(
        f"no labelled images found in {looked}" + (f" (skipped: {skipped})" if skipped else ""),
        expected=layouts[config.source],
        fix=f"check data.data_root={root}, or choose data=folder, data=jsonl or data=csv"
        + ("; if train is a class, data.train_path=." if "train" in places else ""),
    )


def _children(collector: RowCollector, folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        note_unlistable(collector, error)
        return []


def _read_class_folder(collector: RowCollector, split: str, place: Path, folder: Path) -> None:
    root = collector.root if place.is_relative_to(collector.root) else place
    for path in walk(collector, folder, IMAGE_EXTENSIONS, other="not an image file"):
        source = relative_to_root(path, collector.root)
        if reason := escape(path, root):
            collector.fault(source, 0, reason)
        else:
            collector.records.append(Record(source, folder.name, split, source, 0, ""))


def _annotation_files(
    collector: RowCollector, places: Places, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, Path]]:
    for split, place in places.items():
        if is_file(place):
            yield split, place
            continue
        files = sorted(walk(collector, place, suffixes))
        if not files:
            collector.fault(str(place), 0, f"holds no {' or '.join(suffixes)} file")
        for file in files:
            yield split, file


def _content(collector: RowCollector, file: Path, source: str) -> bytes:
    try:
        return file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        collector.fault(source, 0, f"cannot be read: {error.strerror or error}")
        return b""


def _lines(collector: RowCollector, file: Path, source: str) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(_content(collector, file, source).splitlines(), start=1):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            collector.fault(source, number, "is not UTF-8 text")
            continue
        if text.strip():
            yield number, text


def _parse_json(
    collector: RowCollector, source: str, line: int, text: str
) -> dict[str, Any] | None:
    try:
        row = json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:  # not JSON; a number of 5,000 digits; [[[[[…
        collector.fault(source, line, f"is not JSON: {error}")
        return None
    if not isinstance(row, dict):
        collector.fault(source, line, f"is not a JSON object but {type(row).__name__}")
        return None
    return row


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError(f"a key stands twice among {', '.join(repr(key) for key, _ in pairs)}")
    return row


def _table(
    collector: RowCollector, fields: FieldsConfig, file: Path, source: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a table with the line each begins on; a quoted cell may span lines."""
    content = _content(collector, file, source)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        collector.fault(source, content[: error.start].count(b"\n") + 1, "is not UTF-8 text")
        return
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins = 1
    try:
        header = next(reader, [])
        if fault := _header_fault(header, fields):
            collector.fault(source, 1, fault)
            return
        begins = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                collector.fault(
                    source, begins, f"has {len(cells)} columns instead of {len(header)}"
                )
            elif cells:
                yield begins, dict(zip(header, cells, strict=True))
            begins = reader.line_num + 1
    except csv.Error as error:
        collector.fault(source, begins, f"is not CSV: {error}")


def _header_fault(header: list[str], fields: FieldsConfig) -> str:
    known = ", ".join(map(repr, header)) or "nothing"
    for name in (fields.image, fields.label):
        if name not in header:
            return f"has no column {name!r}; it has: {known}"
    if len(set(header)) < len(header):
        return f"names a column twice: {known}"
    return ""
