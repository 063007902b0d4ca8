"""The network that a run starts from."""

from __future__ import annotations

from pathlib import Path

import torch
from loguru import logger

from classifier_training.artifacts.checkpoint import scored_state, unpack_card
from classifier_training.artifacts.run_folder import RunFolder
from classifier_training.config.schema import Config, ModelConfig
from classifier_training.data.balance import class_weights, log_priors
from classifier_training.data.manifest import Manifest
from classifier_training.errors import ConfigError
from classifier_training.models.classifier import Classifier
from classifier_training.models.losses import ClassificationLoss
from classifier_training.models.weights import read_checkpoint
from classifier_training.runtime.class_map import ClassMap


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


def build_loss(config: Config, manifest: Manifest) -> ClassificationLoss:
    """Build the training loss; class weights and priors follow from the training counts."""
    counts = manifest.counts("train")
    weights = class_weights(counts, config.loss.class_weights)
    tau = config.loss.logit_adjustment
    return ClassificationLoss(
        None if weights is None else torch.from_numpy(weights),
        label_smoothing=config.loss.label_smoothing,
        gamma=config.loss.focal_gamma,
        logit_offsets=tau * torch.from_numpy(log_priors(counts)) if tau else None,
    )


def _warm_start(network: Classifier, config: ModelConfig, class_map: ClassMap) -> None:
    """Copy the scored weights of an earlier run; the head only when the classes are the same."""
    given = Path(str(config.init_from))
    path = RunFolder(given).best if given.is_dir() else given
    checkpoint = read_checkpoint(path)
    card = unpack_card(checkpoint, path)
    if card.model_name != config.name:
        raise ConfigError(
            f"model.init_from={given} is a {card.model_name}, not a {config.name}",
            expected="a run of the same model",
            mend=f"model={card.model_name}, or another run",
        )
    state = scored_state(checkpoint, card)
    same_classes = card.class_map == class_map
    if not same_classes:
        head = network.head_prefix
        state = {key: value for key, value in state.items() if not key.startswith(head)}
    network.load_state_dict(state, strict=same_classes)
    logger.info(
        "model: weights of run {} ({})",
        card.run_id,
        "with its head" if same_classes else "head new: other classes",
    )
