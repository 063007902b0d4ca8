"""Which classes are predicted as which, after every epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
from loguru import logger

from classifier_training.callbacks.base import Callback, epoch_name, is_drawn, keep_pictures
from classifier_training.metrics.from_confusion import most_confused
from classifier_training.plots.class_names import short_name
from classifier_training.plots.confusion import draw_confusion
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import History
from classifier_training.system.tables import write_table


class ConfusionMatrix(Callback):
    """Writes ``plots/confusion_matrix/epoch=NNNN.csv``, ``.png`` and ``-normalised.png``.

    The counts are those that the scores of the epoch were computed from, summed over all
    processes; nothing is forwarded or counted again. Rows are the truth.

    Args:
        every_n_epochs: Draw every so many epochs; the CSV is written each time.
        keep: Epochs whose pictures stay: the newest, and the best besides.
        name_pairs: How many of the most confused pairs are logged; 0: none.
    """

    def __init__(self, every_n_epochs: int, keep: int, name_pairs: int) -> None:
        super().__init__()
        self._every, self._keep, self._name_pairs = every_n_epochs, keep, name_pairs

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the matrix of this epoch, and name its worst pairs."""
        module: Any = pl_module
        counts: npt.NDArray[np.int64] = module.val_confusion.numpy()
        names: tuple[str, ...] = module.metadata.class_map.names
        epoch = trainer.current_epoch
        folder = _folder(RunFolder(Path(trainer.default_root_dir)))
        _write(folder / f"{epoch_name(epoch)}.csv", counts, names)
        pairs = most_confused(module.val_confusion, self._name_pairs)
        if pairs:
            logger.info("confusion: epoch {}: {}", epoch + 1, _in_words(counts, names, pairs))
        if is_drawn(trainer, self._every):
            name = epoch_name(epoch)
            draw_confusion(counts, names, folder / f"{name}.png", "counts")
            draw_confusion(counts, names, folder / f"{name}-normalised.png", "shares")

    def on_epoch_recorded(self, folder: RunFolder, history: History) -> None:
        """Remove the pictures of old epochs."""
        keep_pictures(_folder(folder), self._keep, history.best_epoch)


def _folder(folder: RunFolder) -> Path:
    return folder.plots / "confusion_matrix"


def _write(path: Path, counts: npt.NDArray[np.int64], names: tuple[str, ...]) -> None:
    """Write the counts as ``evaluation/SPLIT/confusion_matrix.csv`` has them."""
    rows = ((name, *row) for name, row in zip(names, counts.tolist(), strict=True))
    write_table(path, ("true \\ predicted", *names), rows)


def _in_words(
    counts: npt.NDArray[np.int64], names: tuple[str, ...], pairs: list[tuple[int, int]]
) -> str:
    support = counts.sum(axis=1)
    return ", ".join(
        f"{short_name(names[true])!r} predicted as {short_name(names[predicted])!r} "
        f"{counts[true, predicted]} of {support[true]} times"
        for true, predicted in pairs
    )
