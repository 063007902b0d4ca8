"""A stored run, opened in one way: every command, page and card reads it through :class:`Run`."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier_training.errors import DataError, ResumeError
from classifier_training.inference.class_map import ClassMap
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import read_history
from classifier_training.run.predictions import Indices, Predictions, read_predictions
from classifier_training.run.stored_config import flatten, read_config
from classifier_training.system.tables import Row, read_table

if TYPE_CHECKING:
    from classifier_training.data.manifest import Manifest
    from classifier_training.run.checkpoint import TrainedModel

# The first one that was evaluated is what a report is about.
_SPLITS = ("test", "val")
_AS_WRITTEN = "the file as the run wrote it"


@dataclass(frozen=True)
class StoredEvaluation:
    """The files of ``evaluation/SPLIT``; see ``docs/evaluation.md``.

    Attributes:
        name: The split.
        scores: ``metrics.json``.
        classes: Class names by index.
        per_class: Rows of ``per_class.csv``.
        confusion: ``(C, C)`` int64 counts; rows are the true classes.
        predictions: ``predictions.csv``, sorted by path.
        slices: Rows of ``slices.csv``, worst first.
        reliability: Rows of ``reliability.csv``.
        risk_coverage: Rows of ``risk_coverage.csv``.
    """

    name: str
    scores: dict[str, Any]
    classes: tuple[str, ...]
    per_class: list[Row]
    confusion: Indices
    predictions: Predictions
    slices: list[Row]
    reliability: list[Row]
    risk_coverage: list[Row]

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.predictions)


class Run:
    """A run folder, read lazily; only :meth:`model` imports torch.

    Args:
        path: The folder.
        data_root: Where the images are now; by default where the run found them.

    Raises:
        ResumeError: It is not a run folder, or ``run.json`` is damaged.
    """

    def __init__(self, path: Path | str, *, data_root: Path | str | None = None) -> None:
        self.folder = RunFolder(Path(path))
        self.record: dict[str, Any] = self.folder.read_record()
        self._data_root = data_root

    def __fspath__(self) -> str:
        return str(self.folder.path)

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r}, status={self.record['status']!r})"

    def _repr_html_(self) -> str:
        from classifier_training.run.notebook import run_html

        return run_html(self)

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @property
    def best_score(self) -> float:
        """The monitored metric of the best epoch.

        Raises:
            ResumeError: No epoch is finished.
        """
        if self.record["best"] is None:
            raise self._no_epoch()
        return float(self.record["best"]["score"])

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The stored configuration, nested; keys added since have their old meaning."""
        return read_config(self.folder.config)

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """:attr:`config` by dotted key."""
        return flatten(self.config)

    @functools.cached_property
    def history(self) -> list[dict[str, float]]:
        """Rows of ``metrics.csv``, one per epoch; empty before the first."""
        path = self.folder.history
        try:
            return read_history(path) if path.is_file() else []
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error

    @property
    def data_root(self) -> Path:
        """Where the images are."""
        given = self._data_root
        return Path(str(self.record["data_root"]) if given is None else given)

    @functools.cached_property
    def class_map(self) -> ClassMap:
        """The classes: of the sidecar, or of the best checkpoint before the export."""
        if not self.sidecar:
            return self.model().metadata.class_map
        return ClassMap(tuple(self.sidecar["idx_to_class"].values()))

    @functools.cached_property
    def manifest(self) -> Manifest:
        """The table of the run's images.

        Raises:
            DataError: The table is damaged, or the images are not there.
        """
        from classifier_training.data.manifest import Manifest

        manifest = Manifest.read(self.folder.manifest, self.class_map, self.data_root)
        if len(manifest) and not manifest.file(0).is_file():
            raise DataError(
                f"{self.data_root} does not hold the images of {self.path}: no "
                f"{manifest.paths[0]} in it",
                expected="the folder that data.data_root named when the run was trained",
                fix="--data-root PATH (in Python data_root=PATH), if the images moved",
            )
        return manifest

    @functools.cached_property
    def groups(self) -> dict[str, str]:
        """Group of each image by path; empty when none are known."""
        if not self.folder.manifest.is_file():
            return {}
        rows = read_table(self.folder.manifest, ("path",), fix="restore it from a copy of the run")
        return {row["path"]: row["group"] for row in rows if row.get("group")}

    def model(self) -> TrainedModel:
        """Load the scored network of the best epoch: fp32, evaluation mode, on the CPU.

        Raises:
            ResumeError: No epoch is finished.
            ConfigError: The checkpoint is damaged.
        """
        from classifier_training.run.checkpoint import load_model

        if not self.folder.best.is_file():
            raise self._no_epoch()
        return load_model(self.folder.best)

    def metrics(self, split: str) -> dict[str, Any]:
        """Return the content of ``evaluation/SPLIT/metrics.json``.

        Raises:
            DataError: The split is not evaluated, or the file is damaged.
        """
        return _object(self._file(split, "metrics.json"))

    def predictions(self, split: str) -> Predictions:
        """Return the predictions on a split, sorted by path.

        Raises:
            DataError: The split is not evaluated, or the file is damaged.
        """
        path = self._file(split, "predictions.csv")
        return read_predictions(path, name=str(self.path), groups=self.groups)

    def evaluation(self, split: str) -> StoredEvaluation:
        """Return everything that an evaluation wrote.

        Raises:
            DataError: The split is not evaluated, or files are missing or damaged.
        """
        scores, folder = self.metrics(split), self.folder.evaluation(split)
        predictions = self.predictions(split)
        try:
            classes = tuple(map(str, scores["classes"]))
            matrix = _table(folder / "confusion_matrix.csv")
            confusion = np.array(
                [[int(row[column]) for column in classes] for row in matrix], dtype=np.int64
            ).reshape(len(classes), len(classes))
            if predictions.classes != classes:
                raise ValueError("predictions.csv has other classes than metrics.json")
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"the files in {folder} do not belong together: {error!r}",
                expected="what one evaluation wrote",
                fix=f"classifier evaluate {self.path} --split {split}",
            ) from error
        return StoredEvaluation(
            name=split,
            scores=scores,
            classes=classes,
            per_class=_table(folder / "per_class.csv", "class", "support", "recall"),
            confusion=confusion,
            predictions=predictions,
            slices=_table(folder / "slices.csv", "key", "value", "images", "worse"),
            reliability=_table(folder / "reliability.csv", "mean_confidence", "accuracy"),
            risk_coverage=_table(folder / "risk_coverage.csv", "coverage", "risk"),
        )

    @functools.cached_property
    def evaluations(self) -> tuple[StoredEvaluation, ...]:
        """Those of ``test`` and ``val``, as far as they are evaluated, in this order.

        Raises:
            DataError: None is evaluated, or a file is damaged.
        """
        names = [name for name in _SPLITS if self.is_evaluated(name)]
        if not names:
            raise DataError(
                f"{self.path} has no evaluation: its status is {self.record['status']}",
                expected="a run that was evaluated, which happens at the end of training",
                fix=f"resume the run until it finishes, or: classifier evaluate {self.path} "
                "--split val",
            )
        return tuple(map(self.evaluation, names))

    def is_evaluated(self, split: str) -> bool:
        """Whether a split is evaluated."""
        return (self.folder.evaluation(split) / "metrics.json").is_file()

    @functools.cached_property
    def statistics(self) -> dict[str, Any]:
        """``data/statistics.json``; empty when the run has none yet."""
        return _optional(self.folder.statistics)

    @functools.cached_property
    def check(self) -> dict[str, Any]:
        """``data/check.json``; empty when the data was not checked."""
        content = _optional(self.folder.check)
        for finding in content.get("findings", ()):
            if "mend" in finding:  # as the first layout called it
                finding["fix"] = finding.pop("mend")
        return content

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Findings of the data check; empty also when the data was not checked."""
        return list(self.check.get("findings", ()))

    @property
    def reported_split(self) -> str:
        """The split whose scores say most about new images: ``test``, else ``val``."""
        return "test" if self.is_evaluated("test") else "val"

    def counts(self, split: str) -> dict[str, int]:
        """Return the number of images by class; empty for a split without images."""
        found: dict[str, int] = self.statistics["splits"].get(split, {}).get("per_class", {})
        return found

    @functools.cached_property
    def calibration(self) -> dict[str, Any]:
        """``evaluation/calibration.json``; empty when it was turned off."""
        return _optional(self.folder.calibration)

    @functools.cached_property
    def suspects(self) -> list[Row] | None:
        """Rows of ``suspects/suspects.csv``; None when labels were not examined."""
        path = self.path / "suspects" / "suspects.csv"
        return _table(path, "path", "suspect") if path.is_file() else None

    @functools.cached_property
    def model_info(self) -> dict[str, Any]:
        """``model_info.json``; empty when the run has none."""
        return _optional(self.folder.model_info)

    @functools.cached_property
    def overlays(self) -> list[dict[str, Any]]:
        """Entries of ``plots/gradcam/index.json``."""
        return list(_optional(self.folder.gradcam / "index.json").get("images", ()))

    @functools.cached_property
    def sidecar(self) -> dict[str, Any]:
        """``labels_mapping.json``; empty before the export."""
        return _optional(self.folder.sidecar)

    def _file(self, split: str, name: str) -> Path:
        path = self.folder.evaluation(split) / name
        if not path.is_file():
            raise DataError(
                f"{self.path} has no {path.relative_to(self.path)}",
                expected=f"a run whose {split} split was evaluated",
                fix=f"classifier evaluate {self.path} --split {split}",
            )
        return path

    def _no_epoch(self) -> ResumeError:
        return ResumeError(
            f"{self.path} has no {self.folder.best.relative_to(self.path)}",
            expected="a run with at least one finished epoch",
            fix="resume the run until it has one; log.txt shows how it ended",
        )


def _optional(path: Path) -> dict[str, Any]:
    return _object(path) if path.is_file() else {}


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return content


def _table(path: Path, *columns: str) -> list[Row]:
    return read_table(path, columns, fix="restore the file, or evaluate the run again")


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot read {path}: {error}",
        expected=_AS_WRITTEN,
        fix="restore it from a copy of the run, or remove it if it may be missing",
    )
