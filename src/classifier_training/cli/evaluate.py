"""``classifier evaluate``."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from classifier_training.cli.console import guarded, need_extra, set_up_logging
from classifier_training.errors import EXIT_OK, ConfigError
from classifier_training.system.progress import progress

if TYPE_CHECKING:
    from classifier_training.evaluation.evaluate import Evaluation

_SPLITS = ("train", "val", "test")
_BACKENDS = ("torch", "onnx")
_UNKNOWN = ("error", "skip")
_TITLES = {
    "acc_top1": "top-1 accuracy",
    "acc_top5": "top-5 accuracy",
    "acc_macro": "balanced accuracy",
    "f1_macro": "macro F1",
    "precision_macro": "macro precision",
    "auroc_macro": "macro AUROC",
    "loss": "log loss",
    "ece": "calibration error",
}
_METHODS = {
    "majority_class": "majority class",
    "knn": "5 nearest neighbours",
    "linear_probe": "linear probe",
}
_WORST = 5


def run_evaluate(
    run: Path,
    *,
    split: str | None,
    out: Path | None,
    data_root: Path | None,
    batch_size: int,
    device: str,
    debug: bool,
    data: Path | None = None,
    backend: str | None = None,
    image_field: str | None = None,
    label_field: str | None = None,
    unknown: str = "error",
    baselines: bool = False,
) -> int:
    """Evaluate a run or an ONNX file and return the exit code."""
    set_up_logging(debug=debug)

    def task() -> int:
        _require_one_of("--split", split, _SPLITS)
        _require_one_of("--backend", backend, _BACKENDS)
        _require_one_of("--unknown", unknown, _UNKNOWN)
        if find_spec("torch") is None:
            raise need_extra("torch", "train")
        if run.suffix.lower() != ".onnx" and data is None:
            from classifier_training.run.reader import Run

            Run(run)  # refuses before torch is imported
        from classifier_training.evaluation.evaluate import evaluate

        with progress(f"evaluate {data or split or 'test'}") as on_images:
            evaluation = evaluate(
                run,
                split=split,
                data=data,
                backend=cast("Literal['torch', 'onnx'] | None", backend),
                out=out,
                data_root=data_root,
                image_field=image_field,
                label_field=label_field,
                unknown=cast("Literal['error', 'skip']", unknown),
                baselines=baselines,
                device=device,
                batch_size=batch_size,
                on_images=on_images,
            )
        _show(evaluation)
        return EXIT_OK

    return guarded(task, debug=debug)


def _require_one_of(option: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise ConfigError(
            f"{option} {value} is unknown",
            expected=f"one of {', '.join(allowed)}",
            fix=f"{option} {allowed[-1]}",
        )


def _show(evaluation: Evaluation) -> None:
    """Print scores with intervals, baselines, the slices that fall short, and the files."""
    scores = evaluation.scores
    in_groups = f" in {scores.groups:,} groups" if scores.groups is not None else ""
    left_out = sum(evaluation.skipped.values())
    lines = [
        "",
        f"{evaluation.split} by {evaluation.backend}: {scores.images:,} images{in_groups}"
        + (f" ({left_out:,} skipped)" if left_out else ""),
        "",
        *(
            f"  {title:<22} {scores.estimates[name]}"
            for name, title in _TITLES.items()
            if name in scores.estimates
        ),
        f"  {'risk-coverage area':<22} {scores.curve.area:.4f}",
        "",
        f"  {_METHODS['majority_class']:<22} {scores.majority}  (baseline, top-1)",
        *(
            f"  {_METHODS[name]:<22} {estimate}  (baseline, top-1; features: {evaluation.features})"
            for name, estimate in evaluation.baselines.items()
        ),
        "  brackets: 95 % interval",
    ]
    if worse := [item for item in evaluation.slices if item.is_worse]:
        lines += ["", "slices that are worse than the rest (beyond chance):"]
        lines += [
            f"  {item.key} = {item.value}: top-1 {item.accuracy} on {item.images:,} images; "
            f"rest {item.rest:.3f}"
            for item in worse[:_WORST]
        ]
        if len(worse) > _WORST:
            lines.append(f"  … and {len(worse) - _WORST} more, in slices.csv")
    lines += ["", f"{evaluation.folder}  metrics.json, tables and pictures"]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
