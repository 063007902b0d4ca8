"""A run's training alone: what ``fit`` does, without the evaluation and the export after it."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl

from classifier_training.config.schema import Config
from classifier_training.data.index import index_data
from classifier_training.run.folder import RunFolder
from classifier_training.training.build import TrainingParts, build_loss, build_parts
from classifier_training.training.hardware import choose_hardware
from classifier_training.training.loop import train_network
from classifier_training.training.module import ClassifierModule
from tests.helpers.config import config_of
from tests.helpers.runs import TINY, undrawn


def tiny_config(data: Path, *overrides: str, drawn: bool = False) -> Config:
    """Return the configuration of a tiny run."""
    quiet = undrawn(overrides, drawn)
    return config_of(*TINY, *quiet, f"data.data_root={data}", *overrides)


def parts_of(config: Config, out: Path = Path("nowhere")) -> TrainingParts:
    """Build what ``fit`` builds; nothing is written."""
    pl.seed_everything(config.seed, verbose=False)
    manifest = index_data(config.data).manifest
    folder = RunFolder(out, resume_command="the same again")
    return build_parts(config, folder, manifest, choose_hardware(config.trainer), run_id="test")


def module_of(parts: TrainingParts) -> ClassifierModule:
    """Return the LightningModule of what was built."""
    manifest = parts.data.manifest
    loss = build_loss(parts.config.loss, manifest)
    return ClassifierModule(parts.network, loss, parts.metadata, parts.config, manifest.describe)


def train_only(data: Path, out: Path, *overrides: str, drawn: bool = False) -> RunFolder:
    """Train a tiny network, or resume training it; about a third of a second."""
    parts = parts_of(tiny_config(data, *overrides, drawn=drawn), out)
    train_network(parts)
    return parts.folder
