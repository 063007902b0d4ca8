"""The examples do what their READMEs say, command by command."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from classifier_training.run.reader import Run
from tests.helpers.documents import ROOT, commands

# On the CPU of a test machine; a reader's command says nothing of that.
_QUICK = ("trainer=cpu", "data.num_workers=0", "explain.enabled=false", "data.batch_size=8")


def _run(example: str, top: Path) -> Path:
    """Copy an example and run the commands of its README there, in their order."""
    place = shutil.copytree(ROOT / "examples" / example, top / example)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    readme = f"examples/{example}/README.md"
    for command in [found for found in commands() if found.place.startswith(readme)]:
        words = list(command.words)
        if words[0] == "cd":
            continue
        if words[0] == "export":
            environment |= dict([words[1].split("=", 1)])
            continue
        if words[:2] == ["classifier", "train"]:
            words += _QUICK
        done = subprocess.run(
            words, cwd=place, env={**environment, "PATH": path}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return place


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.promise("I4")
@pytest.mark.promise("C4")
def test_a_callback_and_a_transform_of_ones_own(tmp_path: Path) -> None:
    place = _run("own_module", tmp_path)

    run = Run(place / "run")
    assert run.record["status"] == "finished"
    with (run.folder.plots / "class_gains.csv").open() as file:
        header, *rows = csv.reader(file)
    assert len(header) == 4
    assert len(rows) == 2, "a row an epoch"
    assert "jersey_extras.net.CourtNet" in run.folder.config.read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.promise("I4")
def test_a_folder_with_a_sweep(tmp_path: Path) -> None:
    place = _run("folder_sweep", tmp_path)

    runs = sorted(path for path in (place / "sweep").iterdir() if path.is_dir())
    assert [Run(run).record["status"] for run in runs] == ["finished"] * 4
    assert (place / "runs.html").is_file()
