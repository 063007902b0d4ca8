"""Versions, machine and code state that a run records about itself."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from classifier_training import __version__
from classifier_training.system.resources import available_cores

_PACKAGES = (
    "hydra-core",
    "lightning",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pillow",
    "torch",
    "torchmetrics",
    "torchvision",
)


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package and of what results depend on."""
    found = {name: metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "classifier-training": __version__, **found}


def machine() -> dict[str, Any]:
    """Return the operating system, processor and allowed cores."""
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": available_cores(),
    }


def git_state() -> dict[str, Any] | None:
    """Return commit and whether there are uncommitted changes; None outside a checkout.

    A package installed under somebody else's repository (``.venv`` in it) is outside.
    """
    folder = Path(__file__).parent
    is_ours = _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is not None
    commit = _git(folder, "rev-parse", "HEAD") if is_ours else None
    if commit is None:
        return None
    return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
