"""Starting weights: published, from a file, or from an earlier run. Never a pickle."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from torch import Tensor, nn

from classifier_training.config.registry import Backbone
from classifier_training.errors import ConfigError
from classifier_training.system.integrity import damage_of

PUBLISHED = "DEFAULT"

StateDict = dict[str, Tensor]


def load_backbone_weights(network: nn.Module, backbone: Backbone, weights: str) -> None:
    """Fill a network with pretrained weights; its head is skipped when the class count differs.

    Args:
        network: As ``backbone.build()`` returns it, before its head is replaced.
        backbone: What it is.
        weights: ``"DEFAULT"`` or the path of a state dict.

    Raises:
        ConfigError: The download failed, or the file is missing, unsafe or of another network.
    """
    is_published = weights == PUBLISHED
    state = _published(backbone) if is_published else read_state_dict(Path(weights))
    source = backbone.weights.url if is_published else weights
    head = f"{backbone.head}."
    own = network.state_dict()
    skipped = [key for key in state if key.startswith(head) and not _fits(state[key], own.get(key))]
    kept = {key: value for key, value in state.items() if key not in skipped}
    wrong = [key for key, value in kept.items() if not _fits(value, own.get(key))]
    absent = [
        key
        for key in own
        # Files of old have no BatchNorm counters, which nothing here reads.
        if key not in kept and not key.startswith(head) and not key.endswith(".num_batches_tracked")
    ]
    if wrong or absent:
        raise ConfigError(
            f"the weights {source} do not fit the network: "
            f"{_first(wrong, 'unknown or of another shape')}{_first(absent, 'missing')}",
            expected="a state dict of the same architecture (torchvision's key names)",
            fix="choose the model that the weights belong to, or model.weights=DEFAULT",
        )
    network.load_state_dict(kept, strict=False)
    logger.info("model: {} tensors from {}", len(kept), source)


def read_state_dict(path: Path) -> StateDict:
    """Read a file of tensors with ``weights_only=True``.

    Raises:
        ConfigError: Missing, damaged, or holding anything but tensors.
    """
    content = read_checkpoint(path)
    state = content.get("state_dict", content)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise _unreadable(path, "it holds no state dict")
    return state


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of plain types with ``weights_only=True``, on the CPU.

    Its checksums are compared first: a flipped bit is damage, not a weight.

    Raises:
        ConfigError: Missing, damaged, or a pickle that would run code.
    """
    try:
        damage = damage_of(path)
        if damage is not None:
            raise _unreadable(path, damage)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except ConfigError:
        raise
    except FileNotFoundError as error:
        raise ConfigError(
            f"the weights file {path} does not exist",
            expected="a state dict or checkpoint file",
            fix="correct the path, or model.weights=DEFAULT",
        ) from error
    except Exception as error:  # there is no telling what damaged bytes lead to
        unsafe = isinstance(error, pickle.UnpicklingError)
        detail = "it is no file of plain tensors" if unsafe else _first_line(error)
        raise _unreadable(path, detail) from error
    if not isinstance(content, dict):
        raise _unreadable(path, f"it holds a {type(content).__name__}")
    return content


def _published(backbone: Backbone) -> StateDict:
    if backbone.published is None:
        raise ConfigError(
            "model.weights=DEFAULT, but this model has no published weights",
            expected="a file of weights, or null",
            fix="model.weights=null, or model.weights=FILE",
        )
    url = backbone.weights.url
    try:
        # torchvision's own default would unpickle.
        state: StateDict = backbone.weights.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except Exception as error:  # the network, the disk, or a damaged download
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        raise ConfigError(
            f"cannot get the pretrained weights {url}: {_first_line(error)}",
            expected=f"a network connection, or the file at {cache}",
            fix="download it on another machine and give it as model.weights=FILE (or place it "
            "under TORCH_HOME), or train from scratch with model.weights=null",
        ) from error
    return state


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _unreadable(path: Path, detail: str) -> ConfigError:
    return ConfigError(
        f"cannot read {path}: {detail}",
        expected="a complete file of tensors and plain values (weights_only=True is used)",
        fix="give a state dict saved by torch.save(model.state_dict(), FILE)",
    )


def _fits(value: Tensor, own: Tensor | None) -> bool:
    return own is not None and own.shape == value.shape


def _first(keys: list[str], what: str) -> str:
    return f"{len(keys)} {what} ({keys[0]}) " if keys else ""
