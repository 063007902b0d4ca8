"""From the YAML list to one callable."""

from __future__ import annotations

from torch import Tensor, nn

from classifier_training.config.instantiate import instantiate
from classifier_training.config.schema import TransformsConfig


class Augmentation(nn.Module):
    """Applies transforms in order to one ``(3, H, W)`` uint8 tensor."""

    def __init__(self, steps: list[nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, image: Tensor) -> Tensor:
        """Return the augmented image, ``(3, S, S)`` uint8 when the list resizes to ``S``."""
        for step in self.steps:
            image = step(image)
        return image


def build_augmentation(config: TransformsConfig) -> Augmentation | None:
    """Build the training augmentation; None for an empty list.

    Raises:
        ConfigError: A class refuses its arguments.
    """
    if not config.train:
        return None
    return Augmentation(
        [
            instantiate(spec, nn.Module, f"transforms.train.{position}")
            for position, spec in enumerate(config.train)
        ]
    )
