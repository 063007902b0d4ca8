"""Automatic splits: stratified by class, whole groups, a function of (seed, path or group)."""

from __future__ import annotations

import csv
import difflib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from classifier_training.config.grouping import GroupBy, parse_group_by
from classifier_training.config.schema import SplitConfig
from classifier_training.data.records import SPLITS, Record, RowCollector, is_file
from classifier_training.data.stratify import (
    SplitGroup,
    assign_folds,
    make_split_groups,
    split_groups,
)
from classifier_training.errors import DataError


def read_known_splits(name: str, root: Path) -> dict[str, str]:
    """Read the split of each path from a CSV with the columns ``path`` and ``split``.

    Args:
        name: ``data.split.manifest``: a path from the working directory, or from ``root``.
        root: The data root.

    Raises:
        DataError: It cannot be read, or a row is at fault (named by its line).
    """
    path = Path(os.path.expanduser(name))
    path = path if is_file(path) else root / path
    known: dict[str, str] = {}
    limit = csv.field_size_limit(sys.maxsize)  # metadata may be long
    line = 1
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            table = csv.reader(file, strict=True)
            path_column, split_column = _columns(next(table, []))
            line = table.line_num + 1
            for cells in table:
                if cells:  # not a blank line
                    if len(cells) <= max(path_column, split_column):
                        raise ValueError("has too few columns")
                    _take(known, cells[path_column], cells[split_column])
                line = table.line_num + 1
    except (OSError, ValueError, csv.Error) as error:
        where = "" if isinstance(error, OSError) else f":{line}"
        raise DataError(
            f"cannot use data.split.manifest={path}{where}: {error}",
            expected="the data/manifest.csv of an earlier run, or a CSV with columns path and split"
            f" ({', '.join(SPLITS)})",
            fix="correct the path (from here, absolute, or relative to data.data_root) or the row",
        ) from error
    finally:
        csv.field_size_limit(limit)
    return known


def _columns(header: list[str]) -> tuple[int, int]:
    for name in ("path", "split"):
        if header.count(name) != 1:
            raise ValueError(f"has {header.count(name) or 'no'} column {name!r}")
    return header.index("path"), header.index("split")


def _take(known: dict[str, str], name: str, split: str) -> None:
    if not name:
        raise ValueError("the path is empty")
    if split not in SPLITS:
        raise ValueError(f"split {split[:40]!r} is none of {', '.join(SPLITS)}")
    if known.setdefault(name, split) != split:
        raise ValueError(f"{name} is {split} here and {known[name]} further up")


def fix_units(
    units: tuple[SplitGroup, ...], known: Mapping[str, str]
) -> tuple[dict[SplitGroup, str], int]:
    """Give units with known images the split of most of these.

    Returns:
        Split by unit, and the number of known images whose split changes because their group or a
        copy of theirs lies in another.
    """
    fixed: dict[SplitGroup, str] = {}
    moved = 0
    for unit in units:
        votes = Counter(known[path] for path in unit.paths if path in known)
        if votes:
            fixed[unit] = max(SPLITS, key=lambda split: votes[split])
            moved += votes.total() - votes[fixed[unit]]
    return fixed, moved


Contents = Callable[[], Mapping[str, bytes]]


def assign_splits(
    records: Sequence[Record], config: SplitConfig, *, contents: Contents = dict, root: Path
) -> tuple[list[Record], tuple[str, ...]]:
    """Give every record a split, taking what the data does not bring from its training part.

    Data without any split is cut into train, val and test; data with a train but no val gives up
    a share of its train. A missing test stays missing when train exists: it was decided by whoever
    split the data. With folds, everything but test is dealt anew.

    Args:
        records: Each with its own path.
        config: Shares, seed, folds, known splits.
        contents: Gives the hash of each content by path; called only when something is split.
        root: The data root.

    Returns:
        The records, and sentences about what was done (none when nothing was).

    Raises:
        DataError: The known splits cannot be read, or do not belong to the data.
    """
    present = {record.split for record in records}
    is_whole = "" in present
    if config.folds is not None:
        pool = [record for record in records if record.split != "test"]
        units = make_split_groups(pool, contents(), config.seed)
        parts, notes = _fold(units, config, test=config.test if is_whole else 0.0)
        if "val" in present:
            notes += ("the data's own train and val are put together for the folds",)
    elif is_whole or "val" not in present:
        pool = [record for record in records if record.split in ("", "train")]
        units = make_split_groups(pool, contents(), config.seed)
        parts, notes = _split(units, config, root, is_whole=is_whole)
    elif config.manifest is not None:
        raise DataError(
            f"data.split.manifest={config.manifest} has nothing to decide: the data brings its own "
            f"train and val",
            expected="data without splits, or with a train and no val",
            fix="data.split.manifest=null, or data.train_path=PATH to what shall be split",
        )
    else:
        return list(records), ()
    assigned = {path: part for unit, part in parts.items() for path in unit.paths}
    notes += _kept_together(units)
    return [
        record._replace(split=assigned.get(record.path, record.split)) for record in records
    ], notes


