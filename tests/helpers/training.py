"""A run's training alone: what ``fit`` does, without the evaluation and the export after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl

from classifier_training.config.compose import allowed_modules, compose_config, make_strict
from classifier_training.config.schema import Config
from classifier_training.config.validate import validate
from classifier_training.data.datamodule import ImageDataModule
from classifier_training.data.index import index_data
from classifier_training.models.classifier import Classifier
from classifier_training.run.checkpoint import ModelMetadata
from classifier_training.run.folder import RunFolder
from classifier_training.training.fit import preprocess_spec
from classifier_training.training.hardware import choose_hardware
from classifier_training.training.loop import (
    TrainingParts,
    build_loss,
    build_network,
    train_network,
)
from classifier_training.training.module import ClassifierModule
from classifier_training.training.resume import find_start
from classifier_training.training.trainer import build_callbacks, build_loggers
from classifier_training.transforms.build import build_augmentation
from tests.helpers.runs import TINY, undrawn


def tiny_config(data: Path, *overrides: str, drawn: bool = False) -> Config:
    """Return the configuration of a tiny run."""
    quiet = undrawn(overrides, drawn)
    return config_of([*TINY, *quiet, f"data.data_root={data}", *overrides])


def config_of(overrides: Sequence[str]) -> Config:
    """Compose and validate."""
    composed = compose_config(make_strict(list(overrides)), root="train")
    return validate(composed, allow_modules=allowed_modules(list(overrides)))


@dataclass(frozen=True)
class Parts:
    """What a trainer is given."""

    config: Config
    network: Classifier
    metadata: ModelMetadata
    data: ImageDataModule

    def module(self) -> ClassifierModule:
        """Return the LightningModule of the network."""
        manifest = self.data.manifest
        loss = build_loss(self.config, manifest)
        return ClassifierModule(self.network, loss, self.metadata, self.config, manifest.describe)


def build_parts(config: Config) -> Parts:
    """Build data and network as ``fit`` does."""
    pl.seed_everything(config.seed, verbose=False)
    index = index_data(config.data)
    spec = preprocess_spec(config)
    class_map = index.manifest.class_map
    metadata = ModelMetadata(
        run_id="test",
        model_name=config.model.name,
        channels_last=config.model.channels_last,
        class_map=class_map,
        spec=spec,
        averaged=config.ema.enabled,
    )
    data = ImageDataModule(
        index.manifest,
        config.data,
        spec,
        transform=build_augmentation(config.transforms),
        seed=config.seed,
    )
    return Parts(config, build_network(config.model, class_map), metadata, data)


def train_only(data: Path, out: Path, *overrides: str, drawn: bool = False) -> RunFolder:
    """Train a tiny network, or go on training it; about a third of a second."""
    config = tiny_config(data, *overrides, drawn=drawn)
    folder = RunFolder(out, resume_command="the same again")
    parts = build_parts(config)
    training = TrainingParts(
        config,
        folder,
        choose_hardware(config.trainer),
        parts.network,
        parts.data,
        build_callbacks(config),
        build_loggers(config),
        find_start(config, folder, parts.metadata, parts.network),
    )
    train_network(training, parts.metadata)
    return folder
