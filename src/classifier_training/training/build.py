"""Everything a run trains with, built before anything is written: all of it can be refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from loguru import logger
from torch import nn

from classifier_training.config.registry import LOSSES
from classifier_training.config.schema import Config, LossConfig, ModelConfig, TransformsConfig
from classifier_training.data.balance import class_weights, log_priors
from classifier_training.data.datamodule import ImageDataModule
from classifier_training.data.manifest import Manifest
from classifier_training.errors import ConfigError
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.models.classifier import Classifier
from classifier_training.models.weights import read_checkpoint
from classifier_training.run.checkpoint import ModelMetadata, scored_state, unpack_metadata
from classifier_training.run.folder import RunFolder
from classifier_training.trackers.feed import Feed
from classifier_training.training.estimate import with_batch_size
from classifier_training.training.hardware import Hardware
from classifier_training.training.resume import Start, find_start
from classifier_training.training.trainer import build_callbacks, build_loggers
from classifier_training.transforms.build import build_augmentation


@dataclass(frozen=True)
class TrainingParts:
    """What training is made of.

    Attributes:
        config: The validated configuration, with the batch size decided.
        folder: The run folder.
        hardware: Device and precision.
        metadata: What checkpoints say about the network.
        network: With its starting weights.
        data: Feeds the manifest.
        callbacks: Those of the configuration.
        feed: Sends the run to the loggers of the configuration.
        start: The checkpoint to resume from, if any.
    """

    config: Config
    folder: RunFolder
    hardware: Hardware
    metadata: ModelMetadata
    network: Classifier
    data: ImageDataModule
    callbacks: list[Callback]
    feed: Feed
    start: Start | None

    @property
    def facts(self) -> dict[str, Any]:
        """What ``run.json`` records of them."""
        return {"batch_size": self.config.data.images_a_batch, "hardware": self.hardware.facts}


def build_parts(
    config: Config,
    folder: RunFolder,
    manifest: Manifest,
    hardware: Hardware,
    *,
    run_id: str,
    record: dict[str, Any] | None = None,
) -> TrainingParts:
    """Build what a run trains with. Nothing is written.

    Args:
        config: The validated configuration.
        folder: The run folder.
        manifest: The images.
        hardware: Device and precision.
        run_id: Id of the run.
        record: Record of its earlier parts, whose batch size is kept.

    Raises:
        ConfigError: Weights, a checkpoint, a callback or a logger cannot be used.
        ResumeError: The checkpoint to resume from does not fit the configuration.
    """
    config = _with_batch_size(config, manifest, hardware, record)
    spec = preprocess_spec(config.transforms)
    metadata = ModelMetadata(
        run_id=run_id,
        model_name=config.model.name,
        channels_last=config.model.channels_last,
        class_map=manifest.class_map,
        spec=spec,
        averaged=config.ema.enabled,
    )
    network = build_network(config.model, manifest.class_map)
    data = ImageDataModule(
        manifest,
        config.data,
        spec,
        transform=build_augmentation(config.transforms),
        seed=config.seed,
        at_least=reduction_bound(config.transforms),
    )
    return TrainingParts(
        config=config,
        folder=folder,
        hardware=hardware,
        metadata=metadata,
        network=network,
        data=data,
        callbacks=build_callbacks(config),
        feed=Feed(folder, run_id, config.model_dump(), build_loggers(config)),
        start=find_start(config, folder, metadata, network),
    )


def preprocess_spec(config: TransformsConfig) -> PreprocessSpec:
    """Derive the evaluation preprocessing, once, for everything that needs it."""
    red, green, blue = config.mean
    std_red, std_green, std_blue = config.std
    return PreprocessSpec(
        config.image_size, config.resize, (red, green, blue), (std_red, std_green, std_blue)
    )


def reduction_bound(config: TransformsConfig) -> int | None:
    """Return the pixels that the shorter side of a reduced training image keeps; None: all."""
    return None if config.reduce_to is None else math.ceil(config.reduce_to * config.image_size)


def _with_batch_size(
    config: Config, manifest: Manifest, hardware: Hardware, record: dict[str, Any] | None
) -> Config:
    """Decide ``data.batch_size=auto``, once for a run: a resumed one keeps its size."""
    if config.data.batch_size == "auto" and record is not None:
        return config.with_batch_size(int(record["batch_size"]))
    images = len(manifest.rows("train"))
    return with_batch_size(config, hardware, classes=len(manifest.class_map), images=images)


def build_network(config: ModelConfig, class_map: ClassMap) -> Classifier:
    """Build the network with its starting weights, in the layout it is trained in.

    Raises:
        ConfigError: Weights that cannot be had or do not fit.
    """
    weights = None if config.init_from else config.weights
    network = Classifier(config.name, len(class_map), weights=weights, freeze=config.freeze)
    if config.init_from:
        _warm_start(network, config, class_map)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)
    return network


def build_loss(config: LossConfig, manifest: Manifest) -> nn.Module:
    """Build the training loss; class weights and priors follow from the training counts."""
    counts = manifest.counts("train")
    weights = class_weights(counts, config.class_weights)
    loss: nn.Module = LOSSES[config.name](
        config,
        None if weights is None else torch.from_numpy(weights),
        torch.from_numpy(log_priors(counts)),
    )
    return loss


def _warm_start(network: Classifier, config: ModelConfig, class_map: ClassMap) -> None:
    """Copy the scored weights of an earlier run; the head only when the classes are the same."""
    given = Path(str(config.init_from))
    path = RunFolder(given).best if given.is_dir() else given
    checkpoint = read_checkpoint(path)
    metadata = unpack_metadata(checkpoint, path)
    if metadata.model_name != config.name:
        raise ConfigError(
            f"model.init_from={given} is a {metadata.model_name}, not a {config.name}",
            expected="a run of the same model",
            fix=f"model={metadata.model_name}, or another run",
        )
    state = scored_state(checkpoint, metadata)
    same_classes = metadata.class_map == class_map
    if not same_classes:
        head = network.head_prefix
        state = {key: value for key, value in state.items() if not key.startswith(head)}
    network.load_state_dict(state, strict=same_classes)
    logger.info(
        "model: weights of run {} ({})",
        metadata.run_id,
        "with its head" if same_classes else "head new: other classes",
    )
