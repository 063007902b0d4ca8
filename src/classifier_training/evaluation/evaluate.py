"""Evaluate a model on labelled images and write what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from loguru import logger

from classifier_training.data.loading import resolve_workers
from classifier_training.data.manifest import Manifest
from classifier_training.data.records import SPLITS
from classifier_training.errors import ConfigError, DataError
from classifier_training.evaluation.baselines import Baselines, answer_baselines
from classifier_training.evaluation.models import (
    Backend,
    Infer,
    Subject,
    exact_fp32,
    infer,
    open_subject,
    usable_device,
)
from classifier_training.evaluation.outside_data import SPLIT, OutsideData, Unknown, read_outside
from classifier_training.evaluation.scores import Scores, score
from classifier_training.evaluation.slices import Slice, slice_scores
from classifier_training.evaluation.writing import write_files
from classifier_training.metrics.intervals import Estimate, design_effect, wilson
from classifier_training.run.checkpoint import TrainedModel

OnImages = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """A split's logits and scores.

    Attributes:
        split: Which one, or the name of the data that belongs to no run.
        rows: ``(N,)`` manifest indices.
        logits: ``(N, C)`` float32 in the same order.
        scores: What follows from them.
        slices: Accuracy by metadata and image size, worst first.
        backend: ``torch`` or ``onnx``.
        skipped: Rows left out, by reason.
        baselines: Accuracy of the baselines that were asked for, by name.
        features: Whose features those baselines stand on; empty without them.
        folder: Where it is written, or None.
    """

    split: str
    rows: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    scores: Scores
    slices: list[Slice]
    backend: Backend = "torch"
    skipped: Mapping[str, int] = field(default_factory=dict)
    baselines: Mapping[str, Estimate] = field(default_factory=dict)
    features: str = ""
    folder: Path | None = None


def evaluate(
    run: Path | str,
    *,
    split: str | None = None,
    data: Path | str | None = None,
    backend: Backend | None = None,
    out: Path | str | None = None,
    data_root: Path | str | None = None,
    image_field: str | None = None,
    label_field: str | None = None,
    unknown: Unknown = "error",
    baselines: bool = False,
    device: str = "cpu",
    batch_size: int = 32,
    workers: int | None = None,
    on_images: OnImages | None = None,
) -> Evaluation:
    """Evaluate the best checkpoint of a run, or an ONNX file with its sidecar.

    Args:
        run: Run folder or ONNX file.
        split: ``train``, ``val`` or ``test`` of the run (default ``test``). With ``data``: only
            the rows that name this split.
        data: Labelled images that belong to no run: a folder with a folder per class, or a
            ``.jsonl``, ``.csv`` or ``.tsv`` file.
        backend: ``torch`` (default for a run) or ``onnx``.
        out: Where to write; by default inside the run, ``RUN/evaluation/SPLIT``.
        data_root: Where the run's data lies now, if it moved.
        image_field: Column or key of the path in ``data``; as in training by default.
        label_field: Column or key of the label in ``data``; as in training by default.
        unknown: ``error`` or ``skip`` rows of ``data`` whose label is no class of the model.
        baselines: Also score nearest neighbours and a linear probe, fitted on the run's training
            images.
        device: A torch device.
        batch_size: Images at a time.
        workers: Loader processes; by default by the allowed cores.
        on_images: Called with (images done, images in all).

    Raises:
        ResumeError: ``run`` is no run folder, or no epoch was finished in it.
        DataError: There are no images, one cannot be read, or a label is unknown.
        ConfigError: The device or backend cannot be used, or ``out`` cannot be written to.
        ExportError: The ONNX file or its sidecar is missing or damaged.
    """
    subject = open_subject(Path(run), backend, device, data_root)
    _require_possible(subject, data, data_root, out, baselines)
    name, manifest, rows, skipped = _images(
        subject, split, None if data is None else
        OutsideData(Path(data), split, image_field, label_field, unknown),
    )  # fmt: skip
    target = _target(subject, name) if out is None else Path(out)
    make_folder(target)
    exact_fp32()
    loaders = resolve_workers("auto" if workers is None else workers)
    evaluation = replace(
        _measure(subject.infer, manifest, name, rows, batch_size, loaders, on_images),
        backend=subject.backend,
        skipped=skipped,
        folder=target,
    )
    if baselines:
        assert subject.run is not None  # _require_possible
        answers = answer_baselines(
            subject.run,
            manifest,
            rows,
            batch_size=batch_size,
            workers=loaders,
            device=usable_device(device),
            on_images=on_images,
        )
        evaluation = _with_baselines(evaluation, answers, manifest)
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
    on_images: OnImages | None = None,
) -> Evaluation:
    """Compute logits and scores of a split; see :func:`evaluate`."""

    def compute(
        images: Manifest,
        rows: npt.NDArray[np.int64],
        size: int,
        loaders: int,
        report: Callable[[int], None],
    ) -> npt.NDArray[np.float32]:
        return infer(
            model,
            images,
            rows,
            batch_size=size,
            workers=loaders,
            device=device,
            on_images=report,
        )

    rows = _rows(manifest, split)
    return _measure(compute, manifest, split, rows, batch_size, workers, on_images)


def write_evaluation(evaluation: Evaluation, manifest: Manifest, folder: Path) -> None:
    """Write tables, pictures and ``metrics.json``; see ``docs/evaluation.md``.

    Each is replaced atomically; ``metrics.json`` comes last, so that where it is, all are.
    """
    make_folder(folder)
    scores = evaluation.scores
    write_files(
        folder,
        _content(evaluation, manifest),
        manifest,
        evaluation.rows,
        evaluation.logits,
        scores,
        evaluation.slices,
    )
    logger.info(
        "{}: top-1 {}, macro F1 {} on {} images",
        evaluation.split,
        scores.estimates["acc_top1"],
        scores.estimates["f1_macro"],
        scores.images,
    )


def group_numbers(manifest: Manifest, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """Return ``(N,)`` group of each row from 0; None when no image shares one."""
    names = [manifest.groups[int(row)] or f"\0{row}" for row in rows]  # without: a group of its own
    _, numbers = np.unique(names, return_inverse=True)
    return None if numbers.max(initial=-1) + 1 == len(rows) else numbers.astype(np.int64)


def make_folder(path: Path) -> None:
    """Make a folder to write to.

    Raises:
        ConfigError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder {path}: {error.strerror or error}",
            expected="a folder to write to, or a path where one can be made",
            fix="--out PATH (in Python out=PATH)",
        ) from error


