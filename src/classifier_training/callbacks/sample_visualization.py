"""Validation images with their predictions: the same ones every epoch, and the worst ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from classifier_training.callbacks.base import Callback, epoch_name, is_drawn, keep_pictures
from classifier_training.data.decoding import DecodeSpec, read_file
from classifier_training.plots.samples import Sample, draw_samples
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import History


class _Answers(NamedTuple):
    """What the network said of ``N`` images, in manifest order.

    Attributes:
        rows: ``(N,)`` int64 manifest indices.
        labels: ``(N,)`` int64.
        predicted: ``(N,)`` int64.
        confidence: ``(N,)`` float32, of the prediction.
    """

    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]


class SampleVisualization(Callback):
    """Draws ``plots/samples/epoch=NNNN.png``: fixed samples above, the worst mistakes below.

    Logits come from the validation steps; images are read again as the validation loader reads
    them. With several processes it sees the images of the first.

    Args:
        every_n_epochs: Draw every so many epochs, and the last.
        samples: How many fixed samples; spread over the classes.
        worst: How many of the mistakes with the highest confidence.
        keep: Epochs whose pictures stay: the newest, and the best besides.
        seed: Chooses the samples.
    """

    def __init__(self, every_n_epochs: int, samples: int, worst: int, keep: int, seed: int) -> None:
        super().__init__()
        self._every, self._keep = every_n_epochs, keep
        self._samples, self._worst, self._seed = samples, worst, seed
        self._steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._pixels: dict[int, npt.NDArray[np.uint8]] = {}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what an interrupted validation left."""
        self._steps.clear()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep three numbers an image, on the device: nothing waits for it."""
        if is_drawn(trainer, self._every):
            step: Any = outputs
            confidence, predicted = step["logits"].softmax(dim=1).max(dim=1)
            self._steps.append((step["indices"], step["labels"], predicted, confidence))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose and draw."""
        if not self._steps:
            return
        parts = [torch.cat(column).cpu().numpy() for column in zip(*self._steps, strict=True)]
        self._steps.clear()
        order = np.argsort(parts[0], kind="stable")
        answers = _Answers(*(part[order] for part in parts))
        fixed = choose(answers.rows, answers.labels, self._samples, self._seed)
        worst = _worst(answers, self._worst)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        shown = {int(answers.rows[at]) for at in (*fixed, *worst)}
        recipe = DecodeSpec(data.spec)
        # Only those of this picture are kept for the next: memory stays flat.
        self._pixels = {row: self._read(data.manifest, recipe, row) for row in shown}
        names = data.manifest.class_map.names
        wrong = int((answers.predicted != answers.labels).sum())
        parts_drawn = [
            ("The same validation images every epoch", self._drawn(answers, fixed, names)),
            (_worst_title(wrong, len(worst)), self._drawn(answers, worst, names)),
        ]
        folder = _folder(RunFolder(Path(trainer.default_root_dir)))
        draw_samples(parts_drawn, folder / f"{epoch_name(trainer.current_epoch)}.png")

    def on_epoch_recorded(self, folder: RunFolder, history: History) -> None:
        """Remove the pictures of old epochs."""
        keep_pictures(_folder(folder), self._keep, history.best_epoch)

    def _read(self, manifest: Any, recipe: DecodeSpec, row: int) -> npt.NDArray[np.uint8]:
        known = self._pixels.get(row)
        if known is not None:
            return known
        return recipe.pixels(read_file(manifest, row), manifest.describe(row))

    def _drawn(
        self, answers: _Answers, chosen: npt.NDArray[np.int64], names: tuple[str, ...]
    ) -> list[Sample]:
        return [
            Sample(
                self._pixels[int(answers.rows[at])],
                names[answers.labels[at]],
                names[answers.predicted[at]],
                float(answers.confidence[at]),
            )
            for at in chosen
        ]


def choose(
    rows: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], most: int, seed: int
) -> npt.NDArray[np.int64]:
    """Choose positions so that no class has two more than another that has images left.

    Args:
        rows: ``(N,)`` manifest indices, ascending; the choice depends on them and the seed alone.
        labels: ``(N,)`` classes.
        most: How many at most.
        seed: Chooses.

    Returns:
        At most ``most`` positions, by class and row.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, len(rows)]))
    order = rng.permutation(len(rows))
    turn = np.zeros(len(rows), dtype=np.int64)  # the how many-th of its class an image comes
    seen: dict[int, int] = {}
    for at in order:
        label = int(labels[at])
        turn[at] = seen[label] = seen.get(label, -1) + 1
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.arange(len(rows))
    chosen = np.lexsort((place, turn))[:most]
    return chosen[np.lexsort((rows[chosen], labels[chosen]))]


def _worst(answers: _Answers, most: int) -> npt.NDArray[np.int64]:
    wrong = np.flatnonzero(answers.predicted != answers.labels)
    return wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:most]


def _worst_title(wrong: int, shown: int) -> str:
    if not wrong:
        return "No mistakes"
    if shown == wrong:
        return f"All {wrong:,} mistakes, the most confident first"
    return f"The {shown} most confident of {wrong:,} mistakes"


def _folder(folder: RunFolder) -> Path:
    return folder.plots / "samples"
