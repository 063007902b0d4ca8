"""Predictions of a run, a file or an ONNX model, and pairs of them. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifier_training.errors import DataError
from classifier_training.evaluation.labelled_images import LabelledImages
from classifier_training.inference.agreement import softmax
from classifier_training.inference.images import read_image
from classifier_training.inference.predictor import Predictor
from classifier_training.run.folder import RUN_JSON
from classifier_training.run.predictions import Predictions, losses_of, read_predictions
from classifier_training.run.reader import Run

_BATCH = 32


def read_source(source: Path, split: str) -> Predictions:
    """Read what ``evaluate`` recorded.

    Args:
        source: A run folder, what ``evaluate --out`` wrote, or a ``predictions.csv``.
        split: The split of a run folder.

    Raises:
        DataError: The file is missing, damaged, or has no true classes.
    """
    if not source.is_dir():
        return read_predictions(source)
    beside = source / "predictions.csv"
    if beside.is_file() and not (source / "evaluation" / split / "predictions.csv").is_file():
        return read_predictions(beside, name=str(source))
    return Run(source).predictions(split)


def predict_images(
    predictor: Predictor, images: LabelledImages, on_images: Callable[[int, int], None]
) -> Predictions:
    """Predict labelled images with an exported model.

    Args:
        predictor: The model.
        images: Labelled with classes of the model.
        on_images: Called with (done, total).

    Raises:
        DataError: An image cannot be read, or a label is no class of the model.
    """
    class_map = predictor.class_map
    true = images.indices(class_map)
    probabilities = np.empty((len(true), len(class_map)))
    for start in range(0, len(true), _BATCH):
        files = images.files[start : start + _BATCH]
        pixels = np.stack([predictor.spec.resize_image(read_image(file)) for file in files])
        probabilities[start : start + len(files)] = softmax(predictor.logits(pixels))
        on_images(start + len(files), len(true))
    return Predictions(
        name=str(predictor.path),
        classes=class_map.names,
        paths=images.paths,
        true=true,
        predicted=probabilities.argmax(axis=1).astype(np.int64),
        probabilities=probabilities,
        losses=losses_of(probabilities, true),
        groups=images.groups,
    )


def predictions_of(
    source: Path,
    split: str,
    *,
    data: Path | None,
    like: Predictions | None,
    on_images: Callable[[int, int], None],
) -> Predictions:
    """Return the predictions of a run folder, a ``predictions.csv`` or an ONNX file.

    Args:
        source: Which one.
        split: The split of a run folder, or the folder below ``data`` that is read.
        data: Where the images of an ONNX file lie, or a run that knows it.
        like: Predictions whose images (below ``data``) an ONNX file is asked about; without them
            ``data`` is read as a run or a folder per class.
        on_images: Called with (done, total) while a model runs.

    Raises:
        DataError: Nothing usable is there.
        ExportError: The ONNX file or its sidecar cannot be used.
    """
    if source.suffix != ".onnx":
        return read_source(source, split)
    predictor = Predictor.load(source)
    if data is None and like is not None and Path(like.name).is_dir():
        data = Run(like.name).data_root
    if data is None:
        raise DataError(
            f"{source} is a model, but the images to compare it on are not given",
            expected="the folder with the labelled images",
            fix="--data DIR",
        )
    if like is None:
        images = LabelledImages.find(data, split)
    else:
        labels = tuple(like.classes[index] for index in like.true)
        root = Run(data).data_root if (data / RUN_JSON).is_file() else data
        files = tuple(root / name for name in like.paths)
        images = LabelledImages(like.paths, files, labels, like.groups)
    return predict_images(predictor, images, on_images)


_SHOWN = 3


@dataclass(frozen=True)
class PairedPredictions:
    """The predictions of A and B for the same images.

    Attributes:
        names: What A and B are called.
        classes: Names of the indices below.
        paths: ``N`` paths, sorted.
        true: ``(N,)`` int64 indices of the true classes.
        predicted: A's and B's predictions, ``(N,)`` int64 each.
        losses: A's and B's losses, ``(N,)`` float64 each, or None when one has none.
        groups: ``(N,)`` int64 from 0 without gaps; images of one group are drawn together.
        grouped: Whether some group has several images.
        left_out: Images that only one of the two has a prediction for.
    """

    names: tuple[str, str]
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    true: npt.NDArray[np.int64]
    predicted: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    losses: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None
    groups: npt.NDArray[np.int64]
    grouped: bool
    left_out: int

    def __len__(self) -> int:
        return len(self.paths)


def pair_predictions(a: Predictions, b: Predictions, *, common: bool = False) -> PairedPredictions:
    """Match predictions by path.

    Args:
        a: One.
        b: The other.
        common: Skip the images that only one of them has.

    Raises:
        DataError: Different images (without ``common``), none in common, or different truth.
    """
    at_a = {path: row for row, path in enumerate(a.paths)}
    at_b = {path: row for row, path in enumerate(b.paths)}
    shared = [path for path in a.paths if path in at_b]
    left_out = len(at_a.keys() ^ at_b.keys())
    if not shared or (left_out and not common):
        raise _different_images(a, b, shared)
    rows_a = np.array([at_a[path] for path in shared])
    rows_b = np.array([at_b[path] for path in shared])
    classes = (*a.classes, *(name for name in b.classes if name not in a.classes))
    index = {name: number for number, name in enumerate(classes)}
    from_b = np.array([index[name] for name in b.classes], dtype=np.int64)
    true, true_b = a.true[rows_a], from_b[b.true[rows_b]]
    _require_same_truth(a, b, classes, shared, true, true_b)
    groups, grouped = _groups(a, b, rows_a, rows_b)
    losses = None
    if a.losses is not None and b.losses is not None:
        losses = (a.losses[rows_a], b.losses[rows_b])
    return PairedPredictions(
        names=(a.name, b.name),
        classes=classes,
        paths=tuple(shared),
        true=true,
        predicted=(a.predicted[rows_a], from_b[b.predicted[rows_b]]),
        losses=losses,
        groups=groups,
        grouped=grouped,
        left_out=left_out,
    )


def group_indices(groups: tuple[str, ...] | None, images: int) -> npt.NDArray[np.int64]:
    """Number ``N`` groups from 0; an image without one is its own."""
    if groups is None:
        return np.arange(images, dtype=np.int64)
    numbers: dict[tuple[str, int], int] = {}
    keys = ((name, 0) if name else ("", row) for row, name in enumerate(groups))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _groups(
    a: Predictions, b: Predictions, rows_a: npt.NDArray[np.int64], rows_b: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], bool]:
    known, rows = (a.groups, rows_a) if a.groups is not None else (b.groups, rows_b)
    names = None if known is None else tuple(known[int(row)] for row in rows)
    groups = group_indices(names, len(rows))
    return groups, bool(len(groups)) and int(groups.max()) + 1 < len(groups)


def _different_images(a: Predictions, b: Predictions, shared: list[str]) -> DataError:
    def some(left: Predictions, right: Predictions) -> str:
        only = sorted(set(left.paths) - set(right.paths))
        listed = ", ".join(only[:_SHOWN]) + (", …" if len(only) > _SHOWN else "")
        return f"{len(only):,} only in {left.name}" + (f" ({listed})" if only else "")

    return DataError(
        f"A and B have predictions for different images: {len(shared):,} in common, {some(a, b)}, "
        f"{some(b, a)}",
        expected="the same images, named by the same paths",
        fix="evaluate both on the same split"
        + (", or compare on the images in common: --common" if shared else ""),
    )


def _require_same_truth(
    a: Predictions,
    b: Predictions,
    classes: tuple[str, ...],
    paths: list[str],
    true_a: npt.NDArray[np.int64],
    true_b: npt.NDArray[np.int64],
) -> None:
    differ = np.flatnonzero(true_a != true_b)
    if len(differ):
        listed = ", ".join(
            f"{paths[row]} ({classes[true_a[row]]!r} and {classes[true_b[row]]!r})"
            for row in differ[:_SHOWN]
        )
        raise DataError(
            f"the truth of {len(differ):,} images differs between {a.name} and {b.name}: {listed}"
            + (", …" if len(differ) > _SHOWN else ""),
            expected="one truth for each image",
            fix="evaluate both against the same labels",
        )
