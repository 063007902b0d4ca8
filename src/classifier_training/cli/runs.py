"""``classifier runs``: what lies below a folder, and averages over seeds. No torch."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier_training.cli.console import guarded, need_extra, set_up_logging
from classifier_training.errors import EXIT_OK, ConfigError
from classifier_training.system.files import write_json, write_text
from classifier_training.system.tables import write_table

if TYPE_CHECKING:
    from classifier_training.evaluation.aggregate import Aggregate, Group, Mean
    from classifier_training.run.listing import Score, StoredRunRow

_SHOWN_METRICS = tuple(
    f"{split}/{name}" for split in ("val", "test") for name in ("acc_top1", "f1_macro", "loss")
)
_SHOWN_KEYS = 6

Table = list[tuple[str, ...]]


def run_runs(
    folder: Path,
    *,
    aggregate: bool,
    by: str | None,
    json_file: Path | None,
    csv_file: Path | None,
    html_file: Path | None,
    debug: bool,
) -> int:
    """List (or average) the runs below a folder and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        for module in ("omegaconf", "yaml", "scipy", "jinja2"):
            if find_spec(module) is None:
                raise need_extra(module, "train")
        from classifier_training.evaluation.aggregate import aggregate as average
        from classifier_training.run.listing import find_runs

        if by is not None and not aggregate:
            raise ConfigError(
                f"--by {by} groups nothing without --aggregate",
                expected="--aggregate with --by",
                fix=f"--aggregate --by {by}",
            )
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        rows = find_runs(folder)
        keys = [key.strip() for key in (by or "").split(",") if key.strip()]
        found = average(rows, keys) if aggregate else None
        table = _run_table(rows) if found is None else _group_table(found)
        if json_file is not None:
            _writing(json_file, lambda path: write_json(path, _to_json(rows, found)))
        if csv_file is not None:
            lines = _run_csv(rows) if found is None else _group_csv(found)
            _writing(csv_file, lambda path: write_table(path, lines[0], lines[1:]))
        if html_file is not None:
            from classifier_training.report.runs_page import render_runs

            page = render_runs(rows, folder, html_file.parent)
            _writing(html_file, lambda path: write_text(path, page))
        notes = [] if found is None else _notes(found)
        sys.stdout.write("\n".join([*_aligned(table), *notes]) + "\n")
        sys.stdout.flush()
        return EXIT_OK

    return guarded(task, debug=debug)


def _run_table(rows: Sequence[StoredRunRow]) -> Table:
    from classifier_training.run.listing import changed_keys

    keys = changed_keys(rows)
    table: Table = [("run", "status", "best", "epoch", "data", "time", "differs in")]
    for row in rows:
        shown = [f"{key}={row.config.get(key)}" for key in keys[:_SHOWN_KEYS] if row.config]
        more = [f"+{len(keys) - _SHOWN_KEYS}"] if len(keys) > _SHOWN_KEYS and row.config else []
        table.append(
            (
                row.name,
                row.status,
                f"{row.metric} {_interval(row.best)}" if row.best else "-",
                str(row.best_epoch or "-"),
                row.fingerprint[:8] or "-",
                _time(row.wall_s),
                row.reason or " ".join([*shown, *more]),
            )
        )
    return table


def _group_table(found: Aggregate) -> Table:
    table: Table = [("group", "runs", "metric", "mean", "sd", "95 % interval of the mean")]
    for number, group in enumerate(found.groups, start=1):
        first = True
        for name in _SHOWN_METRICS:
            if name in group.means:
                mean = group.means[name]
                head = (_label(group, number), str(len(group.runs))) if first else ("", "")
                table.append((*head, name, f"{mean.mean:.4f}", *_spread(mean)))
                first = False
        if first:
            table.append((_label(group, number), str(len(group.runs)), "no evaluation", "", "", ""))
    return table


def _notes(found: Aggregate) -> list[str]:
    notes = [""]
    for number, group in enumerate(found.groups, start=1):
        seeds = ", ".join(str(row.config.get("seed")) for row in group.runs)
        folds = ", ".join(str(row.config.get("data.split.fold")) for row in group.runs)
        over = f"folds {folds}" if group.over_folds else f"seeds {seeds}"
        notes.append(f"{_label(group, number)}: {over}")
        if group.also_varies:
            notes.append(f"  its runs also differ in {', '.join(group.also_varies)}")
        if group.over_folds:
            notes.append("  folds share training images: interval widened (Nadeau & Bengio 2003)")
        if len(group.runs) == 1:
            notes.append("  one run has no spread; train it with other seeds: -m seed=0,1,2")
    notes += [f"left out: {name} ({why})" for name, why in found.left_out]
    return notes


