"""What README and docs tell a reader to type works: every command, every snippet."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from PIL import Image
from typer.main import get_command

from classifier_training.cli.main import app
from classifier_training.cli.train import _split
from classifier_training.config.compose import (
    allowed_modules,
    compose_config,
    first_of_each,
    make_strict,
)
from classifier_training.config.validate import validate
from tests.helpers.config import config_of
from tests.helpers.documents import ROOT, Block, Command, blocks, commands

COMMANDS = commands()
# Programs that no test here may call, and why. What they are given is the reader's to know.
OTHERS = {
    "pip": "needs a network",
    "docker": "needs an engine",
    "gcloud": "needs an account",
    "export": "sets a variable",
    "git": "needs a remote",
    "pre-commit": "needs a network",
    "cd": "changes the folder",
    "uv": "needs a network",
}
# Blocks that show something and are typed nowhere.
SHOWN = {"text", "json", "", "mermaid"}
TINY = [
    "trainer=cpu", "trainer.max_epochs=1", "transforms.image_size=32", "model.weights=null",
    "data.num_workers=0", "data.batch_size=8", "trainer.precision=32-true", "explain.images=2",
]  # fmt: skip


def _ours(command: Command) -> bool:
    return command.words[0] in ("classifier", "task_manager")


def _trains(command: Command) -> bool:
    return command.words[0] == "task_manager" or command.words[1:2] == ("train",)


OURS = [command for command in COMMANDS if _ours(command)]


@pytest.mark.promise("I4")
def test_every_block_and_command_is_handled() -> None:
    languages = {block.language for block in blocks()}
    assert languages <= SHOWN | {"bash", "python", "yaml"}
    programs = {command.words[0] for command in COMMANDS}
    assert programs <= {*OTHERS, "classifier", "task_manager", "make", "python"}
    assert len(OURS) > 40


@pytest.mark.promise("I4")
@pytest.mark.parametrize("command", [c for c in OURS if _trains(c)], ids=str)
def test_training_commands_compose(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = (ROOT / command.place.partition(":")[0]).parent
    monkeypatch.chdir(place)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "watch.py").touch()
    for folder in (place, tmp_path):  # as PYTHONPATH has it
        monkeypatch.syspath_prepend(folder)
    start = 1 if command.words[0] == "task_manager" else 2
    line = _split(list(command.words[start:]))
    strict = make_strict(line.overrides, is_multirun=line.is_multirun, config_dir=line.config_dir)
    for job in first_of_each(strict) if line.is_multirun else [strict]:
        composed = compose_config(job, root=line.root, config_dir=line.config_dir)
        validate(composed, allow_modules=allowed_modules(line.overrides))


@pytest.mark.promise("I4")
@pytest.mark.parametrize("command", [c for c in OURS if not _trains(c)], ids=str)
def test_other_commands_parse(command: Command) -> None:
    root: Any = get_command(app)
    name, arguments = command.words[1], list(command.words[2:])
    if name.startswith("--"):
        assert name in ("--help", "--version")
        return
    assert name in root.commands, f"there is no command {name}"
    context = root.commands[name].make_context(f"classifier {name}", arguments)
    overrides = context.params.get("overrides") or []
    make_strict([word for word in overrides if "=" in word])


@pytest.mark.promise("I4")
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[0] == "make"], ids=str)
def test_targets_exist(command: Command) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--silent", *command.words[1:]],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.promise("I4")
@pytest.mark.parametrize("block", [b for b in blocks() if b.language == "yaml"], ids=str)
def test_yaml_snippets_are_configurations(block: Block, folder_data: Path) -> None:
    content = yaml.safe_load(block.text)
    assert isinstance(content, dict)
    if "train" in content:  # a list of transforms
        given = str(content["train"]).replace("'", "")
        config_of(f"data.data_root={folder_data}", f"transforms.train={given}")


# ---------------------------------------------------------------- run for real


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documents speak of: PATH, RUN, photos, classes.txt, ..."""
    top = tmp_path_factory.mktemp("docs")
    _call(top, "classifier synth PATH --classes 3 --per-class 12 --image-size 40".split())
    for run, seed in (("RUN", 0), ("RUN_A", 1), ("RUN_B", 2)):
        _call(
            top,
            ["classifier", "train", "data=jsonl", "data.data_root=PATH", f"seed={seed}", *TINY,
             f"hydra.run.dir={run}"],
        )  # fmt: skip
    for name in (
        *("OLD_RUN", "runs/first", "runs/photos", "runs/jersey", "runs/sampled", "runs/demo"),
        "first",
    ):
        shutil.copytree(top / "RUN", top / name)
    for name in ("jerseys", "PATH_OF_THE_DATA_NOW"):
        shutil.copytree(top / "PATH", top / name)
    for name in ("model.onnx", "labels_mapping.json"):
        shutil.copyfile(top / "RUN" / name, top / name)
    _photos(top)
    return top


