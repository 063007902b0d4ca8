"""Where each split of a source is: the paths given, or those that are usual."""

from __future__ import annotations

import os
from pathlib import Path

from classifier_training.config.schema import DataConfig
from classifier_training.data.records import (
    SPLIT_NAMES,
    SPLITS,
    RowCollector,
    is_file,
    is_folder,
)
from classifier_training.data.walk import walk
from classifier_training.errors import DataError

# split name ("" when one place holds all splits) -> folder or file
Places = dict[str, Path]


def find_places(root: Path, config: DataConfig, suffixes: tuple[str, ...]) -> Places:
    """Find where each split lies: as given, or by its usual name, or all in one place (``""``).

    Args:
        root: The data root.
        config: Says what was given.
        suffixes: Endings of annotation files; none for a folder per class.

    Raises:
        DataError: A given place does not exist, two could be meant, or there is no train.
    """
    given = {"train": config.train_path, "val": config.val_path, "test": config.test_path}
    places: Places = {}
    for split in SPLITS:
        wanted = given[split]
        if wanted is not None:
            places[split] = _given_place(root, split, wanted, wants_file=bool(suffixes))
        elif found := _usual_place(root, split, suffixes):
            places[split] = found
    if "train" in places:
        return places
    if places:
        raise DataError(
            f"{root} has {', '.join(places)} but no train",
            expected="a split named train, or no splits at all (then they are made)",
            fix="rename the folder or file, or give data.train_path=PATH",
        )
    return {"": root}


def _given_place(root: Path, split: str, wanted: str, *, wants_file: bool) -> Path:
    place = Path(os.path.abspath(root / os.path.expanduser(wanted)))
    if not (is_folder(place) or (wants_file and is_file(place))):
        raise DataError(
            f"data.{split}_path={wanted} does not exist (looked for {place})",
            expected=f"an existing folder{' or file' if wants_file else ''}, "
            "absolute or relative to data.data_root",
            fix=nearest_existing(place),
        )
    return place


def _usual_place(root: Path, split: str, suffixes: tuple[str, ...]) -> Path | None:
    found = [child for child in _listing(root) if _is_usual_place(child, split, suffixes)]
    if len(found) > 1:
        raise DataError(
            f"{root} has {' and '.join(child.name for child in found)}; which is {split}?",
            expected=f"one of them, or data.{split}_path to say which",
            fix=f"data.{split}_path={found[0].name}",
        )
    return found[0] if found else None


def _is_usual_place(child: Path, split: str, suffixes: tuple[str, ...]) -> bool:
    names = SPLIT_NAMES[split]
    if not suffixes:
        return child.name.lower() in names and is_folder(child)
    if is_file(child):
        return child.stem.lower() in names and child.suffix.lower() in suffixes
    # A folder of images beside the file that lists them is no annotation.
    is_named = child.name.lower() in names and is_folder(child)
    return is_named and next(walk(RowCollector(root=child), child, suffixes), None) is not None


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"cannot list the folder {folder}: {error.strerror or error}",
            expected="a folder that this user may read",
            fix="give read and search permission on it",
        ) from error


def nearest_existing(path: Path) -> str:
    """Return a hint that names the closest folder that exists, and what it holds."""
    parent = next(folder for folder in (*path.parents, path) if is_folder(folder))
    try:
        names = sorted(child.name for child in parent.iterdir() if not child.name.startswith("."))
    except OSError:
        return f"correct the path; {parent} exists but cannot be listed"
    listed = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"correct the path; {parent} exists and holds: {listed or 'nothing'}"
