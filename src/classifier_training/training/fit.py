"""One run, from top to bottom: data, network, training, best, evaluation, export, record."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from loguru import logger

from classifier_training.artifacts.checkpoint import ModelCard, TrainedModel, load_model
from classifier_training.artifacts.identity import (
    Identity,
    absolute_data_root,
    adopt_changes,
    check_folder,
    is_extension,
    start_record,
)
from classifier_training.artifacts.leftovers import remove_leftovers
from classifier_training.artifacts.mirror import open_mirror
from classifier_training.artifacts.provenance import git_state, machine, versions
from classifier_training.artifacts.report_link import REPORT_NAME
from classifier_training.artifacts.restarts import refuse_after_failure
from classifier_training.artifacts.run_folder import Run, RunFolder, load_run
from classifier_training.artifacts.run_lock import LOCK_NAME, RunLock, require_free
from classifier_training.artifacts.run_log import RunLog
from classifier_training.config.schema import Config, TransformsConfig
from classifier_training.data.checks.preflight import CheckedData, check_index
from classifier_training.data.datamodule import ImageDataModule
from classifier_training.data.index import DataIndex, index_data
from classifier_training.data.staging import staged
from classifier_training.data.statistics import statistics
from classifier_training.errors import ExportError
from classifier_training.evaluation.calibrate import write_calibration
from classifier_training.evaluation.evaluate import Evaluation, evaluate_split, write_evaluation
from classifier_training.evaluation.explain import Answered, write_gradcam
from classifier_training.evaluation.export import export_verified
from classifier_training.evaluation.export_int8 import export_int8
from classifier_training.evaluation.inference import exact_fp32
from classifier_training.report.model_card import write_model_card
from classifier_training.report.render import write_report
from classifier_training.runtime.files import replacing, write_json
from classifier_training.runtime.preprocess import PreprocessSpec
from classifier_training.runtime.progress import progress
from classifier_training.trackers.feed import tracking
from classifier_training.training.batch_size import with_batch_size
from classifier_training.training.hardware import Hardware, choose_hardware
from classifier_training.training.loop import TrainingParts, train_network
from classifier_training.training.resume import find_start
from classifier_training.training.stages import optional, stage, status
from classifier_training.training.start import build_network
from classifier_training.training.trainer import build_callbacks, build_loggers
from classifier_training.transforms.build import build_augmentation


def fit(config: Config, folder: RunFolder, command: str) -> Run:
    """Carry out a run, or go on with it, and return its record.

    Args:
        config: The validated configuration.
        folder: Where everything is written; the only place that is.
        command: What was typed, for the record.

    Raises:
        ClassifierTrainingError: What the user can mend; see ``errors``.
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
        identity = _identity(config, index, command)
        mirror = open_mirror(config.output_uri, folder) if is_main else None
        lock = RunLock(folder.path)
        if mirror is not None:
            held.enter_context(lock)  # what is brought back is written
            mirror.restore(identity)
        record = check_folder(folder, identity) if is_main else folder.read_record()
        if is_main and record is not None:
            refuse_after_failure(record)
        if is_main and record is not None and _is_finished(record, config):
            with mirror or contextlib.nullcontext():  # copies what is not there yet
                _tidy_finished(folder, None if mirror else lock)
                logger.info("{} is finished; nothing to do", folder.path)
                return Run(folder, folder.read_record())
        if is_main and mirror is None:
            held.enter_context(lock)
            record = check_folder(folder, identity)  # another process may have begun it meanwhile

        config = _with_batch_size(config, index, hardware, record)
        # Everything that can be refused is built before anything is written.
        spec = preprocess_spec(config)
        card = _card(config, index, spec)
        network = build_network(config.model, index.manifest.class_map)
        start = find_start(config, folder, card, network)
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
            train_network(parts, card)
            return load_run(folder.path)
        record = _open_run(folder, identity, record, hardware, config.data.images_a_batch)
        remove_leftovers(folder.path)
        log.open(folder.log)
        with mirror or contextlib.nullcontext():
            with status(folder), tracking(folder, loggers):
                _write_data(folder, checked, spec)
                with stage(folder, "fit"):
                    best = train_network(parts, replace(card, run_id=record["id"]))
                    folder.update_record({"best": best})
                _finish(config, folder, index, hardware, best, data.workers)
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
        ClassifierTrainingError: What the user can mend; see ``errors``.
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


def _finish(
    config: Config,
    folder: RunFolder,
    index: DataIndex,
    hardware: Hardware,
    best: dict[str, Any],
    workers: int,
) -> None:
    """Evaluate the best checkpoint as it lies on disk, export it, and close the record."""
    model = load_model(folder.best)
    with stage(folder, "evaluate"):
        evaluations = {
            split: _evaluate(model, folder, index, split, config, hardware, workers)
            for split in ("val", "test")
            if len(index.manifest.rows(split))
        }
    _require_same_score(config, best, model, evaluations["val"])
    labels = index.manifest.labels
    write_calibration(
        folder,
        model.epoch,
        config.calibration,
        index.manifest.class_map,
        {split: (item.logits, labels[item.rows]) for split, item in evaluations.items()},
    )
    if config.explain.enabled:
        _explain(config, folder, index, evaluations)
    with stage(folder, "export"):
        val = evaluations["val"]
        exported = export_verified(
            folder, model, index.manifest, val.rows, val.logits, opset=config.export.opset
        )
        logger.info("export: onnxruntime follows torch: {}", exported.agreement)
    with optional("the model card"):
        write_model_card(folder)
    folder.update_record({"status": "finished"})
    _report(folder)


