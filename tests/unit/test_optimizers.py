"""Which parameter is decayed, and how fast it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loguru import logger

from classifier_training.config.registry import BACKBONES
from classifier_training.config.schema import OptimizerConfig
from classifier_training.models.classifier import Classifier
from classifier_training.training.optimizers import build_optimizer, parameter_groups
from tests.helpers.observers import Watch, use
from tests.helpers.training import train_only

_CONFIG = OptimizerConfig(
    name="adamw", learning_rate=0.01, weight_decay=0.1, betas=[0.8, 0.95], head_lr_multiplier=5.0
)


@pytest.mark.promise("T8")
@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_trained_parameter_is_in_one_group(name: str, freeze: bool) -> None:
    with torch.device("meta"):
        net = Classifier(name, 3, freeze=freeze)
    names = {id(parameter): key for key, parameter in net.named_parameters()}

    groups = parameter_groups(net, _CONFIG)

    grouped = [names[id(p)] for group in groups for p in group["params"]]
    trained = [key for key, parameter in net.named_parameters() if parameter.requires_grad]
    assert sorted(grouped) == sorted(trained)
    for group in groups:
        for parameter in group["params"]:
            key = names[id(parameter)]
            is_head = key.startswith(net.head_prefix)
            is_gentle = key.endswith(".bias") or parameter.ndim == 1
            assert group["lr"] == pytest.approx(0.05 if is_head else 0.01), key
            assert group["weight_decay"] == (0.0 if is_gentle else 0.1), key
    assert not freeze or all(key.startswith(net.head_prefix) for key in grouped)


@pytest.mark.promise("T8")
def test_decay_pulls_weights_and_spares_norms_and_biases() -> None:
    """With zero gradients AdamW moves what is decayed and nothing else."""
    net = Classifier("tiny", 3)
    before = {key: value.detach().clone() for key, value in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)

    build_optimizer(net, _CONFIG).step()

    for key, parameter in net.named_parameters():
        rate = 0.05 if key.startswith("network.fc.") else 0.01
        kept = 1 - rate * 0.1 if parameter.ndim > 1 else 1.0
        assert torch.allclose(parameter, before[key] * kept, rtol=1e-6), key


@pytest.mark.promise("T8")
def test_groups_are_printed() -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")

    build_optimizer(Classifier("tiny", 3), _CONFIG)

    logger.remove(sink)
    text = "".join(lines)
    for wanted in ("backbone, no decay", "head, no decay", "lr 5.00e-02", "decay 0.1"):
        assert wanted in text


@pytest.mark.promise("T8")
def test_head_learns_faster_in_a_run(folder_data: Path, tmp_path: Path) -> None:
    train_only(
        folder_data, tmp_path / "run", "optimizer.head_lr_multiplier=10.0",
        "trainer.max_epochs=1", *use("Watch"),
    )  # fmt: skip

    for rates in Watch.seen["lr"]:
        assert rates == pytest.approx([rates[0], rates[0], 10 * rates[0], 10 * rates[0]])
