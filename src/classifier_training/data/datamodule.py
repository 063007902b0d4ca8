"""The loaders that Lightning asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.utils.data import DataLoader

from classifier_training.config.schema import DataConfig
from classifier_training.data.balance import drawing_weights
from classifier_training.data.cache import PixelCache
from classifier_training.data.cache_build import open_caches
from classifier_training.data.dataset import Batch, EvaluationDataset, TrainingDataset, unwrap
from classifier_training.data.decoding import DecodeSpec
from classifier_training.data.loading import evaluation_loader, resolve_workers, training_loader
from classifier_training.data.manifest import Manifest
from classifier_training.data.sampling import EpochBatchSampler
from classifier_training.errors import ClassifierTrainingError
from classifier_training.inference.preprocess import PreprocessSpec


class ImageDataModule(pl.LightningDataModule):
    """Feeds a manifest to the trainer.

    Args:
        manifest: All images.
        config: Batch size, workers, sampler.
        spec: Evaluation preprocessing.
        transform: Training augmentation; None trains on what evaluation sees.
        seed: Seed of the run.
        at_least: Shorter side that images keep when they are reduced before augmentation.
    """

    def __init__(
        self,
        manifest: Manifest,
        config: DataConfig,
        spec: PreprocessSpec,
        *,
        transform: Callable[[Tensor], Tensor] | None,
        seed: int,
        at_least: int | None = None,
    ) -> None:
        super().__init__()
        self.manifest = manifest
        self.spec = spec
        self.config = config
        self.workers = resolve_workers(config.num_workers)
        self._transform = transform
        self._seed = seed
        self._at_least = at_least
        self._start = (0, 0)
        self._caches: dict[str, PixelCache] = {}

    def setup(self, stage: str) -> None:
        """Open or build the caches that the configuration asks for."""
        trainer = self.trainer
        if stage != "fit" or trainer is None:
            return
        self._caches = open_caches(
            self.manifest,
            {"train": self._training_data().recipe, "val": DecodeSpec(self.spec)},
            self.config,
            workers=self.workers,
            processes=max(1, trainer.world_size // trainer.num_nodes),
            why_not=_why_no_cache(trainer),
        )

    def teardown(self, stage: str) -> None:
        """Let go of the caches; their memory goes with the loaders."""
        if stage == "fit":
            self._caches = {}

    def sampler(self, *, epoch: int = 0, start_batch: int = 0) -> EpochBatchSampler:
        """Return the training sampler, starting inside an epoch when a run goes on."""
        rows = self.manifest.rows("train")
        return EpochBatchSampler(
            rows,
            batch_size=self.config.images_a_batch,
            seed=self._seed,
            weights=drawing_weights(self.manifest.labels[rows], self.config.sampler),
            epoch=epoch,
            start_batch=start_batch,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
        )

    def batch_of(self, epoch: int, number: int) -> Batch:
        """Make a training batch of this process anew, as it was in training.

        Raises:
            ClassifierTrainingError: An image cannot be read any more.
        """
        draws = list(self.sampler(epoch=epoch))[number]
        return unwrap(self._training_data().__getitems__(draws))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training loader, at the position that the checkpoint was saved at."""
        epoch, start_batch = self._start
        return training_loader(
            self._training_data(),
            self.sampler(epoch=epoch, start_batch=start_batch),
            workers=self.workers,
            prefetch=self.config.prefetch_factor,
            pin_memory=self._pins(),
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation loader: this process's share, in manifest order."""
        assert self.trainer is not None
        rows = self.manifest.rows("val")[self.trainer.global_rank :: self.trainer.world_size]
        return evaluation_loader(
            EvaluationDataset(self.manifest, self.spec, self._caches.get("val")),
            rows,
            batch_size=self.config.images_a_batch,
            workers=self.workers,
            pin_memory=self._pins(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return where the next training batch comes from: its epoch, and its place in it."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        epoch = loop.epoch_progress.state_dict()["current"]["processed"]
        is_inside = epoch == self.trainer.current_epoch
        done = loop.epoch_loop.batch_progress.current.ready if is_inside else 0
        return {"epoch": epoch, "start_batch": done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Lightning calls this before it asks for the loader, but restores its own counters after.
        """
        self._start = (state_dict["epoch"], state_dict["start_batch"])

    def on_before_batch_transfer(
        self, batch: Batch | ClassifierTrainingError, dataloader_idx: int
    ) -> Batch:
        """Raise here, in the main process, what a worker met."""
        return unwrap(batch)

    def _training_data(self) -> TrainingDataset:
        return TrainingDataset(
            self.manifest,
            self.spec,
            self._transform,
            self._seed,
            at_least=self._at_least,
            cache=self._caches.get("train"),
        )

    def _pins(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


def _why_no_cache(trainer: pl.Trainer) -> str | None:
    """Return why a cache would not pay, if it would not."""
    if trainer.max_epochs == 1:
        return "each image is read once"
    share = trainer.limit_train_batches
    if isinstance(share, int) or share < 1:
        return "a part of the images is trained on"
    return None