def _measure(
    compute: Infer,
    manifest: Manifest,
    name: str,
    rows: npt.NDArray[np.int64],
    batch_size: int,
    workers: int,
    on_images: OnImages | None,
) -> Evaluation:
    done = 0

    def report(count: int) -> None:
        nonlocal done
        done += count
        if on_images is not None:
            on_images(done, len(rows))

    logits = compute(manifest, rows, batch_size, workers, report)
    labels, groups = manifest.labels[rows], group_numbers(manifest, rows)
    scores = score(logits, labels, groups)
    slices = slice_scores(manifest, rows, scores.calibration.correct, groups)
    return Evaluation(name, rows, logits, scores, slices)


def _images(
    subject: Subject, split: str | None, outside: OutsideData | None
) -> tuple[str, Manifest, npt.NDArray[np.int64], dict[str, int]]:
    """Return a name, the table of images, the rows of it that count, and what was skipped."""
    if outside is not None:
        manifest, skipped = read_outside(outside, subject.class_map)
        return f"data-{outside.path.stem or 'images'}", manifest, manifest.rows(SPLIT), skipped
    assert subject.run is not None  # _require_possible
    manifest = subject.run.manifest
    name = split or "test"
    return name, manifest, _rows(manifest, name), {}


def _rows(manifest: Manifest, split: str) -> npt.NDArray[np.int64]:
    sizes = {name: len(manifest.rows(name)) for name in SPLITS}
    if not sizes.get(split):
        found = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise DataError(
            f"the run has no {split} images (it has: {found})",
            expected="a split with images",
            fix="choose another with --split, or train with data that has it",
        )
    return manifest.rows(split)


def _require_possible(
    subject: Subject,
    data: Path | str | None,
    data_root: Path | str | None,
    out: Path | str | None,
    baselines: bool,
) -> None:
    if subject.run is None and (data is None or out is None):
        missing = "--data" if data is None else "--out"
        raise ConfigError(
            f"{subject.path} is an ONNX file without a run: give {missing}",
            expected="labelled images to evaluate it on, and a folder to write to",
            fix=f"classifier evaluate {subject.path} --data PATH --out DIR",
        )
    if subject.run is None and baselines:
        raise ConfigError(
            f"--baselines are fitted on training images, which {subject.path} does not name",
            expected="a run folder",
            fix="give the run folder, or leave --baselines out",
        )
    if data is not None and data_root is not None and not baselines:
        raise ConfigError(
            "--data and --data-root say two places of the images",
            expected="--data for images that belong to no run, --data-root for a run that moved",
            fix="leave one out",
        )


def _target(subject: Subject, name: str) -> Path:
    assert subject.run is not None  # _require_possible
    # What the run recorded with torch is not replaced by another implementation's answers.
    return subject.run.folder.evaluation(name if subject.backend == "torch" else f"{name}-onnx")


def _with_baselines(evaluation: Evaluation, baselines: Baselines, manifest: Manifest) -> Evaluation:
    labels = manifest.labels[evaluation.rows]
    groups = group_numbers(manifest, evaluation.rows)
    found = {}
    for name, answers in baselines.answers.items():
        right = answers == labels
        effect = design_effect(right.astype(np.float64), groups)
        found[name] = wilson(int(right.sum()), len(right), effect)
    return replace(evaluation, baselines=found, features=baselines.features)


def _content(evaluation: Evaluation, manifest: Manifest) -> dict[str, Any]:
    content = evaluation.scores.to_json(manifest.class_map)
    for name, estimate in evaluation.baselines.items():
        content["baselines"][name] = {
            "features": evaluation.features,
            "acc_top1": estimate.to_json(),
        }
    return {
        "split": evaluation.split,
        "backend": evaluation.backend,
        "skipped": dict(evaluation.skipped),
        **content,
    }
