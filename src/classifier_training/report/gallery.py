"""Images worth looking at, and those behind the cells of the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from classifier_training.report.content import Gallery, Tile
from classifier_training.report.matrix import images_behind
from classifier_training.report.stored import Answered, EvaluatedSplit, StoredReportData
from classifier_training.report.thumbnails import Pictures, overlay
from classifier_training.report.words import percent

MOST_TILES = 24
_MOST_OVERLAYS = 24


def worst_rows(answered: Answered) -> list[int]:
    """Return the wrong answers, the most confident first."""
    wrong = np.flatnonzero(answered.wrong)
    order = np.argsort(-answered.confidence[wrong], kind="stable")
    return [int(row) for row in wrong[order][:MOST_TILES]]


def unsure_rows(answered: Answered) -> list[int]:
    """Return the answers whose two best classes were closest, the closest first."""
    margin = answered.confidence - answered.second_confidence
    return [int(row) for row in np.argsort(margin, kind="stable")[:MOST_TILES]]


def wanted_paths(split: EvaluatedSplit) -> list[str]:
    """Return the images that a report shows, the most wanted first."""
    answered = split.answered
    rows = [*worst_rows(answered), *unsure_rows(answered), *images_behind(answered)]
    return [answered.paths[row] for row in dict.fromkeys(rows)]


def gallery_of(data: StoredReportData, split: EvaluatedSplit, pictures: Pictures) -> Gallery:
    """Fill the gallery."""
    return Gallery(
        worst=_tiles(split, worst_rows(split.answered), pictures),
        unsure=_tiles(split, unsure_rows(split.answered), pictures),
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


def behind_cells(split: EvaluatedSplit, pictures: Pictures) -> dict[str, Any]:
    """Return what the script needs to show the images of a cell, as plain JSON values.

    ``images`` holds ``[true, predicted, confidence, path, picture]``, the last one an index into
    ``pictures`` or -1.
    """
    answered = split.answered
    uris: list[str] = []
    images = []
    for row in images_behind(answered):
        uri = pictures.uris.get(answered.paths[row])
        if uri is not None:
            uris.append(uri)
        images.append(
            [
                int(answered.true[row]),
                int(answered.predicted[row]),
                round(float(answered.confidence[row]), 4),
                answered.paths[row],
                -1 if uri is None else len(uris) - 1,
            ]
        )
    counts = split.confusion
    cells = [[int(row), int(col), int(counts[row, col])] for row, col in np.argwhere(counts)]
    return {"classes": list(split.classes), "cells": cells, "images": images, "pictures": uris}


def _tiles(split: EvaluatedSplit, rows: Sequence[int], pictures: Pictures) -> tuple[Tile, ...]:
    answered, names = split.answered, split.classes
    return tuple(
        Tile(
            uri=pictures.uris.get(answered.paths[row]),
            path=answered.paths[row],
            true=names[answered.true[row]],
            predicted=names[answered.predicted[row]],
            is_right=bool(answered.true[row] == answered.predicted[row]),
            confidence=percent(float(answered.confidence[row])),
            second=names[answered.second[row]],
            second_confidence=percent(float(answered.second_confidence[row])),
        )
        for row in rows
    )
