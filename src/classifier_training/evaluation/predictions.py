"""What a model answered on labelled images, read from wherever it was written. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifier_training.errors import DataError
from classifier_training.evaluation.tables import (
    LabelledImages,
    data_root_of,
    read_groups,
    read_table,
)
from classifier_training.inference.agreement import softmax
from classifier_training.inference.images import read_image
from classifier_training.inference.prediction_files import PROBABILITY_PREFIX
from classifier_training.inference.predictor import Predictor

_BATCH = 32
# The smallest probability that counts: softmax in float32 reaches 0, whose logarithm is none.
_LEAST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Answers:
    """Truth and answer for each image, in the order of ``paths``.

    Attributes:
        name: What to call them: the file or folder they come from.
        classes: Names of the indices below.
        paths: ``N`` paths, sorted, each once.
        true: ``(N,)`` int64 indices of the true classes.
        predicted: ``(N,)`` int64 indices of the answers.
        losses: ``(N,)`` float64 negative log-likelihoods of the truth in nats (uncalibrated), or
            None where the source has no probabilities.
        groups: ``N`` names of groups whose images belong together, ``""`` for an image on its own;
            None when nothing is known of groups.
    """

    name: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    true: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64] | None
    groups: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.paths)


def predictions_file(source: Path, split: str) -> Path:
    """Return the ``predictions.csv`` that a run folder (or an ``evaluate --out``) holds.

    Raises:
        DataError: It holds none for the split.
    """
    if not source.is_dir():
        return source
    path = source / "evaluation" / split / "predictions.csv"
    beside = source / "predictions.csv"
    found = beside if beside.is_file() and not path.is_file() else path
    if not found.is_file():
        raise DataError(
            f"{source} has no evaluation/{split}/predictions.csv",
            expected=f"a run whose {split} split was evaluated",
            fix=f"classifier evaluate {source} --split {split}",
        )
    return found


def read_answers(source: Path, split: str) -> Answers:
    """Read what ``evaluate`` recorded.

    Args:
        source: A run folder, or a ``predictions.csv`` (columns ``path,true,predicted``, and
            ``prob:<class>`` for the losses).
        split: The split of a run folder.

    Raises:
        DataError: The file is missing, damaged, or has no truth.
    """
    path = predictions_file(source, split)
    fix = "give what `classifier evaluate` writes: evaluation/SPLIT/predictions.csv"
    rows = read_table(path, ("path", "true", "predicted"), fix=fix)
    if not rows:
        raise DataError(f"{path} has no rows", expected="one row an image", fix=fix)
    rows.sort(key=lambda row: row["path"])
    named = [
        column.removeprefix(PROBABILITY_PREFIX)
        for column in rows[0]
        if column.startswith(PROBABILITY_PREFIX)
    ]
    seen = {row[column] for row in rows for column in ("true", "predicted")}
    classes = (*named, *sorted(seen - set(named)))
    index = {name: number for number, name in enumerate(classes)}
    paths = tuple(row["path"] for row in rows)
    _refuse_repeats(paths, path)
    groups = read_groups(source) if source.is_dir() else {}
    return Answers(
        name=str(source),
        classes=classes,
        paths=paths,
        true=np.array([index[row["true"]] for row in rows], dtype=np.int64),
        predicted=np.array([index[row["predicted"]] for row in rows], dtype=np.int64),
        losses=_losses(rows, set(named), path),
        groups=tuple(groups.get(name, "") for name in paths) if groups else None,
    )


def answer(
    predictor: Predictor, images: LabelledImages, on_images: Callable[[int, int], None]
) -> Answers:
    """Let an exported model answer.

    Args:
        predictor: The model.
        images: Labelled with classes of the model.
        on_images: Called with (done, total).

    Raises:
        DataError: An image cannot be read, or a label is no class of the model.
    """
    class_map = predictor.class_map
    true = images.indices(class_map)
    predicted, losses = np.empty(len(true), np.int64), np.empty(len(true))
    for start in range(0, len(true), _BATCH):
        files = images.files[start : start + _BATCH]
        pixels = np.stack([predictor.spec.resize_image(read_image(file)) for file in files])
        probabilities = softmax(predictor.logits(pixels)).astype(np.float64)
        rows = slice(start, start + len(files))
        predicted[rows] = probabilities.argmax(axis=1)
        losses[rows] = log_loss(probabilities[np.arange(len(files)), true[rows]])
        on_images(start + len(files), len(true))
    return Answers(
        str(predictor.path), class_map.names, images.paths, true, predicted, losses, images.groups
    )


def answers_of(
    source: Path,
    split: str,
    *,
    data: Path | None,
    like: Answers | None,
    on_images: Callable[[int, int], None],
) -> Answers:
    """Return the answers of a run folder, a ``predictions.csv`` or an ONNX file.

    Args:
        source: Which one.
        split: The split of a run folder, or the folder below ``data`` that is read.
        data: Where the images of an ONNX file lie, or a run that knows it.
        like: Answers whose images (below ``data``) an ONNX file is asked about; without them
            ``data`` is read as a run or a folder per class.
        on_images: Called with (done, total) while a model runs.

    Raises:
        DataError: Nothing usable is there.
        ExportError: The ONNX file or its sidecar cannot be used.
    """
    if source.suffix != ".onnx":
        return read_answers(source, split)
    predictor = Predictor.load(source)
    if data is None and like is not None and Path(like.name).is_dir():
        data = data_root_of(Path(like.name))
    if data is None:
        raise DataError(
            f"{source} is a model, and nothing says on which images it is to be compared",
            expected="the folder with the labelled images",
            fix="--data DIR",
        )
    if like is None:
        images = LabelledImages.find(data, split)
    else:
        labels = tuple(like.classes[index] for index in like.true)
        root = data_root_of(data) if (data / "run.json").is_file() else data
        files = tuple(root / name for name in like.paths)
        images = LabelledImages(like.paths, files, labels, like.groups)
    return answer(predictor, images, on_images)


def log_loss(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the negative logarithms of probabilities of the truth, any shape, finite."""
    return -np.log(np.maximum(probabilities, _LEAST))