def _report(folder: RunFolder) -> None:
    with (
        optional(f"the report (try again: classifier report {folder.path})"),
        stage(folder, "report"),
        progress("report") as on_images,
    ):
        logger.info("report: {}", write_report(folder.path, on_images=on_images))


def _tidy_finished(folder: RunFolder, lock: RunLock | None) -> None:
    """Do what a finished run was killed before: its report, and taking its lock away.

    Args:
        folder: The run.
        lock: To be taken; None: it is held.
    """
    has_report = (folder.path / REPORT_NAME).exists()
    if has_report and (lock is None or not (folder.path / LOCK_NAME).exists()):
        return
    with optional("what a finished run still lacks"), lock or contextlib.nullcontext():
        remove_leftovers(folder.path)
        if not has_report:
            _report(folder)


def _evaluate(
    model: TrainedModel,
    folder: RunFolder,
    index: DataIndex,
    split: str,
    config: Config,
    hardware: Hardware,
    workers: int,
) -> Evaluation:
    with progress(f"evaluate {split}") as on_images:
        evaluation = evaluate_split(
            model,
            index.manifest,
            split,
            batch_size=config.data.images_a_batch,
            workers=workers,
            device=torch.device(hardware.device.kind),
            on_images=on_images,
        )
    write_evaluation(evaluation, index.manifest, folder.evaluation(split))
    return evaluation


def _explain(
    config: Config, folder: RunFolder, index: DataIndex, evaluations: dict[str, Evaluation]
) -> None:
    answers = {split: Answered(item.rows, item.logits) for split, item in evaluations.items()}
    with (
        optional("the Grad-CAM pictures"),
        stage(folder, "explain"),
        progress("grad-cam") as on_images,
    ):
        # Read again: nothing that is done here can reach the network that is exported.
        model = load_model(folder.best)
        count = config.explain.images
        write_gradcam(folder, model, index.manifest, answers, images=count, on_images=on_images)


def _require_same_score(
    config: Config, best: dict[str, Any], model: TrainedModel, val: Evaluation
) -> None:
    """Refuse to export when the reloaded checkpoint is not what training measured."""
    prefix, _, name = str(best["metric"]).partition("/")
    limit = config.trainer.limit_val_batches
    # The raw weights may have been monitored, or only a part of val scored.
    is_comparable = prefix == "val" and isinstance(limit, float) and limit == 1.0
    measured = val.scores.value(name) if is_comparable else best["score"]
    if model.epoch != best["epoch"] or abs(measured - best["score"]) > _allowed(name, val):
        raise ExportError(
            f"the reloaded best checkpoint is of epoch {model.epoch} and scores {best['metric']} "
            f"{measured:.6f}, but training measured {best['score']:.6f} in epoch {best['epoch']}",
            expected="the same weights and score: what is exported must be what was measured",
            mend="this is a fault of this program or of the machine; please report it with log.txt",
        )


def _allowed(name: str, val: Evaluation) -> float:
    """Return what one image can move a score by when another kernel breaks a tie differently."""
    is_macro = name.endswith("_macro")
    smallest = min(count for count in val.scores.confusion.sum(axis=1) if count)
    classes = len(val.scores.confusion)
    return 2.0 / min(val.scores.images, classes * int(smallest) if is_macro else val.scores.images)


def _identity(config: Config, index: DataIndex, command: str) -> Identity:
    content = absolute_data_root(config.model_dump())
    return Identity(content, index.manifest.fingerprint(), command, config.resume)


def _is_finished(record: dict[str, Any], config: Config) -> bool:
    done = record["status"] == "finished"
    return done and int(record["max_epochs"]) >= config.trainer.max_epochs


def _with_batch_size(
    config: Config, index: DataIndex, hardware: Hardware, record: dict[str, Any] | None
) -> Config:
    """Decide ``data.batch_size=auto``, once for a run: elsewhere it goes on as it began."""
    if config.data.batch_size == "auto" and record is not None:
        return config.with_batch_size(int(record["batch_size"]))
    manifest = index.manifest
    images = len(manifest.rows("train"))
    return with_batch_size(config, hardware, classes=len(manifest.class_map), images=images)


def _open_run(
    folder: RunFolder,
    identity: Identity,
    record: dict[str, Any] | None,
    hardware: Hardware,
    batch_size: int,
) -> dict[str, Any]:
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


def _write_data(folder: RunFolder, checked: CheckedData, spec: PreprocessSpec) -> None:
    with replacing(folder.manifest) as path:
        checked.index.manifest.write(path)
    checked.write(facts=folder.image_facts, report=folder.check)
    write_json(folder.statistics, statistics(checked.index, spec, checked.facts))


def _card(config: Config, index: DataIndex, spec: PreprocessSpec) -> ModelCard:
    return ModelCard(
        run_id="",  # a new run has none yet
        model_name=config.model.name,
        channels_last=config.model.channels_last,
        class_map=index.manifest.class_map,
        spec=spec,
        averaged=config.ema.enabled,
    )
