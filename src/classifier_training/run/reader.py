"""A run as it lies on disk, opened to be measured or exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from classifier_training.data.manifest import Manifest
from classifier_training.errors import DataError, ResumeError
from classifier_training.inference.class_map import ClassMap
from classifier_training.run.checkpoint import TrainedModel, load_model
from classifier_training.run.folder import RunFolder


@dataclass(frozen=True)
class StoredRun:
    """The best network of a run and the images it was trained on.

    Attributes:
        folder: Its paths.
        model: The scored network of the best epoch.
        manifest: Its images, where they lie now.
    """

    folder: RunFolder
    model: TrainedModel
    manifest: Manifest


def open_run(run: Path | str, data_root: Path | str | None) -> StoredRun:
    """Open a run.

    Args:
        run: Its folder.
        data_root: Where the data lies now; by default where the run found it.

    Raises:
        ResumeError: No run folder, or no epoch was finished in it.
        DataError: The images are not there.
    """
    folder = RunFolder(Path(run))
    model = open_best(folder)
    return StoredRun(folder, model, open_manifest(folder, model.metadata.class_map, data_root))


def open_best(folder: RunFolder) -> TrainedModel:
    """Load the scored network of a run's best epoch.

    Raises:
        ResumeError: No run folder, or no epoch was finished in it.
    """
    folder.read_record()
    if not folder.best.is_file():
        raise ResumeError(
            f"{folder.path} has no {folder.best.relative_to(folder.path)}",
            expected="a run with at least one finished epoch",
            fix="go on with the run until it has one; log.txt says how it ended",
        )
    return load_model(folder.best)


def open_manifest(folder: RunFolder, class_map: ClassMap, data_root: Path | str | None) -> Manifest:
    """Read the table of a run's images.

    Raises:
        ResumeError: No run folder.
        DataError: The table is damaged, or the images are not there.
    """
    recorded = folder.read_record()["data_root"]
    root = Path(recorded if data_root is None else data_root)
    manifest = Manifest.read(folder.manifest, class_map, root)
    if len(manifest) and not manifest.file(0).is_file():
        raise DataError(
            f"{root} does not hold the images of {folder.path}: no {manifest.paths[0]} in it",
            expected="the folder that data.data_root named when the run was trained",
            fix="--data-root PATH (in Python data_root=PATH), if the images moved",
        )
    return manifest
