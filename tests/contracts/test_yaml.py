"""Every YAML composes, every key is read, and every default stands once."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pytest
from omegaconf import OmegaConf
from pydantic import BaseModel

from classifier_training.config.compose import CONF_MODULE, compose_config, make_strict
from classifier_training.config.schema import Config, Section
from classifier_training.config.validate import validate
from classifier_training.data.index import index_data
from classifier_training.errors import ExportError
from classifier_training.run.folder import RunFolder
from classifier_training.training.fit import fit
from tests.helpers.data import write_folder, write_jsonl
from tests.helpers.runs import TINY

CONF = Path(str(resources.files(CONF_MODULE)))
ROOTS = sorted(path.stem for path in CONF.glob("train*.yaml"))
OPTIONS = sorted(
    (path.parent.name, path.stem) for path in CONF.glob("*/*.yaml") if path.stem != "base"
)


def composed(*overrides: str, root: str = "train") -> Config:
    given = make_strict(["data.data_root=/images", *overrides])
    return validate(compose_config(given, root=root), allow_modules=[])


@pytest.mark.promise("C2")
def test_every_yaml_is_looked_at() -> None:
    """A YAML that is neither a root, nor a group's option, nor its base is dead."""
    seen = {f"{root}.yaml" for root in ROOTS} | {f"{g}/{name}.yaml" for g, name in OPTIONS}
    bases = {path.relative_to(CONF).as_posix() for path in CONF.rglob("base.yaml")}

    assert {path.relative_to(CONF).as_posix() for path in CONF.rglob("*.y*ml")} == seen | bases


@pytest.mark.promise("C2")
@pytest.mark.parametrize("root", ROOTS)
def test_every_root_composes_and_validates(root: str) -> None:
    composed(root=root)


@pytest.mark.promise("C2")
@pytest.mark.parametrize(("group", "option"), OPTIONS, ids="/".join)
def test_every_option_composes_and_validates(group: str, option: str) -> None:
    composed(f"{group}={option}")


@pytest.mark.promise("C2")
@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("layer", ["experiment=linear_probe", "debug=overfit", "debug=profiler"])
def test_layers_go_on_every_root(root: str, layer: str) -> None:
    # The demo trains from scratch, where there is no backbone to probe.
    weights = ["model.weights=DEFAULT"] if layer == "experiment=linear_probe" else []
    composed(layer, *weights, root=root)


@pytest.mark.promise("C2")
@pytest.mark.parametrize("root", ROOTS)
def test_experiment_and_debug_win_over_the_root(root: str) -> None:
    config = composed("debug=limit", "experiment=linear_probe", "model.weights=DEFAULT", root=root)

    assert config.trainer.max_epochs == 1
    assert config.optimizer.learning_rate == 1e-2
    assert config.model.freeze


@pytest.mark.promise("C2")
def test_later_layers_win() -> None:
    assert composed("trainer=t4").data.batch_size == 64
    assert composed("trainer=t4").trainer.precision == "16-mixed"
    assert composed("trainer=t4", "data.batch_size=8").data.batch_size == 8
    assert composed("debug=limit", root="train_basketball_resnet18").trainer.max_epochs == 1
    assert composed("experiment=linear_probe").model.freeze
    assert composed("data=basketball_jersey_numbers").data.on_empty_label == "skip"


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from sections(candidate)


@pytest.mark.promise("C2")
@pytest.mark.parametrize("section", list(sections(Config)), ids=lambda section: section.__name__)
def test_the_schema_holds_no_default(section: type[BaseModel]) -> None:
    assert {
        name for name, field in section.model_fields.items() if not field.is_required()
    } == set()


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    parts = (flat(value, f"{prefix}.{key}".strip(".")) for key, value in node.items())
    return {key: value for part in parts for key, value in part.items()}


