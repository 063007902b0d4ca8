"""What only a process of its own can show: imports, streams, terminals, installed commands."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.data import class_image
from tests.helpers.runs import TINY

ROOT = Path(__file__).parents[2]
SEARCHED = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
BIN = Path(sys.executable).parent

# Runs the command and then tells which modules it imported.
_TELL_MODULES = """
import atexit, json, sys
out = sys.argv.pop(1)
atexit.register(lambda: open(out, "w").write(json.dumps(sorted(sys.modules))))
from classifier_training.cli.main import main
sys.argv[0] = "classifier"
main()
"""

# Runs the command and says in its stream when torch begins to be imported.
_TELL_TORCH = """
import sys
told = []
def tell(event, arguments):
    if event == "import" and arguments[0] == "torch" and not told:
        told.append(1)
        print("TORCH", file=sys.stderr, flush=True)
sys.addaudithook(tell)
from classifier_training.cli.main import main
sys.argv[0] = "classifier"
main()
"""

_WITH_TINY = """
import sys
from tests.helpers.tiny import register
register()
from classifier_training.cli.main import main
sys.argv[0] = "classifier"
main()
"""


def run(
    *command: str | Path, cwd: Path, timeout: float = 240, **more: str
) -> subprocess.CompletedProcess[str]:
    # As in a shell, without what pytest or the terminal of a developer set.
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("FORCE_COLOR", "PY_COLORS", "PYTHONDONTWRITEBYTECODE")
    }
    environment |= {"PYTHONPATH": SEARCHED, "CUDA_VISIBLE_DEVICES": "", **more}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def packages(cwd: Path, *arguments: str) -> tuple[int, str, set[str]]:
    done = run(sys.executable, "-c", _TELL_MODULES, cwd / "modules", *arguments, cwd=cwd)
    modules = json.loads((cwd / "modules").read_text())
    return done.returncode, done.stdout + done.stderr, {name.partition(".")[0] for name in modules}


HEAVY = {"torch", "torchvision", "lightning", "torchmetrics", "onnx", "matplotlib", "scipy"}


@pytest.mark.promise("C6")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["evaluate", "--help"], ["train"]], ids=" ".join
)
def test_help_imports_neither_torch_nor_hydra(arguments: list[str], tmp_path: Path) -> None:
    _, told, imported = packages(tmp_path, *arguments)

    assert told
    assert imported.isdisjoint(HEAVY | {"hydra", "omegaconf"})


@pytest.mark.promise("C6")
@pytest.mark.promise("C1")
@pytest.mark.parametrize(
    "arguments",
    [
        ["+data.foo=1"],
        ["data.data_root=/x", "optimizer.lr=3", "trainer.max_epochs=ten", "callbacks.foo=null"],
        ["data.data_root=/x", "callbacks.x._target_=torch.load"],
        ["data.data_root=/x", "-m", "seed=1,x"],
        ["data.data_root=/x", "model=resnet19"],
        ["--config-name", "nothing"],
    ],
    ids=" ".join,
)
def test_a_bad_config_is_refused_without_torch(arguments: list[str], tmp_path: Path) -> None:
    code, told, imported = packages(tmp_path, "train", *arguments)

    assert code == 2
    assert "expected: " in told
    assert "Traceback" not in told
    assert imported.isdisjoint(HEAVY)
    assert [path.name for path in tmp_path.iterdir()] == ["modules"]


@pytest.mark.promise("C6")
@pytest.mark.promise("C5")
@pytest.mark.promise("C7")
@pytest.mark.promise("C8")
def test_the_first_line_comes_before_torch_and_a_wrong_path_is_plain(tmp_path: Path) -> None:
    done = run(
        sys.executable, "-c", _TELL_TORCH, "train", "data.data_root=/no/images", cwd=tmp_path
    )

    first, torch, rest = done.stderr.partition("TORCH\n")
    assert torch, "the run got past its configuration"
    assert "classifier-training" in first
    assert "run folder" in first
    assert done.returncode == 3
    assert "data.data_root=/no/images" in rest
    assert "expected: " in rest
    assert "fix: " in rest
    assert "Traceback" not in done.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stdout + done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.promise("C1")
@pytest.mark.parametrize(
    ("topic", "shown"), [("config", "max_epochs: 30"), ("plugins", "Installed Hydra Plugins")]
)
def test_hydras_information_is_shown(topic: str, shown: str, tmp_path: Path) -> None:
    done = run(BIN / "classifier", "train", "--info", topic, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.promise("C9")
def test_task_manager_is_installed_and_is_train(tmp_path: Path) -> None:
    done = run(BIN / "task_manager", "--cfg", "job", "trainer.max_epochs=7", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "max_epochs: 7" in done.stdout


@pytest.mark.slow
@pytest.mark.promise("C7")
def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(folder_data: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        _WITH_TINY,
        "train",
        *TINY,
        "trainer.max_epochs=5",
        f"data.data_root={folder_data}",
    ]
    main, worker = pty.openpty()
    environment = {
        **os.environ,
        "PYTHONPATH": SEARCHED,
        "TERM": "xterm",
        "COLUMNS": "120",
        "CUDA_VISIBLE_DEVICES": "",
    }
    environment.pop("NO_COLOR", None)
    child = subprocess.Popen(
        [*command, "hydra.run.dir=run"],
        cwd=tmp_path,
        stdout=worker,
        stderr=worker,
        stdin=worker,
        env=environment,
    )
    os.close(worker)
    shown = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(main)

    assert child.wait(timeout=60) == 0, shown.decode(errors="replace")
    bar = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "\x1b[" in shown.decode()
    assert re.search(r"epoch \d+/5 .*\d+/6 +loss \d+\.\d+ +\d+ img/s +.* left", bar)
    assert "best epoch" in bar
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "\x1b" not in log
    assert "epoch 5/5: " in log

    again = run(*command, "hydra.run.dir=run", "trainer.max_epochs=6", cwd=tmp_path)

    assert again.returncode == 0, again.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", again.stdout + again.stderr)
    assert re.search(r"epoch 6/6: batch \d+/6 +loss \d+\.\d+ +\d+ img/s +.* left", again.stderr)


@pytest.mark.slow
@pytest.mark.promise("C9")
@pytest.mark.promise("C8")
@pytest.mark.promise("C3")
def test_the_documented_command_runs_on_42_classes(tmp_path: Path) -> None:
    """Jersey numbers as they come: nobody types how many classes there are."""
    labels = ["00", *map(str, range(41))]
    data = tmp_path / "jerseys"
    for first, (split, count) in enumerate((("train", 3), ("valid", 1), ("test", 1))):
        folder = data / split
        folder.mkdir(parents=True)
        rows = []
        for position, label in enumerate(labels):
            for number in range(count):
                name = f"{label}_{number}.jpg"
                class_image(position, 10 * first + number).save(folder / name)
                rows.append({"image": name, "prefix": "Which number?", "suffix": label})
        rows.append({"image": "00_0.jpg", "prefix": "Which number?", "suffix": ""})
        (folder / "annotations.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    work = tmp_path / "work"
    work.mkdir()

    done = run(
        BIN / "task_manager",
        "--config-name",
        "train_basketball_resnet18",
        f"data.data_root={data}",
        "hydra.run.dir=out",
        "model.weights=null",
        "transforms.image_size=32",
        "data.num_workers=0",
        "trainer.max_epochs=1",
        "trainer.precision=32-true",
        "trainer.limit_train_batches=2",
        cwd=work,
    )

    assert done.returncode == 0, done.stderr
    assert [path.name for path in work.iterdir()] == ["out"]
    sidecar = json.loads((work / "out" / "labels_mapping.json").read_text())
    assert sidecar["num_classes"] == 42
    assert set(sidecar["class_to_idx"]) == set(labels)
    with (work / "out" / "evaluation" / "test" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 42
    assert {row["true"] for row in rows} == set(labels)
