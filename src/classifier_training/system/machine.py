"""What of this machine matters to training, and whether it will do. No torch."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from classifier_training.system.resources import available_cores, available_memory
from classifier_training.system.storage import nearest_existing, probe

Verdict = Literal["ok", "note", "slow", "fail"]

_SHOWN_PACKAGES = ("onnxruntime", "numpy", "pillow")
# Of the extra [train]; a part of them would not do.
_TRAIN_PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "onnx", "onnxscript")
_OPTIONAL_PACKAGES = {
    "gcsfs": "output_uri=gs://",
    "mlflow-skinny": "logging=mlflow",
    "opencv-python-headless": "verify --backend cv2",
    "s3fs": "output_uri=s3://",
    "simplejpeg": "fast JPEG decoding",
    "tensorboard": "logging=tensorboard",
    "wandb": "logging=wandb",
}
_LITTLE_DISK = 5 << 30
_TOO_LITTLE_DISK = 200 << 20
_LITTLE_MEMORY = 4 << 30


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at.

    Attributes:
        name: What.
        verdict: ``ok``; ``note``: worth knowing; ``slow``: training works, slower than it could;
            ``fail``: training cannot work.
        found: What was found.
        fix: What to do about it; empty where nothing is to be done.
    """

    name: str
    verdict: Verdict
    found: str
    fix: str = ""


def overall(found: Iterable[Diagnosis]) -> Verdict:
    """Return the worst verdict; a note is as good as ok."""
    verdicts = {diagnosis.verdict for diagnosis in found}
    return "fail" if "fail" in verdicts else "slow" if "slow" in verdicts else "ok"


def diagnose_machine() -> list[Diagnosis]:
    """Look at what no configuration changes: packages, cores, memory."""
    return [*_packages(), _cores(), _memory(), _temporary_files()]


def diagnose_folder(name: str, path: Path) -> list[Diagnosis]:
    """Look at the disk under a folder that may not exist yet, and at what it can do."""
    existing = nearest_existing(path)
    free = shutil.disk_usage(existing).free
    where = f"{path}: {readable_bytes(free)} free"
    fix = f"free space there, or choose another place for the {name}"
    if free < _TOO_LITTLE_DISK:
        return [Diagnosis(name, "fail", where, fix)]
    room = Diagnosis(name, "note" if free < _LITTLE_DISK else "ok", where)
    try:
        abilities = probe(existing)
    except OSError as error:
        cannot = f"{existing} cannot be written: {error.strerror}"
        fix = "fix the permissions or the mount, or choose another place: hydra.run.dir=PATH"
        return [room, Diagnosis(name, "fail", cannot, fix)]
    missing = [key.replace("_", " ") for key, works in vars(abilities).items() if not works]
    if not missing:
        return [room, Diagnosis(name, "ok", "rename, append, links and sync work")]
    how = (
        "files are written there as on any disk"
        if abilities.is_disk_like
        else f"files are made under {tempfile.gettempdir()} and copied when finished"
    )
    return [room, Diagnosis(name, "note", f"does not do: {', '.join(missing)}; {how}")]


def readable_bytes(count: float) -> str:
    """Return a size as people read it: powers of 1,000, as disks are sold."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _packages() -> list[Diagnosis]:
    version = _version("classifier-training") or "not installed as a package"
    found = [f"classifier-training {version}", f"Python {platform.python_version()}"]
    found += [f"{name} {known}" for name in _SHOWN_PACKAGES if (known := _version(name))]
    diagnoses = [Diagnosis("versions", "ok", ", ".join(found))]
    missing = [name for name in _TRAIN_PACKAGES if _version(name) is None]
    if missing:
        diagnoses.append(
            Diagnosis(
                "[train]",
                "fail",
                f"not installed: {', '.join(missing)} (predict and verify work without)",
                "pip install 'classifier-training[train]'",
            )
        )
    else:
        names = ", ".join(f"{name} {_version(name)}" for name in _TRAIN_PACKAGES)
        diagnoses.append(Diagnosis("[train]", "ok", names))
    extras = [f"{name} ({what})" for name, what in _OPTIONAL_PACKAGES.items() if _version(name)]
    diagnoses.append(Diagnosis("optional", "ok", ", ".join(extras) or "none installed"))
    return diagnoses


def _cores() -> Diagnosis:
    cores, all_of_them = available_cores(), os.cpu_count() or 1
    found = f"{cores} of {all_of_them} may be used (affinity and cgroup quota)"
    if cores > 1:
        return Diagnosis("cores", "ok", found)
    return Diagnosis("cores", "slow", found, "allow more: docker run --cpus, taskset")


def _memory() -> Diagnosis:
    free = available_memory()
    if free is None:
        return Diagnosis("memory", "note", "unknown on this system")
    found = f"{readable_bytes(free)} may still be taken (machine and cgroup)"
    if free > _LITTLE_MEMORY:
        return Diagnosis("memory", "ok", found)
    return Diagnosis("memory", "note", found, "if it does not suffice: fewer data.num_workers")


def _temporary_files() -> Diagnosis:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    return Diagnosis("temporary files", "ok", f"{folder}: {readable_bytes(free)} free")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
