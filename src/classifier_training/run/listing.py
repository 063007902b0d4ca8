"""The runs below a folder, from their small files: no torch, no checkpoint is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classifier_training.data.records import SPLITS
from classifier_training.errors import ClassifierTrainingError, DataError
from classifier_training.run.folder import RUN_JSON
from classifier_training.run.identity import FREE_KEYS, below
from classifier_training.run.reader import Run

# What a run leaves besides run.json; with these and without it, something was lost.
_TRACES = ("config.yaml", "checkpoints")


@dataclass(frozen=True)
class Score:
    """A metric of an evaluated split with its 95 % interval (nan where it has none)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class StoredRunRow:
    """What is known of one run.

    Attributes:
        name: Its folder, relative to the one that was searched.
        status: ``finished``, ``running``, ``failed``, ``interrupted`` or ``damaged``.
        reason: Why it counts as damaged; empty otherwise.
        run_id: Its id.
        started: When, ISO 8601.
        metric: What was monitored.
        best: Its best value and interval; None before the first epoch.
        best_epoch: The epoch it was reached in, from 1.
        fingerprint: Of its data.
        wall_s: Seconds of all stages.
        config: Its configuration by dotted key.
        scores: By ``split/metric``.
    """

    name: str
    status: str
    reason: str = ""
    run_id: str = ""
    started: str = ""
    metric: str = ""
    best: Score | None = None
    best_epoch: int | None = None
    fingerprint: str = ""
    wall_s: float = 0.0
    config: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether it finished and can be read."""
        return self.status == "finished"


def find_runs(folder: Path) -> list[StoredRunRow]:
    """Read all runs below a folder (or the folder itself), sorted by name with numbers in order.

    Raises:
        DataError: There is no folder, or no run in it.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder",
            expected="a folder with runs in it",
            fix="correct the path",
        )
    rows = [_read(path, folder) for path in _run_folders(folder)]
    if not rows:
        raise DataError(
            f"no runs below {folder}",
            expected=f"folders with a {RUN_JSON}, as `classifier train` makes them",
            fix="give the folder above the runs (hydra.sweep.dir, or outputs)",
        )
    return sorted(rows, key=lambda row: _natural(row.name))


def changed_keys(rows: Sequence[StoredRunRow]) -> list[str]:
    """Return the configuration keys in which readable runs differ, without those that may."""
    configs = [row.config for row in rows if row.config]
    keys = sorted({key for config in configs for key in config})
    return [
        key
        for key in keys
        if not below(key, FREE_KEYS)
        and any(not_same(config, configs[0], key) for config in configs)
    ]


def not_same(a: dict[str, Any], b: dict[str, Any], key: str) -> bool:
    """Whether a key differs (or stands in one alone)."""
    missing = object()
    return bool(a.get(key, missing) != b.get(key, missing))


def _run_folders(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        if RUN_JSON in files or all(name in (*folders, *files) for name in _TRACES):
            folders.clear()
            yield Path(parent)
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))


def _read(path: Path, top: Path) -> StoredRunRow:
    name = path.relative_to(top).as_posix() if path != top else path.name or str(path)
    try:
        return _row(Run(path), name)
    except ClassifierTrainingError as error:
        return StoredRunRow(name, "damaged", _short(error.what.replace(f"{path}/", "")))
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # not what a run writes
        return StoredRunRow(name, "damaged", _short(f"{RUN_JSON} or a table: {error!r}"))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text[:160] + "…" if len(text) > 160 else text


def _row(run: Run, name: str) -> StoredRunRow:
    record = run.record
    scores = {
        f"{split}/{metric}": Score(*(float(item[key]) for key in ("value", "low", "high")))
        for split in filter(run.is_evaluated, SPLITS)
        for metric, item in run.metrics(split)["metrics"].items()
    }
    best = record["best"]
    metric = str(best["metric"]) if best else ""
    return StoredRunRow(
        name=name,
        status=str(record["status"]),
        run_id=str(record["id"]),
        started=str(record["started"]),
        metric=metric,
        best=_best(float(best["score"]), scores.get(metric)) if best else None,
        best_epoch=int(best["epoch"]) + 1 if best else None,
        fingerprint=str(record["data_fingerprint"]),
        wall_s=float(sum(record["stages_s"].values())),
        config=run.settings,
        scores=scores,
    )


def _best(value: float, evaluated: Score | None) -> Score:
    """Give the monitored value the interval of the evaluation, when that saw the same value."""
    if evaluated is not None and abs(evaluated.value - value) <= 1e-6:
        return Score(value, evaluated.low, evaluated.high)
    return Score(value, float("nan"), float("nan"))


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sort 2 before 10."""
    parts: list[tuple[int, int | str]] = []
    for part in name.replace("/", " / ").replace("=", " = ").split(" "):
        is_number = part.isascii() and part.isdigit()
        parts.append((0, int(part)) if is_number else (1, part))
    return parts
