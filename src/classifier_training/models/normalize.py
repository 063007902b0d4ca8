"""``(x / 255 - mean) / std`` on the device, bitwise what numpy computes on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from classifier_training.inference.preprocess import PreprocessSpec


class Normalize(nn.Module):
    """Turns ``(N, 3, H, W)`` uint8 into normalised float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: PreprocessSpec) -> None:
        super().__init__()
        # Not persistent: the preprocessing is stored once, beside the weights.
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            shaped = torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)
            self.register_buffer(name, shaped, persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return float32 of the same shape."""
        return images.float().div_(255).sub_(self.mean).div_(self.std)
