"""Optimizers with parameter groups: what is decayed, and what learns faster."""

from __future__ import annotations

from typing import Any

import torch
from loguru import logger
from torch import nn
from torch.optim import Optimizer

from classifier_training.config.registry import OPTIMIZERS
from classifier_training.config.schema import OptimizerConfig
from classifier_training.models.classifier import Classifier


def build_optimizer(net: Classifier, config: OptimizerConfig) -> Optimizer:
    """Return the configured optimizer over the trainable parameters."""
    groups = parameter_groups(net, config)
    for group in groups:
        size = sum(parameter.numel() for parameter in group["params"])
        logger.info(
            "optimizer: group {:<16} {:>4} tensors, {:>11,} values, lr {:.2e}, decay {}",
            group["name"],
            len(group["params"]),
            size,
            group["lr"],
            group["weight_decay"],
        )
    optimizer: Optimizer = OPTIMIZERS[config.name](groups, config)
    return optimizer


def adamw(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.AdamW:
    """Build ``optimizer.name=adamw``; see ``register_optimizer``."""
    first, second = config.betas
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(first, second))


def parameter_groups(net: Classifier, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Split trainable parameters into backbone and head, each with and without weight decay.

    Tensors of one dimension (biases, scales and shifts of norms) are not decayed: pulling them to
    zero does not make the network simpler.
    """
    in_head = {id(parameter) for parameter in net.head.parameters()}
    rates = {
        "backbone": config.learning_rate,
        "head": config.learning_rate * config.head_lr_multiplier,
    }
    members: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for parameter in net.parameters():
        if parameter.requires_grad:
            part = "head" if id(parameter) in in_head else "backbone"
            members.setdefault((part, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "name": part if is_decayed else f"{part}, no decay",
            "params": parameters,
            "lr": rates[part],
            "weight_decay": config.weight_decay if is_decayed else 0.0,
        }
        for (part, is_decayed), parameters in members.items()
    ]
