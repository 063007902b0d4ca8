"""Pictures of a robustness measurement: the scores, and what the corruptions look like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from classifier_training.evaluation.corruptions import SEVERITIES, Corruption
from classifier_training.evaluation.robustness import Condition, Robustness
from classifier_training.plots.style import save_figure

# Light to dark with the severity, readable without colours.
_SHADES = ("#6baed6", "#2171b5", "#08306b")
_TILE = 160  # pixels of an example's longer side


def draw_scores(found: Robustness, path: Path) -> None:
    """Draw accuracy and macro F1 with intervals, a row a corruption, clean as a band."""
    names = list(dict.fromkeys(item.corruption for item in found.conditions[1:]))
    figure = Figure(figsize=(11, 1.9 + 0.5 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, metric, title in ((left, "acc_top1", "accuracy"), (right, "f1_macro", "macro F1")):
        value, low, high = found.clean.scores[metric]
        axes.axvspan(low, high, color="0.9", zorder=0)
        axes.axvline(value, color="0.35", linewidth=1, label="clean")
        for severity, shade in zip(SEVERITIES, _SHADES, strict=True):
            rows = [item for item in found.conditions[1:] if item.severity == severity]
            _draw_severity(axes, rows, names, metric, severity, shade)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(f"{title} (bars and band: 95 % interval)")
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
    left.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    left.set_ylim(len(names) - 0.4, -0.6)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    save_figure(figure, path, dpi=130)


def draw_examples(
    image: Image.Image, name: str, corruptions: Sequence[Corruption], path: Path, *, seed: int
) -> None:
    """Show one image under each corruption and severity."""
    scale = _TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    columns = len(corruptions)
    figure = Figure(figsize=(1.25 * columns + 0.9, 5.6), layout="constrained")
    grid = figure.subplots(len(SEVERITIES) + 1, columns, squeeze=False)
    for column, corruption in enumerate(corruptions):
        for row in range(len(SEVERITIES) + 1):
            shown = corruption.apply(image, row, name=name, seed=seed) if row else image
            axes = grid[row][column]
            axes.imshow(shown.resize(size, Image.Resampling.LANCZOS))
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(f"severity {row}" if row else "clean", fontsize=8)
        grid[0][column].set_title(corruption.name.replace("_", " "), fontsize=8)
    save_figure(figure, path, dpi=130)


def _draw_severity(
    axes: object,
    rows: Sequence[Condition],
    names: Sequence[str],
    metric: str,
    severity: int,
    shade: str,
) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    scores = [item.scores[metric] for item in rows]
    values = [value for value, _, _ in scores]
    # A percentile interval need not hold the score itself.
    below = [max(0.0, value - low) for value, low, _ in scores]
    above = [max(0.0, high - value) for value, _, high in scores]
    places = [names.index(item.corruption) + 0.24 * (severity - 2) for item in rows]
    axes.errorbar(
        values,
        places,
        xerr=[below, above],
        fmt="o",
        markersize=4,
        linewidth=1.2,
        color=shade,
        label=f"severity {severity}",
    )