def _refuse_repeats(paths: Sequence[str], source: Path) -> None:
    for first, second in itertools.pairwise(paths):
        if first == second:
            raise DataError(
                f"{source} lists {first} twice",
                expected="one row an image",
                fix="remove the repeated row",
            )


def _losses(
    rows: list[dict[str, str]], named: set[str], path: Path
) -> npt.NDArray[np.float64] | None:
    if any(row["true"] not in named for row in rows):
        return None
    try:
        of_truth = np.array([float(row[PROBABILITY_PREFIX + row["true"]]) for row in rows])
    except ValueError as error:
        raise DataError(
            f"{path} holds a probability that is no number: {error}",
            expected="numbers in 0..1",
            fix="restore the file, or evaluate again",
        ) from error
    wrong = np.flatnonzero(~((of_truth >= 0) & (of_truth <= 1 + 1e-6)))
    if len(wrong):
        row = rows[int(wrong[0])]
        raise DataError(
            f"{path} gives {row['path']} the probability {of_truth[wrong[0]]}",
            expected="numbers in 0..1",
            fix="restore the file, or evaluate again",
        )
    return log_loss(of_truth)


_SHOWN = 3


@dataclass(frozen=True)
class Pair:
    """The answers of A and B to the same images.

    Attributes:
        names: What A and B are called.
        classes: Names of the indices below.
        paths: ``N`` paths, sorted.
        true: ``(N,)`` int64 indices of the true classes.
        predicted: A's and B's answers, ``(N,)`` int64 each.
        losses: A's and B's losses, ``(N,)`` float64 each, or None when one has none.
        groups: ``(N,)`` int64 from 0 without gaps; images of one group are drawn together.
        grouped: Whether some group has several images.
        left_out: Images that only one of the two answered.
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


def pair_answers(a: Answers, b: Answers, *, common: bool = False) -> Pair:
    """Match answers by path.

    Args:
        a: One.
        b: The other.
        common: Pass over the images that only one of them answered.

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
    return Pair(
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
    a: Answers, b: Answers, rows_a: npt.NDArray[np.int64], rows_b: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], bool]:
    known, rows = (a.groups, rows_a) if a.groups is not None else (b.groups, rows_b)
    names = None if known is None else tuple(known[int(row)] for row in rows)
    groups = group_indices(names, len(rows))
    return groups, bool(len(groups)) and int(groups.max()) + 1 < len(groups)


def _different_images(a: Answers, b: Answers, shared: list[str]) -> DataError:
    def some(left: Answers, right: Answers) -> str:
        only = sorted(set(left.paths) - set(right.paths))
        listed = ", ".join(only[:_SHOWN]) + (", …" if len(only) > _SHOWN else "")
        return f"{len(only):,} only in {left.name}" + (f" ({listed})" if only else "")

    return DataError(
        f"A and B did not answer the same images: {len(shared):,} in common, {some(a, b)}, "
        f"{some(b, a)}",
        expected="the same images, named by the same paths",
        fix="evaluate both on the same split"
        + (", or compare on the images in common: --common" if shared else ""),
    )


def _require_same_truth(
    a: Answers,
    b: Answers,
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
