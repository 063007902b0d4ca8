"""The columns of ``predictions.csv``, shared by ``evaluate`` and ``predict``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.predictor import Extras, Prediction

PROBABILITY_PREFIX = "prob:"
TRUTH_COLUMNS = ("path", "true", "predicted", "correct", "confidence")
PREDICTION_COLUMNS = ("path", "predicted", "confidence")


def format_float(value: float | np.floating) -> str:
    """Write a float32 with the nine digits that bring back exactly the same float32."""
    return format(float(value), ".9g")


def probability_columns(class_map: ClassMap) -> tuple[str, ...]:
    """Return the ``prob:<class>`` column names in index order."""
    return tuple(f"{PROBABILITY_PREFIX}{name}" for name in class_map.names)


def write_evaluated(
    file: IO[str],
    class_map: ClassMap,
    paths: Iterable[str],
    true: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
) -> None:
    """Write one row a file with truth, prediction and all probabilities.

    Args:
        file: Opened with ``newline=""``.
        class_map: Names for the indices.
        paths: ``N`` paths in the order of the arrays.
        true: ``(N,)`` class indices.
        probabilities: ``(N, C)`` float32.
    """
    writer = csv.writer(file)
    writer.writerow((*TRUTH_COLUMNS, *probability_columns(class_map)))
    for path, truth, row in zip(paths, true, probabilities, strict=True):
        best = int(row.argmax())
        writer.writerow(
            (
                path,
                class_map.names[truth],
                class_map.names[best],
                str(bool(truth == best)).lower(),
                format_float(row[best]),
                *(format_float(value) for value in row),
            )
        )


def write_predictions(
    path: Path,
    class_map: ClassMap,
    predictions: Iterable[Prediction],
    *,
    as_jsonl: bool,
    extras: Extras | None = None,
) -> Iterator[Prediction]:
    """Write predictions to CSV or JSONL while passing them through.

    What ``extras`` asks for stands between ``confidence`` and the probabilities.
    """
    wanted = _extra_columns(Extras() if extras is None else extras)
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        write = _write_jsonl if as_jsonl else _write_csv
        yield from write(file, class_map, predictions, wanted)


def _extra_columns(extras: Extras) -> dict[str, Callable[[Prediction], Any]]:
    """Return names and contents of the additional columns; a list is JSON text in a CSV."""
    columns: dict[str, Callable[[Prediction], Any]] = {}
    if extras.calibrated:
        columns["unsure"] = lambda item: item.unsure
    if extras.sets:
        columns["candidates"] = lambda item: list(item.candidates or ())
    if extras.energy:
        columns["energy"] = lambda item: item.energy
        columns["out_of_distribution"] = lambda item: item.out_of_distribution
    if extras.check_inputs:
        columns["oddities"] = lambda item: list(item.oddities or ())
    return columns


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return format_float(value)
    return json.dumps(value, ensure_ascii=False)


def _write_csv(
    file: IO[str],
    class_map: ClassMap,
    predictions: Iterable[Prediction],
    extra: dict[str, Callable[[Prediction], Any]],
) -> Iterator[Prediction]:
    writer = csv.writer(file)
    writer.writerow((*PREDICTION_COLUMNS, *extra, *probability_columns(class_map)))
    for item in predictions:
        probabilities = (format_float(value) for value in item.probabilities)
        cells = (_cell(value(item)) for value in extra.values())
        writer.writerow(
            (item.path, item.label, format_float(item.confidence), *cells, *probabilities)
        )
        yield item


def _write_jsonl(
    file: IO[str],
    class_map: ClassMap,
    predictions: Iterable[Prediction],
    extra: dict[str, Callable[[Prediction], Any]],
) -> Iterator[Prediction]:
    for item in predictions:
        probabilities = {
            name: float(format_float(value))
            for name, value in zip(class_map.names, item.probabilities, strict=True)
        }
        row = {
            "path": item.path,
            "predicted": item.label,
            "confidence": float(format_float(item.confidence)),
            **{name: value(item) for name, value in extra.items()},
            "probabilities": probabilities,
        }
        file.write(_json_line(row))
        yield item


def _json_line(row: dict[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a path with bytes that are no UTF-8: escaped, JSON stays JSON
        text = json.dumps(row)
    return text + "\n"
