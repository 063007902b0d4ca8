"""``classifier compare`` and its gate as a user and a CI job meet them."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from typer.testing import CliRunner

from classifier_training.cli.main import app
from classifier_training.errors import EXIT_CONFIG, EXIT_DATA, EXIT_EXPORT, EXIT_OK
from classifier_training.evaluation.comparison import compare
from classifier_training.evaluation.comparison_report import write_comparison
from classifier_training.evaluation.predictions import pair_predictions, predictions_of
from classifier_training.run.folder import find_report
from classifier_training.run.reader import Run
from tests.helpers.answers import write_predictions_csv
from tests.helpers.data import CLASSES

pytestmark = pytest.mark.promise("N2")

SAYS_NOTHING_HEAVY = """
import sys
from classifier_training.cli.main import main
sys.argv = ["classifier", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    code = int(stop.code or 0)
heavy = {"torch", "torchvision", "lightning", "hydra", "matplotlib"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""


def say(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert "Traceback" not in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def say_alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SAYS_NOTHING_HEAVY, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def csvs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Predictions of a weak and of a strong model on the same 300 images."""
    folder, rng = tmp_path_factory.mktemp("csv"), np.random.default_rng(0)
    true = rng.integers(0, 4, 300)
    paths = [f"test/{row:03d}.png" for row in range(300)]
    files = []
    for name, skill in (("weak", 0.5), ("strong", 3.0)):
        logits = rng.normal(0, 1, (300, 4))
        logits[np.arange(300), true] += skill
        weights = np.exp(logits)
        shares = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        files.append(write_predictions_csv(folder / f"{name}.csv", paths, true, shares, CLASSES))
    return files[0], files[1]


def test_both_reports_are_linked(csvs: tuple[Path, Path], tmp_path: Path) -> None:
    reports = []
    for name, source in zip(("a [1]", "b"), csvs, strict=True):
        run = tmp_path / name
        run.mkdir()
        (run / "run.json").write_text("{}")
        (run / "report.html").write_text("")
        (run / "model.onnx").write_text("")
        assert find_report(run) == find_report(run / "model.onnx") == run / "report.html"
        assert find_report(source) is None, "a file of no run has none"
        reports.append(run / "report.html")
    read = [
        predictions_of(source, "test", data=None, like=None, on_images=lambda *_: None)
        for source in csvs
    ]

    found = compare(pair_predictions(*read))
    write_comparison(found, "acc_top1", tmp_path / "out", (reports[0], reports[1]))

    text = (tmp_path / "out/comparison.md").read_text()
    links = re.findall(r"\[report\]\(<(.+?)>\)", text)
    assert [(tmp_path / "out" / unquote(link)).resolve() for link in links] == reports
    assert "B is better than A by" in text


def test_a_better_model_is_called_better_and_files_say_the_same(
    csvs: tuple[Path, Path], tmp_path: Path
) -> None:
    weak, strong = csvs

    code, out, _ = say("compare", weak, strong, "--out", tmp_path / "out")

    content = json.loads((tmp_path / "out/comparison.json").read_text())
    assert code == EXIT_OK
    assert "B is better than A by" in out
    assert content["sentence"] in out
    assert content["verdict"] == "better"
    assert set(content["metrics"]) == {"acc_top1", "f1_macro", "acc_macro", "loss"}
    with (tmp_path / "out/changed_images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with weak.open(newline="") as file:
        before = {row["path"]: row for row in csv.DictReader(file)}
    with strong.open(newline="") as file:
        after = {row["path"]: row for row in csv.DictReader(file)}
    changed = {path for path in before if before[path]["predicted"] != after[path]["predicted"]}
    assert {row["path"] for row in rows} == changed
    for row in rows:
        hits = (before[row["path"]]["correct"], after[row["path"]]["correct"])
        expected = {("false", "true"): "fixed", ("true", "false"): "broken"}
        assert row["change"] == expected.get(hits, "still wrong")
    counted = [row["change"] for row in rows]
    assert counted.count("fixed") == content["mcnemar"]["fixed"]
    assert counted.count("broken") == content["mcnemar"]["broken"]
    with (tmp_path / "out/per_class_differences.csv").open(newline="") as file:
        classes = list(csv.DictReader(file))
    assert [row["class"] for row in classes] == list(CLASSES)
    assert sum(int(row["support"]) for row in classes) == 300
    assert sum(int(row["fixed"]) for row in classes) == counted.count("fixed")


def test_the_other_way_round_it_is_worse(csvs: tuple[Path, Path]) -> None:
    code, out, _ = say("compare", csvs[1], csvs[0], "--metric", "acc_top1")

    assert code == EXIT_OK  # a comparison is no gate
    assert "B is worse than A by" in out
    assert "points of accuracy" in out


def test_a_run_its_predictions_and_its_onnx_are_an_exact_tie(tiny_run: Run) -> None:
    run = tiny_run.folder.path

    for b in (run, run / "evaluation/test/predictions.csv", run / "model.onnx"):
        code, out, err = say("compare", run, b)
        assert code == EXIT_OK, err
        assert "an exact tie" in out
        assert "16 images" in out
    assert "an exact tie" in say("compare", run / "model.onnx", run, "--split", "val")[1]


def test_two_onnx_files_need_data_and_take_a_folder_or_a_run(
    tiny_run: Run, folder_data: Path
) -> None:
    model = tiny_run.folder.onnx

    code, _, err = say("compare", model, model)
    assert code == EXIT_DATA
    assert "--data DIR" in err
    for data in (folder_data, tiny_run.folder.path):
        code, out, err = say("compare", model, model, "--data", data)
        assert code == EXIT_OK, err
        assert "an exact tie" in out
        assert "16 images" in out


def test_the_gate_fails_with_exit_code_five_and_passes_with_zero(
    csvs: tuple[Path, Path], tmp_path: Path
) -> None:
    weak, strong = csvs
    base = tmp_path / "baseline.json"
    assert say("compare", strong, "--write-baseline", base)[0] == EXIT_OK

    failed = say("compare", weak, "--gate", base, "--margin", 0.02)
    passed = say("compare", strong, "--gate", base, "--margin", 0)

    assert failed[0] == EXIT_EXPORT == 5
    assert "gate failed: macro F1" in failed[1]
    assert passed[0] == EXIT_OK
    assert "gate passed: macro F1" in passed[1]
    # A run or predictions.csv may stand in for the file.
    assert say("compare", weak, "--gate", strong)[0] == EXIT_EXPORT
    assert say("compare", strong, "--gate", weak)[0] == EXIT_OK


def test_a_gate_on_other_images_is_a_data_error(csvs: tuple[Path, Path], tmp_path: Path) -> None:
    base, other = tmp_path / "baseline.json", tmp_path / "other.csv"
    say("compare", csvs[1], "--write-baseline", base)
    lines = csvs[1].read_text().splitlines(keepends=True)
    other.write_text("".join(lines[:-1]))

    code, _, err = say("compare", other, "--gate", base)

    assert code == EXIT_DATA
    assert "other images or labels: 300 images" in err


FAULTS = [
    (["{a}"], EXIT_CONFIG, "not said what A is compared with"),
    (["{a}", "{b}", "--gate", "{a}"], EXIT_CONFIG, "different things"),
    (["{a}", "{b}", "--metric", "f1"], EXIT_CONFIG, "--metric f1 is unknown"),
    (["{a}", "{b}", "--split", "tset"], EXIT_CONFIG, "--split tset"),
    (["{a}", "no.csv"], EXIT_DATA, "no.csv"),
    (["{a}", "no.onnx"], EXIT_EXPORT, "no.onnx"),
    (["{a}", "--gate", "no.json"], EXIT_DATA, "no.json"),
    (["{a}", "--gate", "{a}", "--margin", "-1"], EXIT_CONFIG, "--margin -1"),
    (["{a}", "{b}", "--out", "{a}/x"], EXIT_CONFIG, "cannot write --out"),
    (["{a}", "--write-baseline", "{a}/x"], EXIT_CONFIG, "cannot write --write-baseline"),
]


@pytest.mark.promise("C5")
@pytest.mark.parametrize(("asked", "code", "told"), FAULTS, ids=lambda row: str(row)[:50])
def test_faults_are_told(csvs: tuple[Path, Path], asked: list[str], code: int, told: str) -> None:
    words = [word.format(a=csvs[0], b=csvs[1]) for word in asked]

    found, _, err = say("compare", *words)

    assert found == code
    assert told in err
    assert "\n  expected: " in err
    assert "\n  fix:      " in err


@pytest.mark.promise("C6")
def test_compare_and_runs_never_import_torch(
    csvs: tuple[Path, Path], tiny_run: Run, tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep"
    shutil.copytree(tiny_run.folder.path, sweep / "0")

    for command in (
        ["compare", "--help"],
        ["runs", "--help"],
        ["robustness", "--help"],
        ["compare", *csvs],
        ["compare", tiny_run.folder.path, tiny_run.folder.onnx],
        ["runs", sweep, "--aggregate"],
    ):
        done = say_alone(*command)
        assert done.returncode == EXIT_OK, (command, done.stderr)
