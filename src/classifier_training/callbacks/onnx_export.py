"""A verified ONNX model every so many epochs, for those who cannot wait for the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.types import STEP_OUTPUT
from loguru import logger
from torch import Tensor

from classifier_training.callbacks.base import epoch_name
from classifier_training.data.dataset import seeded
from classifier_training.exporters.onnx import MOST_VERIFIED, export_verified
from classifier_training.models.classifier import Classifier
from classifier_training.run.checkpoint import TrainedModel, plain_key
from classifier_training.run.folder import RunFolder


class ONNXExport(pl.Callback):
    """Exports the scored weights to ``exports/epoch=NNNN/`` as the run's end exports the best.

    onnxruntime is compared with the logits of this epoch's validation. This callback is no
    observer: an export that fails stops the run, because the one at its end would fail too.

    Args:
        every_n_epochs: Export after every so many epochs; None: never.
        opset: ONNX operator set.
    """

    def __init__(self, every_n_epochs: int | None, opset: int) -> None:
        super().__init__()
        self._every, self._opset = every_n_epochs, opset
        self._steps: list[tuple[Tensor, Tensor]] = []

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what an interrupted validation left."""
        self._steps.clear()

    @rank_zero_only
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the logits of as many images as are verified."""
        step: Any = outputs
        kept = sum(len(rows) for rows, _ in self._steps)
        if self._is_exported(trainer) and kept < MOST_VERIFIED:
            self._steps.append((step["indices"], step["logits"]))

    @rank_zero_only
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Export.

        Raises:
            ExportError: The network cannot be exported, or onnxruntime does not reproduce torch.
        """
        if not self._steps:
            return
        rows, logits = (torch.cat(part).cpu().numpy() for part in zip(*self._steps, strict=True))
        self._steps.clear()
        module: Any = pl_module
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        folder = RunFolder(Path(trainer.default_root_dir))
        into = folder.exports / epoch_name(trainer.current_epoch)
        with seeded(0):  # nothing of this may reach the random stream of training
            model = _copy(module, trainer.current_epoch)
            exported = export_verified(
                folder, model, data.manifest, rows, logits, opset=self._opset, into=into
            )
        logger.info("export: {}; {}", exported.onnx, exported.agreement)

    def _is_exported(self, trainer: pl.Trainer) -> bool:
        if self._every is None or trainer.sanity_checking:
            return False
        return (trainer.current_epoch + 1) % self._every == 0


def _copy(module: Any, epoch: int) -> TrainedModel:
    """Return the scored network as :func:`load_model` would read it from a checkpoint."""
    metadata = module.metadata
    network = Classifier(metadata.model_name, len(metadata.class_map))
    state = module.scored.state_dict()
    network.load_state_dict({plain_key(key): value for key, value in state.items()})
    network.eval()
    return TrainedModel(metadata, network, epoch)
