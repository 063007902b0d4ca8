"""A YAML or a command line names classes from a table, and nothing else that can be imported."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path

import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import pytest
import torchvision.transforms.v2
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import nn

from classifier_training.config import targets
from classifier_training.config.compose import allowed_modules, compose_config, make_strict
from classifier_training.config.instantiate import instantiate
from classifier_training.config.targets import EXCLUDED, known_classes
from classifier_training.config.validate import validate
from classifier_training.errors import ConfigError

DANGEROUS = [
    "os.system",
    "torch.load",
    "builtins.eval",
    "pathlib.Path.write_text",
    "subprocess.Popen",
    "lightning.pytorch.callbacks.model_checkpoint.torch.load",
    "torchvision.transforms.v2.functional.F.os.system",
    "classifier_training.cli.train.os.system",
    "torchvision.transforms.v2.Lambda",
    "lightning.pytorch.callbacks.LambdaCallback",
    "hydra.utils.get_method",
    "lightning.pytorch.callbacks.EarlyStopping.__init__",
    "",
]
PLACES = [
    "transforms.train=[{{_target_: {0}}}]",
    "transforms.train=[{{_target_: torchvision.transforms.v2.RandomApply, "
    "transforms: [{{_target_: torchvision.transforms.v2.Compose, "
    "transforms: [{{a: {{b: [{{_target_: {0}}}]}}}}]}}]}}]",
    "transforms.train.0.size._target_={0}",
    "callbacks.mine={{_target_: {0}}}",
    "callbacks.early_stopping._target_={0}",
    "callbacks.early_stopping.patience={{_target_: {0}}}",
    "logging.mine={{_target_: {0}, x: [[{{_target_: {0}}}]]}}",
    "model._target_={0}",
    "+data.fields={{_target_: {0}}}",
    "foo={{bar: [{{_target_: {0}}}]}}",
]


def check(*overrides: str, root: str = "train", config_dir: str | None = None) -> None:
    given = ["data.data_root=/images", *overrides]
    composed = compose_config(
        make_strict(given, config_dir=config_dir), root=root, config_dir=config_dir
    )
    validate(composed, allow_modules=allowed_modules(given))


def refused_keys(*overrides: str, root: str = "train", config_dir: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(*overrides, root=root, config_dir=config_dir)
    return [problem.key for problem in caught.value.problems]


@pytest.mark.promise("C4")
@pytest.mark.parametrize("place", PLACES)
def test_a_dangerous_target_is_refused_wherever_it_stands(place: str) -> None:
    keys = refused_keys(place.format("os.system"))

    assert any(key.endswith("_target_") for key in keys)


@pytest.mark.promise("C4")
@pytest.mark.parametrize("target", DANGEROUS)
def test_a_dangerous_target_is_refused_whatever_its_name(target: str) -> None:
    """Beside the known ones; all in one composition, since each must be listed."""
    quoted = f'"{target}"'

    assert refused_keys(
        f"transforms.train=[{{_target_: {quoted}}}]",
        f"callbacks.mine={{_target_: {quoted}}}",
        f"logging.mine={{_target_: {quoted}}}",
    ) == ["transforms.train.0._target_", "callbacks.mine._target_", "logging.mine._target_"]


@pytest.mark.promise("C4")
@pytest.mark.parametrize("section", ["transforms", "callbacks", "logging"])
def test_a_class_of_one_section_is_no_class_of_another(section: str) -> None:
    other = {
        "transforms": "lightning.pytorch.callbacks.Timer",
        "callbacks": "lightning.pytorch.loggers.CSVLogger",
        "logging": "torchvision.transforms.v2.Resize",
    }[section]
    entry = {"transforms": f"transforms.train=[{{_target_: {other}}}]"}.get(
        section, f"{section}.mine={{_target_: {other}}}"
    )

    assert len(refused_keys(entry)) == 1


@pytest.mark.promise("C4")
@pytest.mark.parametrize("key", ["_partial_", "_args_", "_recursive_", "_convert_"])
def test_other_keys_that_hydra_would_act_on_are_refused(key: str) -> None:
    entry = f"{{_target_: torchvision.transforms.v2.Identity, {key}: true}}"

    assert refused_keys(f"transforms.train=[{entry}]") == [f"transforms.train.0.{key}"]


@pytest.mark.promise("C4")
@pytest.mark.parametrize(
    "override",
    [
        "hydra.callbacks.x._target_=os.system",
        "+hydra.callbacks={x: {_target_: os.system}}",
        "hydra.launcher._target_=os.system",
        "hydra.sweeper._target_=os.system",
        "hydra.sweeper.params={_target_: os.system}",
        "hydra.job_logging.handlers.x.class=os.system",
        "hydra.searchpath=[file:///tmp]",
        "hydra.job.chdir=true",
        "hydra.output_subdir=x",
        "hydra/callbacks=x",
        "hydra={}",
        "~hydra.run.dir",
    ],
)
def test_hydras_own_section_is_closed(override: str) -> None:
    with pytest.raises(ConfigError, match="changes Hydra itself"):
        make_strict([override])


@pytest.mark.promise("C4")
@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("callbacks:\n  x:\n    _target_: os.system\n", "callbacks.x._target_"),
        ("transforms:\n  train:\n    - _target_: torch.load\n", "transforms.train.0._target_"),
        ("export:\n  _target_: builtins.eval\n", "export._target_"),
        ("callbacks:\n  x:\n    _target_: ${oc.env:HOME}\n", "callbacks.x._target_"),
        ("allow_modules: [os]\n", "allow_modules"),
    ],
)
def test_a_stored_file_is_held_to_the_same_table(content: str, key: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"defaults:\n  - train\n  - _self_\n{content}")

    assert refused_keys(root="mine", config_dir=str(tmp_path)) == [key]


@pytest.mark.promise("C4")
@pytest.mark.parametrize(
    "content",
    [
        "hydra:\n  callbacks:\n    x:\n      _target_: os.system\n      command: touch {0}\n",
        "hydra:\n  launcher:\n    _target_: os.system\n",
        "hydra:\n  job_logging:\n    handlers:\n      x:\n        (): os.system\n",
    ],
)
def test_a_stored_file_cannot_make_hydra_call_anything(content: str, tmp_path: Path) -> None:
    witness = tmp_path / "called"
    (tmp_path / "mine.yaml").write_text(
        f"defaults:\n  - train\n  - _self_\n{content.format(witness)}"
    )

    with pytest.raises(ConfigError, match=r"names the class os\.system"):
        check(root="mine", config_dir=str(tmp_path))
    assert not witness.exists()


@pytest.mark.promise("C4")
def test_a_module_is_allowed_by_the_command_line_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = "transforms.train=[{_target_: mine.Blur}]"
    for name in ("mine", "min"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.yaml").write_text("defaults:\n  - train\n  - _self_\nallow_modules: [mine]\n")

    check(entry, "allow_modules=[mine]")
    assert refused_keys(entry) == ["transforms.train.0._target_"]
    assert "allow_modules" in refused_keys(entry, root="mine", config_dir=str(tmp_path))
    assert refused_keys(entry, "allow_modules=[min]") == ["transforms.train.0._target_"]


@pytest.mark.promise("C4")
def test_an_allowed_module_opens_nothing_that_it_imported() -> None:
    deeper = "transforms.train=[{_target_: classifier_training.transforms.erasing.torch.load}]"

    keys = refused_keys(deeper, "allow_modules=[classifier_training.transforms.erasing]")

    assert keys == ["transforms.train.0._target_"]


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_ops_of_a_user.py").write_text(
        "from os import system\n"
        "from subprocess import Popen\n"
        "from torch.nn import Linear\n"
        "from torch import nn\n"
        "class Blur(nn.Module):\n"
        "    def __init__(self, radius: int) -> None:\n"
        "        super().__init__()\n"
        "        self.radius = radius\n"
        "        if radius > 9:\n"
        "            raise RuntimeError('radius is too large')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_ops_of_a_user", raising=False)
    return "own_ops_of_a_user"


@pytest.mark.promise("C4")
@pytest.mark.parametrize(
    ("name", "arguments", "what"),
    [
        ("system", {"command": "true"}, "is not a Module"),
        ("Popen", {"args": "true"}, "is not a Module"),
        ("Linear", {"in_features": 1, "out_features": 1}, "is an alias"),
        ("Blurr", {}, "cannot import"),
        ("Blur", {}, "refuses its arguments: missing a required argument: 'radius'"),
        ("Blur", {"radius": 3, "rdius": 3}, "refuses its arguments: got an unexpected"),
        ("Blur", {"radius": 10}, "refuses its arguments: radius is too large"),
        ("nn.Module", {}, "cannot import"),
    ],
)
def test_what_an_allowed_module_gives_must_be_a_class_of_its_own(
    own_module: str, name: str, arguments: dict[str, object], what: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        instantiate({"_target_": f"{own_module}.{name}", **arguments}, nn.Module, "transforms.x")

    assert what in caught.value.what
    assert "transforms.x" in caught.value.what


@pytest.mark.promise("C4")
def test_an_own_class_is_built_with_its_arguments(own_module: str) -> None:
    built = instantiate({"_target_": f"{own_module}.Blur", "radius": 3}, nn.Module, "transforms.x")

    assert built.radius == 3


@pytest.mark.promise("C4")
def test_a_library_that_dislikes_a_value_is_an_error_of_the_configuration() -> None:
    spec = {
        "_target_": "lightning.pytorch.callbacks.EarlyStopping",
        "monitor": "val/loss",
        "mode": "smallest",
    }

    with pytest.raises(ConfigError) as caught:
        instantiate(spec, Callback, "callbacks.early_stopping")

    assert "callbacks.early_stopping" in caught.value.what
    assert "smallest" in caught.value.what


SNAPSHOT = Path(targets.__file__).with_name("library_classes.json")
LIBRARIES = {
    "transforms": (torchvision.transforms.v2, nn.Module),
    "callbacks": (lightning.pytorch.callbacks, Callback),
    "logging": (lightning.pytorch.loggers, Logger),
}


@pytest.mark.promise("C4")
@pytest.mark.parametrize("section", LIBRARIES)
def test_library_classes_are_those_of_the_snapshot(
    section: str, request: pytest.FixtureRequest
) -> None:
    """A class that a new version brings must be looked at, not overlooked."""
    module, base = LIBRARIES[section]
    public = {
        f"{module.__name__}.{name}"
        for name in getattr(module, "__all__", dir(module))
        if not name.startswith("_")
        and inspect.isclass(getattr(module, name))
        and issubclass(getattr(module, name), base)
    }
    if request.config.getoption("--update-golden"):
        content = json.loads(SNAPSHOT.read_text())
        content[section] = sorted(public)
        SNAPSHOT.write_text(json.dumps(content, indent=2) + "\n")

    assert json.loads(SNAPSHOT.read_text())[section] == sorted(public)
    gone = {name for name in EXCLUDED if name.rpartition(".")[0] == module.__name__} - {
        f"{module.__name__}.{name}" for name in dir(module)
    }
    assert gone == set(), "left out, but not in the library"


@pytest.mark.promise("C4")
@pytest.mark.parametrize("section", LIBRARIES)
def test_every_known_target_can_be_built_from(section: str) -> None:
    _, base = LIBRARIES[section]
    for target in known_classes(section):
        module, _, name = target.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), name), base), target


@pytest.mark.promise("C4")
def test_nothing_is_both_known_and_left_out() -> None:
    assert set().union(*map(known_classes, LIBRARIES)).isdisjoint(EXCLUDED)
