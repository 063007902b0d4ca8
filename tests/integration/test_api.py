"""The public Python interface, what it costs to import, and the record that a run leaves."""

from __future__ import annotations

import csv
import datetime
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import classifier_training
from classifier_training.errors import ExportError, ResumeError
from classifier_training.run.reader import Run
from tests.helpers.data import CLASSES, write_folder
from tests.helpers.runs import TINY, UNDRAWN, tiny_train

PUBLIC = {
    "Callback", "Predictor", "Run", "evaluate", "export", "load_model", "train", "__version__",
    *(
        f"register_{what}"
        for what in ("backbone", "callback", "export", "loss", "optimizer", "schedule", "transform")
    ),
}  # fmt: skip


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return done.stdout.strip()


@pytest.mark.promise("C6")
@pytest.mark.promise("X3")
def test_importing_the_package_and_its_predictor_costs_no_torch() -> None:
    code = (
        "import sys, classifier_training as c; first = set(sys.modules); "
        "c.Predictor; second = set(sys.modules); "
        "heavy = {'torch', 'hydra', 'lightning', 'omegaconf', 'pydantic', 'scipy', 'onnx'}; "
        "print(sorted(first & (heavy | {'numpy'})), sorted(second & heavy))"
    )

    assert python(code) == "[] []"


@pytest.mark.promise("C6")
def test_opening_a_run_costs_no_torch(tiny_run: Run) -> None:
    code = (
        "import sys, classifier_training as c; "
        f"run = c.Run({str(tiny_run.folder.path)!r}); "
        "print(run.best_score, run.metrics('test')['images'], 'torch' in sys.modules)"
    )

    assert python(code) == f"{tiny_run.best_score} 16 False"


@pytest.mark.promise("I4")
def test_the_public_names_are_those_that_are_listed() -> None:
    assert set(classifier_training.__all__) == set(dir(classifier_training)) == PUBLIC
    for name in PUBLIC:
        assert getattr(classifier_training, name) is not None
    assert classifier_training.__version__ == metadata.version("classifier-training")
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = classifier_training.trian


@pytest.mark.promise("T1")
@pytest.mark.promise("X3")
@pytest.mark.promise("R4")
def test_the_whole_way_through_the_public_interface(
    folder_data: Path, tiny_run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    given = {
        **{
            key: yaml.safe_load(value)
            for key, _, value in (item.partition("=") for item in (*TINY, *UNDRAWN))
        },
        "transforms": {"image_size": 32},
        "data.batch_size": 8,
    }
    trained = classifier_training.train(folder_data, out=str(out), epochs=2, overrides=given)
    opened = classifier_training.Run(str(out))
    evaluated = classifier_training.evaluate(str(out), split="test", workers=0)
    exported = classifier_training.export(str(out), opset=19)
    predictor = classifier_training.Predictor.load(str(out))
    answers = list(predictor.predict([folder_data / "test" / "00" / "000.png"]))

    assert opened.record == trained.record
    assert opened.record["status"] == "finished"
    for key in ("config_hash", "data_fingerprint", "best"):  # the same run in another folder
        assert opened.record[key] == tiny_run.record[key]
    assert opened.record["id"] != tiny_run.record["id"]
    found = opened.metrics("test")["metrics"]["acc_top1"]["value"]
    assert evaluated.scores.value("acc_top1") == found
    assert exported.onnx == out / "model.onnx"
    assert predictor.class_map.names == CLASSES
    assert (answers[0].label in CLASSES, answers[0].probabilities.shape) == (True, (4,))
    again = classifier_training.train(folder_data, out=out, epochs=2, overrides=given)
    assert again.record == opened.record  # finished: nothing is done


@pytest.mark.promise("X3")
def test_the_predictor_needs_two_files_and_no_run(
    tiny_run: Run, folder_data: Path, tmp_path: Path
) -> None:
    for path in (tiny_run.folder.onnx, tiny_run.folder.sidecar):
        shutil.copy(path, tmp_path)
    files = sorted((folder_data / "test").rglob("*.png"))

    found = list(classifier_training.Predictor.load(tmp_path / "model.onnx").predict(files))

    with (tiny_run.folder.evaluation("test") / "predictions.csv").open(newline="") as file:
        recorded = {row["path"]: row["predicted"] for row in csv.DictReader(file)}
    assert [item.label for item in found] == [
        recorded[path.relative_to(folder_data).as_posix()] for path in files
    ]
    (tmp_path / "labels_mapping.json").unlink()
    with pytest.raises(ExportError, match="labels_mapping"):
        classifier_training.Predictor.load(tmp_path)


@pytest.mark.promise("X3")
def test_the_predictor_takes_images_of_every_size_in_any_batch(
    tiny_run: Run, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    files = []
    for number, size in enumerate([(1, 1), (500, 3), (32, 32), (31, 90)]):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(files[-1])
    predictor = classifier_training.Predictor.load(tiny_run.folder.path, threads=1)

    one, all_together = (list(predictor.predict(files, batch_size=size)) for size in (1, 4))

    assert [item.path for item in one] == [str(file) for file in files]
    for left, right in zip(one, all_together, strict=True):
        assert left.label == right.label
        np.testing.assert_allclose(left.probabilities, right.probabilities, atol=1e-6)
    assert list(predictor.predict([])) == []


@pytest.mark.promise("C5")
def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="no run folder"):
        classifier_training.Run(tmp_path)
    (tmp_path / "run.json").write_text('{"schema_version": 99}')
    with pytest.raises(ResumeError, match="schema_version 99"):
        classifier_training.Run(tmp_path)


@pytest.mark.promise("R4")
def test_the_record_of_a_run_is_complete(folder_data: Path, tiny_run: Run, tmp_path: Path) -> None:
    record = json.loads((tiny_run.folder.path / "run.json").read_text())

    assert record == tiny_run.record
    assert set(record) >= {
        "id", "command", "config_hash", "data_fingerprint", "git", "versions", "hardware",
        "seed", "status", "best", "stages_s", "started", "parent", "changes",
    }  # fmt: skip
    assert len(record["id"]) == 12
    assert record["status"] == "finished"
    assert record["seed"] == 42
    assert record["data_root"] == str(folder_data)
    assert record["parent"] is None
    # The command is one that can be typed again.
    command = shlex.split(record["command"])
    assert command[:2] == ["classifier", "train"]
    assert f"data.data_root={folder_data}" in command
    assert {"fit", "evaluate", "export", "report"} == set(record["stages_s"])
    assert all(seconds > 0 for seconds in record["stages_s"].values())
    assert set(record["versions"]) >= {"python", "classifier-training", "torch", "onnxruntime"}
    for name, version in record["versions"].items():
        expected = sys.version.split()[0] if name == "python" else metadata.version(name)
        assert version == expected, name
    assert record["hardware"]["device"] == "the CPU"
    assert record["hardware"]["precision"] == "32-true"
    assert record["hardware"]["cores"] >= 1
    started = datetime.datetime.fromisoformat(record["started"])
    age = datetime.datetime.now(datetime.UTC) - started
    assert datetime.timedelta(0) <= age + datetime.timedelta(seconds=1) < datetime.timedelta(1)


@pytest.mark.promise("T1")
def test_the_record_names_the_best_row_of_the_history(tiny_run: Run) -> None:
    with tiny_run.folder.history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["val/f1_macro"]) for row in rows]
    best = tiny_run.record["best"]

    assert best["metric"] == "val/f1_macro"
    assert best["score"] == max(scores) == scores[best["epoch"]]


