"""Where in an image a class is seen: Grad-CAM (Selvaraju et al. 2017), by hooks of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# A map of fewer cells a side says hardly more than "somewhere".
_FEWEST_CELLS = 4


@dataclass(frozen=True)
class FeatureLayer:
    """The layer whose map is looked at.

    Attributes:
        name: Of the module inside the network.
        cells: Height and width of its map.
    """

    name: str
    cells: tuple[int, int]


@torch.no_grad()
def feature_layer(network: nn.Module, images: Tensor) -> FeatureLayer:
    """Find the last feature map of a network, whatever network it is.

    That is the last module to finish with a map of at least 4 x 4 cells; the stages behind it are
    too coarse for images so small. Where no map is that fine: the last of more than one cell.

    Args:
        network: In evaluation mode.
        images: ``(N, 3, H, W)`` float32, normalised.

    Raises:
        ValueError: Nothing in the network is a map.
    """
    maps: list[FeatureLayer] = []
    names = {module: name for name, module in network.named_modules() if name}

    def remember(module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            height, width = output.shape[-2:]
            maps.append(FeatureLayer(names[module], (height, width)))

    hooks = [module.register_forward_hook(remember) for module in names]
    try:
        network(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not maps:
        raise ValueError("no module of the network gives a map of features")
    return next((layer for layer in reversed(maps) if min(layer.cells) >= _FEWEST_CELLS), maps[-1])


def grad_cam(network: nn.Module, layer: str, images: Tensor, classes: Tensor) -> Tensor:
    """Return how much each place of each image speaks for a class.

    Each channel of the layer counts by the mean gradient of the class's logit; what is below 0
    speaks against it and becomes 0. The gradient begins at the layer, so a frozen backbone is no
    obstacle; weights, their gradients and BatchNorm's statistics stay untouched.

    Args:
        network: In evaluation mode: images must not depend on each other.
        layer: Name of one of its modules, as :func:`feature_layer` gives it.
        images: ``(N, 3, H, W)`` float32, normalised.
        classes: ``(N, K)`` int64: the classes asked about.

    Returns:
        ``(N, K, h, w)`` float32, at least 0: cells of the layer's map, in units of logits.
    """
    seen: list[Tensor] = []

    def cut(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        leaf = output.detach().requires_grad_()
        seen.append(leaf)
        return leaf.clone()  # what follows may work in place

    hook = network.get_submodule(layer).register_forward_hook(cut)
    try:
        with torch.enable_grad():
            logits: Tensor = network(images)
    finally:
        hook.remove()
    features = seen[-1]
    maps = []
    for wanted in classes.unbind(dim=1):
        score = logits.gather(1, wanted[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        maps.append((weights * features.detach()).sum(dim=1).relu())
    return torch.stack(maps, dim=1)
