"""Accuracy on slices: images that share a value of their metadata, or their size."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import stats

from classifier_training.data.manifest import Manifest
from classifier_training.metrics.intervals import Estimate, design_effect, wilson

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

IMAGE_SIZE = "image:shorter_side"

# More distinct numbers than this are put into quarters; more distinct texts are no slices.
_MOST_VALUES = 20
_QUARTERS = 4
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Slice:
    """Images that share a value, against all others.

    Attributes:
        key: Name of the fact, nested ones with dots.
        value: What they share.
        accuracy: Top-1 accuracy with its interval.
        images: Support.
        rest: Top-1 accuracy of all other images.
        p_value: Probability of a slice so far below the rest by chance, adjusted for all slices
            (Holm 1979).
    """

    key: str
    value: str
    accuracy: Estimate
    images: int
    rest: float
    p_value: float

    @property
    def is_worse(self) -> bool:
        """Whether it is below the rest beyond chance, all slices considered."""
        return self.p_value < _SIGNIFICANT


def slice_scores(
    manifest: Manifest, rows: Indices, correct: Flags, groups: Indices | None
) -> list[Slice]:
    """Score every slice of metadata and image size, worst first.

    Args:
        manifest: Says what is known of each image.
        rows: ``(N,)`` manifest indices.
        correct: ``(N,)`` whether the answer was right.
        groups: ``(N,)`` group of each image; None where images are independent.
    """
    facts = metadata_facts([manifest.metadata[int(row)] for row in rows])
    facts[IMAGE_SIZE] = [_shorter_side(manifest, int(row)) for row in rows]
    members = [
        (key, value, flags) for key, values in facts.items() for value, flags in _bins(values)
    ]
    members = [item for item in members if 0 < item[2].sum() < len(rows)]
    chances = holm([_chance(correct, flags, groups) for _, _, flags in members])
    found = []
    for (key, value, flags), chance in zip(members, chances, strict=True):
        inside = correct[flags]
        part = None if groups is None else np.unique(groups[flags], return_inverse=True)[1]
        effect = design_effect(inside.astype(np.float64), part)
        accuracy = wilson(int(inside.sum()), len(inside), effect)
        rest = float(correct[~flags].mean())
        found.append(Slice(key, value, accuracy, len(inside), rest, chance))
    return sorted(found, key=lambda item: (item.p_value, item.accuracy.value, item.key, item.value))


def metadata_facts(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Turn ``N`` JSON texts into columns of ``N`` values, None where an image has none.

    Nested objects become ``outer.inner``; lists are left out.
    """
    columns: dict[str, list[Any]] = {}
    for position, text in enumerate(texts):
        for key, value in _flat(json.loads(text)) if text else ():
            columns.setdefault(key, [None] * len(texts))[position] = value
    return columns


def holm(chances: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979)."""
    order = np.argsort(chances, kind="stable")
    factors = len(chances) - np.arange(len(chances))
    raised = np.maximum.accumulate(np.asarray(chances, dtype=np.float64)[order] * factors)
    adjusted = np.empty(len(chances))
    adjusted[order] = np.minimum(raised, 1.0)
    return [float(chance) for chance in adjusted]


def _flat(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(content, Mapping):
        if prefix and isinstance(content, str | int | float | bool):
            yield prefix.removesuffix("."), content
        return
    for key, value in content.items():
        yield from _flat(value, f"{prefix}{key}.")


def _bins(values: Sequence[Any]) -> Iterator[tuple[str, Flags]]:
    """Yield (name, members) of each value, or of each quarter of many numbers."""
    known = [value for value in values if value is not None]
    as_text = [None if value is None else _as_text(value) for value in values]
    counts = Counter(text for text in as_text if text is not None)
    if len(counts) <= _MOST_VALUES:
        for text in sorted(counts):
            yield text, np.array([other == text for other in as_text])
    elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        numbers = np.array([np.nan if value is None else value for value in values], dtype=float)
        edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, _QUARTERS + 1)))
        for low, high in itertools.pairwise(edges):
            is_last = high == edges[-1]
            flags = (numbers >= low) & ((numbers <= high) if is_last else (numbers < high))
            yield f"{low:g} to {'' if is_last else 'below '}{high:g}", flags


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shorter_side(manifest: Manifest, row: int) -> int | None:
    try:
        with Image.open(manifest.file(row)) as image:
            return min(image.size)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None  # it was decoded before; a file that is gone since is of no size


def _chance(correct: Flags, flags: Flags, groups: Indices | None) -> float:
    """Return the one-sided p-value of the slice being no worse than the rest.

    Fisher's exact test; with groups the normal approximation with the variance between them.
    """
    inside, outside = correct[flags], correct[~flags]
    if groups is None:
        table = np.array(
            [[inside.sum(), (~inside).sum()], [outside.sum(), (~outside).sum()]], dtype=np.int64
        )
        return float(stats.fisher_exact(table, alternative="less")[1])
    difference = inside.mean() - outside.mean()
    pooled = correct - correct.mean()  # as if there were no difference
    pull = pooled * (flags / flags.sum() - ~flags / (~flags).sum())
    between = float((np.bincount(groups, weights=pull) ** 2).sum())
    alone = float(pull @ pull)
    error = np.sqrt(max(between, alone))
    test: Callable[[float], float] = stats.t(max(1, int(groups.max()))).cdf
    return float(test(difference / error)) if error > 0 else 1.0
