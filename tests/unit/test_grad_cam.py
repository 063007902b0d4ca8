"""Grad-CAM against references that are not Grad-CAM, and that it changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from classifier_training.evaluation.explain import Answered, choose
from classifier_training.models.classifier import Classifier
from classifier_training.models.grad_cam import feature_layer, grad_cam
from classifier_training.plots.gradcam import Overlay, draw_overlays


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def resnet() -> Classifier:
    torch.manual_seed(0)
    return Classifier("resnet18", 5).eval()


@pytest.mark.promise("N10")
@pytest.mark.promise("T9")
def test_with_global_average_pooling_it_is_the_class_activation_map(resnet: Classifier) -> None:
    """Zhou et al. 2016: the head's weights times the features; Grad-CAM is that over the cells."""
    images = noise(3, 3, 128, 128)
    classes = torch.tensor([[0, 3], [2, 2], [4, 1]])
    layer = feature_layer(resnet, images)

    maps = grad_cam(resnet, layer.name, images, classes)

    net = resnet.network
    with torch.no_grad():
        stem = net.maxpool(net.relu(net.bn1(net.conv1(images))))  # type: ignore[operator]
        features = net.layer4(net.layer3(net.layer2(net.layer1(stem))))  # type: ignore[operator]
        activation = torch.einsum("kc,nchw->nkhw", net.fc.weight, features)
    expected = torch.stack([activation[n, classes[n]] for n in range(3)]).clamp(min=0) / 16
    assert layer.name == "network.layer4"
    assert maps.shape == (3, 2, 4, 4)
    assert expected.amax() > 0
    torch.testing.assert_close(maps, expected, atol=1e-6, rtol=1e-5)


class Curved(nn.Module):
    """A head that is not linear, behind ReLU in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 36, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, 6, 6) to (N, 3)."""
        features = nn.functional.relu(self.conv(images), inplace=True)
        return self.fc(torch.tanh(features).flatten(1))


@pytest.mark.promise("N10")
@pytest.mark.promise("T9")
def test_with_a_curved_head_it_follows_the_gradient() -> None:
    torch.manual_seed(1)
    network = Curved().eval().double()
    images = noise(2, 3, 6, 6).double()

    maps = grad_cam(network, "conv", images, torch.tensor([[1], [2]]))[:, 0]

    with torch.no_grad():
        features = network.conv(images).numpy()
    head = network.fc.weight.detach().numpy().reshape(3, 4, 6, 6)
    for number, wanted in enumerate((1, 2)):
        positive = np.maximum(features[number], 0)
        # By hand: the derivative of w tanh(relu(a)).
        slope = head[wanted] * (1 - np.tanh(positive) ** 2) * (features[number] > 0)
        expected = (slope.mean(axis=(1, 2))[:, None, None] * features[number]).sum(axis=0)
        np.testing.assert_allclose(maps[number], np.maximum(expected, 0), atol=1e-12)


