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

from classifier_training.artifacts.checkpoint import TrainedModel
from classifier_training.data.loading import resolve_workers
from classifier_training.data.manifest import Manifest
from classifier_training.data.records import SPLITS
from classifier_training.errors import ConfigError, DataError
from classifier_training.evaluation.inference import exact_fp32, infer, usable_device
from classifier_training.evaluation.scores import Scores, score
from classifier_training.evaluation.stored_run import open_run
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
        ResumeError: ``run`` is no run folder, or no epoch was finished in it.
        DataError: The split has no images, or one cannot be read.
        ConfigError: The device cannot be used, or ``out`` cannot be written to.
    """
    usable = usable_device(device)
    stored = open_run(run, data_root)
    target = stored.folder.evaluation(split) if out is None else Path(out)
    _require_images(stored.manifest, split)
    _make_folder(target)
    exact_fp32()
    evaluation = evaluate_split(
        stored.model,
        stored.manifest,
        split,
        batch_size=batch_size,
        workers=resolve_workers("auto" if workers is None else workers),
        device=usable,
        on_images=on_images,
    )
    write_evaluation(evaluation, stored.manifest, target)
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
    _require_images(manifest, split)
    rows = manifest.rows(split)
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
    _make_folder(folder)
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


def _require_images(manifest: Manifest, split: str) -> None:
    sizes = {name: len(manifest.rows(name)) for name in SPLITS}
    if not sizes.get(split):
        found = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise DataError(
            f"the run has no {split} images (it has: {found})",
            expected="a split with images",
            mend="choose another with --split, or train with data that has it",
        )


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder {path}: {error.strerror or error}",
            expected="a folder to write to, or a path where one can be made",
            mend="--out PATH (in Python out=PATH)",
        ) from error


def _text(path: Path) -> IO[str]:
    return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")


def _write_confusion(file: IO[str], class_map: ClassMap, confusion: npt.NDArray[np.int64]) -> None:
    writer = csv.writer(file)
    writer.writerow(("true \\ predicted", *class_map.names))
    for name, row in zip(class_map.names, confusion, strict=True):
        writer.writerow((name, *(int(count) for count in row)))
