"""Images worth looking at, and those behind the cells of the confusion matrix."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from classifier_training.errors import DataError
from classifier_training.inference.images import decode_image
from classifier_training.report.content import Gallery, Tile
from classifier_training.report.formatting import percent
from classifier_training.report.matrix import images_behind
from classifier_training.run.predictions import Predictions
from classifier_training.run.reader import Run, StoredEvaluation
from classifier_training.system.progress import OnProgress
from classifier_training.system.resources import available_cores

SIDE = 128  # pixels of the longer side
OVERLAY_SIDE = 256
# Of all pictures together, in characters of the file; the report stays below 8 MB with the rest.
BUDGET = 5_000_000
_QUALITY = 78
_BATCH = 64


@dataclass(frozen=True)
class Pictures:
    """Data URIs by path.

    Attributes:
        uris: Of the pictures that could be read.
        missing: How many could not.
        left_out: How many there was no room for.
    """

    uris: dict[str, str]
    missing: int
    left_out: int


def thumbnails(root: Path, paths: Sequence[str], on_images: OnProgress) -> Pictures:
    """Shrink images, the most wanted first, until the budget is used up.

    Args:
        root: The data root.
        paths: Relative to it, each once. Those that leave it are not read.
        on_images: Called with (done, total).
    """
    uris: dict[str, str] = {}
    room, missing = BUDGET, 0
    with ThreadPoolExecutor(available_cores()) as pool:
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            for path, uri in zip(
                batch, pool.map(lambda p: _thumbnail(root, p), batch), strict=True
            ):
                if uri is None:
                    missing += 1
                elif room >= len(uri):
                    uris[path] = uri
                    room -= len(uri)
            on_images(min(start + _BATCH, len(paths)), len(paths))
            if room < BUDGET / 500:
                break
    return Pictures(uris, missing, len(paths) - missing - len(uris))


def overlay(run: Path, name: str) -> str | None:
    """Shrink a picture that lies in the run folder; None where it cannot be read."""
    return _data_uri(run, name, OVERLAY_SIDE)


def _thumbnail(root: Path, path: str) -> str | None:
    return _data_uri(root, path, SIDE)


def _data_uri(root: Path, name: str, side: int) -> str | None:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        return None
    try:
        image = decode_image((root / name).read_bytes(), name, at_least=side)
    except (OSError, ValueError, DataError):
        return None
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


MOST_TILES = 24
_MOST_OVERLAYS = 24


def worst_rows(predictions: Predictions) -> list[int]:
    """Return the wrong answers, the most confident first."""
    wrong = np.flatnonzero(predictions.wrong)
    order = np.argsort(-predictions.confidence[wrong], kind="stable")
    return [int(row) for row in wrong[order][:MOST_TILES]]


def unsure_rows(predictions: Predictions) -> list[int]:
    """Return the answers whose two best classes were closest, the closest first."""
    margin = predictions.confidence - predictions.second_confidence
    return [int(row) for row in np.argsort(margin, kind="stable")[:MOST_TILES]]


def wanted_paths(split: StoredEvaluation) -> list[str]:
    """Return the images that a report shows, the most wanted first."""
    predictions = split.predictions
    rows = [*worst_rows(predictions), *unsure_rows(predictions), *images_behind(predictions)]
    return [predictions.paths[row] for row in dict.fromkeys(rows)]


def gallery_of(data: Run, split: StoredEvaluation, pictures: Pictures) -> Gallery:
    """Fill the gallery."""
    return Gallery(
        worst=_tiles(split, worst_rows(split.predictions), pictures),
        unsure=_tiles(split, unsure_rows(split.predictions), pictures),
        overlays=tuple(
            Tile(
                uri=overlay(data.folder.path, str(item["overlay"])),
                path=str(item["path"]),
                true=str(item["true"]),
                predicted=str(item["predicted"]),
                is_right=item["true"] == item["predicted"],
                confidence=percent(float(item["confidence"])),
                split=str(item["split"]),
            )
            for item in data.overlays[:_MOST_OVERLAYS]
        ),
        missing=pictures.missing,
        left_out=pictures.left_out,
    )


def behind_cells(split: StoredEvaluation, pictures: Pictures) -> dict[str, Any]:
    """Return what the script needs to show the images of a cell, as plain JSON values.

    ``images`` holds ``[true, predicted, confidence, path, picture]``, the last one an index into
    ``pictures`` or -1.
    """
    predictions = split.predictions
    uris: list[str] = []
    images = []
    for row in images_behind(predictions):
        uri = pictures.uris.get(predictions.paths[row])
        if uri is not None:
            uris.append(uri)
        images.append(
            [
                int(predictions.true[row]),
                int(predictions.predicted[row]),
                round(float(predictions.confidence[row]), 4),
                predictions.paths[row],
                -1 if uri is None else len(uris) - 1,
            ]
        )
    counts = split.confusion
    cells = [[int(row), int(col), int(counts[row, col])] for row, col in np.argwhere(counts)]
    return {"classes": list(split.classes), "cells": cells, "images": images, "pictures": uris}


def _tiles(split: StoredEvaluation, rows: Sequence[int], pictures: Pictures) -> tuple[Tile, ...]:
    predictions, names = split.predictions, split.classes
    return tuple(
        Tile(
            uri=pictures.uris.get(predictions.paths[row]),
            path=predictions.paths[row],
            true=names[predictions.true[row]],
            predicted=names[predictions.predicted[row]],
            is_right=bool(predictions.true[row] == predictions.predicted[row]),
            confidence=percent(float(predictions.confidence[row])),
            second=names[predictions.second[row]],
            second_confidence=percent(float(predictions.second_confidence[row])),
        )
        for row in rows
    )
