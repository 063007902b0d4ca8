"""An observer: which class gained most from epoch to epoch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from classifier_training.callbacks.base import Callback


class ClassGains(Callback):
    """Writes ``plots/class_gains.csv``: the recall of each class on val, a row an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[list[float]] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the matrix that validation gathered; no image is answered again."""
        module: Any = pl_module
        counts = module.val_confusion.double()  # (C, C), rows are labels
        recall = counts.diagonal() / counts.sum(dim=1).clamp(min=1)
        self._rows.append([round(float(value), 4) for value in torch.atleast_1d(recall)])
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        path = Path(trainer.default_root_dir) / "plots" / "class_gains.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(data.manifest.class_map.names)
            writer.writerows(self._rows)
