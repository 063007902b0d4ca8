"""``classifier train`` as a user meets it: errors, exit codes, and where files appear."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import pytest
from loguru import logger

from classifier_training.cli.train import task_manager, train
from classifier_training.config.schema import Config
from classifier_training.errors import (
    EXIT_CONFIG,
    EXIT_DATA,
    EXIT_OK,
    EXIT_RESUME,
    ConfigError,
)
from classifier_training.run.reader import Run
from classifier_training.training.hardware import choose_hardware
from tests.helpers.data import class_image, write_csv, write_folder, write_jsonl
from tests.helpers.runs import TINY, UNDRAWN, tiny_train
from tests.unit.test_config import check

# Pictures take longer than a tiny run, and are looked at elsewhere.
QUICK = (*TINY, *UNDRAWN, "trainer.max_epochs=1")


@dataclass(frozen=True)
class Said:
    """What a command left behind: its exit code and its two streams."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """Return the error, which has its three parts and no traceback."""
        assert "Traceback" not in self.err
        told = self.err.partition("error: ")[2]
        assert "\n  expected: " in told
        assert "\n  fix:      " in told
        return told


@pytest.fixture
def cli(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """An empty working directory; signal handlers and log sinks are put back afterwards."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "argv", ["classifier"])
    handler = signal.getsignal(signal.SIGTERM)
    yield work
    signal.signal(signal.SIGTERM, handler)
    logger.remove()
    logger.add(sys.__stderr__)


