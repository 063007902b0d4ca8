"""Names that a module of the user's adds to the configuration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from classifier_training.config.registry import (
    BACKBONES,
    Backbone,
    register_backbone,
)
from classifier_training.errors import ConfigError
from classifier_training.run.checkpoint import load_model
from tests.helpers.config import config_of
from tests.helpers.runs import tiny_train

MODULE = """
import torch
from torch import nn
from torchvision.transforms import v2

from classifier_training import Callback
from classifier_training.config.registry import (
    register_backbone, register_callback, register_loss, register_optimizer, register_schedule,
    register_transform,
)


@register_backbone("own-net", head="head")
class OwnNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.head = nn.Linear(48, 10)

    def forward(self, images):
        return self.head(self.pool(images).flatten(1))


@register_optimizer("own-sgd")
def own_sgd(groups, config):
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9)


@register_schedule("halving")
def halving(config, warmup_steps, total_steps):
    return lambda step: 0.5 ** step


@register_loss("own-loss")
def own_loss(config, class_weights, log_priors):
    assert log_priors.shape == (4,)
    return nn.CrossEntropyLoss(class_weights)


@register_transform
class Negative(v2.RandomInvert):
    pass


@register_callback
class Counter(Callback):
    steps = 0

    def on_train_batch_end(self, *_):
        type(self).steps += 1
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "own_names_for_the_registry_test"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.promise("C11")
def test_names_of_a_users_module_train_resume_and_reload(
    own_module: str, folder_data: Path, tmp_path: Path
) -> None:
    own = (
        f"allow_modules=[{own_module}]",
        "model.name=own-net",
        "optimizer.name=own-sgd",
        "schedule.name=halving",
        "loss.name=own-loss",
        "transforms.train=[{_target_:torchvision.transforms.v2.Resize,size:[32,32]},"
        f"{{_target_:{own_module}.Negative}}]",
        f"callbacks.counter._target_={own_module}.Counter",
    )

    run = tiny_train(folder_data, tmp_path / "run", *own)

    assert sys.modules[own_module].Counter.steps == 12
    assert run.record["status"] == "finished"
    assert run.history[-1]["lr"] == pytest.approx(0.01 * 0.5**12)
    assert type(load_model(run.folder.best).network.network).__name__ == "OwnNet"
    longer = tiny_train(folder_data, tmp_path / "run", *own, "trainer.max_epochs=3")
    assert longer.history[-1]["step"] == 18


@pytest.mark.promise("C1")
@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.name=resnet81", "did you mean resnet18?"),
        ("optimizer.name=adam", "did you mean adamw?"),
        ("schedule.name=cosin", "did you mean cosine?"),
        ("loss.name=crossentropy", "did you mean cross_entropy?"),
        ("export.precision=int4", "did you mean int8?"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(override: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of("data.data_root=/images", override)

    assert told in str(caught.value)
    assert override.partition("=")[0] in str(caught.value)


@pytest.mark.promise("C1")
@pytest.mark.promise("C6")
def test_unknown_name_is_refused_before_torch_is_imported() -> None:
    code = (
        "import sys\n"
        "from classifier_training.cli.train import train\n"
        "code = train(['data.data_root=/images', 'model.name=resnet81', 'optimizer.name=adam'])\n"
        "print(code, 'torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["2", "False"]
    assert "resnet81" in done.stderr
    assert "'adam'" in done.stderr


@pytest.mark.promise("C4")
def test_module_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(ConfigError, match="no_such_module"):
        config_of("data.data_root=/images", "allow_modules=[no_such_module]")


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ConfigError, match="registered already"):
        register_backbone("resnet18", head="fc")(dict)
    register_backbone("resnet18-again", head="fc")(dict)
    register_backbone("resnet18-again", head="fc")(dict)  # the same: a module that is reloaded

    assert BACKBONES["resnet18-again"] == Backbone(dict, None, "fc")
