"""A comparison in words and files: a sentence, tables, JSON, CSV and Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from classifier_training.evaluation.comparison import METRICS, Comparison, Difference
from classifier_training.evaluation.predictions import PairedPredictions
from classifier_training.run.folder import relative_link
from classifier_training.system.files import write_json, write_text
from classifier_training.system.tables import write_table

_CLASS_COLUMNS = (
    *("class", "support", "fixed", "broken"),
    *("recall_a", "recall_b", "recall_difference", "recall_low", "recall_high"),
    *("f1_a", "f1_b", "f1_difference", "f1_low", "f1_high"),
    *("p", "p_holm", "verdict"),
)


def sentence(comparison: Comparison, metric: str) -> str:
    """Say in a plain sentence what B is against A.

    Raises:
        ConfigError: The metric is not there.
    """
    found, pair = comparison.difference(metric), comparison.pair
    title = METRICS[metric]
    if not _changed_rows(pair) and abs(found.value) < 1e-12:
        return f"an exact tie: A and B give the same answer to each of {len(pair):,} images"
    bounds = f"95 % interval {_bounds(found)}, p = {_p(found.p)}, {_size(pair)}"
    if found.verdict != "tie":
        size = amount(abs(found.value), metric)
        return f"B is {found.verdict} than A by {size} of {title} ({bounds})"
    needed = found.images_needed
    more = (
        f"about {_rounded(needed)} images would show a difference of this size"
        if needed is not None
        else "no difference was seen that more images could confirm"
    )
    return f"a tie: B - A is {amount(found.value, metric, sign=True)} of {title} ({bounds}); {more}"


def table(comparison: Comparison) -> list[str]:
    """Return the lines of the table for a terminal."""
    lines = [_row("", "A", "B", "B - A", "95 % interval", "p", "verdict of B")]
    for name, found in comparison.metrics.items():
        cells = (f"{found.a:.4f}", f"{found.b:.4f}", f"{found.value:+.4f}")
        bounds = f"[{found.low:+.4f}, {found.high:+.4f}]"
        lines.append(_row(METRICS[name], *cells, bounds, _p(found.p), found.verdict))
    test = comparison.mcnemar
    lines += [
        "",
        f"B fixes {test.fixed:,} images and breaks {test.broken:,} "
        f"(McNemar: exact p = {_p(test.p_exact)}, mid-p = {_p(test.p_mid)})",
    ]
    if comparison.pair.grouped:
        lines.append("images of a group were drawn together; McNemar takes them as independent")
    changed = [item for item in comparison.classes if item.verdict != "tie"]
    for item in changed:
        lines.append(
            f"class {item.name!r}: B is {item.verdict}, recall {item.recall[0]:.3f} to "
            f"{item.recall[1]:.3f} on {item.support:,} images (p = {_p(item.p_holm)} after Holm)"
        )
    if not changed:
        lines.append("no single class differs beyond chance (Holm-corrected)")
    return lines


def to_json(comparison: Comparison, metric: str) -> dict[str, Any]:
    """Return the content of ``comparison.json``."""
    pair, test = comparison.pair, comparison.mcnemar
    return {
        "schema_version": 1,
        "a": pair.names[0],
        "b": pair.names[1],
        "images": len(pair),
        "left_out": pair.left_out,
        "groups": int(pair.groups.max()) + 1 if pair.grouped else None,
        "metric": metric,
        "verdict": comparison.difference(metric).verdict,
        "sentence": sentence(comparison, metric),
        "metrics": {name: found.to_json() for name, found in comparison.metrics.items()},
        "mcnemar": {
            "fixed": test.fixed,
            "broken": test.broken,
            "p_exact": test.p_exact,
            "p_mid": test.p_mid,
        },
    }


def write_comparison(
    comparison: Comparison,
    metric: str,
    folder: Path,
    reports: tuple[Path | None, Path | None] = (None, None),
) -> None:
    """Write ``comparison.{json,md}``, ``per_class_differences.csv`` and ``changed_images.csv``.

    Args:
        comparison: What was found.
        metric: The metric that decides.
        folder: Where the files go.
        reports: Those of A and B, which ``comparison.md`` links to.
    """
    content = to_json(comparison, metric)
    write_table(folder / "per_class_differences.csv", _CLASS_COLUMNS, _class_rows(comparison))
    columns = ("path", "true", "a", "b", "change")
    write_table(folder / "changed_images.csv", columns, _changed_rows(comparison.pair))
    write_text(folder / "comparison.md", _markdown(comparison, metric, folder, reports))
    write_json(folder / "comparison.json", content)


def _markdown(
    comparison: Comparison, metric: str, folder: Path, reports: tuple[Path | None, Path | None]
) -> str:
    """Return the comparison for a person: verdict, table, and links to both reports."""
    lines = ["# Comparison of two models", "", f"**{_escaped(sentence(comparison, metric))}**", ""]
    for letter, name, report in zip("AB", comparison.pair.names, reports, strict=True):
        link = f", [report](<{relative_link(report, folder)}>)" if report is not None else ""
        lines.append(f"- {letter}: {_escaped(name)}{link}")
    lines += [
        "",
        "| | A | B | B - A | 95 % interval | p | verdict of B |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in comparison.metrics.items():
        bounds = f"{found.low:+.4f} to {found.high:+.4f}"
        numbers = (f"{found.a:.4f}", f"{found.b:.4f}", f"{found.value:+.4f}", bounds, _p(found.p))
        lines.append(f"| {' | '.join((METRICS[name], *numbers, found.verdict))} |")
    lines += [
        "",
        "Classes: [per_class_differences.csv](per_class_differences.csv). "
        "Images: [changed_images.csv](changed_images.csv).",
    ]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return text that Markdown and the HTML made of it show as it is."""
    printable = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return re.sub(r"([\\`*_{}\[\]()<>#+!|&~-])", r"\\\1", printable)