def _split(
    units: tuple[SplitGroup, ...], config: SplitConfig, root: Path, *, is_whole: bool
) -> tuple[dict[SplitGroup, str], tuple[str, ...]]:
    shares = {"val": config.val, "test": config.test} if is_whole else {"val": config.val}
    fixed: dict[SplitGroup, str] = {}
    notes: tuple[str, ...] = ()
    if config.manifest is not None:
        known = read_known_splits(config.manifest, root)
        fixed, moved = fix_units(units, known)
        _require_fitting(config.manifest, units, fixed, set(shares) | {"train"})
        notes = (_known_note(config.manifest, units, known, moved),)
    parts = split_groups(units, shares, config.seed, fixed)
    cut_off = f"val ({config.val:.0%}) and test ({config.test:.0%})"
    done = (
        f"split into train, {cut_off}, stratified"
        if is_whole
        else f"there is no val split: {config.val:.0%} of train is taken for it, stratified"
    )
    return parts, (f"{done} (seed {config.seed})", *notes)


def _fold(
    units: tuple[SplitGroup, ...], config: SplitConfig, *, test: float
) -> tuple[dict[SplitGroup, str], tuple[str, ...]]:
    """Cut off test, the same for every fold; deal the rest."""
    assert config.folds is not None
    parts = (
        split_groups(units, {"test": test}, config.seed, {})
        if test
        else dict.fromkeys(units, "train")
    )
    rest = [unit for unit in units if parts[unit] == "train"]
    dealt, kept = assign_folds(rest, config.folds)
    parts.update((unit, "val") for unit, fold in dealt.items() if fold == config.fold)
    tested = f" after test ({test:.0%})" if test else ""
    done = f"val is fold {config.fold} of {config.folds}{tested}, stratified (seed {config.seed})"
    if not kept:
        return parts, (done,)
    images = sum(len(unit.paths) for unit in kept)
    alone = (
        f"{images} image(s) train in every fold: without them a class would have no training image"
    )
    return parts, (done, alone)


def _require_fitting(
    name: str, units: tuple[SplitGroup, ...], fixed: Mapping[SplitGroup, str], allowed: set[str]
) -> None:
    if not fixed:
        raise DataError(
            f"data.split.manifest={name} names none of the {len(units):,} images or groups to be "
            f"split, for example not {units[0].paths[0]}",
            expected="paths as in the data/manifest.csv of a run: relative to data.data_root",
            fix="give the same data.data_root as that run had, or another manifest",
        )
    for unit, split in fixed.items():
        if split not in allowed:
            raise DataError(
                f"data.split.manifest={name} says {split} for {unit.paths[0]}, which the data "
                "itself has in train",
                expected=f"only {' and '.join(sorted(allowed))} for images of the training part",
                fix="correct the manifest, or data.split.manifest=null",
            )


def _known_note(
    name: str, units: tuple[SplitGroup, ...], known: Mapping[str, str], moved: int
) -> str:
    paths = {path for unit in units for path in unit.paths}
    found = len(paths & known.keys())
    note = f"{found:,} images keep their split of {name}, {len(paths) - found:,} are new"
    if gone := len(known.keys() - paths):
        note += f", {gone:,} of its images are not among those to be split"
    return note + (f"; {moved:,} moved to where their group or copy is" if moved else "")


def _kept_together(units: Sequence[SplitGroup]) -> tuple[str, ...]:
    several = [unit for unit in units if len(unit.paths) > 1]
    if not several:
        return ()
    images = sum(len(unit.paths) for unit in several)
    return (f"{images:,} images stay together in {len(several):,} group(s) or set(s) of copies",)


def assign_groups(
    records: list[Record], group_by: str | None, collector: RowCollector
) -> tuple[list[Record], str]:
    """Give every record the name of its group, empty for an image of its own.

    Args:
        records: What the sources gave.
        group_by: ``data.group_by``.
        collector: Takes rows whose field cannot be a name.

    Returns:
        The records, and a sentence about what was found (empty without ``group_by``).

    Raises:
        DataError: No image has a group, or a row's field is a list or an object.
    """
    if group_by is None:
        return records, ""
    rule = parse_group_by(group_by)
    grouped = [record._replace(group=_group_of(record, rule, collector)) for record in records]
    collector.raise_faults()
    sizes = Counter(record.group for record in grouped)
    alone = sizes.pop("", 0)
    if not sizes:
        raise _nothing_found(records, rule, group_by)
    note = f"{len(sizes):,} groups by {group_by}, the largest of {max(sizes.values()):,} images"
    return grouped, note + (f"; {alone:,} images have none" if alone else "")


def _group_of(record: Record, rule: GroupBy, collector: RowCollector) -> str:
    if rule.pattern is not None:
        found = rule.pattern.search(record.path)
        return (found.group(1) or "") if found else ""
    value = _facts(record).get(str(rule.field))
    if isinstance(value, list | dict):
        kind = type(value).__name__
        collector.fault(record.source, record.line, f"{rule.field!r} is no group name but {kind}")
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
            fix="correct the expression; it is searched, so it need not match from the start",
        )
    known = sorted({key for record in records for key in _facts(record)})
    close = difflib.get_close_matches(str(rule.field), known, n=1)
    return DataError(
        f"data.group_by={group_by}: no row has a {rule.field!r}",
        expected=f"one of the further fields of the rows: {', '.join(known[:12]) or 'none'}",
        fix=f"data.group_by=field:{close[0]}" if close else "choose one of them, or path:REGEX",
    )
