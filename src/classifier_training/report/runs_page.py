"""The runs below a folder as one page: no network, no other file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from classifier_training.config.metric_names import mode_of
from classifier_training.run.folder import find_report, relative_link
from classifier_training.run.listing import Score, StoredRunRow, changed_keys
from classifier_training.system.progress import duration

_LONGEST = 48  # characters of a value that are shown


@dataclass(frozen=True)
class Bar:
    """A score and its interval on the scale of its metric, in percent of the width.

    Attributes:
        text: The score.
        bounds: Its interval in words, empty where there is none.
        value: Where the score lies.
        low: Where the interval begins.
        width: Of the interval.
        sort: What the column sorts by.
    """

    text: str
    bounds: str
    value: float
    low: float
    width: float
    sort: float


@dataclass(frozen=True)
class RunLine:
    """A run as the page shows it.

    Attributes:
        name: Its folder, relative to the one that was searched.
        href: Its report, relative to the page; empty without one.
        status: As in ``run.json``.
        reason: Why it counts as damaged.
        metric: What was monitored.
        bar: The best score; None before the first epoch.
        is_best: Whether every other run of the same metric and data is worse.
        epoch: The best one, from 1.
        data: The beginning of the data's fingerprint.
        data_color: Hue of it; runs with the same data have the same.
        started: When, in minutes.
        wall_s: Seconds of all stages.
        wall: The same for people.
        changed: Key and value of what differs between the runs.
    """

    name: str
    href: str
    status: str
    reason: str
    metric: str
    bar: Bar | None
    is_best: bool
    epoch: int | None
    data: str
    data_color: int
    started: str
    wall_s: float
    wall: str
    changed: list[tuple[str, str]]


def render_runs(rows: Sequence[StoredRunRow], folder: Path, home: Path) -> str:
    """Return the page.

    Args:
        rows: The runs.
        folder: Where they were found.
        home: The folder that the page will lie in.
    """
    environment = Environment(
        loader=PackageLoader("classifier_training.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    lines = _lines(rows, folder, home)
    counts = {status: sum(line.status == status for line in lines) for status in _statuses(lines)}
    page = environment.get_template("runs_page.html.j2").render(
        folder=_shown(folder.resolve().name or str(folder)), runs=lines, counts=counts,
        has_changed=any(line.changed for line in lines),
    )  # fmt: skip
    # Names of folders may hold bytes that are no text.
    return page.encode("utf-8", "replace").decode("utf-8")


def _lines(rows: Sequence[StoredRunRow], folder: Path, home: Path) -> list[RunLine]:
    keys = changed_keys(rows)
    scales = {row.metric: _scale(row.metric, rows) for row in rows if row.best}
    data = sorted({row.fingerprint for row in rows if row.fingerprint})
    return [
        RunLine(
            name=_shown(row.name),
            href=_link(_folder_of(row, folder), home),
            status=row.status,
            reason=row.reason,
            metric=row.metric,
            bar=_bar(row.best, scales[row.metric]) if row.best else None,
            is_best=_is_best(row, rows),
            epoch=row.best_epoch,
            data=row.fingerprint[:8],
            # Far apart on the colour circle, whatever their number.
            data_color=round(137.5 * data.index(row.fingerprint)) % 360 if row.fingerprint else 0,
            started=_minute(row.started),
            wall_s=row.wall_s,
            wall=duration(row.wall_s),
            changed=[(key, _value(row.config.get(key))) for key in keys] if row.config else [],
        )
        for row in rows
    ]


def _folder_of(row: StoredRunRow, folder: Path) -> Path:
    inside = folder / row.name
    # A folder that is itself the run is listed by its own name.
    return inside if inside.is_dir() else folder


def _link(run: Path, home: Path) -> str:
    report = find_report(run)
    return "" if report is None else relative_link(report, home)


def _scale(metric: str, rows: Sequence[StoredRunRow]) -> tuple[float, float]:
    """Return what the bars of a metric span: all of its intervals, and a little more."""
    scores = [row.best for row in rows if row.best and row.metric == metric]
    numbers = [
        number
        for score in scores
        for number in (score.value, score.low, score.high)
        if math.isfinite(number)
    ]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    margin = 0.08 * (high - low) or 0.05
    return low - margin, high + margin


def _bar(score: Score, scale: tuple[float, float]) -> Bar:
    low, high = scale

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    has_interval = math.isfinite(score.low) and math.isfinite(score.high)
    return Bar(
        text=f"{score.value:.4f}",
        bounds=f"{score.low:.3f} to {score.high:.3f}" if has_interval else "",
        value=place(score.value) if math.isfinite(score.value) else 0.0,
        low=place(score.low) if has_interval else 0.0,
        width=round(place(score.high) - place(score.low), 2) if has_interval else 0.0,
        sort=score.value,
    )


def _is_best(row: StoredRunRow, rows: Sequence[StoredRunRow]) -> bool:
    """Scores compare on the same metric and data only."""
    others = [
        other.best.value
        for other in rows
        if other.best and (other.metric, other.fingerprint) == (row.metric, row.fingerprint)
    ]
    if row.best is None or len(others) < 2:
        return False
    best = max(others) if mode_of(row.metric) == "max" else min(others)
    return row.best.value == best and others.count(best) == 1


def _statuses(lines: Sequence[RunLine]) -> list[str]:
    return sorted(
        {line.status for line in lines}, key=lambda status: (status != "finished", status)
    )


def _value(value: Any) -> str:
    text = "none" if value is None else str(value)
    return _shown(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")


def _shown(text: str) -> str:
    """Return text with characters that turn lines around or break them made visible."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _minute(started: str) -> str:
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return ""
