"""The ways labelled images can lie on disk. A new one is a function and a line in ``SOURCES``."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from classifier_training.config.schema import DataConfig, FieldsConfig
from classifier_training.data.places import Places, find_places, nearest_existing
from classifier_training.data.records import (
    Intake,
    Record,
    escape,
    is_file,
    is_folder,
    relative_to_root,
)
from classifier_training.data.rows import fields_of, take_row, unfit_label
from classifier_training.data.walk import note_unlistable, walk
from classifier_training.errors import DataError
from classifier_training.runtime.images import IMAGE_EXTENSIONS

Reader = Callable[[Intake, Places, DataConfig], None]


def read_source(config: DataConfig, *, tolerated: list[str] | None = None) -> Intake:
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
            mend=nearest_existing(root),
        )
    suffixes = {"folder": (), "jsonl": (".jsonl",), "csv": (".csv", ".tsv")}[config.source]
    places = find_places(root, config, suffixes)
    intake = Intake(root, tolerated=tolerated)
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
            elif reason := unfit_label(class_folder.name):
                intake.fault(relative_to_root(class_folder, intake.root), 0, reason)
            else:
                _read_class_folder(intake, split, place, class_folder)


def read_jsonl(intake: Intake, places: Places, config: DataConfig) -> None:
    """Read one JSON object a line; several files of a split are merged."""
    for split, file in _annotation_files(intake, places, (".jsonl",)):
        source = relative_to_root(file, intake.root)
        for line, text in _lines(intake, file, source):
            row = _parse_json(intake, source, line, text)
            if row is not None:
                take_row(intake, config, row, split=split, file=file, line=line)


def read_csv(intake: Intake, places: Places, config: DataConfig) -> None:
    """Read tables with a header; further columns become metadata."""
    fields = fields_of(config)
    for split, file in _annotation_files(intake, places, (".csv", ".tsv")):
        source = relative_to_root(file, intake.root)
        for line, row in _table(intake, fields, file, source):
            take_row(intake, config, row, split=split, file=file, line=line)


SOURCES: dict[str, Reader] = {"folder": read_folder, "jsonl": read_jsonl, "csv": read_csv}


def _refuse_some_splits(intake: Intake) -> None:
    if len({bool(record.split) for record in intake.records}) < 2:
        return
    for record in intake.records:
        if not record.split:
            intake.fault(record.source, record.line, "says no split, but other rows do")
    intake.records = [record for record in intake.records if record.split]


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
        note_unlistable(intake, error)
        return []


def _read_class_folder(intake: Intake, split: str, place: Path, folder: Path) -> None:
    root = intake.root if place.is_relative_to(intake.root) else place
    for path in walk(intake, folder, IMAGE_EXTENSIONS, other="not an image file"):
        source = relative_to_root(path, intake.root)
        if reason := escape(path, root):
            intake.fault(source, 0, reason)
        else:
            intake.records.append(Record(source, folder.name, split, source, 0, ""))


def _annotation_files(
    intake: Intake, places: Places, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, Path]]:
    for split, place in places.items():
        if is_file(place):
            yield split, place
            continue
        files = sorted(walk(intake, place, suffixes))
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
