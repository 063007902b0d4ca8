"""A backbone small enough for tests, registered the way a user would register one."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

from classifier_training.config.registry import register_backbone


class TinyNet(nn.Module):
    """Two convolutions with BatchNorm and a linear head; about 2,000 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.fc = nn.Linear(16, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 1000)."""
        return self.fc(self.features(images))


class DropoutNet(TinyNet):
    """The same, drawing from the random stream at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.features.append(nn.Dropout(0.5))


def register() -> None:
    """Make ``model.name=tiny`` known (its published weights are never asked for)."""
    register_backbone("tiny", head="fc", weights=ResNet18_Weights.DEFAULT)(TinyNet)
    register_backbone("dropout", head="fc", weights=ResNet18_Weights.DEFAULT)(DropoutNet)
