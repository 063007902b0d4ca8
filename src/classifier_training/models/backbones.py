"""The backbones there are. A new one is one line in ``BACKBONES``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torchvision import models
from torchvision.models import WeightsEnum


@dataclass(frozen=True)
class Backbone:
    """How to build a network and where its head is.

    Attributes:
        build: Called without arguments, returns the network with random weights.
        weights: Its best published weights.
        head: Name of the last linear layer.
    """

    build: Callable[[], nn.Module]
    weights: WeightsEnum
    head: str


BACKBONES: dict[str, Backbone] = {
    "resnet18": Backbone(models.resnet18, models.ResNet18_Weights.DEFAULT, "fc"),
    "resnet34": Backbone(models.resnet34, models.ResNet34_Weights.DEFAULT, "fc"),
    "resnet50": Backbone(models.resnet50, models.ResNet50_Weights.DEFAULT, "fc"),
}
