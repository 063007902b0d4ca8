"""What a run left on disk, read for its report. Nothing is computed again, no model is opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from classifier_training.errors import DataError
from classifier_training.evaluation.tables import read_table
from classifier_training.inference.prediction_files import PROBABILITY_PREFIX
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import read_history
from classifier_training.run.identity import flatten

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Table = list[dict[str, str]]

_SPLITS = ("test", "val")  # the first one that was evaluated is what a report is about
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Answered:
    """``predictions.csv``: what the model answered on ``N`` images.

    Attributes:
        paths: Relative to the data root.
        true: ``(N,)`` int64 class indices.
        predicted: ``(N,)`` int64 class indices.
        confidence: ``(N,)`` probability of the answer, uncalibrated.
        second: ``(N,)`` int64, the class after the answer.
        second_confidence: ``(N,)`` its probability.
    """

    paths: tuple[str, ...]
    true: Indices
    predicted: Indices
    confidence: Floats
    second: Indices
    second_confidence: Floats

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """``(N,)``: whether the answer was wrong."""
        wrong: npt.NDArray[np.bool_] = self.true != self.predicted
        return wrong


@dataclass(frozen=True)
class EvaluatedSplit:
    """The files of ``evaluation/SPLIT``; see ``docs/evaluation.md``."""

    name: str
    scores: Mapping[str, Any]
    classes: tuple[str, ...]
    per_class: Table
    confusion: Indices
    answered: Answered
    slices: Table
    reliability: Table
    risk_coverage: Table

    @property
    def images(self) -> int:
        """How many."""
        return len(self.answered)


@dataclass(frozen=True)
class StoredReportData:
    """All that a report is made from; what a run did not write is None or empty.

    Attributes:
        folder: The run.
        record: ``run.json``.
        config: ``config.yaml`` by dotted key.
        history: ``metrics.csv``, a row an epoch.
        splits: What was evaluated, the split that the report is about first.
        statistics: ``data/statistics.json``.
        findings: Of ``data/check.json``; None when the data was not checked.
        calibration: ``evaluation/calibration.json``.
        suspects: Rows of ``suspects/suspects.csv``; None when labels were not examined.
        model_info: ``model_info.json``.
        overlays: Images of ``plots/gradcam/index.json``.
        sidecar: ``labels_mapping.json``.
    """

    folder: RunFolder
    record: Mapping[str, Any]
    config: Mapping[str, Any]
    history: list[dict[str, float]]
    splits: tuple[EvaluatedSplit, ...]
    statistics: Mapping[str, Any] | None
    findings: list[dict[str, Any]] | None
    calibration: Mapping[str, Any] | None
    suspects: Table | None
    model_info: Mapping[str, Any] | None
    overlays: list[dict[str, Any]]
    sidecar: Mapping[str, Any] | None

    def split(self, name: str) -> EvaluatedSplit | None:
        """Return an evaluated split."""
        return next((split for split in self.splits if split.name == name), None)


def read_stored(path: Path) -> StoredReportData:
    """Read a run folder.

    Raises:
        ResumeError: It is none.
        DataError: Nothing was evaluated in it yet, or a file is damaged.
    """
    folder = RunFolder(path)
    record = folder.read_record()
    evaluated = [name for name in _SPLITS if (folder.evaluation(name) / "metrics.json").is_file()]
    if not evaluated:
        raise DataError(
            f"{path} has no evaluation: its status is {record['status']}",
            expected="a run that was evaluated, which happens at the end of training",
            fix=f"go on with the run until it finishes, or: classifier evaluate {path} --split val",
        )
    check = _json(folder.check)
    gradcam = _json(folder.plots / "gradcam" / "index.json")
    suspects = path / "suspects" / "suspects.csv"
    return StoredReportData(
        folder=folder,
        record=record,
        config=_config(folder.config),
        history=_history(folder.history),
        splits=tuple(_split(folder.evaluation(name), name) for name in evaluated),
        statistics=_json(folder.statistics),
        findings=None if check is None else list(check.get("findings", ())),
        calibration=_json(folder.calibration),
        suspects=_table(suspects, ("path", "suspect")) if suspects.is_file() else None,
        model_info=_json(path / "model_info.json"),
        overlays=[] if gradcam is None else list(gradcam.get("images", ())),
        sidecar=_json(folder.sidecar),
    )


def _split(folder: Path, name: str) -> EvaluatedSplit:
    scores = _json(folder / "metrics.json")
    assert scores is not None  # the caller looked
    try:
        classes = tuple(map(str, scores["classes"]))
        rows = _table(folder / "predictions.csv", ("path", "true", "predicted", "confidence"))
        matrix = _table(folder / "confusion_matrix.csv", ())
        return EvaluatedSplit(
            name=name,
            scores=scores,
            classes=classes,
            per_class=_table(folder / "per_class.csv", ("class", "support", "recall")),
            confusion=np.array(
                [[int(row[column]) for column in classes] for row in matrix], dtype=np.int64
            ).reshape(len(classes), len(classes)),
            answered=_answered(rows, classes),
            slices=_table(folder / "slices.csv", ("key", "value", "images", "worse")),
            reliability=_table(folder / "reliability.csv", ("mean_confidence", "accuracy")),
            risk_coverage=_table(folder / "risk_coverage.csv", ("coverage", "risk")),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"the files in {folder} do not belong together: {error!r}",
            expected="what one evaluation wrote",
            fix=f"classifier evaluate {folder.parents[1]} --split {name}",
        ) from error


def _answered(rows: Table, classes: tuple[str, ...]) -> Answered:
    index = {name: number for number, name in enumerate(classes)}
    columns = [PROBABILITY_PREFIX + name for name in classes]
    probabilities = np.array(
        [[float(row[column]) for column in columns] for row in rows], dtype=np.float64
    ).reshape(len(rows), len(classes))
    predicted = np.array([index[row["predicted"]] for row in rows], dtype=np.int64)
    others = probabilities.copy()
    others[np.arange(len(rows)), predicted] = -1.0
    second = others.argmax(axis=1).astype(np.int64)
    return Answered(
        paths=tuple(row["path"] for row in rows),
        true=np.array([index[row["true"]] for row in rows], dtype=np.int64),
        predicted=predicted,
        confidence=np.array([float(row["confidence"]) for row in rows], dtype=np.float64),
        second=second,
        second_confidence=probabilities[np.arange(len(rows)), second],
    )


def _table(path: Path, columns: tuple[str, ...]) -> Table:
    return read_table(path, columns, fix="restore the file, or evaluate the run again")


def _config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_bytes(), Loader=_LOADER)  # noqa: S506 - a safe loader
    except (OSError, yaml.YAMLError) as error:
        raise _unreadable(path, error) from error
    return flatten(content) if isinstance(content, dict) else {}


def _history(path: Path) -> list[dict[str, float]]:
    try:
        return read_history(path) if path.is_file() else []
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _json(path: Path) -> dict[str, Any] | None:
    """Read an object; None where there is no file."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return content


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"cannot read {path}: {error}",
        expected="the file as the run wrote it",
        fix="restore it from a copy of the run, or remove it if the report may do without",
    )
