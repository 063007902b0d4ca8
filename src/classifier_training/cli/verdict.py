"""What a finished run says: how good the model is, and where everything lies."""

from __future__ import annotations

import sys

from classifier_training.run.folder import REPORT_NAME
from classifier_training.run.reader import Run

_SHOWN = (("acc_top1", "top-1"), ("acc_macro", "balanced"), ("f1_macro", "macro F1"))


def show_verdict(run: Run) -> None:
    """Print scores with intervals, the baseline, and the files."""
    best, folder = run.record["best"], run.folder
    lines = [
        "",
        f"best epoch {best['epoch'] + 1}: {best['metric']} {best['score']:.4f}",
        "",
        _row("split", "images", *(title for _, title in _SHOWN), "majority class"),
    ]
    for split in ("val", "test"):
        if (folder.evaluation(split) / "metrics.json").exists():
            content = run.metrics(split)
            cells = [_cell(content["metrics"][name]) for name, _ in _SHOWN]
            baseline = f"{content['majority_class_accuracy']:.3f}"
            lines.append(_row(split, f"{content['images']:,}", *cells, baseline))
    report = folder.path / REPORT_NAME
    lines += [
        "(brackets: 95 % interval; majority class: accuracy of always answering it)",
        "",
        *([f"{report}  all of it to look at, in a browser"] if report.is_file() else []),
        f"{folder.onnx}  the model, verified against the best checkpoint",
        f"{folder.sidecar}  its classes and preprocessing",
        f"{folder.path / 'evaluation'}  metrics, per-class table, prediction of each file",
        f"{folder.history}  a row an epoch",
        "",
        f"next: classifier predict {folder.path} IMAGES",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _row(split: str, images: str, *cells: str) -> str:
    return f"{split:<6} {images:>7}  " + "  ".join(f"{cell:<21}" for cell in cells).rstrip()


def _cell(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
