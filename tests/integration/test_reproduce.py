"""A run is trained again from what it recorded, or the reason why not is told."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from classifier_training.cli.main import app
from classifier_training.run.reader import Run


def _reproduce(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["reproduce", *map(str, arguments)])


@pytest.fixture
def copied(tiny_run: Run, tmp_path: Path) -> Path:
    shutil.copytree(tiny_run.folder.path, tmp_path / "run")
    return tmp_path / "run"


def _change_metric(run: Path, by: float) -> None:
    path = run / "metrics.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[-1]["val/loss"] = repr(float(rows[-1]["val/loss"]) + by)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.promise("R21")
def test_the_same_numbers_come_again(copied: Path) -> None:
    done = _reproduce(copied)

    assert done.exit_code == 0, done.output
    assert "all metrics of 2 epochs are equal bit by bit" in done.output
    ours, theirs = copied.with_name("run_reproduced"), copied
    assert (ours / "metrics.csv").read_bytes() == (theirs / "metrics.csv").read_bytes()

    # The repetition is finished: what follows only compares.
    for by, code, said in ((1e-5, 0, "reproduced within"), (0.1, 5, "not reproduced: val/loss")):
        _change_metric(copied, by)
        done = _reproduce(copied)
        assert (done.exit_code, said in done.output) == (code, True), done.output


@pytest.mark.promise("R21")
def test_changed_or_missing_data_is_refused_before_anything_is_written(
    copied: Path, folder_data: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(folder_data, changed)
    next(changed.glob("train/00/*.png")).unlink()

    for root, said in ((changed, "is not what the run was trained on"), ("/nowhere", "not there")):
        done = _reproduce(copied, "--data-root", root)
        assert done.exit_code == 3
        assert said in done.output
        assert "fix: " in done.output

    assert not copied.with_name("run_reproduced").exists()


@pytest.mark.promise("R21")
@pytest.mark.promise("C4")
@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ("allow_modules: [os]\ncallbacks: {x: {_target_: os.system, command: id}}", "os.system"),
        ("callbacks: {x: {_target_: tests.helpers.spies.Spy}}", "tests.helpers.spies.Spy"),
        ("experiment: ${oc.env:HOME}", "holds a reference"),
    ],
)
def test_a_stored_configuration_is_not_trusted(copied: Path, stored: str, said: str) -> None:
    config = copied / "config.yaml"
    kept = [line for line in config.read_text().splitlines() if line != "allow_modules: []"]
    text = "\n".join(kept)
    if "callbacks:" in stored:
        text = text.replace("callbacks:", "was_callbacks:")
    config.write_text(f"{text}\n{stored}\n")

    done = _reproduce(copied)

    assert done.exit_code == 2, done.output
    assert said in done.output
    assert not copied.with_name("run_reproduced").exists()


@pytest.mark.promise("R21")
def test_what_is_no_run_and_the_run_itself_are_refused(copied: Path, tmp_path: Path) -> None:
    assert _reproduce(tmp_path).exit_code == 6
    assert _reproduce(copied, "--out", copied).exit_code == 2