def amount(value: float, metric: str, *, sign: bool = False) -> str:
    """Write a difference: points (hundredths) of a share, or nats of a loss."""
    text = f"{value:+.4f}" if sign else f"{value:.4f}"
    if metric == "loss":
        return f"{text} nats"
    points = f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"
    return f"{points} points"


def _bounds(found: Difference) -> str:
    if found.metric == "loss":
        return f"[{found.low:+.4f}, {found.high:+.4f}]"
    return f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else f"{value:.1g}"


def _size(pair: PairedPredictions) -> str:
    in_groups = f" in {int(pair.groups.max()) + 1:,} groups" if pair.grouped else ""
    return f"{len(pair):,} images{in_groups}"


def _rounded(count: int) -> str:
    """Write a count with two digits; more would pretend."""
    digits = max(0, len(str(count)) - 2)
    return f"{round(count, -digits):,}"


def _row(*cells: str) -> str:
    widths = (18, 8, 8, 9, 20, 7, 12)
    padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
    return "  ".join(padded).rstrip()


def _changed_rows(pair: PairedPredictions) -> list[tuple[str, ...]]:
    rows = []
    for row, path in enumerate(pair.paths):
        true, a, b = int(pair.true[row]), int(pair.predicted[0][row]), int(pair.predicted[1][row])
        if a != b:
            change = "fixed" if b == true else "broken" if a == true else "still wrong"
            rows.append((path, pair.classes[true], pair.classes[a], pair.classes[b], change))
    order = {"broken": 0, "fixed": 1, "still wrong": 2}
    return sorted(rows, key=lambda cells: (order[cells[-1]], cells[0]))


def _class_rows(comparison: Comparison) -> Iterable[tuple[str, ...]]:
    for item in comparison.classes:
        numbers = (*item.recall, *item.f1, item.p, item.p_holm)
        cells = ("" if math.isnan(number) else f"{number:.6f}" for number in numbers)
        counts = (item.support, item.changes.fixed, item.changes.broken)
        yield (item.name, *map(str, counts), *cells, item.verdict)
