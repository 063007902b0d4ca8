"""Callbacks and networks with which tests look into a run, or put a fault into it.

Callbacks are named on the command line: ``use("Forwards")``. Networks are registered under their
own names.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

from classifier_training.config.registry import register_backbone
from classifier_training.models.classifier import Classifier
from tests.helpers.tiny import TinyNet


def use(name: str) -> list[str]:
    """Return the overrides that add a callback of this module to a run."""
    return [f"allow_modules=[{__name__}]", f"callbacks.spy._target_={__name__}.{name}"]


@contextlib.contextmanager
def counted_forwards() -> Iterator[Counter[str]]:
    """Count the images that any classifier sees inside the block, by ``str(Tensor shape)``."""
    seen: Counter[str] = Counter()

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, Classifier):
            seen["images"] += len(inputs[0])

    handle = nn.modules.module.register_module_forward_hook(count)
    try:
        yield seen
    finally:
        handle.remove()


class Forwards(Callback):
    """Counts the images that each network sees, by (network, training or validation, epoch)."""

    images: ClassVar[Counter[tuple[str, str, int]]] = Counter()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.images.clear()
        networks = {"net": pl_module.net}
        if pl_module.ema is not None:
            networks["ema"] = pl_module.ema.module
        for name, network in networks.items():
            network.register_forward_hook(self._counter(name, trainer))

    def _counter(self, name: str, trainer: Trainer) -> Any:
        def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            phase = "validation" if trainer.validating or _is_validating(trainer) else "training"
            self.images[name, phase, trainer.current_epoch] += len(inputs[0])

        return count


def _is_validating(trainer: Trainer) -> bool:
    return trainer.state.stage is not None and trainer.state.stage.value in (
        "validate",
        "sanity_check",
    )


class ValidationLogits(Callback):
    """Keeps the logits of each epoch's validation by manifest index, as callbacks may read them."""

    epochs: ClassVar[dict[int, dict[int, npt.NDArray[np.float32]]]] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epochs.clear()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        found = self.epochs.setdefault(trainer.current_epoch, {})
        for index, logits in zip(outputs["indices"], outputs["logits"], strict=True):
            assert int(index) not in found
            found[int(index)] = logits.float().numpy()


class SwapBest(Callback):
    """Puts another epoch's checkpoint in place of the best one, once training is done."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = Path(trainer.default_root_dir) / "checkpoints"
        best = torch.load(folder / "best.ckpt", weights_only=True)["epoch"]
        others = [
            path
            for path in sorted(folder.glob("epoch=*.ckpt"))
            if torch.load(path, weights_only=True)["epoch"] != best
        ]
        shutil.copyfile(others[0], folder / "best.ckpt.new")
        (folder / "best.ckpt.new").replace(folder / "best.ckpt")


class LiesWhenExported(TinyNet):
    """Its exported graph differs from what torch computes by a little."""

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 1000)."""
        logits = super().forward(images)
        return logits + 1e-3 if torch.compiler.is_exporting() else logits


class BatchOfTwoWhenExported(TinyNet):
    """Its exported graph answers two rows whatever it is asked."""

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 1000)."""
        logits = super().forward(images)
        return logits[:1].expand(2, -1) if torch.compiler.is_exporting() else logits


class BatchOfOneWhenExported(TinyNet):
    """Its exported graph answers for the first image alone."""

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 1000)."""
        logits = super().forward(images)
        return logits[:1] if torch.compiler.is_exporting() else logits


class BranchesOnValues(TinyNet):
    """The exporter refuses it: which way it goes depends on the image."""

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 1000)."""
        logits = super().forward(images)
        return logits * 2 if bool(images.sum() > 0) else logits


def register_faulty() -> None:
    """Make the networks above known as ``lies``, ``one``, ``two`` and ``branches``."""
    for name, network in (
        ("lies", LiesWhenExported),
        ("one", BatchOfOneWhenExported),
        ("two", BatchOfTwoWhenExported),
        ("branches", BranchesOnValues),
    ):
        register_backbone(name, head="fc", weights=ResNet18_Weights.DEFAULT)(network)
