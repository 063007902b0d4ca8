"""Labels that a person corrected: a CSV that is applied when the data is indexed."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from classifier_training.data.records import Record, RowCollector, is_file
from classifier_training.errors import DataError
from classifier_training.inference.class_map import ClassMap

PATH, GIVEN, CORRECTED, ACTION = "path", "given", "corrected", "action"
ACTIONS = ("relabel", "drop", "keep")


@dataclass(frozen=True)
class _Correction:
    """What one row asks for: another label, or (``None``) to leave the image out."""

    line: int
    label: str | None


def apply_corrections(
    records: Sequence[Record], name: str, collector: RowCollector, classes: ClassMap
) -> tuple[list[Record], str]:
    """Relabel and drop records as a corrections file says.

    Splits stay as they are, so that scores before and after are of the same images.

    Args:
        records: Each with its own path.
        name: ``data.corrections``: absolute, or from here or the data root.
        collector: Its root, and where faulty rows and dropped images are noted.
        classes: The labels that there are.

    Returns:
        The records, and a sentence about what was done.

    Raises:
        DataError: The file cannot be read, or has rows that do not fit the data.
    """
    by_path = {record.path: record for record in records}
    wanted: dict[str, _Correction] = {}
    for line, row in _rows(name, collector.root):
        if not (row[CORRECTED] or row[ACTION]):
            continue
        if fault := _fault(row, by_path, wanted, classes):
            collector.fault(name, line, fault)
        elif row[ACTION] != "keep":
            label = None if row[ACTION] == "drop" else row[CORRECTED]
            wanted[row[PATH]] = _Correction(line, label)
    collector.raise_faults()
    counts: Counter[str] = Counter()
    kept = []
    for record in records:
        correction = wanted.get(record.path)
        if correction is None:
            kept.append(record)
        elif correction.label is None:
            counts["dropped"] += 1
        else:
            counts["relabelled" if correction.label != record.label else "right already"] += 1
            kept.append(record._replace(label=correction.label))
    if counts["dropped"]:
        collector.skipped["dropped by data.corrections"] = counts["dropped"]
    done = ", ".join(f"{counts[what]} {what}" for what in ("relabelled", "dropped"))
    already = f", {counts['right already']} right already" if counts["right already"] else ""
    return kept, f"corrections of {name}: {done}{already}"


def _fault(
    row: Mapping[str, str],
    by_path: Mapping[str, Record],
    wanted: Mapping[str, _Correction],
    classes: ClassMap,
) -> str:
    """Say what is wrong with a row that asks for something; empty when nothing is."""
    path, action, label = row[PATH], row[ACTION], row[CORRECTED]
    if action and action not in ACTIONS:
        return f"the {ACTION} {action!r} is unknown; there are: {', '.join(ACTIONS)} and nothing"
    if action in ("drop", "keep") and label:
        return f"asks to {action} the image and for the label {label!r}; give one of the two"
    if action == "relabel" and not label:
        return f"asks to relabel the image, but the column {CORRECTED} is empty"
    record = by_path.get(path)
    if record is None:
        return f"{path!r} is no image of the data"
    if label and label not in classes:
        close = classes.closest(label)
        return f"{label!r} is no class of the data" + (
            f"; did you mean {close!r}?" if close else ""
        )
    if row[GIVEN] not in ("", record.label) and record.label != label:
        return (
            f"is about {path} with the label {row[GIVEN]!r}, which now is {record.label!r} "
            "(spreadsheets turn 00 into 0: import all columns as text)"
        )
    earlier = wanted.get(path)
    if earlier is not None and earlier.label != (None if action == "drop" else label):
        return f"contradicts line {earlier.line} about {path}"
    return ""


def _rows(name: str, root: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield rows with the line each begins on; columns that a file has not are empty.

    Raises:
        DataError: The file is missing, is no CSV, or has not the columns.
    """
    path = Path(os.path.expanduser(name))
    path = path if is_file(path) else root / path
    begins = 1
    try:
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        if PATH not in header or not {CORRECTED, ACTION} & set(header):
            raise csv.Error(f"it has the columns {', '.join(map(repr, header)) or '(none)'}")
        if len(set(header)) < len(header):
            raise csv.Error("a column stands twice")
        begins = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                raise csv.Error(f"{len(cells)} columns instead of {len(header)}")
            if cells:
                found = dict(zip(header, cells, strict=True))
                yield begins, {key: found.get(key, "") for key in (PATH, GIVEN, CORRECTED, ACTION)}
            begins = reader.line_num + 1
    except (OSError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"cannot use data.corrections={name}: line {begins}: {reason}"
            if isinstance(error, csv.Error)
            else f"cannot read data.corrections={name}: {reason}",
            expected=f"a CSV file with commas and the columns {PATH} and {CORRECTED} or {ACTION}, "
            "such as the suspects.csv of `classifier suspects`",
            fix="correct the file or its path (absolute, or from here or data.data_root)",
        ) from error
