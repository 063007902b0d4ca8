"""What the data is like, written to ``data/statistics.json``: plain JSON values, nothing drawn."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier_training.data.image_stats import ImageStats
from classifier_training.data.index import DataIndex
from classifier_training.data.manifest import Manifest
from classifier_training.data.records import SPLITS
from classifier_training.inference.preprocess import PreprocessSpec

# Values of a metadata field that are counted one by one; the rest is summed up.
MOST_VALUES = 20

_BINS = 20
_QUANTILES = {"min": 0.0, "q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
# When the configured normalisation leaves a channel's mean more than half a standard deviation
# from 0, or its spread outside these bounds, it was made for other images.
_FAR_MEAN = 0.5
_FAR_STD = (2 / 3, 3 / 2)
# Rec. 601, as Pillow turns RGB into grey.
_LUMA = np.array([0.299, 0.587, 0.114])


def statistics(
    index: DataIndex, spec: PreprocessSpec, facts: ImageStats | None = None
) -> dict[str, Any]:
    """Describe the data, split by split.

    Counts of classes and of metadata values are always there. Sizes, aspect, brightness and channel
    statistics need the images: without ``facts`` their keys are left out.

    Args:
        index: The manifest, and what was skipped.
        spec: The configured normalisation, which the data's own is held against.
        facts: What decoding every image found, aligned with the manifest.

    Returns:
        Plain JSON values. ``splits`` maps each split that has images to its description:
        ``imbalance_ratio`` is the most frequent class's count over that of the rarest present one,
        ``entropy_ratio`` the entropy of the class shares over its maximum (1.0: balanced).
    """
    manifest = index.manifest
    content: dict[str, Any] = {
        "num_classes": len(manifest.class_map),
        "loaded": len(manifest),
        "skipped": index.skipped,
        "notes": list(index.notes),
        "fingerprint": manifest.fingerprint(),
        "splits": {},
    }
    ranges = _ranges(facts) if facts is not None and facts.decoded.any() else {}
    for split in SPLITS:
        rows = manifest.rows(split)
        if len(rows):
            content["splits"][split] = {
                **_classes(manifest, split),
                **_metadata(manifest, rows),
                **(_images(facts, rows, ranges) if facts is not None else {}),
            }
    if facts is not None and "channels" in content["splits"].get("train", {}):
        content["normalisation"] = _normalisation(content["splits"]["train"]["channels"], spec)
    return content


def _classes(manifest: Manifest, split: str) -> dict[str, Any]:
    counts = manifest.counts(split)
    present = counts[counts > 0]
    names = manifest.class_map.names
    shares = present / present.sum()
    entropy = float(-(shares * np.log(shares)).sum())
    return {
        "images": int(counts.sum()),
        "classes_present": len(present),
        "imbalance_ratio": float(present.max() / present.min()),
        "entropy_ratio": min(1.0, entropy / float(np.log(len(names)))),
        "per_class": {name: int(count) for name, count in zip(names, counts, strict=True)},
    }


def _measured(facts: ImageStats) -> dict[str, npt.NDArray[np.float64]]:
    """Return ``(N,)`` values of what is described by its distribution."""
    widths, heights = facts.widths.astype(np.float64), facts.heights.astype(np.float64)
    return {
        "width": widths,
        "height": heights,
        "aspect": widths / np.maximum(heights, 1),
        "file_bytes": facts.file_bytes.astype(np.float64),
        "brightness": facts.means @ _LUMA,
    }


def _ranges(facts: ImageStats) -> dict[str, tuple[float, float]]:
    """Return what all images span: the histograms of the splits share their bins."""
    found = {
        name: (float(values.min()), float(values.max()))
        for name, values in _measured(facts.select(np.flatnonzero(facts.decoded))).items()
    }
    return {**found, "brightness": (0.0, 1.0)}


def _images(
    facts: ImageStats, rows: npt.NDArray[np.int64], ranges: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    """Describe the decodable images among ``rows``."""
    facts = facts.select(rows[facts.decoded[rows]])
    if not len(facts):
        return {"decoded": 0}
    means, stds = facts.means.astype(np.float64), facts.stds.astype(np.float64)
    # Every image counts alike, whatever its size: the variance over all of their pixels is the
    # mean of the variances within and the variance of the means between.
    mean = means.mean(axis=0)
    spread = np.sqrt((stds**2).mean(axis=0) + ((means - mean) ** 2).mean(axis=0))
    formats = Counter(facts.formats[row] or "unknown" for row in range(len(facts)))
    return {
        "decoded": len(facts),
        "formats": _counted(formats)["values"],
        **{name: _distribution(values, ranges[name]) for name, values in _measured(facts).items()},
        "channels": {"mean": _rounded(mean), "std": _rounded(spread)},
    }


def _distribution(
    values: npt.NDArray[np.float64], span: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Return quantiles, and a histogram over ``span`` (or over what there is)."""
    low, high = span or (float(values.min()), float(values.max()))
    # Values that are all alike get one bin's width around them.
    room = 0.0 if high > low else max(abs(low), 1.0) / 100
    counts, edges = np.histogram(values, bins=_BINS, range=(low - room, high + room))
    found = np.quantile(values, [*_QUANTILES.values(), 1.0])
    return {
        **dict(zip([*_QUANTILES, "max"], _rounded(found), strict=True)),
        "mean": _rounded([values.mean()])[0],
        "histogram": {"edges": _rounded(edges), "counts": [int(count) for count in counts]},
    }


