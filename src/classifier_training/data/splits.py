"""Automatic splits: stratified by class, whole groups, a function of (seed, path or group)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from classifier_training.config.schema import SplitConfig
from classifier_training.data.cutting import cut
from classifier_training.data.folds import deal
from classifier_training.data.known_splits import fix_units, read_known_splits
from classifier_training.data.records import Record
from classifier_training.data.units import Unit, make_units
from classifier_training.errors import DataError

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
        units = make_units(pool, contents(), config.seed)
        parts, notes = _fold(units, config, test=config.test if is_whole else 0.0)
        if "val" in present:
            notes += ("the data's own train and val are put together for the folds",)
    elif is_whole or "val" not in present:
        pool = [record for record in records if record.split in ("", "train")]
        units = make_units(pool, contents(), config.seed)
        parts, notes = _split(units, config, root, is_whole=is_whole)
    elif config.manifest is not None:
        raise DataError(
            f"data.split.manifest={config.manifest} has nothing to decide: the data brings its own "
            f"train and val",
            expected="data without splits, or with a train and no val",
            mend="data.split.manifest=null, or data.train_path=PATH to what shall be split",
        )
    else:
        return list(records), ()
    assigned = {path: part for unit, part in parts.items() for path in unit.paths}
    notes += _kept_together(units)
    return [
        record._replace(split=assigned.get(record.path, record.split)) for record in records
    ], notes


def _split(
    units: tuple[Unit, ...], config: SplitConfig, root: Path, *, is_whole: bool
) -> tuple[dict[Unit, str], tuple[str, ...]]:
    shares = {"val": config.val, "test": config.test} if is_whole else {"val": config.val}
    fixed: dict[Unit, str] = {}
    notes: tuple[str, ...] = ()
    if config.manifest is not None:
        known = read_known_splits(config.manifest, root)
        fixed, moved = fix_units(units, known)
        _require_fitting(config.manifest, units, fixed, set(shares) | {"train"})
        notes = (_known_note(config.manifest, units, known, moved),)
    parts = cut(units, shares, config.seed, fixed)
    cut_off = f"val ({config.val:.0%}) and test ({config.test:.0%})"
    done = (
        f"split into train, {cut_off}, stratified"
        if is_whole
        else f"there is no val split: {config.val:.0%} of train is taken for it, stratified"
    )
    return parts, (f"{done} (seed {config.seed})", *notes)


def _fold(
    units: tuple[Unit, ...], config: SplitConfig, *, test: float
) -> tuple[dict[Unit, str], tuple[str, ...]]:
    """Cut off test, the same for every fold; deal the rest."""
    assert config.folds is not None
    parts = cut(units, {"test": test}, config.seed, {}) if test else dict.fromkeys(units, "train")
    rest = [unit for unit in units if parts[unit] == "train"]
    dealt, kept = deal(rest, config.folds)
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
    name: str, units: tuple[Unit, ...], fixed: Mapping[Unit, str], allowed: set[str]
) -> None:
    if not fixed:
        raise DataError(
            f"data.split.manifest={name} names none of the {len(units):,} images or groups to be "
            f"split, for example not {units[0].paths[0]}",
            expected="paths as in the data/manifest.csv of a run: relative to data.data_root",
            mend="give the same data.data_root as that run had, or another manifest",
        )
    for unit, split in fixed.items():
        if split not in allowed:
            raise DataError(
                f"data.split.manifest={name} says {split} for {unit.paths[0]}, which the data "
                "itself has in train",
                expected=f"only {' and '.join(sorted(allowed))} for images of the training part",
                mend="correct the manifest, or data.split.manifest=null",
            )


def _known_note(name: str, units: tuple[Unit, ...], known: Mapping[str, str], moved: int) -> str:
    paths = {path for unit in units for path in unit.paths}
    found = len(paths & known.keys())
    note = f"{found:,} images keep their split of {name}, {len(paths) - found:,} are new"
    if gone := len(known.keys() - paths):
        note += f", {gone:,} of its images are not among those to be split"
    return note + (f"; {moved:,} moved to where their group or copy is" if moved else "")


def _kept_together(units: Sequence[Unit]) -> tuple[str, ...]:
    several = [unit for unit in units if len(unit.paths) > 1]
    if not several:
        return ()
    images = sum(len(unit.paths) for unit in several)
    return (f"{images:,} images stay together in {len(several):,} group(s) or set(s) of copies",)
