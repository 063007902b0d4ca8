"""Which images belong together, so that no split may cut them: ``data.group_by``."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from typing import Any

from classifier_training.config.grouping import GroupBy, parse_group_by
from classifier_training.data.records import Intake, Record
from classifier_training.errors import DataError


def assign_groups(
    records: list[Record], group_by: str | None, intake: Intake
) -> tuple[list[Record], str]:
    """Give every record the name of its group, empty for an image of its own.

    Args:
        records: What the sources gave.
        group_by: ``data.group_by``.
        intake: Takes rows whose field cannot be a name.

    Returns:
        The records, and a sentence about what was found (empty without ``group_by``).

    Raises:
        DataError: No image has a group, or a row's field is a list or an object.
    """
    if group_by is None:
        return records, ""
    rule = parse_group_by(group_by)
    grouped = [record._replace(group=_group_of(record, rule, intake)) for record in records]
    intake.raise_faults()
    sizes = Counter(record.group for record in grouped)
    alone = sizes.pop("", 0)
    if not sizes:
        raise _nothing_found(records, rule, group_by)
    note = f"{len(sizes):,} groups by {group_by}, the largest of {max(sizes.values()):,} images"
    return grouped, note + (f"; {alone:,} images have none" if alone else "")


def _group_of(record: Record, rule: GroupBy, intake: Intake) -> str:
    if rule.pattern is not None:
        found = rule.pattern.search(record.path)
        return (found.group(1) or "") if found else ""
    value = _facts(record).get(str(rule.field))
    if isinstance(value, list | dict):
        kind = type(value).__name__
        intake.fault(record.source, record.line, f"{rule.field!r} is no group name but {kind}")
        return ""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _facts(record: Record) -> dict[str, Any]:
    facts = json.loads(record.metadata) if record.metadata else {}
    return facts if isinstance(facts, dict) else {}


def _nothing_found(records: list[Record], rule: GroupBy, group_by: str) -> DataError:
    if rule.pattern is not None:
        return DataError(
            f"data.group_by={group_by} finds a group in no path, for example not in "
            f"{records[0].path}",
            expected="a regular expression that is found in the paths, relative to data.data_root",
            mend="correct the expression; it is searched, so it need not match from the start",
        )
    known = sorted({key for record in records for key in _facts(record)})
    close = difflib.get_close_matches(str(rule.field), known, n=1)
    return DataError(
        f"data.group_by={group_by}: no row has a {rule.field!r}",
        expected=f"one of the further fields of the rows: {', '.join(known[:12]) or 'none'}",
        mend=f"data.group_by=field:{close[0]}" if close else "choose one of them, or path:REGEX",
    )