def _photos(top: Path) -> None:
    """Some of the images in a folder per class, alone, and listed in a table."""
    lines = (top / "PATH" / "test" / "annotations.jsonl").read_text().splitlines()
    table = ["photo,kind"]
    for row in map(json.loads, lines[:12]):
        source = top / "PATH" / "test" / row["image"]
        for folder in ("photos", "IMAGES", "numbers/test"):
            target = top / folder / row["suffix"] / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        table.append(f"photos/{row['suffix']}/{source.name},{row['suffix']}")
    (top / "labels.csv").write_text("\n".join(table) + "\n")
    Image.open(source).convert("RGB").save(top / "photo.jpg")


def _call(top: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    program = "import sys; sys.argv[0] = 'classifier'\n"
    program += "from classifier_training.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *words[1:]],
        cwd=top, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done


# Commands that are not run as they stand, and why.
NOT_RUN = {
    "--difficulty 0.2": "takes minutes; the demo covers it",
    "tracking_uri": "needs a server",
    "s3://": "needs a bucket",
    "gs://": "needs a bucket; test_submit.py",
    "trainer=t4": "needs a GPU",
    "wandb": "test_trackers.py",
    "demo/": "of a sweep that takes minutes",
    "runs demo": "of a sweep that takes minutes",
    "int8": "may be refused as slower",
    "resnet18.pth": "needs the file",
    "data=csv": "PATH holds JSONL; test_sources.py",
    "--cfg": "shows only",
    "suspects": "needs out-of-fold answers; test_suspects.py",
    "doctor": "test_doctor.py",
    "debug=": "test_smoke.py",
}


def _reason(command: Command) -> str | None:
    text = " ".join(command.words)
    return next((why for part, why in NOT_RUN.items() if part in text), None)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.promise("I4")
@pytest.mark.parametrize(
    "command", [c for c in OURS if not _trains(c) and not c.place.startswith("examples/")], ids=str
)
def test_commands_do_what_they_say(command: Command, workplace: Path) -> None:
    if (why := _reason(command)) is not None:
        pytest.skip(why)
    words = list(command.words)
    if words[1] == "synth":  # two documents render the same
        words[2] = f"rendered_{abs(hash(command))}"
    if words[1] == "check" and "data" not in " ".join(words[2:]).replace("data.data_root", ""):
        words.append("data=jsonl")
    _call(workplace, words)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.promise("I4")
@pytest.mark.parametrize("block", [b for b in blocks() if b.language == "python"], ids=str)
def test_python_snippets_run(block: Block, workplace: Path) -> None:
    text = block.text
    if "diverged" in text:
        pytest.skip("test_run_safety.py replays a batch so")
    text = text.replace('"trainer.max_epochs=1"', f'"data=jsonl", *{TINY!r}')
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=workplace, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.promise("I4")
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[0] == "python"], ids=str)
def test_modules_exist(command: Command) -> None:
    if command.words[1] != "-m":  # beside the README, which a test runs
        assert (ROOT / command.place.partition(":")[0]).with_name(command.words[1]).is_file()
        return
    path = ROOT / command.words[2].replace(".", "/")
    source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert source.is_file()


# ---------------------------------------------------------------- troubleshooting

_TROUBLES = ROOT / "docs" / "troubleshooting.md"
PROVOKED = {
    "is not a folder": "train data.data_root=nowhere",
    "the data has 1 class(es)": "train data.data_root={data}/..",
    "is larger than the": "train data.data_root={data} data.batch_size=1000",
    "this key does not exist": "train data.data_root={data} trainer.max_epoch=1",
    "does not exist": "train data.data_root={data} trainer=t5",
    "is not measured": "train data.data_root={data} checkpoint.monitor=val/f2",
    "is not a known class": "train data.data_root={data} callbacks.x._target_=os.system",
    "corrects the same imbalance twice": "train data.data_root={data} loss=weighted "
    "data.sampler=weighted",
    "sets several values": "train data.data_root={data} seed=1,2",
    "but there is no such device": "train data.data_root={data} trainer.accelerator=gpu",
    "is no run folder": "evaluate {data}",
    "no ONNX model at": "verify {data}",
}
# Those that need more than a command, and the test that provokes them.
ELSEWHERE = {
    "an image cannot be read": "tests/integration/test_data_check.py",
    "the memory does not suffice": "tests/integration/test_run_safety.py",
    "is in use by process": "tests/unit/test_run_lock.py",
    "holds another run": "tests/unit/test_identity.py",
    "is not finite": "tests/integration/test_run_safety.py",
    "does not belong to": "tests/integration/test_predict.py",
}


@pytest.mark.promise("I4")
def test_every_trouble_is_provoked() -> None:
    titles = re.findall(r"^### `(.+)`$", _TROUBLES.read_text(encoding="utf-8"), re.MULTILINE)

    assert set(titles) == PROVOKED.keys() | ELSEWHERE.keys()


@pytest.mark.promise("I4")
@pytest.mark.parametrize(("text", "command"), PROVOKED.items())
def test_the_text_of_a_trouble_is_what_is_printed(
    text: str, command: str, folder_data: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = [word.format(data=folder_data) for word in command.split()]

    with pytest.raises((SystemExit, typer.Exit)):
        app(words)

    said = capfd.readouterr().err
    assert text in said
    assert "Traceback" not in said
