"""A gate for continuous integration: the new model must not be worse than a committed baseline.

The rule (non-inferiority): the gate **fails when the lower bound of the 95 % interval of
new - baseline lies below -margin**; for ``loss``, where less is better, when the upper bound lies
above the margin. So it passes what is shown to be no worse than the margin allows, and fails what
is worse as well as what too few images leave open.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from classifier_training.errors import ConfigError, DataError
from classifier_training.evaluation.comparison import METRICS, compare
from classifier_training.evaluation.comparison_report import amount
from classifier_training.evaluation.predictions import group_indices, pair_predictions
from classifier_training.metrics.paired import (
    group_draws,
    percentiles,
    weighted_scores,
)
from classifier_training.run.predictions import Predictions
from classifier_training.system.files import write_text

SCHEMA_VERSION = 1
_KIND = "classifier-training baseline"
_RESAMPLES = 2000
_Z = 1.959963984540054  # of the 95 % interval


@dataclass(frozen=True)
class GateResult:
    """What the gate found.

    Attributes:
        metric: On which metric.
        baseline: The baseline's score.
        new: The new score.
        low: Lower bound of the 95 % interval of ``new - baseline``.
        high: Upper bound.
        margin: What was allowed.
        images: Number of images.
        paired: Whether the baseline had an answer for each image.
    """

    metric: str
    baseline: float
    new: float
    low: float
    high: float
    margin: float
    images: int
    paired: bool

    @property
    def worst(self) -> float:
        """By how much the new model may be worse, as the interval has it."""
        return self.high if self.metric == "loss" else -self.low

    @property
    def passed(self) -> bool:
        """Whether the rule holds. A hair of rounding at the margin itself is no failure."""
        return self.worst <= self.margin + 1e-12

    @property
    def inside(self) -> bool:
        """Whether the scores themselves differ by no more than the margin."""
        loss = self.new - self.baseline
        return (loss if self.metric == "loss" else -loss) <= self.margin

    def __str__(self) -> str:
        value = self.new - self.baseline
        bounds = f"[{amount(self.low, self.metric, sign=True)}, " + (
            f"{amount(self.high, self.metric, sign=True)}]"
        )
        return (
            f"{METRICS[self.metric]} {self.baseline:.4f} -> {self.new:.4f}, "
            f"{amount(value, self.metric, sign=True)}, 95 % interval {bounds}, "
            f"margin {amount(self.margin, self.metric)}, {self.images:,} images, "
            f"{'paired' if self.paired else 'unpaired (the baseline has scores only)'}"
        )


def split_hash(answers: Predictions) -> str:
    """Return a SHA-256 over the sorted paths and their truth; the same images, the same text."""
    digest = hashlib.sha256()
    for path, label in zip(answers.paths, answers.true, strict=True):
        line = f"{path}\0{answers.classes[label]}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def write_baseline(
    answers: Predictions, split: str, path: Path, *, with_images: bool = True
) -> None:
    """Write a baseline to commit: hash of the split, scores, and an answer for each image.

    No path stands in it: answers are in the order of the sorted paths, which the hash vouches for.
    """
    content: dict[str, Any] = {
        "kind": _KIND,
        "schema_version": SCHEMA_VERSION,
        "split": split,
        "images": len(answers),
        "split_sha256": split_hash(answers),
        "classes": list(answers.classes),
        "metrics": _estimates(answers),
    }
    if with_images:
        content["predicted"] = answers.predicted.tolist()
        if answers.losses is not None:
            content["losses"] = [float(f"{loss:.6g}") for loss in answers.losses]
    lines = (
        f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
        for key, value in content.items()
    )
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")  # a line a list: diffs stay small


def is_baseline(path: Path) -> bool:
    """Whether a path names a baseline rather than a run or predictions."""
    return path.suffix == ".json"


def gate(new: Predictions, baseline: Path | Predictions, metric: str, margin: float) -> GateResult:
    """Hold new answers against a baseline.

    Args:
        new: What the new model answered.
        baseline: A file of :func:`write_baseline`, or answers.
        metric: A key of ``METRICS``.
        margin: What may be lost: a share (0.01 is a point), or nats of ``loss``.

    Raises:
        DataError: The baseline cannot be read, or is of other images.
        ConfigError: The metric is not in both, or the margin is negative.
    """
    if not (np.isfinite(margin) and margin >= 0):
        raise ConfigError(
            f"--margin {margin} is no margin",
            expected="a number of 0 or more: 0.01 is a point",
            fix="--margin 0.01",
        )
    if isinstance(baseline, Path):
        content = _read(baseline)
        _require_same_split(content, new, baseline)
        if "predicted" not in content:
            return _unpaired(new, content["metrics"], metric, margin, baseline)
        baseline = _answers_in(content, new, baseline)
    found = compare(pair_predictions(baseline, new)).difference(metric)
    return GateResult(metric, found.a, found.b, found.low, found.high, margin, len(new), True)


def _unpaired(
    new: Predictions, metrics: dict[str, Any], metric: str, margin: float, path: Path
) -> GateResult:
    """Take the two scores as independent, which they are less than: a wider, careful interval."""
    now = _estimates(new)
    if metric not in metrics or metric not in now:
        raise ConfigError(
            f"--metric {metric} is not in {path} and in the new results",
            expected=f"one of {', '.join(sorted(metrics.keys() & now.keys()))}",
            fix="--metric f1_macro",
        )
    old, fresh = metrics[metric], now[metric]
    value = fresh["value"] - old["value"]
    half = _Z * float(np.hypot(old["spread"], fresh["spread"]))
    return GateResult(
        metric, old["value"], fresh["value"], value - half, value + half, margin, len(new), False
    )


def _estimates(answers: Predictions) -> dict[str, dict[str, float]]:
    groups = group_indices(answers.groups, len(answers))
    rng = np.random.default_rng(0)

    def scores(weights: Any) -> dict[str, Any]:
        return weighted_scores(
            answers.true, answers.predicted, answers.losses, weights, len(answers.classes)
        ).headline

    seen = scores(np.ones((1, len(answers))))
    chunks = [scores(weights) for weights in group_draws(groups, _RESAMPLES, rng)]
    found = {}
    for name, value in seen.items():
        drawn = np.concatenate([chunk[name] for chunk in chunks])
        low, high = percentiles(drawn)
        numbers = (float(value[0]), float(low), float(high), float(drawn.std()))
        found[name] = dict(zip(("value", "low", "high", "spread"), numbers, strict=True))
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["kind"] != _KIND or content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"it is no {_KIND} of version {SCHEMA_VERSION}")
        count, classes = int(content["images"]), len(content["classes"])
        for name, estimate in content["metrics"].items():
            if not all(np.isfinite(float(estimate[key])) for key in ("value", "spread")):
                raise ValueError(f"{name} is no number")
        for key in ("predicted", "losses"):
            if key in content and len(content[key]) != count:
                raise ValueError(f"{key} has {len(content[key])} entries for {count} images")
        if not all(0 <= int(index) < classes for index in content.get("predicted", ())):
            raise ValueError("it answers with a class it does not name")
        if not np.isfinite(np.array(content.get("losses", []), dtype=np.float64)).all():
            raise ValueError("a loss is no number")
        return dict(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"cannot read the baseline {path}: {error}",
            expected="a file of: classifier compare RUN --write-baseline FILE",
            fix="write it again, or restore it",
        ) from error


def _require_same_split(content: dict[str, Any], new: Predictions, path: Path) -> None:
    found = split_hash(new)
    if content["split_sha256"] != found:
        raise DataError(
            f"{path} is a baseline of other images or labels: {content['images']:,} images "
            f"({str(content['split_sha256'])[:12]}), the new results have {len(new):,} "
            f"({found[:12]})",
            expected="the same split",
            fix="evaluate the baseline's model on the new data, and write the baseline again",
        )


def _answers_in(content: dict[str, Any], new: Predictions, path: Path) -> Predictions:
    """Rebuild the baseline's answers; the images and their truth are those of ``new``."""
    known = tuple(map(str, content["classes"]))
    classes = (*known, *(name for name in new.classes if name not in known))
    index = {name: number for number, name in enumerate(classes)}
    losses = content.get("losses")
    return Predictions(
        name=str(path),
        classes=classes,
        paths=new.paths,
        true=np.array([index[new.classes[label]] for label in new.true], dtype=np.int64),
        predicted=np.array(content["predicted"], dtype=np.int64),
        probabilities=None,
        losses=None if losses is None else np.array(losses, dtype=np.float64),
        groups=new.groups,
    )
