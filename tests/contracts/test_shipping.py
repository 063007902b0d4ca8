"""Makefile, pixi tasks, workflows and image files say the same thing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PIXI: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pixi"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
# Of object-detection-training, whose users know these names.
TASKS = (
    "task_manager train test test-cov lint format format-check typecheck precommit quality build "
    "build-local docs docs-build"
).split()
NOT_IN_MAKEFILE = {"task_manager", "train"}  # what they run is this project itself


def recipe(target: str) -> list[str]:
    """Return what `make TARGET` would run, with the environment's commands by their names."""
    make = ["make", "--dry-run", "--silent", "--old-file=.venv/.ready", "PYTHON=python3", target]
    # What the make that runs this test was given is not ours.
    given = ("ARGS", "JOBS", "MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "UPGRADE", "IMAGE")
    environment = {key: value for key, value in os.environ.items() if key not in given}
    done = subprocess.run(
        make, cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )
    return [line.replace(".venv/bin/", "").strip() for line in done.stdout.splitlines() if line]


def pixi_commands(task: str) -> list[str]:
    content = PIXI["tasks"][task]
    if isinstance(content, dict):
        return [line for name in content["depends-on"] for line in pixi_commands(name)]
    return [part.strip() for part in content.split("&&")]


@pytest.mark.promise("I1")
def test_pixi_has_the_tasks_of_the_sibling() -> None:
    assert set(TASKS) <= set(PIXI["tasks"])
    assert PIXI["workspace"]["platforms"] == ["linux-64", "osx-arm64"]
    assert set(PIXI["environments"]) == {"default", "prod"}


@pytest.mark.promise("I1")
@pytest.mark.parametrize("task", sorted(set(TASKS) - NOT_IN_MAKEFILE))
def test_a_pixi_task_runs_what_the_makefile_runs(task: str) -> None:
    assert pixi_commands(task) == recipe(task)


@pytest.mark.promise("I2")
def test_pixi_names_no_dependency_of_its_own() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    features = {name for env in PIXI["environments"].values() for name in env["features"]}

    assert set(PIXI["dependencies"]) == {"python"}
    assert set(PIXI["pypi-dependencies"]) == {project["name"]}
    assert features <= set(project["optional-dependencies"])


@pytest.mark.promise("I1")
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_makefile_targets(path: Path) -> None:
    """CI must not know a command that a contributor does not."""
    jobs = yaml.safe_load(path.read_text())["jobs"]
    commands = [
        line.strip()
        for job in jobs.values()
        for step in job["steps"]
        for line in step.get("run", "").splitlines()
    ]

    for command in commands:
        words = command.split()
        if words[0] == "make":
            recipe(words[1])  # fails for a target that does not exist
        else:
            assert words[:3] == ["gh", "release", "upload"], command


@pytest.mark.promise("S3")
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_get_no_more_rights_than_they_need(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())

    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 180


def run_shim(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the stand-in for pixi with commands that print what they were given."""
    for name in ("task_manager", "classifier"):
        tool = tmp_path / name
        tool.write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@"\n')
        tool.chmod(0o755)
    shell = shutil.which("sh") or "/bin/sh"
    return subprocess.run(
        [shell, ROOT / "cloud/pixi", *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )


@pytest.mark.promise("C9")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run task_manager --config-name x a=1", "task_manager --config-name x a=1"),
        ("run --environment prod task_manager a=1", "task_manager a=1"),
        ("run -e prod task_manager a=1", "task_manager a=1"),
        ("run --environment=prod --frozen task_manager a=1", "task_manager a=1"),
        ("run -- task_manager a=1", "task_manager a=1"),
        ("run train a=1", "classifier train a=1"),
    ],
)
def test_the_image_answers_to_the_launchers_command(
    tmp_path: Path, words: str, expected: str
) -> None:
    done = run_shim(tmp_path, *words.split())

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == expected.split()


@pytest.mark.promise("C9")
def test_the_shim_keeps_arguments_whole(tmp_path: Path) -> None:
    done = run_shim(tmp_path, "run", "task_manager", "data.classes=['a b','c']", "")

    assert done.stdout.split("\n")[:3] == ["task_manager", "data.classes=['a b','c']", ""]


@pytest.mark.promise("C9")
@pytest.mark.parametrize("words", [("run",), ("install",), ()])
def test_the_shim_says_what_it_cannot_do(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run_shim(tmp_path, *words)

    assert done.returncode == 2
    assert "pixi" in done.stderr


def test_the_image_is_built_from_what_the_build_context_lets_through() -> None:
    """A COPY of something that .dockerignore holds back would fail only in the cloud."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    sources = [
        word
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if (match := re.match(r"COPY (?!--from)(?:--\S+ )*(.+)", line))
        for word in match[1].split()[:-1]
    ]

    assert "*" in lines
    assert sources
    for source in sources:
        assert any(Path(source).match(pattern) for pattern in allowed), source
        assert (ROOT / source).exists(), source


@pytest.mark.promise("I3")
@pytest.mark.parametrize(("stage", "entry"), [("train", "task_manager"), ("predict", "classifier")])
def test_an_image_runs_as_a_user_and_holds_its_dependencies_below_its_source(
    stage: str, entry: str
) -> None:
    """What an engine makes of the file was tried by hand: docs/container.md."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line and not line.startswith("#")]
    start = next(i for i, line in enumerate(lines) if line.endswith(f" AS {stage}"))
    end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("FROM")), len(lines))
    steps = lines[start:end]
    words = [step.split(maxsplit=1)[0] for step in steps]

    assert json.loads(steps[words.index("ENTRYPOINT")].partition(" ")[2]) == [entry]
    assert steps[words.index("USER")] == "USER 1000"
    assert words.index("USER") == max(i for i, word in enumerate(words) if word != "ENTRYPOINT")
    installs = [step for step in steps if "pip install" in step]
    assert ["--require-hashes" in step for step in installs] == [True, False]
    assert "--no-deps" in installs[1]
    assert not any("SECRET" in line or "_KEY" in line or "TOKEN" in line for line in lines)
