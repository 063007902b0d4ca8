"""``plots/gradcam``: where the network looked when it was wrong, and when it was right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from loguru import logger
from torch import Tensor, nn

from classifier_training.data.dataset import EvaluationDataset, unwrap
from classifier_training.data.manifest import Manifest
from classifier_training.inference.agreement import softmax
from classifier_training.inference.class_map import ClassMap
from classifier_training.models.grad_cam import FeatureLayer, feature_layer, grad_cam
from classifier_training.models.normalize import Normalize
from classifier_training.plots.gradcam import Overlay, draw_overlays
from classifier_training.run.checkpoint import TrainedModel
from classifier_training.run.folder import RunFolder
from classifier_training.system.files import write_json
from classifier_training.system.progress import OnProgress

SCHEMA_VERSION = 1

Indices = npt.NDArray[np.int64]

_BATCH = 16
_SHARE_WRONG = 2 / 3


@dataclass(frozen=True)
class Answered:
    """A split's answers: ``(N,)`` manifest rows and ``(N, C)`` float32 logits."""

    rows: Indices
    logits: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """An image to be explained.

    Attributes:
        name: Of its picture, without an ending.
        split: Where it is from.
        row: Its place in the manifest.
        true: Class index.
        predicted: Class index.
        confidence: Of the prediction, uncalibrated.
        second: The true class where the answer is wrong, else the next most probable one.
    """

    name: str
    split: str
    row: int
    true: int
    predicted: int
    confidence: float
    second: int


def write_gradcam(
    folder: RunFolder,
    model: TrainedModel,
    manifest: Manifest,
    answers: Mapping[str, Answered],
    *,
    images: int,
    on_images: OnProgress,
) -> None:
    """Draw the worst mistakes and some right answers of each split, and list them.

    Args:
        folder: Gets ``plots/gradcam/SPLIT-NN.png`` and ``plots/gradcam/index.json``.
        model: The scored weights, on the CPU in evaluation mode; not changed.
        manifest: Where the images are.
        answers: By split.
        images: How many in all.
        on_images: Called with (images done, images in all).

    Raises:
        DataError: An image cannot be read.
        ValueError: The network has no map of features.
    """
    _clear(folder.gradcam)
    share = math.ceil(images / len(answers))
    chosen = [
        choose(split, item, manifest.labels[item.rows], share) for split, item in answers.items()
    ]
    cases = list(islice(chain.from_iterable(chosen), images))
    dataset, normalize = (
        EvaluationDataset(manifest, model.metadata.spec),
        Normalize(model.metadata.spec),
    )
    layer: FeatureLayer | None = None
    entries: list[dict[str, Any]] = []
    for start in range(0, len(cases), _BATCH):
        part = cases[start : start + _BATCH]
        pixels = unwrap(dataset.__getitems__([case.row for case in part])).images
        layer = layer or feature_layer(model.network, normalize(pixels[:1]))
        asked = torch.tensor([[case.predicted, case.second] for case in part])
        maps = grad_cam(model.network, layer.name, normalize(pixels), asked)
        for case, image, heat in zip(part, pixels, _enlarged(maps, pixels), strict=True):
            path = folder.gradcam / f"{case.name}.png"
            draw_overlays(_overlay(case, image, heat, manifest.class_map), path)
            entries.append(_entry(case, manifest, path.relative_to(folder.path)))
            on_images(len(entries), len(cases))
    assert layer is not None  # every run has val images
    content = {"schema_version": SCHEMA_VERSION, "layer": layer.name, "epoch": model.epoch}
    write_json(folder.gradcam / "index.json", {**content, "images": entries})
    cells = " x ".join(map(str, layer.cells))
    logger.info("grad-cam: {} images, from {} ({} cells)", len(entries), layer.name, cells)


def choose(split: str, answered: Answered, labels: Indices, images: int) -> Iterator[Case]:
    """Yield the most confident mistakes, and then right answers, the most confident of each class.

    Two thirds are mistakes, as far as there are so many; right answers fill up.

    Args:
        split: Name of the split.
        answered: Its ``N`` answers.
        labels: ``(N,)`` class indices.
        images: How many to choose.
    """
    probabilities = softmax(answered.logits)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    predicted, runner_up = order[:, 0], order[:, 1]
    confidence = probabilities.max(axis=1)
    by_confidence = np.argsort(-confidence, kind="stable")
    is_right = (predicted == labels)[by_confidence]
    wrong, right = by_confidence[~is_right], by_confidence[is_right]
    wrong = wrong[: math.ceil(_SHARE_WRONG * images)]
    # Stable: the first of each class, then the second of each.
    turns = _occurrence(labels[right])
    right = right[np.argsort(turns, kind="stable")][: max(0, images - len(wrong))]
    for number, at in enumerate(chain(wrong, right), start=1):
        is_wrong = predicted[at] != labels[at]
        yield Case(
            f"{split}-{number:02d}",
            split,
            int(answered.rows[at]),
            int(labels[at]),
            int(predicted[at]),
            float(confidence[at]),
            int(labels[at] if is_wrong else runner_up[at]),
        )


def _occurrence(labels: Indices) -> Indices:
    """Return ``(N,)``: how often the label stood before."""
    seen: dict[int, int] = {}
    found = np.zeros(len(labels), dtype=np.int64)
    for at, label in enumerate(labels.tolist()):
        found[at] = seen.get(label, 0)
        seen[label] = int(found[at]) + 1
    return found


def _clear(target: Path) -> None:
    """Remove what was drawn of an earlier checkpoint, the list first: where it is, all are."""
    target.mkdir(parents=True, exist_ok=True)
    for old in (target / "index.json", *target.glob("*.png")):
        old.unlink(missing_ok=True)


def _enlarged(maps: Tensor, pixels: Tensor) -> Tensor:
    """Return ``(N, 2, h, w)`` maps as ``(N, 2, H, W)``."""
    return nn.functional.interpolate(maps, pixels.shape[-2:], mode="bilinear", align_corners=False)


def _overlay(case: Case, image: Tensor, heat: Tensor, class_map: ClassMap) -> Overlay:
    return Overlay(
        image.permute(1, 2, 0).numpy(),
        heat.numpy(),
        class_map.names[case.true],
        class_map.names[case.predicted],
        class_map.names[case.second],
        case.confidence,
    )


def _entry(case: Case, manifest: Manifest, overlay: Path) -> dict[str, Any]:
    return {
        "split": case.split,
        "path": _readable(manifest.paths[case.row]),
        "true": manifest.class_map.names[case.true],
        "predicted": manifest.class_map.names[case.predicted],
        "confidence": case.confidence,
        "overlay": overlay.as_posix(),
    }


def _readable(path: str) -> str:
    r"""Return a path that is Unicode text: bytes that are none become ``\xNN``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
