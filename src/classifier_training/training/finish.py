"""What follows training: evaluation of the best checkpoint, export, model card, report."""

from __future__ import annotations

from typing import Any

import torch
from loguru import logger

from classifier_training.config.registry import EXPORTS
from classifier_training.config.schema import Config, ExportConfig
from classifier_training.data.manifest import Manifest
from classifier_training.errors import ExportError
from classifier_training.evaluation.calibrate import write_calibration
from classifier_training.evaluation.evaluate import Evaluation, evaluate_split, write_evaluation
from classifier_training.evaluation.explain import Answered, write_gradcam
from classifier_training.exporters.onnx import export_verified
from classifier_training.report.model_card import write_model_card
from classifier_training.report.render import write_report
from classifier_training.run.checkpoint import TrainedModel, load_model
from classifier_training.run.folder import REPORT_NAME, RunFolder
from classifier_training.run.lock import LOCK_NAME, remove_stale_files
from classifier_training.run.reader import Run
from classifier_training.run.record import optional, stage
from classifier_training.run.session import RunSession
from classifier_training.system.progress import progress
from classifier_training.training.build import TrainingParts


def finish(parts: TrainingParts, manifest: Manifest, best: dict[str, Any]) -> None:
    """Evaluate the best checkpoint as it is on disk, export it, and close the record.

    Raises:
        ExportError: The reloaded checkpoint is not what training measured, or onnxruntime does not
            follow it.
    """
    config, folder = parts.config, parts.folder
    model = load_model(folder.best)
    with stage(folder, "evaluate"):
        evaluations = {
            split: _evaluate(model, parts, manifest, split)
            for split in ("val", "test")
            if len(manifest.rows(split))
        }
    _require_same_score(config, best, model, evaluations["val"])
    write_calibration(
        folder,
        model.epoch,
        config.calibration,
        manifest.class_map,
        {split: (item.logits, manifest.labels[item.rows]) for split, item in evaluations.items()},
    )
    if config.explain.enabled:
        _explain(config, folder, manifest, evaluations)
    with stage(folder, "export"):
        val = evaluations["val"]
        exported = export_verified(
            folder, model, manifest, val.rows, val.logits, opset=config.export.opset
        )
        logger.info("export: onnxruntime follows torch: {}", exported.agreement)
    with optional("the model card"):
        write_model_card(folder)
    folder.update_record({"status": "finished"})
    _report(folder)


def quantize(config: ExportConfig, folder: RunFolder) -> None:
    """Export another precision too, where it is configured; the run is complete without it."""
    if config.precision != "fp32":
        with stage(folder, f"export_{config.precision}"):
            EXPORTS[config.precision](folder.path, config)


def complete_finished(session: RunSession) -> Run | None:
    """Do what a finished run was killed before: its report, its copy, and removing its lock."""
    folder = session.folder
    if not session.is_main:
        return None
    session.copy()
    has_report = (folder.path / REPORT_NAME).exists()
    if not has_report or (folder.path / LOCK_NAME).exists():
        with optional("what a finished run still lacks"):
            session.lock()
            remove_stale_files(folder.path)
            if not has_report:
                _report(folder)
    logger.info("{} is finished; nothing to do", folder.path)
    return Run(folder.path)


def _report(folder: RunFolder) -> None:
    with (
        optional(f"the report (try again: classifier report {folder.path})"),
        stage(folder, "report"),
        progress("report") as on_images,
    ):
        logger.info("report: {}", write_report(folder.path, on_images=on_images))


def _evaluate(
    model: TrainedModel, parts: TrainingParts, manifest: Manifest, split: str
) -> Evaluation:
    with progress(f"evaluate {split}") as on_images:
        evaluation = evaluate_split(
            model,
            manifest,
            split,
            batch_size=parts.config.data.images_a_batch,
            workers=parts.data.workers,
            device=torch.device(parts.hardware.device.kind),
            on_images=on_images,
        )
    write_evaluation(evaluation, manifest, parts.folder.evaluation(split))
    return evaluation


def _explain(
    config: Config, folder: RunFolder, manifest: Manifest, evaluations: dict[str, Evaluation]
) -> None:
    answers = {split: Answered(item.rows, item.logits) for split, item in evaluations.items()}
    with (
        optional("the Grad-CAM plots"),
        stage(folder, "explain"),
        progress("grad-cam") as on_images,
    ):
        # Read again: nothing that is done here can reach the network that is exported.
        model = load_model(folder.best)
        count = config.explain.images
        write_gradcam(folder, model, manifest, answers, images=count, on_images=on_images)


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
            fix="this is a fault of this program or of the machine; please report it with log.txt",
        )


def _allowed(name: str, val: Evaluation) -> float:
    """Return what one image can move a score by when another kernel breaks a tie differently."""
    is_macro = name.endswith("_macro")
    smallest = min(count for count in val.scores.confusion.sum(axis=1) if count)
    classes = len(val.scores.confusion)
    return 2.0 / min(val.scores.images, classes * int(smallest) if is_macro else val.scores.images)
