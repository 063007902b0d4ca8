"""How many images a step takes, where the configuration leaves that to the machine."""

from __future__ import annotations

from loguru import logger

from classifier_training.config.schema import Config
from classifier_training.errors import ConfigError
from classifier_training.training.estimate import Estimate, estimate
from classifier_training.training.hardware import Hardware

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


def largest_that_fits(found: Estimate, most: int) -> int:
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
            mend="a smaller model or transforms.image_size, or free the memory",
        )
    return min(most, found.largest_batch)
