"""A run is its folder: where everything lies in it, and ``run.json``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from classifier_training.errors import ResumeError
from classifier_training.inference.sidecar import ONNX_NAME, SIDECAR_NAME
from classifier_training.system.files import write_json

RUN_JSON = "run.json"
REPORT_NAME = "report.html"
# What a checkpoint is called until all its names are given; one that is found was cut short.
SAVING_NAME = "saving.ckpt"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run folder.

    Attributes:
        path: The folder.
        resume_command: What to type to go on with the run.
    """

    path: Path
    resume_command: str = ""

    @property
    def record_file(self) -> Path:
        """``run.json``: identity, status and provenance."""
        return self.path / RUN_JSON

    @property
    def config(self) -> Path:
        """``config.yaml``: the resolved configuration."""
        return self.path / "config.yaml"

    @property
    def log(self) -> Path:
        """``log.txt``."""
        return self.path / "log.txt"

    @property
    def history(self) -> Path:
        """``metrics.csv``: a row an epoch."""
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch."""
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        """Checkpoint to go on from."""
        return self.checkpoints / "last.ckpt"

    @property
    def diverged(self) -> Path:
        """Folder of batches whose loss was not finite."""
        return self.path / "diverged"

    @property
    def manifest(self) -> Path:
        """Table of all images with their splits."""
        return self.path / "data" / "manifest.csv"

    @property
    def statistics(self) -> Path:
        """Counts of the data."""
        return self.path / "data" / "statistics.json"

    @property
    def statistics_picture(self) -> Path:
        """The same as a picture."""
        return self.path / "data" / "statistics.png"

    @property
    def model_info(self) -> Path:
        """Size, operations and speed of the network."""
        return self.path / "model_info.json"

    @property
    def exports(self) -> Path:
        """Folder of the ONNX models of single epochs."""
        return self.path / "exports"

    @property
    def plots(self) -> Path:
        """Folder of what observers draw and count."""
        return self.path / "plots"

    @property
    def gradcam(self) -> Path:
        """Folder of pictures of where the network looked."""
        return self.plots / "gradcam"

    @property
    def model_card(self) -> Path:
        """What somebody who is handed the model must know."""
        return self.path / "MODEL_CARD.md"

    @property
    def onnx(self) -> Path:
        """The exported model."""
        return self.path / ONNX_NAME

    @property
    def sidecar(self) -> Path:
        """What a deployer must know besides the ONNX file."""
        return self.path / SIDECAR_NAME

    @property
    def calibration(self) -> Path:
        """What was fitted on val for the best checkpoint, and what it brings."""
        return self.path / "evaluation" / "calibration.json"

    @property
    def image_stats(self) -> Path:
        """What decoding every image found, where that was done."""
        return self.path / "data" / "image_facts.npz"

    @property
    def check(self) -> Path:
        """What the checks of the data found."""
        return self.path / "data" / "check.json"

    def evaluation(self, split: str) -> Path:
        """Folder of a split's evaluation."""
        return self.path / "evaluation" / split

    def read_record(self) -> dict[str, Any]:
        """Read ``run.json``.

        Raises:
            ResumeError: Missing or damaged.
        """
        try:
            record = json.loads(self.record_file.read_text(encoding="utf-8"))
            if record["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema_version {record['schema_version']!r} is unknown")
        except FileNotFoundError as error:
            raise ResumeError(
                f"{self.path} is no run folder: it has no {RUN_JSON}",
                expected="the folder of a run of `classifier train`",
                fix="give the folder that the run printed (its hydra.run.dir)",
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResumeError(
                f"cannot read {self.record_file}: {error}",
                expected="the run.json that the run wrote",
                fix="restore it from a copy, or train into another folder",
            ) from error
        return dict(record)

    def update_record(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Merge ``changes`` into ``run.json`` atomically and return the whole."""
        record = {**self.read_record(), **changes}
        write_json(self.record_file, record)
        return record


def find_report(run: Path) -> Path | None:
    """Return the report of a run, None without one; ``run`` may also be the ONNX of a run."""
    folder = run if run.is_dir() else run.parent
    report = folder / REPORT_NAME
    return report if (folder / RUN_JSON).is_file() and report.is_file() else None


def relative_link(target: Path, home: Path) -> str:
    """Return the link from a page in the folder ``home``, fit for an attribute or Markdown."""
    relative = os.path.relpath(target.resolve(), home.resolve())
    return quote(os.fsencode(Path(relative).as_posix()))
