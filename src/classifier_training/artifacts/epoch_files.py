"""Files that observers write for single epochs: their names, and which of them stay."""

from __future__ import annotations

import re
from pathlib import Path

import lightning.pytorch as pl


def epoch_name(epoch: int) -> str:
    """Return how the files of an epoch (from 0) begin, as those of checkpoints do."""
    return f"epoch={epoch:04d}"


def is_drawn(trainer: pl.Trainer, every: int) -> bool:
    """Say whether this epoch is drawn: every so many, beginning with the first, and the last."""
    epoch = trainer.current_epoch
    return epoch % every == 0 or epoch + 1 == trainer.max_epochs


def keep_pictures(folder: Path, newest: int, best_epoch: int) -> None:
    """Remove the PNGs of all epochs but the ``newest`` so many and the best.

    Other files of a folder, and of an epoch, stay.
    """
    found: dict[int, list[Path]] = {}
    for path in folder.glob("epoch=*.png"):
        number = re.match(r"epoch=(\d+)", path.name)
        if number:
            found.setdefault(int(number[1]), []).append(path)
    kept = {*sorted(found)[-newest:], best_epoch}
    for epoch in found.keys() - kept:
        for path in found[epoch]:
            path.unlink()
