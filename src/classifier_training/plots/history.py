"""``plots/history.png``: how loss, scores and learning rate went, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from classifier_training.plots.style import GREY, SPLIT_COLORS, plain_axes, save_figure

_PANELS = (("loss", "loss"), ("acc_top1", "top-1 accuracy"), ("f1_macro", "macro F1"))
# Prefix of the columns, what the legend calls them, colour and line style.
_LINES = (
    ("train", "train (augmented)", SPLIT_COLORS["train"], "-"),
    ("val_raw", "val, raw weights", GREY, "--"),
    ("val", "val", SPLIT_COLORS["val"], "-"),
)
_RATE_COLOR = "#56606b"


def draw_history(
    rows: Sequence[dict[str, float]], best_epoch: int, monitor: str, path: Path
) -> None:
    """Draw all epochs, with the best one marked.

    Args:
        rows: Those of ``metrics.csv``, at least one.
        best_epoch: Epoch of the best score, or -1.
        monitor: The score that it is best by.
        path: The PNG to write, atomically.
    """
    figure = Figure(figsize=(10.5, 6.4))
    figure.subplots_adjust(left=0.07, right=0.985, top=0.9, bottom=0.085, hspace=0.33, wspace=0.17)
    grid = figure.subplots(2, 2)
    for axes, (score, title) in zip(grid.flat, _PANELS, strict=False):
        _draw_score(axes, rows, score, best_epoch)
        axes.set_title(title, loc="left", fontsize=10)
    _draw_rate(grid[1, 1], rows)
    for axes in grid.flat:
        plain_axes(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.margins(y=0.1)
        if best_epoch >= 0:
            axes.axvline(best_epoch, color=GREY, lw=1, ls=":")
    for axes in grid[1]:
        axes.set_xlabel("epoch")
    figure.suptitle(_title(rows, best_epoch, monitor), x=0.07, ha="left", fontsize=11)
    grid[0, 0].legend(fontsize=8, frameon=False)
    save_figure(figure, path)


def _draw_score(axes: Axes, rows: Sequence[dict[str, float]], score: str, best_epoch: int) -> None:
    for prefix, label, color, style in _LINES:
        found = [(row["epoch"], row[key]) for row in rows if (key := f"{prefix}/{score}") in row]
        if not found:
            continue
        epochs, values = zip(*found, strict=True)
        axes.plot(
            epochs, values, style, color=color, label=label, lw=1.6,
            marker="o" if len(found) < 3 else None, ms=4,
        )  # fmt: skip
        best = dict(found).get(best_epoch)
        if prefix == "val" and best is not None:
            axes.plot([best_epoch], [best], "o", color=color, mec="white", ms=7, zorder=3)
            axes.annotate(
                f"{best:.3f}", (best_epoch, best), xytext=(7, -11), textcoords="offset points",
                fontsize=8,
            )  # fmt: skip


def _draw_rate(axes: Axes, rows: Sequence[dict[str, float]]) -> None:
    found = [(row["epoch"], row["lr"]) for row in rows if "lr" in row]
    axes.set_title("learning rate at the end of the epoch", loc="left", fontsize=10)
    if not found:
        return
    epochs, values = zip(*found, strict=True)
    axes.plot(
        epochs, values, color=_RATE_COLOR, lw=1.6, marker="o" if len(found) < 3 else None, ms=4
    )
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.set_ylim(bottom=0)


def _title(rows: Sequence[dict[str, float]], best_epoch: int, monitor: str) -> str:
    last = f"{len(rows)} epochs" if len(rows) > 1 else "1 epoch"
    best = next((row for row in rows if row["epoch"] == best_epoch), None)
    if best is None or monitor not in best:
        return last
    return f"{last}; best by {monitor}: epoch {best_epoch} with {best[monitor]:.4f}"
