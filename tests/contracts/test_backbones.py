"""What every backbone must do; a new one is a line in the registry and is tested here."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from classifier_training.config.registry import BACKBONES
from classifier_training.models.classifier import Classifier
from classifier_training.models.grad_cam import feature_layer, grad_cam

every = pytest.mark.parametrize("name", sorted(BACKBONES))


@pytest.mark.promise("C3")
@every
@pytest.mark.parametrize("classes", [1, 2, 43])
def test_maps_images_to_logits(name: str, classes: int) -> None:
    with torch.device("meta"):
        net = Classifier(name, classes).eval()
        logits = net(torch.empty(2, 3, 64, 96))

    assert logits.shape == (2, classes)
    assert isinstance(net.head, nn.Linear)
    assert net.head.out_features == classes
    assert net.head_prefix == f"network.{BACKBONES[name].head}."
    assert any(key.startswith(net.head_prefix) for key in net.state_dict())


@pytest.mark.promise("T7")
@every
def test_frozen_trains_the_head_alone(name: str) -> None:
    with torch.device("meta"):
        net = Classifier(name, 3, freeze=True)

    net.train()

    for key, parameter in net.named_parameters():
        assert parameter.requires_grad == key.startswith(net.head_prefix), key
    assert not any(module.training for module in net.network.children() if module is not net.head)
    assert net.head.training
    assert not net.eval().head.training


@pytest.mark.promise("T7")
@every
def test_frozen_statistics_stay_bit_equal(name: str) -> None:
    torch.manual_seed(0)
    net = Classifier(name, 3, freeze=True)  # as it is built: nobody may call train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)

    net(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()

    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]) != key.startswith(net.head_prefix), key


@pytest.mark.promise("T5")
@every
def test_works_in_channels_last(name: str) -> None:
    torch.manual_seed(0)
    net = Classifier(name, 3).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = net(images)
        net.to(memory_format=torch.channels_last)
        found = net(images.contiguous(memory_format=torch.channels_last))

    assert torch.allclose(found, wanted, atol=1e-4)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)


@pytest.mark.promise("N10")
@every
def test_grad_cam_finds_its_layer(name: str) -> None:
    torch.manual_seed(0)
    net = Classifier(name, 3).eval()
    images = torch.randn(1, 3, 128, 128)
    layer = feature_layer(net, images)

    assert layer.cells[0] >= 4
    assert grad_cam(net, layer.name, images, torch.tensor([[2]])).shape == (1, 1, *layer.cells)


@pytest.mark.promise("T10")
@every
def test_same_seed_same_weights(name: str) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(11)
        weights.append(Classifier(name, 3).head.weight)

    assert torch.equal(*weights)
