"""Labelled images without a training configuration: of a run, or a folder per class. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifier_training.errors import DataError
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.images import IMAGE_EXTENSIONS
from classifier_training.run.reader import Run
from classifier_training.system.scan import walk_files
from classifier_training.system.tables import read_table


@dataclass(frozen=True)
class LabelledImages:
    """Images in the order of ``paths``.

    Attributes:
        paths: ``N`` names, sorted.
        files: ``N`` places where they can be opened.
        labels: ``N`` class names.
        groups: ``N`` names of groups, ``""`` for none; None when nothing is known of groups.
    """

    paths: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def find(cls, place: Path, split: str) -> LabelledImages:
        """Take a split of a run, or of a folder per class, whichever the place is.

        Raises:
            DataError: It has no such images.
        """
        if (place / "run.json").is_file():
            return cls.from_run(place, split, None)
        return cls.from_folder(place, split)

    @classmethod
    def from_run(cls, run: Path, split: str, data: Path | None) -> LabelledImages:
        """Take the images of a split from a run's manifest.

        Args:
            run: Run folder.
            split: ``train``, ``val`` or ``test``.
            data: Where the images lie now; by default where the run found them.

        Raises:
            DataError: The run, its manifest, the split or its images are not there.
        """
        stored = Run(run, data_root=data)
        root, fix = stored.data_root, "restore it from a copy of the run"
        rows = [
            row
            for row in read_table(stored.folder.manifest, ("path", "label", "split"), fix=fix)
            if row["split"] == split
        ]
        if not rows:
            raise DataError(
                f"{run} has no {split} images",
                expected="a split with images",
                fix="choose another with --split",
            )
        rows.sort(key=lambda row: row["path"])
        files = tuple(root / row["path"] for row in rows)
        if not files[0].is_file():
            raise DataError(
                f"{root} does not hold the images of {run}: no {rows[0]['path']} in it",
                expected="the folder that data.data_root named when the run was trained",
                fix="--data DIR, if the images moved",
            )
        groups = tuple(row.get("group", "") for row in rows)
        return cls(
            tuple(row["path"] for row in rows),
            files,
            tuple(row["label"] for row in rows),
            groups if any(groups) else None,
        )

    @classmethod
    def from_folder(cls, folder: Path, split: str) -> LabelledImages:
        """Read ``FOLDER/SPLIT/CLASS/**/image``, or ``FOLDER/CLASS/**/image`` without that split.

        Raises:
            DataError: There are none.
        """
        top = folder / split if (folder / split).is_dir() else folder
        found: list[tuple[str, Path, str]] = []
        if top.is_dir():
            for path in walk_files(top, on_skip=lambda _: None, on_error=_refuse):
                inside = path.relative_to(top)
                if path.suffix.lower() in IMAGE_EXTENSIONS and len(inside.parts) > 1:
                    found.append((path.relative_to(folder).as_posix(), path, inside.parts[0]))
        if not found:
            raise DataError(
                f"no labelled images in {top}",
                expected="a folder per class: DIR/CLASS/image.jpg or DIR/SPLIT/CLASS/image.jpg",
                fix="correct --data, or give a run that knows the labels: --data RUN",
            )
        found.sort(key=lambda item: item[0])
        paths, files, labels = zip(*found, strict=True)
        return cls(tuple(paths), tuple(files), tuple(labels), None)

    def indices(self, class_map: ClassMap) -> npt.NDArray[np.int64]:
        """Return the ``(N,)`` int64 indices of the labels.

        Raises:
            DataError: One is no class of the map.
        """
        for path, label in zip(self.paths, self.labels, strict=True):
            if label not in class_map:
                close = class_map.closest(label)
                raise DataError(
                    f"{path} has the label {label!r}, which is no class of the model"
                    + (f"; did you mean {close!r}?" if close else ""),
                    expected=f"one of its {len(class_map)} classes",
                    fix="correct the label, or the folder's name",
                )
        return np.array([class_map.index(label) for label in self.labels], dtype=np.int64)


def _refuse(error: OSError) -> None:
    raise DataError(
        f"cannot list the folder {error.filename}: {error.strerror or error}",
        expected="folders that this user may read",
        fix="give read and search permission on it",
    ) from error
