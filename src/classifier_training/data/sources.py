"""The ways labelled images can lie on disk. A new one is a function and a line in ``SOURCES``."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from classifier_training.config.schema import DataConfig, FieldsConfig
from classifier_training.data.records import (
    SPLIT_NAMES,
    SPLITS,
    Intake,
    Record,
    inside,
    relative_to_root,
)
from classifier_training.errors import DataError
from classifier_training.runtime.images import IMAGE_EXTENSIONS

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
    if not root.is_dir():
        raise DataError(
            f"data.data_root={config.data_root} is not a folder",
            expected="the folder that holds your labelled images",
            mend=_nearest_existing(root),
        )
    suffixes = {"folder": (), "jsonl": (".jsonl",), "csv": (".csv", ".tsv")}[config.source]
    places = _find_places(root, config, suffixes)
    intake = Intake(root)
    SOURCES[config.source](intake, places, config)
    intake.raise_faults()
    if not intake.records:
        raise _no_images(root, places, config, intake)
    return intake


def read_folder(intake: Intake, places: Places, _config: DataConfig) -> None:
    """Read ``PLACE/CLASS/**/image``: the name of the first folder is the label."""
    for split, place in places.items():
        for class_folder in sorted(place.iterdir()):
            if class_folder.name.startswith("."):
                intake.skipped["hidden"] += 1
            elif not class_folder.is_dir():
                intake.skipped["not in a class folder"] += 1
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
                _take_row(intake, config, fields, row, split=split, file=file, line=line)


def read_csv(intake: Intake, places: Places, config: DataConfig) -> None:
    """Read tables with a header; columns that ``data.fields`` does not name become metadata."""
    fields = _fields_of(config)
    for split, file in _annotation_files(intake, places, (".csv", ".tsv")):
        source = relative_to_root(file, intake.root)
        numbered = _lines(intake, file, source, skip_blank=False)
        reader = csv.DictReader(
            (text + "\n" for _, text in numbered),
            delimiter="\t" if file.suffix == ".tsv" else ",",
            strict=True,
        )
        _read_table(intake, config, fields, reader, split=split, file=file, source=source)


SOURCES: dict[str, Reader] = {"folder": read_folder, "jsonl": read_jsonl, "csv": read_csv}


def _find_places(root: Path, config: DataConfig, suffixes: tuple[str, ...]) -> Places:
    given = {"train": config.train_path, "val": config.val_path, "test": config.test_path}
    places: Places = {}
    for split in SPLITS:
        wanted = given[split]
        if wanted is not None:
            places[split] = _given_place(root, split, wanted, is_folder=not suffixes)
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


def _given_place(root: Path, split: str, wanted: str, *, is_folder: bool) -> Path:
    place = Path(os.path.abspath(root / os.path.expanduser(wanted)))
    if not (place.is_dir() if is_folder else place.exists()):
        raise DataError(
            f"data.{split}_path={wanted} does not exist (looked for {place})",
            expected=f"an existing folder{'' if is_folder else ' or file'}, "
            "absolute or relative to data.data_root",
            mend=_nearest_existing(place),
        )
    return place


def _usual_place(root: Path, split: str, suffixes: tuple[str, ...]) -> Path | None:
    for name in SPLIT_NAMES[split]:
        for candidate in (root / name, *(root / f"{name}{suffix}" for suffix in suffixes)):
            if candidate.is_dir() or (suffixes and candidate.is_file()):
                return candidate
    return None


def _nearest_existing(path: Path) -> str:
    parent = next(folder for folder in path.parents if folder.is_dir())
    names = sorted(child.name for child in parent.iterdir() if not child.name.startswith("."))
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
        mend=f"check data.data_root={root}, or choose data=folder, data=jsonl or data=csv",
    )


def _read_class_folder(intake: Intake, split: str, place: Path, folder: Path) -> None:
    for parent, directories, names in os.walk(folder, followlinks=True):
        directories.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith("."):
                intake.skipped["hidden"] += 1
            elif path.suffix.lower() not in IMAGE_EXTENSIONS:
                intake.skipped["not an image file"] += 1
            else:
                _take_file(intake, split, place, folder.name, path)


def _take_file(intake: Intake, split: str, place: Path, label: str, path: Path) -> None:
    root = intake.root if place.is_relative_to(intake.root) else place
    source = relative_to_root(path, intake.root)
    found = inside(str(path.relative_to(root)), root, root)
    if isinstance(found, str):
        intake.fault(source, 0, found)
    else:
        intake.records.append(Record(source, label, split, source, 0, ""))


def _fields_of(config: DataConfig) -> FieldsConfig:
    assert config.fields is not None  # a conflict rule says so before anything is read
    return config.fields


def _annotation_files(
    intake: Intake, places: Places, suffixes: tuple[str, ...]
) -> Iterator[tuple[str, Path]]:
    for split, place in places.items():
        if place.is_file():
            yield split, place
            continue
        files = sorted(path for path in place.rglob("*") if path.suffix.lower() in suffixes)
        if not files:
            intake.fault(str(place), 0, f"holds no {' or '.join(suffixes)} file")
        for file in files:
            yield split, file


def _lines(
    intake: Intake, file: Path, source: str, *, skip_blank: bool = True
) -> Iterator[tuple[int, str]]:
    try:
        content = file.read_bytes()
    except OSError as error:
        intake.fault(source, 0, f"cannot be read: {error.strerror or error}")
        return
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            intake.fault(source, number, "is not UTF-8 text")
            continue
        if text.strip() or not skip_blank:
            yield number, text


def _parse_json(intake: Intake, source: str, line: int, text: str) -> dict[str, Any] | None:
    try:
        row = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        intake.fault(source, line, f"is not JSON: {error}")
        return None
    if not isinstance(row, dict):
        intake.fault(source, line, f"is not a JSON object but {type(row).__name__}")
        return None
    return row


def _read_table(
    intake: Intake,
    config: DataConfig,
    fields: FieldsConfig,
    reader: csv.DictReader[str],
    *,
    split: str,
    file: Path,
    source: str,
) -> None:
    named = {fields.image, fields.label, fields.split}
    try:
        header = reader.fieldnames or []
        absent = [name for name in (fields.image, fields.label) if name not in header]
        if absent:
            known = ", ".join(header) or "nothing"
            intake.fault(source, 1, f"has no column {absent[0]!r}; it has: {known}")
            return
        for row in reader:
            if None in row or None in row.values():
                intake.fault(source, reader.line_num, f"does not have {len(header)} columns")
                continue
            extra = {key: value for key, value in row.items() if key not in named}
            content: dict[str, Any] = {**row, _CSV_METADATA: extra}
            _take_row(intake, config, fields, content, split=split, file=file, line=reader.line_num)
    except csv.Error as error:
        intake.fault(source, reader.line_num, f"is not CSV: {error}")


# No column can have this name: it holds a NUL character.
_CSV_METADATA = "\0metadata"


def _take_row(
    intake: Intake,
    config: DataConfig,
    fields: FieldsConfig,
    row: dict[str, Any],
    *,
    split: str,
    file: Path,
    line: int,
) -> None:
    source = relative_to_root(file, intake.root)
    label = _label_of(row, fields)
    if label == "":
        if config.on_empty_label == "skip":
            intake.skipped["empty label"] += 1
        else:
            intake.fault(
                source, line, "the label is empty (data.on_empty_label=skip leaves such rows out)"
            )
        return
    row_split = _split_of(row, fields, split)
    image = row.get(fields.image)
    root = intake.root if file.is_relative_to(intake.root) else file.parent
    found = inside(image, file.parent, root) if isinstance(image, str) else None
    if label is None:
        intake.fault(source, line, f"{fields.label!r} is missing or no text: {row!r:.80}")
    elif row_split is None:
        intake.fault(source, line, f"split {row[str(fields.split)]!r} is none of train, val, test")
    elif found is None:
        intake.fault(source, line, f"{fields.image!r} is missing or no text: {row!r:.80}")
    elif isinstance(found, str):
        intake.fault(source, line, found)
    elif not found.is_file():
        intake.fault(source, line, f"the image {image!r} does not exist (looked for {found})")
    else:
        path = relative_to_root(found, intake.root)
        metadata = _metadata_of(row, fields)
        intake.records.append(Record(path, label, row_split, source, line, metadata))


def _label_of(row: dict[str, Any], fields: FieldsConfig) -> str | None:
    label = row.get(fields.label)
    if isinstance(label, bool) or not isinstance(label, str | int):
        return None
    return str(label)


def _split_of(row: dict[str, Any], fields: FieldsConfig, split: str) -> str | None:
    if split or fields.split is None or fields.split not in row:
        return split
    name = row[fields.split]
    return next((known for known, names in SPLIT_NAMES.items() if name in names), None)


def _metadata_of(row: dict[str, Any], fields: FieldsConfig) -> str:
    metadata = row.get(_CSV_METADATA) or (row.get(fields.metadata) if fields.metadata else None)
    return json.dumps(metadata, ensure_ascii=False, sort_keys=True) if metadata else ""
