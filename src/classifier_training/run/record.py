"""What a run records when it begins: who it is, on which machine, with which data."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from loguru import logger

from classifier_training.config.schema import Config
from classifier_training.data.checks.preflight import CheckedData
from classifier_training.data.index import DataIndex
from classifier_training.data.statistics import statistics
from classifier_training.errors import InterruptedRunError
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.run.folder import RunFolder
from classifier_training.run.identity import (
    Identity,
    absolute_data_root,
    adopt_changes,
    failure_of,
    is_extension,
    start_record,
)
from classifier_training.run.log import log_failure
from classifier_training.run.provenance import git_state, machine, versions
from classifier_training.system.files import replacing, write_json
from classifier_training.training.estimate import with_batch_size
from classifier_training.training.hardware import Hardware


def identify(config: Config, index: DataIndex, command: str) -> Identity:
    """Return what makes this run the run it is."""
    content = absolute_data_root(config.model_dump())
    return Identity(content, index.manifest.fingerprint(), command, config.resume)


def is_finished(record: dict[str, Any], config: Config) -> bool:
    """Whether the run has ended, and with as many epochs as are asked for now."""
    done = record["status"] == "finished"
    return done and int(record["max_epochs"]) >= config.trainer.max_epochs


def with_recorded_batch_size(
    config: Config, index: DataIndex, hardware: Hardware, record: dict[str, Any] | None
) -> Config:
    """Decide ``data.batch_size=auto``, once for a run: elsewhere it goes on as it began."""
    if config.data.batch_size == "auto" and record is not None:
        return config.with_batch_size(int(record["batch_size"]))
    manifest = index.manifest
    images = len(manifest.rows("train"))
    return with_batch_size(config, hardware, classes=len(manifest.class_map), images=images)


def open_run(
    folder: RunFolder,
    identity: Identity,
    record: dict[str, Any] | None,
    hardware: Hardware,
    batch_size: int,
) -> dict[str, Any]:
    """Begin the record, or go on with it, and return it.

    Args:
        folder: The run.
        identity: What it is.
        record: What is there; None: a new run.
        hardware: Where it trains now.
        batch_size: Images a step, as decided.
    """
    facts = {
        "batch_size": batch_size,
        "max_epochs": identity.config["trainer"]["max_epochs"],
        "parent": identity.config["ckpt_path"] or identity.config["task"]["checkpoint_path"],
        "git": git_state(),
        "versions": versions(),
        "hardware": {
            **machine(),
            "device": hardware.device.name,
            "precision": hardware.precision,
            "reason": hardware.reason,
        },
    }
    if record is None:
        start_record(folder, identity, facts)
        logger.info("run: new, in {}", folder.path)
    else:
        changes = adopt_changes(folder, identity)
        known = [*record["changes"], *changes]
        folder.update_record({**facts, "status": "running", "changes": known})
        logger.info("run: going on with {} in {}", record["id"], folder.path)
        for change in changes:
            logger.warning("run: changed since it began: {}", change)
            if is_extension(change):
                logger.warning(
                    "run: a longer run has another schedule: this is no bit-equal continuation"
                )
    logger.info(
        "hardware: {}, precision {} ({})",
        hardware.device.name,
        hardware.precision,
        hardware.reason,
    )
    return folder.read_record()


def write_data(folder: RunFolder, checked: CheckedData, spec: PreprocessSpec) -> None:
    """Write manifest, facts and findings of the images, and statistics."""
    with replacing(folder.manifest) as path:
        checked.index.manifest.write(path)
    checked.write(facts=folder.image_facts, report=folder.check)
    write_json(folder.statistics, statistics(checked.index, spec, checked.facts))


@contextlib.contextmanager
def stage(folder: RunFolder, name: str) -> Iterator[None]:
    """Add the wall time of a stage to the record, over all parts of the run."""
    started = time.monotonic()
    try:
        yield
    finally:
        times = folder.read_record()["stages_s"]
        total = times.get(name, 0.0) + time.monotonic() - started
        folder.update_record({"stages_s": {**times, name: round(total, 3)}})


@contextlib.contextmanager
def optional(what: str) -> Iterator[None]:
    """Log that something could not be made on which no score and no artefact depends."""
    try:
        yield
    except InterruptedRunError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the run matters more
        log_failure(error, "{} could not be made; the run goes on", what)


@contextlib.contextmanager
def status(folder: RunFolder) -> Iterator[None]:
    """Leave in the record how a run ended that did not finish."""
    try:
        yield
    except (InterruptedRunError, KeyboardInterrupt, SystemExit):
        folder.update_record({"status": "interrupted"})
        raise
    except Exception as error:
        with contextlib.suppress(OSError):  # the disk may be what failed
            folder.update_record({"status": "failed", "failure": failure_of(error)})
        raise