def say(capfd: pytest.CaptureFixture[str], *arguments: str) -> Said:
    capfd.readouterr()
    try:
        code = train(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capfd.readouterr()
    return Said(code, out, err)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


BAD = [
    # what is asked, the exit code, what is named, the fix
    (["data.data_root=nowhere"], EXIT_DATA, "nowhere", "correct the path"),
    (["data.data_root={empty}"], EXIT_DATA, "empty", ""),
    (["data.data_root={data}", "data.train_path=trian"], EXIT_DATA, "trian", ""),
    (["data.data_root={data}", "data.val_path=valid"], EXIT_DATA, "valid", ""),
    (["data.data_root={data}", "data=jsonl"], EXIT_DATA, "jsonl", ""),
    (["data.data_root={data}", "data=csv"], EXIT_DATA, "csv", ""),
    (["data.data_root={data}", "data.batch_size=1000"], EXIT_DATA, "1000", "data.batch_size="),
    (["data.data_root={data}", "data.classes=['0','x']"], EXIT_DATA, "00", ""),
    (["data.data_root={data}", "data.classes=no.txt"], EXIT_DATA, "no.txt", "correct the path"),
    (["data.data_root={data}", "checkpoint.monitor=val/f1"], EXIT_CONFIG, "val/f1_macro", ""),
    (["data.data_root={data}", "model.name=resnet"], EXIT_CONFIG, "model.name: 'resnet'", "resnet"),
    (["data.data_root={data}", "model.weights=no.pt"], EXIT_CONFIG, "no.pt", "model.weights"),
    (["data.data_root={data}", "model.init_from=no"], EXIT_CONFIG, "no", ""),
    (["data.data_root={data}", "trainer=t4"], EXIT_CONFIG, "gpu", "trainer=cpu"),
    (
        ["data.data_root={data}", "callbacks.early_stopping.patince=3"],
        EXIT_CONFIG,
        "patince",
        "correct the arguments",
    ),
    (
        ["data.data_root={data}", "transforms.train.0={{_target_: torchvision.transforms.v2.Pad}}"],
        EXIT_CONFIG,
        "transforms.train",
        "",
    ),
]


@pytest.mark.promise("C5")
@pytest.mark.promise("C8")
@pytest.mark.parametrize(("asked", "code", "named", "fix"), BAD, ids=lambda row: str(row)[:60])
def test_what_cannot_be_trained_is_named_and_leaves_nothing(
    asked: list[str],
    code: int,
    named: str,
    fix: str,
    cli: Path,
    folder_data: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    empty = cli.parent / "empty"
    empty.mkdir()
    places = [text.format(data=folder_data, empty=empty) for text in asked]

    said = say(capfd, *QUICK, *places)

    assert said.code == code
    told = said.error()
    assert named in told
    assert fix in told.partition("fix:")[2]
    assert list(cli.iterdir()) == []


@pytest.mark.promise("C5")
@pytest.mark.parametrize("name", ["ckpt_path", "task.checkpoint_path"])
def test_a_checkpoint_that_is_not_there_is_named(
    name: str, cli: Path, folder_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = say(capfd, *QUICK, f"data.data_root={folder_data}", f"{name}=no.ckpt")

    assert said.code in (EXIT_CONFIG, EXIT_RESUME)
    assert "no.ckpt" in said.error()


@pytest.mark.promise("C8")
def test_a_refusal_removes_what_it_made_and_nothing_else(
    cli: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (cli / "mine" / "run").mkdir(parents=True)

    say(capfd, "data.data_root=nowhere", "hydra.run.dir=mine/run")
    say(capfd, "data.data_root=nowhere", "hydra.run.dir=mine/a/b")
    say(capfd, "data.data_root=nowhere", "hydra.run.dir=new/a/b")

    assert sorted(path.relative_to(cli).as_posix() for path in cli.rglob("*")) == [
        "mine",
        "mine/run",
    ]


@pytest.fixture
def finished(cli: Path, folder_data: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    """The folder of a run that the command made, besides which nothing was written."""
    said = say(capfd, *QUICK, f"data.data_root={folder_data}", "hydra.run.dir=out/run")
    assert said.code == EXIT_OK, said.err
    assert [path.name for path in cli.iterdir()] == ["out"]
    assert [path.name for path in (cli / "out").iterdir()] == ["run"]
    return cli / "out" / "run"


@pytest.mark.promise("R2")
def test_a_finished_run_that_was_killed_before_its_report_gets_it_by_the_same_command(
    finished: Path, folder_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = files(finished)
    (finished / "report.html").rename(finished / f".report.html.{2**22 + 1}.tmp")
    (finished / "run.lock").write_text("")

    again = say(capfd, *QUICK, f"data.data_root={folder_data}", "hydra.run.dir=out/run")

    assert again.code == EXIT_OK, again.err
    assert files(finished).keys() == before.keys()
    assert "nothing to do" in again.err
    (finished / "run.lock").write_text("")
    say(capfd, *QUICK, f"data.data_root={folder_data}", "hydra.run.dir=out/run")
    assert not (finished / "run.lock").exists()


@pytest.mark.promise("R4")
@pytest.mark.promise("C8")
def test_what_a_second_command_does_with_a_finished_run(
    finished: Path, folder_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    same = [*QUICK, f"data.data_root={folder_data}", "hydra.run.dir=out/run"]
    before = files(finished)

    again = say(capfd, *same)
    assert again.code == EXIT_OK
    assert "nothing to do" in again.err
    assert "best epoch 1" in again.out

    other = say(capfd, *same, "optimizer.learning_rate=0.5", "seed=7")
    assert other.code == EXIT_RESUME
    assert "optimizer.learning_rate: 0.5 here, 0.01 in the run" in other.error()
    assert "seed: 7 here, 42 in the run" in other.error()
    assert "choose another hydra.run.dir" in other.error()

    never = say(capfd, *same, "resume=never")
    assert never.code == EXIT_RESUME
    assert "resume=never" in never.error()

    assert files(finished) == before


@pytest.mark.promise("R4")
def test_a_second_run_with_another_learning_rate_trains(
    cli: Path, folder_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a folder of its own in the command, too: a new run is a new folder."""
    same = [*QUICK, f"data.data_root={folder_data}"]
    assert say(capfd, *same).code == EXIT_OK
    assert say(capfd, *same, "optimizer.learning_rate=1e-4").code == EXIT_OK

    assert [path.name for path in cli.iterdir()] == ["runs"]
    first, second = sorted((cli / "runs").iterdir())
    losses = []
    for run in (first, second):
        with (run / "metrics.csv").open() as file:
            (row,) = csv.DictReader(file)
        losses.append(row["train/loss"])
    assert losses[0] != losses[1]


@pytest.mark.promise("C8")
def test_the_printed_command_goes_on_with_the_run(
    cli: Path, folder_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import shlex

    odd = shlex.quote('hydra.run.dir="it\'s, a (run)=1"')
    (typed,) = shlex.split(odd)
    asked = [*QUICK, f"data.data_root={folder_data}", "+experiment=null", typed]
    first = say(capfd, *asked)
    assert first.code == EXIT_OK
    assert (cli / "it's, a (run)=1" / "run.json").exists()

    command = next(line for line in first.err.splitlines() if "resume later with" in line)
    words = shlex.split(command.partition("with: ")[2])
    assert words[:2] == ["classifier", "train"]
    again = say(capfd, *words[2:])

    assert again.code == EXIT_OK
    assert "nothing to do" in again.err


@pytest.mark.promise("C8")
def test_jobs_of_a_sweep_have_folders_of_their_own(
    cli: Path, folder_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = [*QUICK, f"data.data_root={folder_data}"]

    said = say(capfd, "-m", *asked, "seed=1,2", "hydra.sweep.dir=sweep")

    assert said.code == EXIT_OK, said.err
    assert [path.name for path in cli.iterdir()] == ["sweep"]
    records = [json.loads((cli / "sweep" / job / "run.json").read_text()) for job in "01"]
    assert [record["seed"] for record in records] == [1, 2]
    assert records[0]["id"] != records[1]["id"]
    assert "seed=2" in records[1]["command"]
    assert "-m" not in records[1]["command"]


@pytest.mark.promise("C8")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-m", "seed=1,2", "hydra.run.dir=x"], "hydra.sweep.dir=x"),
        (["hydra.sweep.dir=x"], "hydra.run.dir=x"),
        (["seed=1,2"], "--multirun"),
        (["-m", "seed=1,x"], "seed"),
        (["-m", "seed=1,2", "trainer.max_epoch=1,2"], "trainer.max_epochs"),
        (["--multirn", "seed=1"], "--multirun"),
        (["--config-name", "trian"], "--config-name train"),
        (["--config-name"], "--config-name VALUE"),
        (["--config-dir", "nowhere"], "nowhere"),
        (["--config-dir"], "--config-dir VALUE"),
        (["--config-path", "x"], "--config-dir"),
        (["--foo"], "--hydra-help"),
        (["-r"], "--multirun"),
    ],
)
def test_a_wrong_command_line_is_refused_before_a_folder_is_made(
    arguments: list[str], named: str, cli: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = say(capfd, "data.data_root=x", *arguments)

    assert said.code == EXIT_CONFIG
    assert named in said.error()
    assert list(cli.iterdir()) == []


@pytest.mark.promise("S1")
@pytest.mark.parametrize(
    "spelling",
    ["--experimental-rerun", "--experimental-re", "--experimental", "--exp", "--e"],
)
@pytest.mark.parametrize("joint", ["=", " "])
def test_a_pickled_job_is_never_read(
    spelling: str, joint: str, cli: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import pickle

    witness = cli.parent / "witness"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (witness,)

    stored = cli.parent / "config.pickle"
    stored.write_bytes(pickle.dumps(Evil()))

    said = say(capfd, "data.data_root=x", *f"{spelling}{joint}{stored}".split())

    assert said.code == EXIT_CONFIG
    assert not witness.exists()
    assert spelling in said.error()


@pytest.mark.promise("C1")
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--cfg", "job"], "max_epochs: 30"),
        (["--cfg=job", "trainer.max_epochs=3"], "max_epochs: 3"),
        (["--cfg", "job", "--package", "optimizer"], "learning_rate: 0.0005"),
        (["--cfg", "job", "--config-name", "train_demo.yaml"], "image_size: 64"),
        (["--cfg", "job", "-m", "seed=5,6"], "seed: 5"),
        (["--help"], "model: base, resnet18"),
        (["-sc", "install=bash"], "COMPREPLY"),
        (["--version"], "0."),
    ],
)
def test_what_only_shows_something_needs_no_data_and_writes_nothing(
    arguments: list[str], shown: str, cli: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = say(capfd, *arguments)

    assert said.code == EXIT_OK, said.err
    assert shown in said.out
    assert list(cli.iterdir()) == []


@pytest.mark.promise("C9")
def test_the_launchers_overrides_reach_a_run_through_task_manager(
    cli: Path, folder_data: Path, tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys that the sibling's launcher sets, also with split files outside of the root."""
    data = write_jsonl(write_folder(cli.parent / "sets", val_name="valid"))
    arguments = [
        "--config-name",
        "train_basketball_resnet18",
        *QUICK,
        "trainer.max_epochs=3",
        f"data.data_root={data}",
        f"data.train_path={data / 'train' / 'annotations.jsonl'}",
        "data.val_path=valid/annotations.jsonl",
        "data.test_path=test",
        f"task.checkpoint_path={tiny_run.folder.last}",
        "loss=cross_entropy",
        f"hydra.run.dir={cli / 'gcs' / 'out'}",
    ]
    monkeypatch.setattr(sys, "argv", ["task_manager", *arguments])

    with pytest.raises(SystemExit) as stop:
        task_manager()

    assert stop.value.code == EXIT_OK
    assert [path.name for path in cli.iterdir()] == ["gcs"]
    record = json.loads((cli / "gcs" / "out" / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["parent"] == str(tiny_run.folder.last)
    log = (cli / "gcs" / "out" / "log.txt").read_text()
    assert "epoch 3/3: " in log
    assert "epoch 1/3: " not in log
    assert record["command"].startswith("task_manager --config-name train_basketball_resnet18")


@pytest.mark.promise("C1")
def test_a_root_and_groups_of_ones_own(
    cli: Path, folder_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = cli.parent / "my yaml, (own)"
    (own / "crop").mkdir(parents=True)
    (own / "data").mkdir()
    (own / "mine.yaml").write_text(
        "defaults:\n  - base\n  - crop: small\n  - _self_\n  - experiment: null\n"
        "  - override data: ours\n"
        "optimizer:\n  learning_rate: 0.25\n"
    )
    (own / "crop" / "small.yaml").write_text("# @package _global_\ntransforms:\n  image_size: 16\n")
    (own / "crop" / "large.yaml").write_text("# @package _global_\ntransforms:\n  image_size: 32\n")
    (own / "data" / "ours.yaml").write_text(
        f"defaults:\n  - folder\n  - _self_\ndata_root: '{folder_data}'\n"
    )
    arguments = ["--config-dir", str(own), "--config-name", "mine"]
    tiny = [text for text in QUICK if "image_size" not in text and "learning_rate" not in text]

    config = check("data=ours", "data.data_root=/x", config_dir=str(own))
    said = say(capfd, *arguments, *tiny, "crop=large", "hydra.run.dir=run")

    assert isinstance(config, Config)
    assert said.code == EXIT_OK, said.err
    stored = (cli / "run" / "config.yaml").read_text()
    assert "image_size: 32" in stored
    assert "learning_rate: 0.25" in stored
    typo = say(capfd, *arguments, "crop=larg")
    assert typo.code == EXIT_CONFIG
    assert "did you mean crop=large?" in typo.error()
    (own / "mine.yaml").write_text("defaults: [\n")
    assert say(capfd, *arguments).code == EXIT_CONFIG


@pytest.mark.promise("C8")
def test_loggers_write_into_the_run_folder(
    cli: Path, folder_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = [*QUICK, f"data.data_root={folder_data}", "logging=csv", "hydra.run.dir=run"]

    said = say(capfd, *asked)

    assert said.code == EXIT_OK, said.err
    assert [path.name for path in cli.iterdir()] == ["run"]
    assert (cli / "run" / "logs" / "steps.csv").exists()


@pytest.mark.promise("C5")
def test_a_typo_in_a_data_yaml_is_reported(cli: Path, capfd: pytest.CaptureFixture[str]) -> None:
    own = cli.parent / "yaml"
    (own / "data").mkdir(parents=True)
    (own / "data" / "mine.yaml").write_text(
        "defaults:\n  - folder\n  - _self_\ndata_root: /images\nbatchsize: 8\n"
    )

    said = say(capfd, "--config-dir", str(own), "data=mine")

    assert said.code == EXIT_CONFIG
    assert "data.batchsize: this key does not exist" in said.error()
    assert "did you mean data.batch_size?" in said.error()


@pytest.mark.promise("C3")
def test_the_image_size_is_set_in_one_place(
    folder_data: Path, tiny_run: Run, tmp_path: Path
) -> None:
    witness = tmp_path / "seen"
    module = tmp_path / "own_ops_for_sizes.py"
    module.write_text(
        "from pathlib import Path\n"
        "from torch import nn\n"
        "class Note(nn.Module):\n"
        "    def forward(self, image):\n"
        f"        Path({str(witness)!r}).write_text(str(tuple(image.shape)))\n"
        "        return image\n"
    )
    sys.path.insert(0, str(tmp_path))
    steps = (
        "{_target_: torchvision.transforms.v2.RandomResizedCrop, size: ${transforms.image_size}},"
        "{_target_: own_ops_for_sizes.Note}"
    )
    try:
        run = tiny_train(
            folder_data,
            tmp_path / "run",
            "trainer.max_epochs=1",
            "transforms.image_size=48",
            "transforms.mean=[0.1,0.2,0.3]",
            f"transforms.train=[{steps}]",
            "allow_modules=[own_ops_for_sizes]",
        )
    finally:
        sys.path.remove(str(tmp_path))

    for found, size in ((run, 48), (tiny_run, 32)):
        sidecar = json.loads(found.folder.sidecar.read_text())
        (feed,) = onnxruntime.InferenceSession(found.folder.onnx).get_inputs()
        assert feed.shape[1:] == [3, size, size]
        assert sidecar["preprocessing"]["image_size"] == size
        assert sidecar["num_classes"] == 4
        assert set(sidecar["class_to_idx"]) == {"0", "00", "1e3", "NO"}
    assert witness.read_text() == "(3, 48, 48)"
    assert json.loads(run.folder.sidecar.read_text())["normalization"]["mean"] == [0.1, 0.2, 0.3]


@pytest.mark.promise("C3")
def test_no_yaml_names_a_number_of_classes() -> None:
    def keys(section: object) -> Iterator[str]:
        if isinstance(section, dict):
            for key, value in section.items():
                yield str(key)
                yield from keys(value)

    assert "num_classes" not in set(keys(check().model_dump()))


@pytest.mark.promise("C10")
@pytest.mark.parametrize("asked", ["auto", "gpu", "cuda"])
def test_a_gpu_that_is_there_but_unusable_stops_the_run(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("the GPU of this machine works")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    trainer = check(f"trainer.accelerator={asked}").trainer
    (tmp_path / "nvidiactl").touch()
    (tmp_path / "nvidia0").touch()

    with pytest.raises(ConfigError) as caught:
        choose_hardware(trainer, dev=tmp_path)

    assert str(tmp_path / "nvidia0") in caught.value.what
    assert "trainer=cpu" in caught.value.fix


@pytest.mark.promise("C10")
def test_the_cpu_is_used_when_asked_for_or_when_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    (tmp_path / "nvidia0").touch()
    assert choose_hardware(check("trainer=cpu").trainer, dev=tmp_path).accelerator == "cpu"
    if torch.cuda.is_available():
        return
    empty = tmp_path / "empty"
    empty.mkdir()
    assert choose_hardware(check().trainer, dev=empty).accelerator == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the user hides her GPU
    assert choose_hardware(check().trainer, dev=tmp_path).accelerator == "cpu"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(ConfigError, match="there is no such device"):
        choose_hardware(check("trainer.accelerator=gpu").trainer, dev=empty)


@pytest.mark.promise("C5")
def test_moved_data_and_csv_keep_a_run_the_same(
    cli: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_csv(write_folder(cli.parent / "here"))
    asked = [*QUICK, "data=csv", "hydra.run.dir=run"]
    assert say(capfd, *asked, f"data.data_root={data}").code == EXIT_OK
    moved = Path(shutil.move(data, cli.parent / "there"))

    assert "nothing to do" in say(capfd, *asked, f"data.data_root={moved}").err

    class_image(0, 99).save(moved / "train" / "0" / "000.png")
    changed = say(capfd, *asked, f"data.data_root={moved}")
    assert changed.code == EXIT_RESUME
    assert "images, labels or splits changed" in changed.error()
