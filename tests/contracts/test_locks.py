"""What the locks install: hashed, and no release that is known to be malicious."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ("runtime", "train", "dev")
MALICIOUS = ("2.6.2", "2.6.3")


def entries(lock: str) -> list[tuple[Requirement, list[str]]]:
    """Return each requirement of a lock with its hashes."""
    text = (ROOT / "locks" / f"{lock}.txt").read_text().replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        content = line.partition("#")[0].strip()
        if content:
            requirement, *hashes = re.split(r"\s--hash=", content)
            found.append((Requirement(requirement), [text.strip() for text in hashes]))
    return found


def declared() -> dict[str, list[Requirement]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {"": project["dependencies"], **project["optional-dependencies"]}
    return {name: [Requirement(text) for text in texts] for name, texts in named.items()}


@pytest.mark.promise("S3")
@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_requirement_is_one_version_with_hashes(lock: str) -> None:
    locked = entries(lock)

    assert locked
    for requirement, hashes in locked:
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        assert hashes, requirement
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", text) for text in hashes), requirement


@pytest.mark.promise("S3")
@pytest.mark.parametrize("extra", ["train", "dev"])
@pytest.mark.parametrize("version", MALICIOUS)
def test_malicious_lightning_is_not_locked(extra: str, version: str) -> None:
    pinned = {canonicalize_name(r.name): r.specifier for r, _ in entries(extra)}

    assert version not in pinned["lightning"]
    assert "pytorch-lightning" not in pinned or version not in pinned["pytorch-lightning"]


@pytest.mark.promise("S3")
def test_malicious_lightning_cannot_be_resolved() -> None:
    wanted = [r for many in declared().values() for r in many if r.name == "lightning"]

    assert wanted
    for requirement in wanted:
        for version in MALICIOUS:
            assert not requirement.specifier.contains(Version(version), prereleases=True)


@pytest.mark.promise("I2")
@pytest.mark.parametrize(("extra", "lock"), [("", "runtime"), ("train", "train"), ("dev", "dev")])
def test_the_lock_holds_everything_that_is_declared(extra: str, lock: str) -> None:
    pinned = {canonicalize_name(r.name): next(iter(r.specifier)).version for r, _ in entries(lock)}
    wanted = [r for r in (*declared()[""], *declared()[extra]) if r.name != "classifier-training"]

    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        assert name in pinned, requirement
        assert requirement.specifier.contains(pinned[name], prereleases=True), requirement


@pytest.mark.promise("I2")
def test_the_base_install_brings_no_torch() -> None:
    names = {canonicalize_name(requirement.name) for requirement, _ in entries("runtime")}

    assert names.isdisjoint({"torch", "torchvision", "lightning", "hydra-core"})


@pytest.mark.promise("I2")
def test_pip_finds_every_extra_that_a_locked_package_asks_for() -> None:
    """With hashes, pip refuses coverage==7 where pytest-cov asks for coverage[toml]."""
    locked: dict[str, set[str]] = {}
    for requirement, _ in entries("dev"):  # one entry for each extra
        locked.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    asked = []
    for name, own_extras in locked.items():
        try:
            wanted = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:  # of another platform
            continue
        for need in wanted:
            extras = ["", *own_extras]
            holds = need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras)
            if need.extras and holds:
                asked.append(need)
                assert need.extras <= locked[canonicalize_name(need.name)], (name, need)

    assert asked
