"""How large and how fast the network is: ``model_info.json``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from loguru import logger
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from classifier_training.callbacks.base import Callback
from classifier_training.data.dataset import seeded
from classifier_training.models.classifier import Classifier
from classifier_training.run.checkpoint import ModelMetadata
from classifier_training.run.folder import RunFolder
from classifier_training.system.files import write_json

SCHEMA_VERSION = 1
_WARM_UP = 3


class ModelInfo(Callback):
    """Counts parameters and operations and measures latency, once before training.

    Operations and latency are those of another network of the same architecture, whose weights do
    not matter: the one that is trained is only looked at, never run.

    Args:
        latency_runs: How many single images are timed.
        most_seconds: Timing stops after so long, with fewer runs.
    """

    def __init__(self, latency_runs: int, most_seconds: float) -> None:
        super().__init__()
        self._runs, self._most_seconds = latency_runs, most_seconds

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count, measure, write and say."""
        module: Any = pl_module
        device = trainer.strategy.root_device
        with seeded(0):  # building a network draws its weights, from a stream that training uses
            latency = self._latency(module.metadata, device)
        info = {
            "schema_version": SCHEMA_VERSION,
            "architecture": module.metadata.model_name,
            **_sizes(module.net),
            "flops_per_image": _operations(module.metadata),
            "input_shape": [1, 3, module.metadata.spec.image_size, module.metadata.spec.image_size],
            "latency_ms": latency,
        }
        write_json(RunFolder(Path(trainer.default_root_dir)).model_info, info)
        logger.info("model: {}", _in_words(info))

    def _latency(self, metadata: ModelMetadata, device: torch.device) -> dict[str, Any]:
        layout = torch.channels_last if metadata.channels_last else torch.contiguous_format
        network = _same_architecture(metadata).to(device=device).to(memory_format=layout)
        image = _blank(metadata, device).contiguous(memory_format=layout)
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            times = self._times(lambda: network(image), device)
        return {
            "device": _device_name(device),
            "batch": 1,
            "threads": torch.get_num_threads(),
            "runs": len(times),
            "p50": round(float(np.percentile(times, 50)), 3),
            "p95": round(float(np.percentile(times, 95)), 3),
        }

    def _times(self, run: Callable[[], object], device: torch.device) -> list[float]:
        """Return the milliseconds of each run, from the call until the device is done."""
        times: list[float] = []
        end = time.perf_counter() + self._most_seconds
        for number in range(_WARM_UP + self._runs):
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= _WARM_UP:
                times.append(1e3 * (time.perf_counter() - started))
            if times and time.perf_counter() > end:
                break
        return times


def _same_architecture(metadata: ModelMetadata) -> nn.Module:
    return Classifier(metadata.model_name, len(metadata.class_map)).eval()


def _blank(metadata: ModelMetadata, device: torch.device) -> torch.Tensor:
    return torch.zeros(1, 3, metadata.spec.image_size, metadata.spec.image_size, device=device)


def _operations(metadata: ModelMetadata) -> int:
    """Count the operations of one image in torch's way, without computing anything.

    A multiplication and the addition after it are two; only matrix products and convolutions
    count.
    """
    meta = torch.device("meta")
    with meta:
        network = _same_architecture(metadata)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(_blank(metadata, meta))
    return int(counter.get_total_flops())


def _sizes(net: nn.Module) -> dict[str, int]:
    parameters = list(net.parameters())
    return {
        "parameters": sum(item.numel() for item in parameters),
        "trainable_parameters": sum(item.numel() for item in parameters if item.requires_grad),
        "weights_bytes": sum(
            item.numel() * item.element_size() for item in net.state_dict().values()
        ),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _in_words(info: dict[str, Any]) -> str:
    latency, side = info["latency_ms"], info["input_shape"][-1]
    return (
        f"{info['architecture']}, {info['parameters'] / 1e6:.2f} M parameters "
        f"({info['trainable_parameters'] / 1e6:.2f} M trained), "
        f"{info['weights_bytes'] / 1e6:.1f} MB, {info['flops_per_image'] / 1e9:.2f} GFLOP an image "
        f"of {side} px, {latency['p50']:.1f} ms on {latency['device']} (p95 {latency['p95']:.1f})"
    )
