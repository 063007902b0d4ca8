"""Two sets of answers on the same images, brought into one order and one list of classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classifier_training.errors import DataError
from classifier_training.evaluation.answers import Answers

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
        mend="evaluate both on the same split"
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
            mend="evaluate both against the same labels",
        )