def _label(group: Group, number: int) -> str:
    return " ".join(f"{key}={value}" for key, value in group.values.items()) or f"group {number}"


def _interval(score: Score) -> str:
    bounds = f" [{score.low:.3f}, {score.high:.3f}]" if math.isfinite(score.low) else ""
    return f"{score.value:.4f}{bounds}"


def _spread(mean: Mean) -> tuple[str, str]:
    if mean.sd is None:
        return "-", "-"
    return f"{mean.sd:.4f}", f"[{mean.low:.4f}, {mean.high:.4f}] (n = {mean.count})"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _aligned(table: Table) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _run_csv(rows: Sequence[StoredRunRow]) -> Table:
    from classifier_training.run.listing import changed_keys

    keys = changed_keys(rows)
    metrics = list(dict.fromkeys(name for row in rows for name in row.scores))
    head = ("run", "status", "reason", "id", "started", "metric", "best", "low", "high", "epoch")
    table: Table = [(*head, "data_fingerprint", "wall_s", *keys, *metrics)]
    for row in rows:
        best = (row.best.value, row.best.low, row.best.high) if row.best else (None,) * 3
        plain = (row.name, row.status, row.reason, row.run_id, row.started, row.metric)
        known = (*best, row.best_epoch, row.fingerprint, round(row.wall_s, 3))
        changed = (row.config.get(key) for key in keys)
        scores = (row.scores[name].value if name in row.scores else None for name in metrics)
        table.append((*plain, *map(_cell, known), *map(_cell, changed), *map(_cell, scores)))
    return table


def _group_csv(found: Aggregate) -> Table:
    keys = list(found.groups[0].values) if found.groups else []
    table: Table = [(*keys, "metric", "n", "mean", "sd", "low", "high", "runs")]
    for group in found.groups:
        names = " ".join(row.name for row in group.runs)
        values = [_cell(value) for value in group.values.values()]
        for metric, mean in group.means.items():
            numbers = (mean.count, mean.mean, mean.sd, mean.low, mean.high)
            table.append((*values, metric, *map(_cell, numbers), names))
    return table


def _cell(value: object) -> str:
    is_nan = isinstance(value, float) and math.isnan(value)
    return "" if value is None or is_nan else str(value)


def _to_json(rows: Sequence[StoredRunRow], found: Aggregate | None) -> dict[str, Any]:
    from classifier_training.run.listing import changed_keys

    keys = changed_keys(rows)
    content: dict[str, Any] = {
        "schema_version": 1,
        "runs": [
            {
                "run": row.name,
                "status": row.status,
                "reason": row.reason or None,
                "id": row.run_id,
                "started": row.started,
                "best": {"metric": row.metric, "epoch": row.best_epoch, **_score(row.best)}
                if row.best
                else None,
                "data_fingerprint": row.fingerprint,
                "wall_s": round(row.wall_s, 3),
                "changed": {key: row.config.get(key) for key in keys} if row.config else {},
                "metrics": {name: _score(score) for name, score in row.scores.items()},
            }
            for row in rows
        ],
    }
    if found is not None:
        content["groups"] = [
            {
                "values": group.values,
                "runs": [row.name for row in group.runs],
                "seeds": [row.config.get("seed") for row in group.runs],
                "over_folds": group.over_folds,
                "also_varies": list(group.also_varies),
                "metrics": {name: vars(mean) for name, mean in group.means.items()},
            }
            for group in found.groups
        ]
        content["left_out"] = [{"run": name, "reason": why} for name, why in found.left_out]
    return content


def _score(score: Score) -> dict[str, float | None]:
    has_interval = math.isfinite(score.low)  # JSON has no nan
    return {
        "value": score.value,
        "low": score.low if has_interval else None,
        "high": score.high if has_interval else None,
    }


def _writing(path: Path, write: Callable[[Path], None]) -> None:
    try:
        write(path)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror or error}",
            expected="a file in a folder that can be written",
            fix="choose another path",
        ) from error
