"""``classifier robustness``: the deployed model on corrupted images."""

from __future__ import annotations

import io
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from classifier_training.cli.console import guarded, need_extra, set_up_logging
from classifier_training.data.records import SPLITS
from classifier_training.errors import EXIT_OK, ConfigError
from classifier_training.evaluation.labelled_images import LabelledImages
from classifier_training.inference.images import read_image
from classifier_training.inference.predictor import Predictor
from classifier_training.system.progress import progress

if TYPE_CHECKING:
    from classifier_training.evaluation.robustness import Robustness


def run_robustness(
    model: Path,
    *,
    split: str,
    data: Path | None,
    only: list[str],
    out: Path | None,
    seed: int,
    debug: bool,
) -> int:
    """Measure, print, write and draw; return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        target = _target(model, split, out)
        for module in ("torch", "scipy", "matplotlib"):
            if find_spec(module) is None:
                raise need_extra(module, "train")
        from classifier_training.evaluation.robustness import (
            draw_examples,
            draw_scores,
            measure,
            select,
            write_robustness,
        )

        corruptions = select(only)
        predictor = Predictor.load(model)
        images = _images(model, split, data)
        images.indices(predictor.class_map)  # refuses before anything is made
        _make(target)
        with progress("robustness") as report:
            found = measure(predictor, images, corruptions, seed=seed, on_images=report)
        write_robustness(found, target)
        draw_scores(found, target / "robustness.png")
        first = read_image(images.files[0])
        examples = target / "robustness_examples.png"
        draw_examples(first, images.paths[0], corruptions, examples, seed=seed)
        _show(found, target)
        return EXIT_OK

    return guarded(task, debug=debug)


def _target(model: Path, split: str, out: Path | None) -> Path:
    if split not in SPLITS:
        raise ConfigError(
            f"--split {split} is unknown",
            expected=f"one of {', '.join(SPLITS)}",
            fix="--split val",
        )
    if out is not None:
        return out
    if not model.is_dir():
        raise ConfigError(
            f"nothing says where the results for {model} are to be written",
            expected="a run folder, or an ONNX file and --out",
            fix="--out DIR",
        )
    return model / "evaluation" / split


def _images(model: Path, split: str, data: Path | None) -> LabelledImages:
    if (model / "run.json").is_file():
        return LabelledImages.from_run(model, split, data)
    if data is None:
        raise ConfigError(
            f"nothing says where the images for {model} are",
            expected="a run that knows them, or a folder per class: DIR/[SPLIT/]CLASS/image.jpg",
            fix="--data RUN, or --data DIR",
        )
    return LabelledImages.find(data, split)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the folder {folder}: {error.strerror or error}",
            expected="a folder to write to, or a path where one can be made",
            fix="--out DIR",
        ) from error


def _show(found: Robustness, target: Path) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    lines = [_row("corruption", "", "accuracy", "change", "macro F1", "change")]
    for item in found.conditions:
        accuracy, f1 = item.scores["acc_top1"], item.scores["f1_macro"]
        changes = (item.changes["acc_top1"], item.changes["f1_macro"])
        moved = [_change(change) if item.severity else "" for change in changes]
        level = str(item.severity) if item.severity else ""
        lines.append(_row(item.corruption, level, _cell(accuracy), moved[0], _cell(f1), moved[1]))
    lines += [
        "",
        f"{found.images:,} images; accuracy over all corruptions {found.mean_accuracy:.3f}, clean "
        f"{found.clean.scores['acc_top1'][0]:.3f}",
        "(brackets: 95 % interval; change: from clean, on the same images)",
        f"{target}  robustness.csv, robustness.json, robustness.png, robustness_examples.png",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _cell(bounds: tuple[float, float, float]) -> str:
    return f"{bounds[0]:.3f} [{bounds[1]:.3f}, {bounds[2]:.3f}]"


def _change(bounds: tuple[float, float, float]) -> str:
    return f"{bounds[0]:+.3f} [{bounds[1]:+.3f}, {bounds[2]:+.3f}]"


def _row(*cells: str) -> str:
    widths = (16, 1, 21, 24, 21, 24)
    padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
    return "  ".join(padded).rstrip()