def own_keys(path: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(content, dict)
    content.pop("defaults", None)
    return flat(content) if content else {}


def parents(path: Path) -> list[Path]:
    """Return the files of the same section that ``path`` starts from, nearest first."""
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(content, dict)
    names = [
        entry.partition("@")[0]
        for entry in content.get("defaults", ())
        if isinstance(entry, str) and entry != "_self_"
    ]
    direct = [path.parent / f"{name}.yaml" for name in names]
    return [found for parent in direct for found in (parent, *parents(parent))]


@pytest.mark.promise("C2")
@pytest.mark.parametrize(("group", "option"), OPTIONS, ids="/".join)
def test_a_preset_says_only_what_differs(group: str, option: str) -> None:
    path = CONF / group / f"{option}.yaml"
    prefix = f"{group}." if any("trainer" in key for key in own_keys(path)) else ""
    inherited: dict[str, Any] = {}
    for parent in reversed(parents(path)):
        inherited.update({f"{prefix}{key}": value for key, value in own_keys(parent).items()})
    own = own_keys(path)

    assert {key for key in own if key in inherited and own[key] == inherited[key]} == set()


@pytest.mark.promise("C2")
@pytest.mark.parametrize("root", [root for root in ROOTS if root != "train"])
def test_a_root_says_only_what_differs_from_its_options(root: str) -> None:
    content = OmegaConf.to_container(OmegaConf.load(CONF / f"{root}.yaml"), resolve=False)
    assert isinstance(content, dict)
    chosen = [
        "=".join((key.removeprefix("override "), value))
        for entry in content["defaults"]
        if isinstance(entry, dict)
        for key, value in entry.items()
        if key.startswith("override ")
    ]
    before = flat(composed(*chosen).model_dump())
    own = own_keys(CONF / f"{root}.yaml")

    assert {key for key, value in own.items() if before[key] == value} == set()


# Read before the run: they say what a configuration may hold (tests/unit/test_config.py).
DECIDED_BEFORE = {"Config.allow_modules", "DataConfig.allow_double_balance"}


@pytest.mark.promise("C2")
def test_every_key_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    plain = BaseModel.__getattribute__

    def remember(section: BaseModel, name: str) -> Any:
        if name in type(section).model_fields:
            read.add(f"{type(section).__name__}.{name}")
        return plain(section, name)

    folder = write_folder(tmp_path / "data")
    listed = write_jsonl(write_folder(tmp_path / "listed", counts={"train": 12, "val": 4}))
    for split in ("train", "val"):
        with (listed / split / "annotations.jsonl").open("a") as file:
            file.write('{"image": "unreadable.png", "suffix": ""}\n')
        shutil.copy(next((listed / split).rglob("*.png")), listed / split / "unreadable.png")
    config = composed(
        *(*TINY, f"data.data_root={folder}", "trainer.max_epochs=1"),
        *("data.cache=disk", f"data.cache_dir={tmp_path / 'cache'}"),
        *("calibration.target_accuracy=null", "calibration.target_coverage=0.8"),
        "explain.enabled=true",
        *("export.precision=int8", "export.int8_max_loss=1"),
    )
    indexed = [
        composed(f"data.data_root={listed}", "data=basketball_jersey_numbers").data,
        composed(f"data.data_root={listed / 'train'}").data,  # to be split
        composed(f"data.data_root={folder}", "data.split.folds=2", "data.split.fold=0").data,
        composed(
            *(f"data.data_root={listed}", "data=basketball_jersey_numbers"),
            *("data.on_empty_label=class", "data.empty_label_name=unreadable"),
        ).data,
    ]
    monkeypatch.setattr(Section, "__getattribute__", remember, raising=False)
    for data in indexed:
        index_data(data)
    with contextlib.suppress(ExportError):  # int8 may not be faster on this machine
        fit(config, RunFolder(tmp_path / "run"), "test")
    monkeypatch.undo()
    assert RunFolder(tmp_path / "run").read_record()["status"] == "finished"

    every = {f"{s.__name__}.{name}" for s in sections(Config) for name in s.model_fields}
    assert every - read == DECIDED_BEFORE
