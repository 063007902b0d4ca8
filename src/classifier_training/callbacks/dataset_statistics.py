"""The data, shown before training starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from loguru import logger
from rich.console import Console
from rich.table import Table
from rich.text import Text

from classifier_training.callbacks.base import Callback
from classifier_training.plots.class_names import short_name
from classifier_training.plots.statistics import draw_statistics
from classifier_training.run.folder import RunFolder

_RAREST = 5
_COLUMNS = ("split", "images", "classes", "per class", "imbalance", "entropy", "size", "brightness")


class DatasetStatistics(Callback):
    """Shows what ``data/statistics.json`` says as a table, and draws ``data/statistics.png``.

    The file is the run's own record, made before training; here it is only shown.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show and draw."""
        folder = RunFolder(Path(trainer.default_root_dir))
        if not folder.statistics.exists():
            return  # a trainer without a run around it
        statistics = json.loads(folder.statistics.read_text(encoding="utf-8"))
        rows = [_row(split, content) for split, content in statistics["splits"].items()]
        if sys.stderr.isatty():
            Console(stderr=True).print(_table(rows))
        else:
            for row in rows:
                logger.info("data: {}", _line(row))
        _say_more(statistics)
        draw_statistics(statistics, folder.statistics_picture)


def _row(split: str, content: dict[str, Any]) -> list[str]:
    counts = sorted(count for count in content["per_class"].values() if count)
    row = [
        split,
        f"{content['images']:,}",
        str(content["classes_present"]),
        f"{counts[0]:,}..{counts[-1]:,}",
        f"{content['imbalance_ratio']:.3g}",
        f"{content['entropy_ratio']:.2f}",
    ]
    if "width" in content:
        width, height = content["width"]["median"], content["height"]["median"]
        row += [f"{width:.0f}x{height:.0f}", f"{content['brightness']['median']:.2f}"]
    return row


def _table(rows: list[list[str]]) -> Table:
    table = Table(title="data")
    for name in _COLUMNS[: len(rows[0])]:
        table.add_column(name, justify="left" if name == "split" else "right")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _line(row: list[str]) -> str:
    named = zip(_COLUMNS[1:], row[1:], strict=False)  # without facts the last columns are missing
    return f"{row[0]}: " + ", ".join(f"{name} {value}" for name, value in named)


def _say_more(statistics: dict[str, Any]) -> None:
    """Name the rarest classes when they are rare, and what the normalisation should be told."""
    train = statistics["splits"].get("train", {})
    counts = sorted(train.get("per_class", {}).items(), key=lambda item: item[1])
    if counts and train["imbalance_ratio"] > 10:
        rarest = ", ".join(f"{short_name(name)!r}: {count}" for name, count in counts[:_RAREST])
        logger.info("data: the rarest classes in train: {}", rarest)
    advice = statistics.get("normalisation", {}).get("advice")
    if advice:
        logger.warning("data: {}", advice)
