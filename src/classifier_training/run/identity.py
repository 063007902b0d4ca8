"""Whether a folder may be used: a new run, the same one going on, or a refusal."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from classifier_training.config.registry import CALLBACKS
from classifier_training.errors import EXIT_UNEXPECTED, ClassifierTrainingError, ResumeError
from classifier_training.run.folder import SCHEMA_VERSION, RunFolder
from classifier_training.run.stored_config import flatten, migrated, read_config
from classifier_training.system.files import write_json, write_text

# May differ between the parts of one run: they change how, not what, is computed. Data may move;
# its fingerprint tells whether it is the same.
FREE_KEYS = (
    "allow_modules",
    "callbacks.progress",
    "checkpoint.every_minutes",
    "checkpoint.every_n_steps",
    "checkpoint.grace_s",
    "checkpoint.save_top_k",
    "data.cache",
    "data.cache_dir",
    "data.corrections",
    "data.check",
    "data.data_root",
    "data.max_aspect_ratio",
    "data.max_bad_share",
    "data.min_class_images",
    "data.min_image_side",
    "data.near_duplicate_distance",
    "data.num_workers",
    "data.on_bad_image",
    "data.prefetch_factor",
    "data.staging_dir",
    "data.test_path",
    "data.train_path",
    "data.val_path",
    "explain",
    "logging",
    "output_uri",
    "resume",
    "trainer.log_every_n_steps",
    "trainer.profiler",
)
_LONGER = "trainer.max_epochs"
_OURS = ("checkpoints", "config.yaml", "evaluation", "metrics.csv", "model.onnx")
_SHOWN = 12


@dataclass(frozen=True)
class Identity:
    """What makes a run the run it is.

    Attributes:
        config: The resolved configuration as plain values.
        fingerprint: That of the data.
        command: What was typed.
        resume: ``auto`` or ``never``.
    """

    config: dict[str, Any]
    fingerprint: str
    command: str
    resume: str


def check_folder(folder: RunFolder, identity: Identity) -> dict[str, Any] | None:
    """Say whether the folder holds this run already.

    Returns:
        Its ``run.json``, or None for a folder that is free.

    Raises:
        ResumeError: It holds another run, or files that a run would overwrite.
    """
    if not folder.record_file.exists():
        foreign = [name for name in _OURS if (folder.path / name).exists()]
        # Killed while it began, this very run left its config.yaml and no more.
        is_begun = foreign == [folder.config.name] and not _changed(
            read_config(folder.config), identity.config
        )
        if foreign and not is_begun:
            raise ResumeError(
                f"{folder.path} has no run.json but holds {', '.join(foreign)}",
                expected="a new folder, or one with a whole run",
                fix="choose another hydra.run.dir",
            )
        return None
    record = folder.read_record()
    if identity.resume == "never":
        raise ResumeError(
            f"{folder.path} already holds run {record['id']}",
            expected="an unused folder, because resume=never",
            fix="choose another hydra.run.dir, or resume=auto to go on with that run",
        )
    differences = _differences(folder, identity, record)
    if differences:
        shown = "".join(f"\n    - {line}" for line in differences[:_SHOWN])
        more = f"\n    … and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise ResumeError(
            f"{folder.path} holds another run; this command differs in:{shown}{more}",
            expected="the same configuration and data, to go on with that run",
            fix="choose another hydra.run.dir for a new run, or undo the differences",
        )
    return record


def start_record(folder: RunFolder, identity: Identity, facts: Mapping[str, Any]) -> None:
    """Make the folder a run: ``config.yaml`` and ``run.json``."""
    folder.path.mkdir(parents=True, exist_ok=True)
    write_text(folder.config, OmegaConf.to_yaml(OmegaConf.create(identity.config)))
    record = {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "command": identity.command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "config_hash": _hash(identity.config),
        "data_fingerprint": identity.fingerprint,
        "data_root": identity.config["data"]["data_root"],
        "seed": identity.config["seed"],
        "best": None,
        "stages_s": {},
        "changes": [],
        **facts,
    }
    write_json(folder.record_file, record)


def adopt_changes(folder: RunFolder, identity: Identity) -> list[str]:
    """Record what differs in free keys (and a longer ``max_epochs``) since the run began."""
    stored = read_config(folder.config)
    changes = [f"{key}: {old!r} -> {new!r}" for key, old, new in _changed(stored, identity.config)]
    if changes:
        write_text(folder.config, OmegaConf.to_yaml(OmegaConf.create(identity.config)))
    return changes


def _differences(folder: RunFolder, identity: Identity, record: dict[str, Any]) -> list[str]:
    lines = []
    stored = read_config(folder.config)
    for key, old, new in _changed(stored, identity.config):
        is_longer = key == _LONGER and isinstance(old, int) and new > old
        if not (
            below(key, FREE_KEYS) or is_longer or _is_of_observer(key, stored, identity.config)
        ):
            lines.append(f"{key}: {new!r} here, {old!r} in the run")
    if record["data_fingerprint"] != identity.fingerprint:
        lines.append(
            f"data: fingerprint {identity.fingerprint[:12]} here, "
            f"{record['data_fingerprint'][:12]} in the run (images, labels or splits changed)"
        )
    return lines


def is_extension(change: str) -> bool:
    """Say whether a line of :func:`adopt_changes` makes the run longer.

    That changes the learning rate of every step to come: such a run equals neither the one that
    was begun nor one that was as long from the start.
    """
    return change.startswith(f"{_LONGER}: ")


def _is_of_observer(key: str, *configs: dict[str, Any]) -> bool:
    """Whether a key belongs to a callback that only watches, in each of the configurations."""
    section, _, rest = key.partition(".")
    if section != "callbacks":
        return False
    entries = [(config.get(section) or {}).get(rest.partition(".")[0]) for config in configs]
    return all(entry is None or _observes(entry) for entry in entries)


def _observes(entry: Any) -> bool:
    target = entry.get("_target_") if isinstance(entry, dict) else None
    if not isinstance(target, str):
        return False
    if target in CALLBACKS:
        return CALLBACKS[target].observes
    # A class of the user's; one that only a stored file names is not imported for that.
    module, _, name = target.rpartition(".")
    return bool(getattr(getattr(sys.modules.get(module), name, None), "observes", False))


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    flat_old, flat_new = flatten(old), flatten(migrated(new))
    keys = sorted(flat_old.keys() | flat_new.keys())
    return [
        (key, flat_old.get(key), flat_new.get(key))
        for key in keys
        if flat_old.get(key) != flat_new.get(key)
    ]


def below(key: str, sections: Iterable[str]) -> bool:
    """Whether a dotted key is one of these, or stands inside one."""
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _hash(config: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def absolute_data_root(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with ``data.data_root`` absolute, as a run records it."""
    root = str(Path(config["data"]["data_root"]).expanduser().absolute())
    return {**config, "data": {**config["data"], "data_root": root}}