def _normalisation(channels: dict[str, list[float]], spec: PreprocessSpec) -> dict[str, Any]:
    """Hold the training images' mean and deviation against the configured ones."""
    configured_mean, configured_std = np.array(spec.mean), np.array(spec.std)
    mean, std = np.array(channels["mean"]), np.array(channels["std"])
    shifts = (mean - configured_mean) / configured_std
    scales = std / configured_std
    narrow, wide = _FAR_STD
    is_far = bool((np.abs(shifts) > _FAR_MEAN).any() or (scales < narrow).any())
    is_far = is_far or bool((scales > wide).any())
    return {
        "configured": {"mean": list(spec.mean), "std": list(spec.std)},
        "normalised_mean": _rounded(shifts),
        "normalised_std": _rounded(scales),
        "advice": _advice(mean, std) if is_far else None,
    }


def _advice(mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64]) -> str:
    means, stds = (",".join(f"{value:.3f}" for value in part) for part in (mean, std))
    return (
        f"the training images have mean [{means}] and std [{stds}], far from transforms.mean and "
        "transforms.std: with pretrained weights keep those (the network expects them); from "
        f"scratch set transforms.mean=[{means}] transforms.std=[{stds}]"
    )


def _metadata(manifest: Manifest, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Count the values of every field of the rows' metadata; nothing without metadata."""
    # Equal texts are parsed once: often there are few, and a JSON parser costs more than a look-up.
    texts = Counter(manifest.metadata[int(row)] for row in rows)
    fields: dict[str, Counter[str]] = {}
    for text, count in texts.items():
        for field, value in _fields(text):
            fields.setdefault(field, Counter())[value] += count
    if not fields:
        return {}
    described = {field: _described(values) for field, values in sorted(fields.items())}
    return {"metadata": described}


def _fields(text: str) -> Iterator[tuple[str, str]]:
    """Yield (field, value) of one JSON text; values that are no scalars become their JSON text.

    Numbers and truth values stay apart from texts that look like them: a value is its JSON text.
    """
    if not text:
        return
    content = json.loads(text)
    pairs = content.items() if isinstance(content, dict) else [("value", content)]
    for field, value in pairs:
        yield field, json.dumps(value, ensure_ascii=False, sort_keys=True)


def _described(values: Counter[str]) -> dict[str, Any]:
    """Describe a field: its values counted, or quantiles when it is a measurement."""
    numbers = [_number(value) for value in values]
    if len(values) > MOST_VALUES and all(number is not None for number in numbers):
        repeated = np.repeat(np.array(numbers, dtype=np.float64), list(values.values()))
        return {"rows": values.total(), "distinct": len(values), **_distribution(repeated)}
    return {"rows": values.total(), "distinct": len(values), **_counted(values)}


def _counted(values: Counter[str]) -> dict[str, Any]:
    """List values with their counts, the most frequent first, equals in the order of their text."""
    counts = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    other = sum(count for _, count in counts[MOST_VALUES:])
    return {
        "values": {_plain(value): count for value, count in counts[:MOST_VALUES]},
        **({"other": other} if other else {}),
    }


def _plain(value: str) -> str:
    """Drop the quotes of a JSON text that could be nothing else without them."""
    inner = value[1:-1]
    is_text = len(value) > 2 and value.startswith('"') and "\\" not in inner
    if not is_text:
        return value
    try:
        json.loads(inner)
    except ValueError:
        return inner
    return value


def _number(value: str) -> float | None:
    """Return a finite number, None for all else (``true`` is none)."""
    content = json.loads(value)
    is_number = isinstance(content, int | float) and not isinstance(content, bool)
    if not is_number:
        return None
    try:
        number = float(content)
    except OverflowError:
        return None
    return number if np.isfinite(number) else None


def _rounded(values: Iterable[float] | npt.NDArray[np.float64]) -> list[float]:
    """Six significant digits: what a person reads, and equal on every machine."""
    return [float(f"{float(value):.6g}") for value in values]
