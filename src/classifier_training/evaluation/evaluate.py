"""Evaluate a checkpoint on a split and write what was found."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from loguru import logger

from classifier_training.artifacts.checkpoint import TrainedModel, load_model
from classifier_training.artifacts.run_folder import RunFolder
from classifier_training.data.loading import resolve_workers
from classifier_training.data.manifest import Manifest
from classifier_training.errors import DataError
from classifier_training.evaluation.inference import exact_fp32, infer
from classifier_training.evaluation.scores import Scores, score
from classifier_training.runtime.agreement import softmax
from classifier_training.runtime.class_map import ClassMap
from classifier_training.runtime.files import replacing, write_json
from classifier_training.runtime.prediction_files import write_evaluated


@dataclass(frozen=True)
class Evaluation:
    """A split's logits and scores.

    Attributes:
        split: Which one.
        rows: ``(N,)`` manifest indices.
        logits: ``(N, C)`` float32 in the same order.
        scores: What follows from them.
    """

    split: str
    rows: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    scores: Scores


def evaluate(
    run: Path | str,
    *,
    split: str = "test",
    out: Path | str | None = None,
    data_root: Path | str | None = None,
    device: str = "cpu",
    batch_size: int = 32,
    workers: int | None = None,
    on_images: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate the best checkpoint of a run.

    Args:
        run: Run folder.
        split: ``train``, ``val`` or ``test``.
        out: Where to write; by default ``RUN/evaluation/SPLIT``.
        data_root: Where the data lies now, if it moved.
        device: A torch device.
        batch_size: Images at a time.
        workers: Loader processes; by default by the allowed cores.
        on_images: Called with (images done, images in all).

    Raises:
        ResumeError: ``run`` is no run folder.
        DataError: The split has no images, or one cannot be read.
    """
    folder = RunFolder(Path(run))
    record = folder.read_record()
    model = load_model(folder.best)
    manifest = Manifest.read(
        folder.manifest, model.card.class_map, Path(data_root or record["data_root"])
    )
    exact_fp32()
    evaluation = evaluate_split(
        model,
        manifest,
        split,
        batch_size=batch_size,
        workers=resolve_workers("auto" if workers is None else workers),
        device=torch.device(device),
        on_images=on_images,
    )
    target = folder.evaluation(split) if out is None else Path(out)
    write_evaluation(evaluation, manifest, target)
    return evaluation


def evaluate_split(
    model: TrainedModel,
    manifest: Manifest,
    split: str,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    on_images: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Compute logits and scores of a split; see :func:`evaluate`."""
    rows = manifest.rows(split)
    if not len(rows):
        raise DataError(
            f"the run has no {split} images",
            expected="a split with images",
            mend="choose another with --split, or train with data that has it",
        )
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if on_images is not None:
            on_images(done, len(rows))

    logits = infer(
        model,
        manifest,
        rows,
        batch_size=batch_size,
        workers=workers,
        device=device,
        on_images=report,
    )
    return Evaluation(split, rows, logits, score(logits, manifest.labels[rows]))


def write_evaluation(evaluation: Evaluation, manifest: Manifest, folder: Path) -> None:
    """Write ``metrics.json``, ``per_class.csv``, ``predictions.csv`` and ``confusion_matrix.csv``.

    Each is replaced atomically; ``metrics.json`` comes last, so that where it is, all are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    class_map, scores = manifest.class_map, evaluation.scores
    with replacing(folder / "predictions.csv") as path, _text(path) as file:
        write_evaluated(
            file,
            class_map,
            (manifest.paths[int(row)] for row in evaluation.rows),
            manifest.labels[evaluation.rows],
            softmax(evaluation.logits),
        )
    with replacing(folder / "per_class.csv") as path, _text(path) as file:
        rows = scores.per_class_rows(class_map)
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with replacing(folder / "confusion_matrix.csv") as path, _text(path) as file:
        _write_confusion(file, class_map, scores.confusion)
    content = {"split": evaluation.split, **scores.to_json(class_map)}
    write_json(folder / "metrics.json", content)
    logger.info(
        "{}: top-1 {}, macro F1 {} on {} images",
        evaluation.split,
        scores.estimates["acc_top1"],
        scores.estimates["f1_macro"],
        scores.images,
    )


def _text(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")


def _write_confusion(file: IO[str], class_map: ClassMap, confusion: npt.NDArray[np.int64]) -> None:
    writer = csv.writer(file)
    writer.writerow(("true \\ predicted", *class_map.names))
    for name, row in zip(class_map.names, confusion, strict=True):
        writer.writerow((name, *(int(count) for count in row)))
