"""One annotated row to one record, or the reason why it cannot be one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classifier_training.config.schema import DataConfig, FieldsConfig
from classifier_training.data.records import (
    SPLIT_NAMES,
    Intake,
    Record,
    inside,
    is_file,
    relative_to_root,
)


def fields_of(config: DataConfig) -> FieldsConfig:
    """Return the names of the columns."""
    assert config.fields is not None  # a conflict rule says so before anything is read
    return config.fields


class _RowError(Exception):
    """What is wrong with one row."""


def take_row(
    intake: Intake,
    config: DataConfig,
    row: Mapping[str, Any],
    *,
    split: str,
    file: Path,
    line: int,
) -> None:
    """Take a row into the intake, as a record, a skipped row or a fault.

    Args:
        intake: Takes it.
        config: Names of the fields, and what an empty label means.
        row: By column name or key.
        split: The split that its file stands for, empty when it stands for all.
        file: Where the row stands.
        line: The line in it, from 1.
    """
    fields = fields_of(config)
    source = relative_to_root(file, intake.root)
    try:
        label = _label_of(row, fields.label)
        is_empty = not label
        if is_empty and config.on_empty_label == "skip":
            intake.skipped["empty label"] += 1
            return
        if is_empty and config.on_empty_label == "class":
            label = str(config.empty_label_name)
        if reason := unfit_label(label):
            raise _RowError(reason)
        row_split = _split_of(row, fields.split, split)
        path = _image_of(row, fields.image, file, intake.root)
        stored = _metadata_text(_further_facts(row, fields))
    except _RowError as error:
        intake.fault(source, line, str(error))
        return
    except RecursionError:
        intake.fault(source, line, "its metadata is nested too deeply")
        return
    intake.empty_labels += is_empty
    intake.records.append(Record(path, label, row_split, source, line, stored))


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