@pytest.mark.promise("R4")
def test_config_hash_and_fingerprint_tell_configurations_and_data_apart(
    tiny_run: Run, tmp_path: Path
) -> None:
    changed = write_folder(tmp_path / "changed")
    image = changed / "val" / "NO" / "001.png"
    with Image.open(image) as opened:
        pixels = np.array(opened)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(image)

    other = tiny_train(changed, tmp_path / "run", "trainer.max_epochs=1", "seed=43").record

    assert other["config_hash"] != tiny_run.record["config_hash"]
    assert other["data_fingerprint"] != tiny_run.record["data_fingerprint"]
    assert other["seed"] == 43


@pytest.mark.promise("R4")
def test_the_commit_is_that_of_the_code_and_not_of_a_repository_around_it(tmp_path: Path) -> None:
    """Once the package is tracked by the repository, once it is only installed below one."""
    source = Path(classifier_training.__file__).parent
    ignore = shutil.ignore_patterns("__pycache__", "conf")
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        done = subprocess.run(
            ["git", *who, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def state(folder: Path) -> object:
        code = (
            "import json; from classifier_training.run import provenance as p; "
            "print(p.__file__); print(json.dumps(p.git_state()))"
        )
        file, found = python(code, PYTHONPATH=str(folder)).splitlines()
        assert Path(file).is_relative_to(folder)
        return json.loads(found)

    shutil.copytree(source, tmp_path / "src" / "classifier_training", ignore=ignore)
    shutil.copytree(source, tmp_path / "lib" / "classifier_training", ignore=ignore)
    (tmp_path / ".gitignore").write_text("lib/\n__pycache__/\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=all")
    commit = git("rev-parse", "HEAD")

    assert state(tmp_path / "src") == {"commit": commit, "dirty": False}
    assert state(tmp_path / "lib") is None
    (tmp_path / "src" / "classifier_training" / "errors.py").write_text("# changed\n")
    assert state(tmp_path / "src") == {"commit": commit, "dirty": True}


@pytest.mark.promise("X1")
def test_the_hash_in_the_sidecar_is_that_of_the_file(tiny_run: Run) -> None:
    sidecar = json.loads(tiny_run.folder.sidecar.read_text())

    digest = hashlib.sha256(tiny_run.folder.onnx.read_bytes()).hexdigest()

    assert sidecar["model"]["sha256"] == digest
    assert sidecar["model"]["file"] == tiny_run.folder.onnx.name
