"""The package as it is installed: what the wheel holds, and that it works in clean environments."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import classifier_training
from classifier_training.run.reader import Run
from tests.helpers.documents import ROOT

CONF = ROOT / "src" / "classifier_training" / "conf"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, built from a copy of what git tracks."""
    top = tmp_path_factory.mktemp("dist")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            target = top / "tree" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(top / "dist")]
    done = subprocess.run([*build, str(top / "tree")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return top / "dist"


def _wheel(dist: Path) -> Path:
    (wheel,) = dist.glob("*.whl")
    return wheel


@pytest.mark.promise("I6")
def test_the_wheel_holds_the_package_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(_wheel(dist)) as archive:
        names = set(archive.namelist())

    for path in CONF.rglob("*.yaml"):
        assert f"classifier_training/conf/{path.relative_to(CONF)}" in names
    for needed in (
        "classifier_training/py.typed",
        "classifier_training/inference/labels_mapping.schema.json",
        "classifier_training/report/templates/report.html.j2",
        "classifier_training/report/templates/report.css",
        "classifier_training/report/templates/report.js",
    ):
        assert needed in names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {
        "classifier_training",
        f"classifier_training-{classifier_training.__version__}.dist-info",
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


@pytest.mark.promise("I6")
def test_the_version_stands_in_one_place(dist: Path) -> None:
    version = classifier_training.__version__
    with zipfile.ZipFile(_wheel(dist)) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (source,) = project["tool"]["semantic_release"]["version_variables"]
    path, _, variable = source.partition(":")

    assert metadata["Version"] == version
    assert "version" in project["project"]["dynamic"]
    found = re.findall(rf'^{variable} = "(.+)"$', (ROOT / path).read_text(), re.MULTILINE)
    assert found == [version]
    said = subprocess.run(
        [str(Path(sys.executable).with_name("classifier")), "--version"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.stdout.strip() == version


@pytest.mark.promise("I6")
def test_the_sdist_builds_the_same_wheel(dist: Path, tmp_path: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    subprocess.run([*build, str(tmp_path / "again"), str(tree)], capture_output=True, check=True)

    (again,) = (tmp_path / "again").glob("*.whl")
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(_wheel(dist)) as other:
        assert {i.filename: i.CRC for i in one.infolist()} == {
            i.filename: i.CRC for i in other.infolist()
        }


# ---------------------------------------------------------------- in clean environments


def _environment(top: Path, what: str, *arguments: str) -> Path:
    """Return the ``bin`` of a new environment with something installed by uv."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv: pip would fetch torch again for each environment")
    home = top / "venv"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(home)], check=True)
    done = subprocess.run(
        [uv, "pip", "install", "-q", "--python", str(home / "bin" / "python"), *arguments, what],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return home / "bin"


def _say(bin_folder: Path, *words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(
        [str(bin_folder / "classifier"), *map(str, words)],
        cwd=cwd, capture_output=True, text=True, check=False, env={**clean, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.promise("I6")
@pytest.mark.promise("X3")
@pytest.mark.parametrize("oldest", [False, True], ids=["newest", "oldest"])
def test_the_base_install_predicts_and_says_what_it_lacks(
    oldest: bool, dist: Path, tiny_run: Run, folder_data: Path, tmp_path: Path
) -> None:
    more = ("--resolution", "lowest-direct") if oldest else ()
    found = _environment(tmp_path, str(_wheel(dist)), *more)
    shutil.copytree(tiny_run.folder.path, tmp_path / "run")

    predicted = _say(found, "predict", "run", folder_data, "--out", "out.csv", cwd=tmp_path)
    verified = _say(found, "verify", "run/model.onnx", cwd=tmp_path)
    refused = _say(found, "train", "data.data_root=x", cwd=tmp_path)

    assert predicted.returncode == 0, predicted.stderr
    assert (tmp_path / "out.csv").read_text().startswith("path,predicted,confidence")
    assert verified.returncode == 0, verified.stderr
    assert refused.returncode == 2
    assert "pip install 'classifier-training[train]'" in refused.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.promise("I6")
@pytest.mark.parametrize("oldest", [False, True], ids=["newest", "oldest"])
def test_the_train_install_trains(oldest: bool, dist: Path, tmp_path: Path) -> None:
    more = ("--resolution", "lowest-direct") if oldest else ()
    found = _environment(tmp_path, f"{_wheel(dist)}[train]", *more)
    assert _say(found, "synth", "data", "--classes", "3", "--per-class", "8", "--image-size", "32",
                cwd=tmp_path).returncode == 0  # fmt: skip

    done = _say(
        found, "train", "data=jsonl", "data.data_root=data", "model.weights=null", "trainer=cpu",
        "trainer.max_epochs=1", "transforms.image_size=32", "data.batch_size=8",
        "data.num_workers=0", "hydra.run.dir=run", cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert {"model.onnx", "labels_mapping.json", "report.html"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
