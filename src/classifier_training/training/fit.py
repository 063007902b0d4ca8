"""One run, from top to bottom: data, network, training, best, evaluation, export, record."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only
from loguru import logger

from classifier_training.config.schema import Config, TransformsConfig
from classifier_training.data.checks.preflight import check_index
from classifier_training.data.datamodule import ImageDataModule
from classifier_training.data.index import DataIndex, index_data
from classifier_training.data.staging import staged
from classifier_training.evaluation.models import exact_fp32
from classifier_training.exporters.int8 import export_int8
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.run.checkpoint import ModelMetadata
from classifier_training.run.folder import Run, RunFolder, load_run
from classifier_training.run.identity import check_folder, refuse_after_failure
from classifier_training.run.lock import RunLock, remove_stale_files, require_free
from classifier_training.run.log import RunLog
from classifier_training.run.mirror import open_mirror
from classifier_training.run.record import (
    identify,
    is_finished,
    open_run,
    stage,
    status,
    with_recorded_batch_size,
    write_data,
)
from classifier_training.trackers.feed import tracking
from classifier_training.training.finish import finish, tidy_finished
from classifier_training.training.hardware import choose_hardware
from classifier_training.training.loop import TrainingParts, build_network, train_network
from classifier_training.training.resume import find_start
from classifier_training.training.trainer import build_callbacks, build_loggers
from classifier_training.transforms.build import build_augmentation


def fit(config: Config, folder: RunFolder, command: str) -> Run:
    """Carry out a run, or go on with it, and return its record.

    Args:
        config: The validated configuration.
        folder: Where everything is written; the only place that is.
        command: What was typed, for the record.

    Raises:
        ClassifierTrainingError: What the user can fix; see ``errors``.
    """
    with RunLog() as log, contextlib.ExitStack() as held:
        # Distributed training runs this command again in each further process.
        is_main = rank_zero_only.rank == 0  # type: ignore[attr-defined]
        if is_main:
            require_free(folder.path)  # before the data is read, which may take long
        hardware = choose_hardware(config.trainer)
        pl.seed_everything(config.seed, verbose=False)
        exact_fp32()
        checked = check_index(
            index_data(staged(config.data)), config.data, stored=folder.image_facts
        )
        index = checked.index
        identity = identify(config, index, command)
        mirror = open_mirror(config.output_uri, folder) if is_main else None
        lock = RunLock(folder.path)
        if mirror is not None:
            held.enter_context(lock)  # what is brought back is written
            mirror.restore(identity)
        record = check_folder(folder, identity) if is_main else folder.read_record()
        if is_main and record is not None:
            refuse_after_failure(record)
            if is_finished(record, config):
                with mirror or contextlib.nullcontext():  # copies what is not there yet
                    tidy_finished(folder, None if mirror else lock)
                    logger.info("{} is finished; nothing to do", folder.path)
                    return Run(folder, folder.read_record())
        if is_main and mirror is None:
            held.enter_context(lock)
            record = check_folder(folder, identity)  # another process may have begun it meanwhile

        config = with_recorded_batch_size(config, index, hardware, record)
        # Everything that can be refused is built before anything is written.
        spec = preprocess_spec(config)
        metadata = _metadata(config, index, spec)
        network = build_network(config.model, index.manifest.class_map)
        start = find_start(config, folder, metadata, network)
        augmentation = build_augmentation(config.transforms)
        callbacks, loggers = build_callbacks(config), build_loggers(config)
        data = ImageDataModule(
            index.manifest,
            config.data,
            spec,
            transform=augmentation,
            seed=config.seed,
            at_least=reduction_bound(config.transforms),
        )
        parts = TrainingParts(config, folder, hardware, network, data, callbacks, loggers, start)
        if not is_main:
            train_network(parts, metadata)
            return load_run(folder.path)
        record = open_run(folder, identity, record, hardware, config.data.images_a_batch)
        remove_stale_files(folder.path)
        log.open(folder.log)
        with mirror or contextlib.nullcontext():
            with status(folder), tracking(folder, loggers):
                write_data(folder, checked, spec)
                with stage(folder, "fit"):
                    best = train_network(parts, replace(metadata, run_id=record["id"]))
                    folder.update_record({"best": best})
                finish(config, folder, index, hardware, best, data.workers)
            # The run is whole by now: a refusal of int8 takes nothing from it.
            if config.export.precision == "int8":
                with stage(folder, "export_int8"):
                    export_int8(folder.path, max_loss=config.export.int8_max_loss)
        return load_run(folder.path)


def train(overrides: Sequence[str], *, root: str = "train", out: Path | str) -> Run:
    """Train from Python: the same run as ``classifier train OVERRIDES hydra.run.dir=OUT``.

    Args:
        overrides: As on the command line, for example ``["data.data_root=images"]``.
        root: Name of the root configuration.
        out: Run folder.

    Raises:
        ClassifierTrainingError: What the user can fix; see ``errors``.
    """
    from classifier_training.config.compose import allowed_modules, compose_config, make_strict
    from classifier_training.config.validate import validate

    composed = compose_config(make_strict(list(overrides)), root=root, output_dir=str(out))
    config = validate(composed, allow_modules=allowed_modules(list(overrides)))
    command = f"train({list(overrides)!r}, root={root!r}, out={str(out)!r})"
    return fit(config, RunFolder(Path(out), resume_command=command), command)


def preprocess_spec(config: Config) -> PreprocessSpec:
    """Derive the evaluation preprocessing, once, for everything that needs it."""
    red, green, blue = config.transforms.mean
    std_red, std_green, std_blue = config.transforms.std
    return PreprocessSpec(
        config.transforms.image_size,
        config.transforms.resize,
        (red, green, blue),
        (std_red, std_green, std_blue),
    )


def reduction_bound(config: TransformsConfig) -> int | None:
    """Return the pixels that the shorter side of a reduced training image keeps; None: whole."""
    return None if config.reduce_to is None else math.ceil(config.reduce_to * config.image_size)


def _metadata(config: Config, index: DataIndex, spec: PreprocessSpec) -> ModelMetadata:
    return ModelMetadata(
        run_id="",  # a new run has none yet
        model_name=config.model.name,
        channels_last=config.model.channels_last,
        class_map=index.manifest.class_map,
        spec=spec,
        averaged=config.ema.enabled,
    )
