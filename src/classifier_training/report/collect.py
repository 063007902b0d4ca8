"""From a run folder to the content of its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from classifier_training.report.causes import ranked_causes
from classifier_training.report.content import Report
from classifier_training.report.evidence import Epoch, Evidence, SplitScore, worse_slices
from classifier_training.report.gallery import behind_cells, gallery_of, thumbnails, wanted_paths
from classifier_training.report.matrix import matrix_of
from classifier_training.report.sections import (
    again,
    classes_of,
    curves_of,
    data_of,
    deployment_of,
    environment_of,
    model_of,
    reproduction_of,
)
from classifier_training.report.settings import settings_of
from classifier_training.report.trust import calibration_of
from classifier_training.report.verdict import verdict_of
from classifier_training.run.predictions import Indices
from classifier_training.run.reader import Run, StoredEvaluation
from classifier_training.system.progress import OnProgress

_NEAR_COPIES = "near-duplicate-across-splits"


def collect(
    run: Path, *, previous: Path | None, data_root: Path | None, on_images: OnProgress
) -> Report:
    """Read a run and put its report together.

    Args:
        run: Its folder.
        previous: A run to compare with, on the images that both predicted.
        data_root: Where the images lie now; by default where the run found them.
        on_images: Called with (done, total) while images are shrunk.

    Raises:
        ResumeError: It is no run.
        DataError: It was not evaluated, a file is damaged, or the previous run predicted none of
            the same images.
    """
    data = Run(run)
    split = data.evaluations[0]
    verdict = verdict_of(data, previous)
    root = Path(str(data.record["data_root"])) if data_root is None else data_root
    pictures = thumbnails(root, wanted_paths(split), on_images)
    evidence = evidence_of(data, split)
    return Report(
        name=run.resolve().name,
        subtitle=_subtitle(data),
        status=str(data.record["status"]),
        split=split.name,
        images=split.images,
        verdict=verdict,
        curves=curves_of(data),
        data=data_of(data),
        classes=classes_of(data, split),
        matrix=matrix_of(split),
        behind=behind_cells(split, pictures),
        gallery=gallery_of(data, split, pictures),
        calibration=calibration_of(data, split),
        causes=tuple(ranked_causes(evidence)),
        errors=evidence.errors,
        settings=settings_of(data.settings, str(data.record["command"])),
        environment=environment_of(data),
        model=model_of(data),
        command=again(str(data.record["command"])),
        reproduce=reproduction_of(data),
        deployment=deployment_of(data),
    )


def evidence_of(data: Run, split: StoredEvaluation) -> Evidence:
    """Gather what causes of error are judged by."""
    best = data.record.get("best")
    predictions = split.predictions
    suspects = None
    if data.suspects is not None:
        suspects = frozenset(row["path"] for row in data.suspects if row["suspect"] == "yes")
    return Evidence(
        run=str(data.folder.path),
        split=split.name,
        classes=split.classes,
        true=predictions.true,
        predicted=predictions.predicted,
        confidence=predictions.confidence,
        paths=predictions.paths,
        train_counts=_train_counts(data, split.classes),
        worse_slices=worse_slices(split.slices),
        suspects=suspects,
        contradicting=contradicting_paths(data.findings),
        history=tuple(
            Epoch(int(row["epoch"]), row["train/acc_top1"], row["val/acc_top1"])
            for row in data.history
            if {"epoch", "train/acc_top1", "val/acc_top1"} <= row.keys()
        ),
        best_epoch=-1 if best is None else int(best["epoch"]),
        others=tuple(
            SplitScore(other.name, int((~other.predictions.wrong).sum()), other.images)
            for other in data.evaluations
            if other is not split
        ),
    )


def contradicting_paths(findings: list[dict[str, Any]]) -> frozenset[str]:
    """Return the images that nearly equal one of another split that has another label."""
    return frozenset(
        str(image["path"])
        for finding in findings
        if finding.get("code") == _NEAR_COPIES
        for item in finding.get("items", ())
        if len({image["label"] for image in item.get("images", ())}) > 1
        for image in item["images"]
    )


def _train_counts(data: Run, classes: tuple[str, ...]) -> Indices | None:
    splits = data.statistics.get("splits", {})
    counts = splits.get("train", {}).get("per_class")
    if counts is None:
        return None
    return np.array([int(counts.get(name, 0)) for name in classes], dtype=np.int64)


def _subtitle(data: Run) -> str:
    config = data.settings
    trained = data.statistics.get("splits", {}).get("train", {}).get("images")
    parts = [
        str(config.get("model.name", "a model")),
        f"{config.get('transforms.image_size')} px",
        f"{len(data.evaluations[0].classes):,} classes",
        *([f"{trained:,} training images"] if trained else []),
        f"begun {str(data.record['started'])[:16].replace('T', ' ')} UTC",
    ]
    return ", ".join(parts)
