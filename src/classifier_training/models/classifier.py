"""A backbone with a head for our classes. This module, and nothing around it, is exported."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from classifier_training.config.registry import BACKBONES
from classifier_training.models.weights import load_backbone_weights


class Classifier(nn.Module):
    """Normalised images to logits.

    Args:
        name: A registered backbone.
        num_classes: Size of the head.
        weights: ``"DEFAULT"``, a path, or None for random weights.
        freeze: Train only the head; BatchNorm statistics of the backbone stay bit-equal.

    Raises:
        ConfigError: Unknown name, or weights that cannot be had or do not fit.
    """

    def __init__(
        self, name: str, num_classes: int, *, weights: str | None = None, freeze: bool = False
    ) -> None:
        super().__init__()
        backbone = BACKBONES[name]
        self.network: nn.Module = backbone.build()
        self._head_name = backbone.head
        self._freeze = freeze
        if weights is not None:
            load_backbone_weights(self.network, backbone, weights)
        old = cast(nn.Linear, self.network.get_submodule(backbone.head))
        if old.out_features != num_classes or weights is None:
            self.network.set_submodule(
                backbone.head, nn.Linear(old.in_features, num_classes), strict=True
            )
        if freeze:
            self.network.requires_grad_(False)
            self.head.requires_grad_(True)
            self.train()  # Lightning trains in the mode it is given

    @property
    def head(self) -> nn.Module:
        """The last linear layer."""
        return self.network.get_submodule(self._head_name)

    @property
    def head_prefix(self) -> str:
        """What the keys of the head's tensors start with in the state dict."""
        return f"network.{self._head_name}."

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` float32, normalised, to ``(N, C)`` logits."""
        return cast(Tensor, self.network(images))

    def embed(self, images: Tensor) -> Tensor:
        """Map the same images to ``(N, D)``: what the head is given."""
        given: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _head, inputs: given.append(inputs[0]))
        try:
            self.network(images)
        finally:
            hook.remove()
        return given[0]

    def train(self, mode: bool = True) -> Classifier:
        """Switch to training mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self._freeze:
            self.network.eval()
            self.head.train(mode)
        return self
