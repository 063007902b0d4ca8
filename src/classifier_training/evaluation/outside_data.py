"""Labelled images that belong to no run, to evaluate a model on: a folder, JSONL or CSV."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loguru import logger

from classifier_training.config.compose import compose_config, make_strict, set_to
from classifier_training.config.schema import DataConfig
from classifier_training.config.validate import validate
from classifier_training.data.index import refuse_unknown, without_repeats
from classifier_training.data.manifest import Manifest
from classifier_training.data.records import Record, RowCollector, is_file, is_folder
from classifier_training.data.sources import SOURCES
from classifier_training.errors import ConfigError, DataError
from classifier_training.inference.class_map import ClassMap

Unknown = Literal["error", "skip"]

# A manifest's row belongs to a split; data from outside has one.
SPLIT = "test"


@dataclass(frozen=True)
class OutsideData:
    """Where labelled images are and how they are told.

    Attributes:
        path: A folder with a folder per class, a folder of annotation files, or such a file.
        split: Take only the rows of this split, where rows name theirs; None takes all.
        image_field: Column or key of the path; None as training has it.
        label_field: Column or key of the label; None as training has it.
        unknown: What to do with a label that the model does not know.
    """

    path: Path
    split: str | None = None
    image_field: str | None = None
    label_field: str | None = None
    unknown: Unknown = "error"


def read_outside(data: OutsideData, class_map: ClassMap) -> tuple[Manifest, dict[str, int]]:
    """Table labelled images with the classes of a model.

    Returns:
        The manifest (all rows in the split ``test``), and the counts of skipped rows by reason.

    Raises:
        DataError: Nothing there, faulty rows, or unknown labels (with file and line).
        ConfigError: A field is named for data that has none.
    """
    place = Path(os.path.abspath(os.path.expanduser(data.path)))
    if not (is_folder(place) or is_file(place)):
        raise DataError(
            f"--data {data.path} does not exist",
            expected="a folder with a folder per class, or a .jsonl, .csv or .tsv file",
            fix="correct the path",
        )
    source = _source_of(place, class_map)
    config = _config(data, place, source)
    collector = RowCollector(place if is_folder(place) else place.parent)
    # Rows that name a split must not contradict the place, unless the split was asked for.
    SOURCES[source](collector, {"" if _has_splits(config) else SPLIT: place}, config)
    collector.raise_faults()
    records = without_repeats(collector)
    if data.split is not None and _has_splits(config):
        records = [record for record in records if record.split == data.split]
    if not records:
        raise DataError(
            f"--data {data.path} has no labelled images ({_counted(collector.skipped) or source})",
            expected="PATH/CLASS/image.jpg, or rows with an image and a label",
            fix="give the folder that holds the class folders, or the annotation file",
        )
    known = [record for record in records if record.label in class_map]
    if data.unknown == "error":
        refuse_unknown(collector, records, class_map)
    elif len(known) < len(records):
        _note_unknown(records, known, collector)
    if not known:
        raise DataError(
            f"no label of --data {data.path} is a class of the model",
            expected=f"labels like {', '.join(map(repr, class_map.names[:5]))}",
            fix="check that data and model belong together",
        )
    rows = [record._replace(split=SPLIT) for record in known]
    return Manifest.build(rows, class_map, collector.root), dict(collector.skipped)


def _source_of(place: Path, class_map: ClassMap) -> Literal["folder", "jsonl", "csv"]:
    if is_file(place):
        suffix = place.suffix.lower()
        if suffix == ".jsonl":
            return "jsonl"
        if suffix in (".csv", ".tsv"):
            return "csv"
        raise DataError(
            f"--data {place} is neither a folder nor an annotation file",
            expected="a folder, or a file that ends in .jsonl, .csv or .tsv",
            fix="give the folder that holds the class folders",
        )
    children = sorted(place.iterdir())
    if any(child.name in class_map for child in children):
        return "folder"
    suffixes = {child.suffix.lower() for child in children if is_file(child)}
    if ".jsonl" in suffixes:
        return "jsonl"
    return "csv" if suffixes & {".csv", ".tsv"} else "folder"


def _config(data: OutsideData, place: Path, source: str) -> DataConfig:
    """Return what training would use for such data: names of fields, empty labels."""
    overrides = [f"data={source}", set_to("data.data_root", str(place))]
    for key, value in (("image", data.image_field), ("label", data.label_field)):
        if value is not None and source == "folder":
            raise ConfigError(
                f"--{key}-field {value} names a column, but --data {data.path} is a folder per "
                "class",
                expected="a .jsonl, .csv or .tsv file, or a folder of them",
                fix=f"leave --{key}-field out, or give the annotation file",
            )
        if value is not None:
            overrides.append(set_to(f"data.fields.{key}", value))
    if data.split is None and source != "folder":
        overrides.append("data.fields.split=null")
    elif source != "folder":
        overrides.append("data.fields.split=split")
    composed = compose_config(make_strict(overrides), root="train")
    return validate(composed, allow_modules=[]).data


def _has_splits(config: DataConfig) -> bool:
    return config.fields is not None and config.fields.split is not None


def _note_unknown(records: list[Record], known: list[Record], collector: RowCollector) -> None:
    collector.skipped["unknown label"] += len(records) - len(known)
    kept = set(known)
    labels = Counter(record.label for record in records if record not in kept)
    logger.warning(
        "{} images have labels that the model does not know and are left out: {}",
        sum(labels.values()),
        _counted(dict(labels.most_common(8))),
    )


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
