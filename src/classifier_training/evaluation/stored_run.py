"""A run as it lies on disk, opened to be measured or exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from classifier_training.artifacts.checkpoint import TrainedModel, load_model
from classifier_training.artifacts.run_folder import RunFolder
from classifier_training.data.manifest import Manifest
from classifier_training.errors import DataError, ResumeError


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
    record = folder.read_record()
    if not folder.best.is_file():
        raise ResumeError(
            f"{folder.path} has no {folder.best.relative_to(folder.path)}",
            expected="a run with at least one finished epoch",
            mend="go on with the run until it has one; log.txt says how it ended",
        )
    model = load_model(folder.best)
    root = Path(record["data_root"] if data_root is None else data_root)
    manifest = Manifest.read(folder.manifest, model.card.class_map, root)
    if len(manifest) and not manifest.file(0).is_file():
        raise DataError(
            f"{root} does not hold the images of {folder.path}: no {manifest.paths[0]} in it",
            expected="the folder that data.data_root named when the run was trained",
            mend="--data-root PATH (in Python data_root=PATH), if the images moved",
        )
    return StoredRun(folder, model, manifest)
