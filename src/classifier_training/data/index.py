"""From configuration to checked manifest: the first step of every run."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from classifier_training.config.schema import DataConfig
from classifier_training.data.corrections import apply_corrections
from classifier_training.data.manifest import Manifest, hash_files
from classifier_training.data.records import SPLITS, Record, RowCollector, is_file
from classifier_training.data.sources import read_source
from classifier_training.data.splits import assign_groups, assign_splits
from classifier_training.errors import DataError
from classifier_training.inference.class_map import ClassMap


@dataclass(frozen=True)
class DataIndex:
    """The manifest, and what happened on the way to it.

    Attributes:
        manifest: The table of images.
        skipped: Rows or files left out, by reason.
        notes: Sentences a user should read.
    """

    manifest: Manifest
    skipped: dict[str, int]
    notes: tuple[str, ...]


def index_data(config: DataConfig, *, tolerated: list[str] | None = None) -> DataIndex:
    """Find, check and table all images.

    Args:
        config: Where they are, and how they are split.
        tolerated: Takes the faults of rows, which are then left out; None: they are raised.

    Raises:
        DataError: Nothing there, faulty rows, unknown labels, a split without images, or a batch
            larger than the training data.
    """
    collector = read_source(config, tolerated=tolerated)
    records, group_note = assign_groups(without_repeats(collector), config.group_by, collector)
    contents = _Contents(records, collector.root)
    records, split_notes = assign_splits(
        records, config.split, contents=contents, root=collector.root
    )
    records, corrected = _corrected(records, config, collector)
    _require_images(_counts(records), collector.root)
    class_map = _class_map(config, records, collector.root)
    refuse_unknown(collector, records, class_map)
    records = [record for record in records if record.label in class_map]
    _require_batch(_counts(records)["train"], config)
    manifest = Manifest.build(records, class_map, collector.root, hashes=contents())
    found = (
        _empty_note(collector, config),
        group_note,
        *split_notes,
        corrected,
        *_absent_notes(manifest),
    )
    notes = tuple(note for note in found if note)
    index = DataIndex(manifest, dict(collector.skipped), notes)
    _report(index)
    return index


def _corrected(
    records: list[Record], config: DataConfig, collector: RowCollector
) -> tuple[list[Record], str]:
    if config.corrections is None:
        return records, ""
    _require_images(_counts(records), collector.root)
    known = _class_map(config, records, collector.root)
    return apply_corrections(records, config.corrections, collector, known)


class _Contents:
    """Hashes of all files, read when first asked for: checks that need none come before."""

    def __init__(self, records: list[Record], root: Path) -> None:
        self._paths = [record.path for record in records]
        self._root = root
        self._hashes: dict[str, bytes] | None = None

    def __call__(self) -> dict[str, bytes]:
        if self._hashes is None:
            self._hashes = hash_files(self._paths, self._root)
        return self._hashes


def without_repeats(collector: RowCollector) -> list[Record]:
    """Drop rows that repeat another one; refuse those that contradict it."""
    first: dict[str, Record] = {}
    for record in collector.records:
        known = first.setdefault(record.path, record)
        if known is record:
            continue
        where = f"{known.source}:{known.line}" if known.line else known.source
        if known.label != record.label:
            collector.fault(
                record.source,
                record.line,
                f"{record.path} is {record.label!r} here and {known.label!r} in {where}",
            )
        elif known.split != record.split:
            collector.fault(
                record.source,
                record.line,
                f"{record.path} is in {record.split} here and in {known.split} in {where}",
            )
        else:
            collector.skipped["repeated row"] += 1
    collector.raise_faults()
    return list(first.values())


def _class_map(config: DataConfig, records: list[Record], root: Path) -> ClassMap:
    if isinstance(config.classes, list):
        return ClassMap(tuple(config.classes))
    if config.classes is not None:
        return ClassMap(_read_class_file(config.classes, root))
    return ClassMap.from_labels(record.label for record in records if record.split == "train")


def _read_class_file(name: str, root: Path) -> tuple[str, ...]:
    path = Path(os.path.expanduser(name))
    path = path if is_file(path) else root / path
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read data.classes={name}: {error}",
            expected="a UTF-8 text file with one class name a line, or a list",
            fix="correct the path (absolute, or relative to data.data_root)",
        ) from error
    # Reading made every line end "\n"; str.splitlines would also cut at characters inside a name.
    return tuple(line for line in text.split("\n") if line.strip())


def refuse_unknown(collector: RowCollector, records: list[Record], class_map: ClassMap) -> None:
    """Raise a DataError that names each row whose label is no class."""
    hints: dict[str, str] = {}  # looking for a close name is slow; a label may stand in many rows
    for record in records:
        label = record.label
        if label in class_map:
            continue
        if label not in hints:
            close = class_map.closest(label)
            hints[label] = f"; did you mean {close!r}?" if close else ""
        collector.fault(
            record.source,
            record.line,
            f"label {label!r} ({record.split}) is no class of the training data{hints[label]}",
        )
    collector.raise_faults()


def require_loadable(manifest: Manifest, config: DataConfig) -> None:
    """Refuse a manifest that training could not load, after rows were left out.

    Raises:
        DataError: A split without images, or a batch larger than the training data.
    """
    counts = {split: len(manifest.rows(split)) for split in SPLITS}
    _require_images(counts, manifest.root)
    _require_batch(counts["train"], config)


def _counts(records: list[Record]) -> dict[str, int]:
    counted = Counter(record.split for record in records)
    return {split: counted[split] for split in SPLITS}


def _require_images(counts: dict[str, int], root: Path) -> None:
    for split in ("train", "val"):
        if not counts[split]:
            found = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise DataError(
                f"the {split} split of {root} has no images (found: {found})",
                expected="at least one image for train and for val",
                fix=f"give data.{split}_path=PATH, or add images (a class of one stays in train)",
            )


def _require_batch(count: int, config: DataConfig) -> None:
    if config.batch_size != "auto" and config.batch_size > count:
        raise DataError(
            f"data.batch_size={config.batch_size} is larger than the {count} training images",
            expected="at least one full batch",
            fix=f"data.batch_size={max(1, count // 4)}",
        )


def _empty_note(collector: RowCollector, config: DataConfig) -> str:
    if not collector.empty_labels:
        return ""
    return (
        f"{collector.empty_labels} row(s) with an empty label are of class "
        f"{config.empty_label_name!r} (data.on_empty_label=class)"
    )


def _absent_notes(manifest: Manifest) -> list[str]:
    notes = []
    for split in SPLITS:
        counts = manifest.counts(split)
        absent = [
            name for name, count in zip(manifest.class_map.names, counts, strict=True) if not count
        ]
        if counts.sum() and absent:
            shown = ", ".join(absent[:8]) + (", …" if len(absent) > 8 else "")
            notes.append(f"{split} has no image of {len(absent)} class(es): {shown}")
    return notes


def _report(index: DataIndex) -> None:
    manifest = index.manifest
    sizes = ", ".join(f"{split} {len(manifest.rows(split)):,}" for split in SPLITS)
    logger.info("data: {} classes; images: {}", len(manifest.class_map), sizes)
    skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(index.skipped.items()))
    logger.info("data: skipped: {}", skipped or "none")
    for note in index.notes:
        logger.warning("data: {}", note)
