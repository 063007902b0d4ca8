"""An augmentation: the net between camera and court."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2


class CourtNet(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Draws vertical and horizontal lines over an image.

    Args:
        p: Probability of drawing.
        spacing: Pixels between two lines, drawn anew for each image, from..to.
        shade: Value of the lines, 0..255.
    """

    def __init__(self, p: float, spacing: list[int], shade: int) -> None:
        super().__init__()
        self.p, self.spacing, self.shade = p, spacing, shade

    def forward(self, image: Tensor) -> Tensor:
        """Draw.

        Args:
            image: ``(3, H, W)`` uint8, RGB.
        """
        # torch's generator is seeded for each image: the same run draws the same nets.
        if torch.rand(()) >= self.p:
            return image
        step = int(torch.randint(self.spacing[0], self.spacing[1] + 1, ()))
        first = int(torch.randint(step, ()))
        drawn = image.clone()
        drawn[:, first::step, :] = self.shade
        drawn[:, :, first::step] = self.shade
        return drawn
