"""What a run records at its start and in each stage: identity, machine, data, wall time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from loguru import logger

from classifier_training.config.schema import Config
from classifier_training.data.checks.preflight import CheckedData
from classifier_training.data.manifest import Manifest
from classifier_training.data.statistics import statistics
from classifier_training.errors import InterruptedRunError
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.run.folder import RunFolder
from classifier_training.run.identity import (
    Identity,
    absolute_data_root,
    adopt_changes,
    is_extension,
    start_record,
)
from classifier_training.run.log import log_failure
from classifier_training.run.provenance import git_state, machine, versions
from classifier_training.system.files import write_json


def identify(config: Config, manifest: Manifest, command: str) -> Identity:
    """Return what makes this run the run it is."""
    content = absolute_data_root(config.model_dump())
    return Identity(content, manifest.fingerprint(), command, config.resume)


def is_finished(record: Mapping[str, Any], identity: Identity) -> bool:
    """Whether a run has ended, with as many epochs as are requested now."""
    wanted = int(identity.config["trainer"]["max_epochs"])
    return record["status"] == "finished" and int(record["max_epochs"]) >= wanted


def open_record(
    folder: RunFolder,
    identity: Identity,
    record: Mapping[str, Any] | None,
    run_id: str,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Start the record of a run, or continue it, and return it.

    Args:
        folder: The run folder.
        identity: What the run is.
        record: The record so far; None: a new run.
        run_id: Id of a new run.
        facts: Further entries, of this part of the run.
    """
    entries = {
        "max_epochs": identity.config["trainer"]["max_epochs"],
        "parent": identity.config["ckpt_path"] or identity.config["task"]["checkpoint_path"],
        "git": git_state(),
        "versions": versions(),
        **facts,
        "hardware": {**machine(), **facts["hardware"]},
    }
    if record is None:
        start_record(folder, identity, {"id": run_id, **entries})
        logger.info("run: new, in {}", folder.path)
        return folder.read_record()
    changes = adopt_changes(folder, identity)
    logger.info("run: resuming {} in {}", record["id"], folder.path)
    for change in changes:
        logger.warning("run: changed since the start: {}", change)
        if is_extension(change):
            logger.warning(
                "run: a longer run has another schedule: this is not a bit-equal continuation"
            )
    known = [*record["changes"], *changes]
    return folder.update_record({**entries, "status": "running", "changes": known})


def write_data(folder: RunFolder, checked: CheckedData, spec: PreprocessSpec) -> None:
    """Write manifest, facts and findings of the images, and statistics."""
    checked.index.manifest.write(folder.manifest)
    checked.write(facts=folder.image_stats, report=folder.check)
    write_json(folder.statistics, statistics(checked.index, spec, checked.facts))


@contextlib.contextmanager
def stage(folder: RunFolder, name: str) -> Iterator[None]:
    """Add the wall time of the block to the record, over all parts of the run."""
    started = time.monotonic()
    try:
        yield
    finally:
        times = folder.read_record()["stages_s"]
        total = times.get(name, 0.0) + time.monotonic() - started
        folder.update_record({"stages_s": {**times, name: round(total, 3)}})


@contextlib.contextmanager
def optional(what: str) -> Iterator[None]:
    """Log a failure of something on which no score and no artifact depends, and continue."""
    try:
        yield
    except InterruptedRunError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the run matters more
        log_failure(error, "{} could not be made; the run continues", what)
