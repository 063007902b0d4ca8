"""What a model card is made of: the files of a run folder, read and not judged."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from classifier_training.inference.sidecar import sha256_of
from classifier_training.run.folder import RunFolder

Row = dict[str, str]

EVALUATED = ("val", "test")


@dataclass(frozen=True)
class SplitFacts:
    """An evaluated split.

    Attributes:
        metrics: Content of ``metrics.json``.
        classes: Rows of ``per_class.csv``.
        slices: Rows of ``slices.csv``, worst first.
    """

    metrics: dict[str, Any]
    classes: list[Row]
    slices: list[Row]


@dataclass(frozen=True)
class CardFacts:
    """A run.

    Attributes:
        record: Content of ``run.json``.
        config: Content of ``config.yaml``.
        sidecar: Content of ``labels_mapping.json``.
        statistics: Content of ``data/statistics.json``.
        check: Content of ``data/check.json``.
        splits: ``val`` and ``test``, as far as the run has them.
        calibration: Content of ``evaluation/calibration.json``; None when it was turned off.
        elsewhere: Names of the data outside the run that the model was evaluated on.
        files: Name, SHA-256 and bytes of what somebody may be handed.
    """

    record: dict[str, Any]
    config: dict[str, Any]
    sidecar: dict[str, Any]
    statistics: dict[str, Any]
    check: dict[str, Any]
    splits: dict[str, SplitFacts]
    calibration: dict[str, Any] | None
    elsewhere: list[str]
    files: list[tuple[str, str, int]]

    @property
    def judged_on(self) -> str:
        """The split whose scores say most about new images."""
        return "test" if "test" in self.splits else "val"

    def counts(self, split: str) -> dict[str, int]:
        """Return images by class; of a split without images an empty mapping."""
        found: dict[str, int] = self.statistics["splits"].get(split, {}).get("per_class", {})
        return found


def read_facts(folder: RunFolder) -> CardFacts:
    """Read an exported run.

    Raises:
        ResumeError: The folder is no run.
        OSError: A file is missing or cannot be read.
        ValueError: A file is damaged.
    """
    config = OmegaConf.to_container(OmegaConf.load(folder.config), resolve=False)
    assert isinstance(config, dict)
    return CardFacts(
        record=folder.read_record(),
        config={str(key): value for key, value in config.items()},
        sidecar=_json(folder.sidecar),
        statistics=_json(folder.statistics),
        check=_json(folder.check),
        splits={
            split: _split(folder.evaluation(split))
            for split in EVALUATED
            if (folder.evaluation(split) / "metrics.json").exists()
        },
        calibration=_json(folder.calibration) if folder.calibration.exists() else None,
        elsewhere=sorted(
            path.parent.name.removeprefix("data-")
            for path in folder.path.glob("evaluation/data-*/metrics.json")
        ),
        files=[
            (path.relative_to(folder.path).as_posix(), sha256_of(path), path.stat().st_size)
            for path in _handed_over(folder)
        ],
    )


def _handed_over(folder: RunFolder) -> tuple[Path, ...]:
    """Return the files that are finished; ``run.json`` and ``log.txt`` are still being written."""
    return folder.onnx, folder.sidecar, folder.best, folder.config, folder.manifest


def _split(folder: Path) -> SplitFacts:
    return SplitFacts(
        _json(folder / "metrics.json"),
        _rows(folder / "per_class.csv"),
        _rows(folder / "slices.csv"),
    )


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))