@pytest.mark.promise("N10")
def test_it_finds_the_patch_that_decides_the_class() -> None:
    """A network trained to tell a red patch from a green one must look at the patch."""
    generator = torch.Generator().manual_seed(3)

    def draw(count: int) -> tuple[Tensor, Tensor, Tensor]:
        images = torch.rand(count, 3, 32, 32, generator=generator) * 0.4
        labels = torch.arange(count) % 2
        corners = torch.randint(0, 3, (count, 2), generator=generator) * 8 + 4
        for image, label, (top, left) in zip(images, labels, corners, strict=True):
            image[int(label), top : top + 8, left : left + 8] = 1.0
        return images, labels, corners

    torch.manual_seed(0)
    network = Classifier("tiny", 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(40):
        images, labels, _ = draw(32)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    network.eval()
    images, labels, corners = draw(64)
    assert (network(images).argmax(dim=1) == labels).all()

    layer = feature_layer(network, images)
    maps = grad_cam(network, layer.name, images, labels[:, None])[:, 0]

    assert layer.cells == (8, 8)
    places = maps.flatten(1).argmax(dim=1)
    centres = torch.stack([places // 8, places % 8], dim=1) * 4 + 2  # pixels
    # A cell of 4 pixels sees a little more than its own.
    inside = ((centres >= corners - 3) & (centres < corners + 11)).all(dim=1)
    assert inside.float().mean() >= 0.95


@pytest.mark.promise("N10")
@pytest.mark.parametrize("freeze", [False, True])
def test_weights_gradients_and_statistics_stay_as_they_are(freeze: bool) -> None:
    torch.manual_seed(2)
    network = Classifier("tiny", 4, freeze=freeze).eval()
    images, classes = noise(2, 3, 32, 32), torch.tensor([[0, 1], [2, 3]])
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trained = [item.requires_grad for item in network.parameters()]
    logits = network(images).detach()

    maps = grad_cam(network, feature_layer(network, images).name, images, classes)

    assert maps.amax() > 0
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
    assert torch.equal(network(images).detach(), logits)
    assert [item.requires_grad for item in network.parameters()] == trained
    assert all(item.grad is None for item in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.promise("N10")
def test_a_frozen_backbone_gives_the_same_map() -> None:
    torch.manual_seed(2)
    free = Classifier("tiny", 4).eval()
    frozen = Classifier("tiny", 4, freeze=True).eval()
    frozen.load_state_dict(free.state_dict())
    images, classes = noise(2, 3, 32, 32), torch.tensor([[0, 1], [2, 3]])
    name = feature_layer(free, images).name

    assert torch.equal(
        grad_cam(free, name, images, classes), grad_cam(frozen, name, images, classes)
    )


@pytest.mark.promise("N10")
def test_the_map_is_not_coarser_than_four_cells_where_there_is_a_finer_one(
    resnet: Classifier,
) -> None:
    assert feature_layer(resnet, noise(1, 3, 64, 64)).name == "network.layer3"
    assert feature_layer(resnet, noise(1, 3, 64, 64)).cells == (4, 4)


@pytest.mark.promise("N10")
def test_a_network_without_maps_is_told() -> None:
    with pytest.raises(ValueError, match="no module"):
        feature_layer(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), noise(1, 3, 2, 2))


def answered(confidences: list[float], right: list[bool]) -> tuple[Answered, np.ndarray]:
    """Three classes; the answer is class ``i % 2``, the truth that or class 2."""
    count = len(confidences)
    predicted = np.arange(count) % 2
    probabilities = np.zeros((count, 3))
    probabilities[np.arange(count), predicted] = confidences
    rest = (1 - np.array(confidences)) / 3
    probabilities[np.arange(count), 1 - predicted] = 2 * rest
    probabilities[:, 2] = rest
    labels = np.where(right, predicted, 2)
    logits = np.log(probabilities).astype(np.float32)
    return Answered(np.arange(count) + 100, logits), labels


@pytest.mark.promise("N10")
def test_the_most_confident_mistakes_come_first_then_right_predictions_of_all_classes() -> None:
    given = [0.6, 0.95, 0.7, 0.9, 0.99, 0.98, 0.97, 0.55]
    right = [False, False, False, False, True, True, True, True]
    cases = list(choose("val", *answered(given, right), 6))

    assert [case.row - 100 for case in cases] == [1, 3, 2, 0, 4, 5]
    assert [case.name for case in cases] == [f"val-{number:02d}" for number in range(1, 7)]
    assert [case.second for case in cases] == [2, 2, 2, 2, 1, 0]
    assert cases[0].confidence == pytest.approx(0.95, abs=1e-6)


@pytest.mark.promise("N10")
@pytest.mark.parametrize(("right", "wrong"), [(5, 0), (0, 5), (1, 1)])
def test_there_may_be_only_mistakes_or_none(right: int, wrong: int) -> None:
    flags = [True] * right + [False] * wrong
    cases = list(choose("val", *answered([0.9] * len(flags), flags), 3))

    assert sum(case.true != case.predicted for case in cases) == min(wrong, 2)
    assert len(cases) == min(2, wrong) + min(right, 3 - min(2, wrong))


@pytest.mark.promise("S2")
@pytest.mark.parametrize(
    "name", ["$x$", "$\\frac{", "<b>", "line\nbreak", "x" * 300, "日本", "\udce9"]
)
def test_class_names_do_not_break_the_picture(name: str, tmp_path: Path) -> None:
    heat = np.stack([np.eye(32), np.zeros((32, 32))]).astype(np.float32)
    image = np.full((32, 32, 3), 128, dtype=np.uint8)

    draw_overlays(Overlay(image, heat, name, "0", name, 0.5), tmp_path / "a.png")

    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (792, 324)
