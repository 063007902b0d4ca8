"""What the sampler draws of each class, beside what it should."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from loguru import logger
from rich.console import Console
from rich.table import Table
from rich.text import Text

from classifier_training.callbacks.base import Callback
from classifier_training.data.sampling import ClassDraws, class_draws
from classifier_training.plots.class_names import short_name
from classifier_training.plots.draws import draw_draws
from classifier_training.run.folder import RunFolder
from classifier_training.system.tables import write_table

_MOST_LINES = 60  # of classes shown one by one


class SamplerDistribution(Callback):
    """Shows expected and drawn counts for each class, in ``plots/sampler_distribution.{csv,png}``.

    Draws are a function of (seed, epoch), and counted from it: nothing is added to a training step
    or to a checkpoint, and a resumed run has the counts of all its epochs. Without a sampler
    (``data.sampler=none``) every image comes once an epoch and there is nothing to compare.
    """

    def __init__(self) -> None:
        super().__init__()
        self._epochs: list[ClassDraws] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show every class's counts of the first epoch."""
        if _is_sampled(trainer):
            _show(_names(trainer), self._draws(trainer, 0))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say which class is furthest off; write and draw the counts of all epochs so far.

        Not only at the end: a run that is killed between its last save and its end does not train
        again, and would have no picture.
        """
        if not _is_sampled(trainer):
            return
        epoch = trainer.current_epoch
        draws, names = self._draws(trainer, epoch), _names(trainer)
        worst = int(np.abs(draws.deviations).argmax())
        logger.info(
            "sampler: epoch {}: largest deviation {}: {} drawn, {:.1f} expected ({:+.1f} sigma)",
            epoch + 1,
            short_name(names[worst]),
            draws.drawn[worst],
            draws.expected[worst],
            draws.deviations[worst],
        )
        plots = RunFolder(Path(trainer.default_root_dir)).plots
        _write(plots / "sampler_distribution.csv", names, self._epochs[: epoch + 1])
        draw_draws(names, self._epochs[: epoch + 1], plots / "sampler_distribution.png")

    def _draws(self, trainer: pl.Trainer, epoch: int) -> ClassDraws:
        """Return an epoch's counts; those before it are counted too, if a run went on."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        batches = int(trainer.num_training_batches)
        for missing in range(len(self._epochs), epoch + 1):
            found = class_draws(data.manifest, data.sampler(), epoch=missing, batches=batches)
            self._epochs.append(found)
        return self._epochs[epoch]


def _is_sampled(trainer: pl.Trainer) -> bool:
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    return data.sampler().weights is not None


def _names(trainer: pl.Trainer) -> tuple[str, ...]:
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    names: tuple[str, ...] = data.manifest.class_map.names
    return names


def _show(names: tuple[str, ...], draws: ClassDraws) -> None:
    """Show the first epoch: a table on a terminal, lines elsewhere; of many classes the ends."""
    order = np.argsort(-draws.images, kind="stable")
    left_out = max(0, len(order) - _MOST_LINES)
    if left_out:
        half = _MOST_LINES // 2
        order = np.concatenate([order[:half], order[-half:]])
    rows = [
        (
            short_name(names[index], 20),
            f"{draws.images[index]}",
            f"{draws.expected[index]:.1f}",
            f"{draws.drawn[index]}",
        )
        for index in order
    ]
    if sys.stderr.isatty():
        table = Table(title="sampler: the first epoch")
        table.add_column("class")
        for name in ("images", "expected", "drawn"):
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        Console(stderr=True).print(table)
    else:
        for name, images, expected, drawn in rows:
            logger.info(
                "sampler: {:<20} {:>6} images, {:>7} expected, {:>6} drawn in the first epoch",
                name,
                images,
                expected,
                drawn,
            )
    if left_out:
        logger.info("sampler: {} classes in between; all are in the CSV", left_out)


def _write(path: Path, names: tuple[str, ...], epochs: list[ClassDraws]) -> None:
    """Write a row a class: its images, the draws expected each epoch, and those of each epoch."""
    first = epochs[0]
    write_table(
        path,
        (
            "class",
            "images",
            "expected",
            *(f"drawn_epoch_{number}" for number in range(len(epochs))),
        ),
        (
            (
                name,
                int(first.images[index]),
                f"{first.expected[index]:.6g}",
                *(int(draws.drawn[index]) for draws in epochs),
            )
            for index, name in enumerate(names)
        ),
    )
