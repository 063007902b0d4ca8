"""Starting weights: what is taken from a file, and what is refused."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from classifier_training.config.registry import BACKBONES
from classifier_training.errors import ClassifierTrainingError, ConfigError
from classifier_training.evaluation.evaluate import evaluate
from classifier_training.models.classifier import Classifier
from classifier_training.models.weights import read_checkpoint, read_state_dict
from classifier_training.run.checkpoint import load_model
from classifier_training.run.reader import Run
from tests.helpers.runs import tiny_train
from tests.helpers.tiny import TinyNet


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self._target),)


def _bomb(folder: Path, how: str) -> tuple[Path, Path]:
    """Write a checkpoint that would make ``exploded``; return both paths."""
    target, path = folder / "exploded", folder / "evil.ckpt"
    content = {"state_dict": {"weight": _Bomb(target)}, "epoch": 0}
    if how == "zip":
        torch.save(content, path)
    elif how == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    return path, target


@pytest.mark.promise("S1")
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize(
    "key", ["ckpt_path", "task.checkpoint_path", "model.weights", "model.init_from"]
)
def test_pickle_is_refused_as_start(how: str, key: str, folder_data: Path, tmp_path: Path) -> None:
    path, target = _bomb(tmp_path, how)

    with pytest.raises(ConfigError, match=r"evil\.ckpt") as refused:
        tiny_train(folder_data, tmp_path / "run", f"{key}={path}")

    assert not target.exists(), "the pickle was executed"
    assert not (tmp_path / "run").exists()
    assert "weights_only" in refused.value.expected


@pytest.mark.promise("S1")
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_pickle_in_the_place_of_best_is_refused(how: str, tmp_path: Path) -> None:
    path, target = _bomb(tmp_path, how)

    with pytest.raises(ConfigError, match=r"evil\.ckpt"):
        load_model(path)

    assert not target.exists(), "the pickle was executed"


@pytest.mark.promise("S1")
def test_pickle_in_a_run_folder_is_refused(
    tiny_run: Run, folder_data: Path, tmp_path: Path
) -> None:
    """Somebody else's run folder, to be evaluated or trained longer."""
    shutil.copytree(tiny_run.folder.path, tmp_path / "run")
    path, target = _bomb(tmp_path, "zip")
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        shutil.copy(path, file)

    with pytest.raises(ConfigError):
        evaluate(tmp_path / "run", split="val")
    with pytest.raises(ConfigError):
        tiny_train(folder_data, tmp_path / "run", "trainer.max_epochs=3")

    assert not target.exists(), "the pickle was executed"


@pytest.mark.promise("S1")
def test_pickle_as_cached_download_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = _bomb(tmp_path, "zip")
    _cache(tmp_path, monkeypatch).write_bytes(path.read_bytes())

    with pytest.raises(ConfigError):
        Classifier("resnet18", 3, weights="DEFAULT")

    assert not target.exists(), "the pickle was executed"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.promise("C5")
def test_damaged_files_are_user_errors(tmp_path: Path) -> None:
    """Whatever the bytes are, the answer has three parts and no traceback."""
    path = tmp_path / "damaged.pt"
    whole = tmp_path / "whole.pt"
    torch.save(TinyNet().state_dict(), whole)
    content = whole.read_bytes()
    legacy = tmp_path / "legacy.pt"
    torch.save(TinyNet().state_dict(), legacy, _use_new_zipfile_serialization=False)
    rng = random.Random(3)
    cases = [b"", b"\n", b"\x80", content[: len(content) // 2], content[:-1], b"x" * 1000]
    cases += [bytes(rng.randrange(256) for _ in range(rng.randrange(1, 60))) for _ in range(300)]
    for source in (content, legacy.read_bytes()):
        for _ in range(100):
            damaged = bytearray(source)
            for _ in range(rng.randrange(1, 30)):
                damaged[rng.randrange(min(len(damaged), 3000))] = rng.randrange(256)
            cases.append(bytes(damaged))

    for case in cases:
        path.write_bytes(case)
        with contextlib.suppress(ConfigError):  # some happen to be whole
            read_checkpoint(path)


@pytest.mark.promise("C5")
@pytest.mark.parametrize(
    ("content", "named"),
    [([1, 2], "list"), ({"a": 1}, "no state dict"), (torch.ones(2), "Tensor")],
)
def test_files_of_something_else_are_refused(content: Any, named: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")

    with pytest.raises(ConfigError, match=named):
        read_state_dict(tmp_path / "odd.pt")


@pytest.mark.promise("C5")
def test_folder_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(ConfigError, match="cannot read"):
        read_checkpoint(tmp_path)


def _cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point torch at an empty cache; return where the published ResNet-18 would lie."""
    monkeypatch.setenv("TORCH_HOME", str(folder / "home"))
    name = models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    path = folder / "home" / "hub" / "checkpoints" / name
    path.parent.mkdir(parents=True)
    return path


def _random_resnet() -> nn.Module:
    network = models.resnet18()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1)
    return network


def _holds(classifier: Classifier, source: nn.Module) -> None:
    own = classifier.network.state_dict()
    for name, value in source.state_dict().items():
        if not name.startswith("fc.") and "num_batches" not in name:
            assert torch.equal(own[name], value), name


@pytest.mark.promise("C2")
@pytest.mark.parametrize("counters", [True, False], ids=["with counters", "as files of old"])
def test_published_weights_are_taken_but_for_the_head(
    counters: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published ResNet-18 was saved before BatchNorm counted its batches."""
    source = _random_resnet()
    state = dict(source.state_dict())
    if not counters:
        state = {key: value for key, value in state.items() if "num_batches" not in key}
    torch.save(state, _cache(tmp_path, monkeypatch))

    classifier = Classifier("resnet18", 5, weights="DEFAULT")

    _holds(classifier, source)
    assert classifier.network.fc.weight.shape == (5, 512)


@pytest.mark.promise("C2")
@pytest.mark.parametrize("nested", [False, True], ids=["state dict", "checkpoint"])
def test_weights_from_a_file(nested: bool, tmp_path: Path) -> None:
    source = _random_resnet()
    state = source.state_dict()
    torch.save({"state_dict": dict(state)} if nested else state, tmp_path / "w.pt")

    _holds(Classifier("resnet18", 5, weights=str(tmp_path / "w.pt")), source)


@pytest.mark.promise("C5")
def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(models.resnet34().state_dict(), path)
    with pytest.raises(ConfigError, match=r"w\.pt do not fit.*unknown"):
        Classifier("resnet18", 5, weights=str(path))

    torch.save(TinyNet().state_dict(), path)
    with pytest.raises(ConfigError, match=r"unknown.*missing"):
        Classifier("resnet18", 5, weights=str(path))


@pytest.mark.promise("C5")
def test_no_network_names_both_ways_out(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cache(tmp_path, monkeypatch)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens, on any machine
    started = time.monotonic()

    with pytest.raises(ConfigError) as refused:
        tiny_train(folder_data, tmp_path / "run", "model.name=resnet18", "model.weights=DEFAULT")

    assert time.monotonic() - started < 30
    assert "TORCH_HOME" in refused.value.fix
    assert "model.weights=" in refused.value.fix
    assert str(tmp_path / "home" / "hub" / "checkpoints") in refused.value.expected
    assert not (tmp_path / "run").exists()


@pytest.mark.promise("C5")
def test_unknown_backbone_suggests_one() -> None:
    with pytest.raises(ClassifierTrainingError, match="resnet19") as refused:
        BACKBONES["resnet19"]

    assert "did you mean resnet18?" in refused.value.fix
