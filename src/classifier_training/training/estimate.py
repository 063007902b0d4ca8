"""What a training step costs, measured on random images and extrapolated."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from loguru import logger
from torch import Tensor
from torch.nn.functional import cross_entropy

from classifier_training.config.registry import OPTIMIZERS
from classifier_training.config.schema import Config
from classifier_training.errors import ConfigError
from classifier_training.models.classifier import Classifier
from classifier_training.system.resources import available_memory
from classifier_training.training.hardware import Hardware
from classifier_training.training.optimizers import parameter_groups

_AMP = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# A step may take long on a CPU: this many images tell enough, and this long is waited for.
_FEW_IMAGES = 8
_ENOUGH_S = 4.0
_MOST_STEPS = 10
# Allocators leave holes, and libraries take workspaces.
_SHARE = 0.85


@dataclass(frozen=True)
class StepEstimate:
    """What was measured.

    Attributes:
        fixed_bytes: Weights, their average, gradients, optimiser state.
        image_bytes: What one more image of a batch takes.
        free: Bytes that the device has for it; None: unknown.
        images_per_s: Trained images a second.
    """

    fixed_bytes: int
    image_bytes: float
    free: int | None
    images_per_s: float

    def bytes_at(self, batch: int) -> float:
        """Return what a batch of that size needs."""
        return self.fixed_bytes + batch * self.image_bytes

    @property
    def largest_batch(self) -> int:
        """The largest power of two that fits; 0 if not even one image does."""
        room = (self.free or 0) * _SHARE - self.fixed_bytes
        images = int(room / self.image_bytes)
        return 1 << (images.bit_length() - 1) if images >= 1 else 0


def estimate(config: Config, hardware: Hardware, *, classes: int) -> StepEstimate:
    """Take a few steps, as training would take them, and leave nothing behind.

    On a GPU the batch is the configured one, on a CPU at most 8 images.

    Raises:
        ConfigError: Not even that fits into memory.
    """
    kind = hardware.device.kind
    asked = config.data.images_a_batch
    batch = min(asked, _FEW_IMAGES) if kind == "cpu" else asked
    free = _free(kind)
    while True:
        try:
            return _measure(config, hardware, classes, batch, free)
        except torch.OutOfMemoryError as error:
            if batch == 1:
                raise ConfigError(
                    f"not even one image of {config.transforms.image_size} pixels fits",
                    expected="enough memory on the device for a step of training",
                    fix="a smaller model or transforms.image_size, or free the device",
                ) from error
            batch //= 2


def _measure(
    config: Config, hardware: Hardware, classes: int, batch: int, free: int | None
) -> StepEstimate:
    device = torch.device(hardware.device.kind)
    with torch.random.fork_rng(devices=[]):
        network = Classifier(
            config.model.name, classes, weights=None, freeze=config.model.freeze
        ).to(device)
        if config.model.channels_last:
            network.to(memory_format=torch.channels_last)
        size = config.transforms.image_size
        images = torch.rand(batch, 3, size, size).to(device)
        labels = torch.randint(classes, (batch,)).to(device)
    optimizer = OPTIMIZERS[config.optimizer.name](
        parameter_groups(network, config.optimizer), config.optimizer
    )
    network.train()
    held = _HeldBytes()

    def step() -> None:
        amp = hardware.precision in _AMP
        dtype = _AMP.get(hardware.precision, torch.float32)
        with torch.autocast(device.type, dtype=dtype, enabled=amp):
            loss = cross_entropy(network(images), labels)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda kept: kept):
        step()
    steps, seconds = 0, 0.0
    while steps < _MOST_STEPS and seconds < _ENOUGH_S:
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds += time.perf_counter() - started
        steps += 1
    weights = sum(parameter.numel() * 4 for parameter in network.parameters())
    trained = sum(p.numel() * 4 for p in network.parameters() if p.requires_grad)
    fixed = weights * (2 if config.ema.enabled else 1) + 3 * trained
    per_image = held.total(network) / batch
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
        per_image = max(per_image, (peak - weights - 3 * trained) / batch)
    return StepEstimate(fixed, max(1.0, per_image), free, batch * steps / seconds)


class _HeldBytes:
    """Counts what the forward pass keeps for the backward pass, once for each storage."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def total(self, network: Classifier) -> int:
        """Return the bytes, without those of the weights."""
        own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
        return sum(size for place, size in self._sizes.items() if place not in own)


def _free(kind: str) -> int | None:
    if kind == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return available_memory() if kind == "cpu" else None


# Beyond these, a larger batch gains no speed, and an epoch has too few steps to learn from.
AUTO_MOST = {"cuda": 256, "mps": 128, "cpu": 32}
_LEAST_STEPS = 16


def with_batch_size(config: Config, hardware: Hardware, *, classes: int, images: int) -> Config:
    """Return the configuration with a number as ``data.batch_size``.

    Args:
        config: A number is left as it is; ``auto`` is decided by a few measured steps.
        hardware: Where it will train.
        classes: Number of classes.
        images: Training images.

    Raises:
        ConfigError: Not even one image fits into memory.
    """
    if config.data.batch_size != "auto":
        return config
    most = most_images(config, hardware, images=images)
    found = estimate(config.with_batch_size(most), hardware, classes=classes)
    batch = largest_that_fits(found, most)
    logger.info(
        "batch size: {} images (auto: the largest power of two that fits into memory, at most {})",
        batch,
        most,
    )
    return config.with_batch_size(batch)


def most_images(config: Config, hardware: Hardware, *, images: int) -> int:
    """Return the power of two that ``auto`` never exceeds, whatever the memory.

    An epoch keeps at least 16 steps where there are images for them.
    """
    accumulated = config.trainer.accumulate_grad_batches
    for_steps = max(2, images // (_LEAST_STEPS * accumulated))
    return min(AUTO_MOST[hardware.device.kind], 1 << (for_steps.bit_length() - 1))


def largest_that_fits(found: StepEstimate, most: int) -> int:
    """Return the largest power of two up to ``most`` that fits.

    Raises:
        ConfigError: There is none.
    """
    if found.free is None:  # unknown: as large as was just tried
        return most
    if found.largest_batch < 1:
        raise ConfigError(
            "not even one image fits into the memory that is free",
            expected="enough memory for a step of training",
            fix="a smaller model or transforms.image_size, or free the memory",
        )
    return min(most, found.largest_batch)