# Set by `classifier submit`, new for each submission.
SUBMISSION = "CLASSIFIER_TRAINING_SUBMISSION"


class FailedBeforeError(ClassifierTrainingError):
    """The same submission failed already; ends with the exit code it had."""

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(
            f"this job was started again, but it failed before: {what}",
            expected="another start only after a preemption",
            fix="fix the cause, then submit the same command again; the run goes on",
        )
        self.exit_code = exit_code


def failure_of(error: BaseException) -> dict[str, Any]:
    """Return what ``run.json`` keeps of a failure."""
    if isinstance(error, ClassifierTrainingError):
        code, what = error.exit_code, error.what
    else:
        code, what = EXIT_UNEXPECTED, f"{type(error).__name__}: {error}"
    return {
        "exit_code": code,
        "what": what[:500],
        "submission": os.environ.get(SUBMISSION),
    }


def refuse_after_failure(record: dict[str, Any]) -> None:
    """End a job that the service started again although the program had failed.

    Raises:
        FailedBeforeError: It did, in this very submission.
    """
    submission = os.environ.get(SUBMISSION)
    failure = record["failure"] if record["status"] == "failed" and "failure" in record else None
    if submission and failure is not None and failure["submission"] == submission:
        raise FailedBeforeError(failure["what"], failure["exit_code"])
