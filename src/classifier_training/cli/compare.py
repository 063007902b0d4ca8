"""``classifier compare``: which of two models is better, and a gate for CI. No torch."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from classifier_training.cli.console import guarded, set_up_logging
from classifier_training.data.records import SPLITS
from classifier_training.errors import EXIT_EXPORT, EXIT_OK, ConfigError
from classifier_training.evaluation.comparison import METRICS, compare
from classifier_training.evaluation.comparison_report import (
    amount,
    sentence,
    table,
    write_comparison,
)
from classifier_training.evaluation.gate import gate, is_baseline, write_baseline
from classifier_training.evaluation.predictions import pair_predictions, predictions_of
from classifier_training.run.folder import find_report
from classifier_training.run.predictions import Predictions
from classifier_training.system.progress import progress


def run_compare(
    a: Path,
    b: Path | None,
    *,
    split: str,
    metric: str,
    data: Path | None,
    common: bool,
    out: Path | None,
    baseline: Path | None,
    margin: float,
    write_to: Path | None,
    with_images: bool,
    debug: bool,
) -> int:
    """Compare B with A, write a baseline, or hold A against one; return the exit code.

    The gate's exit code is 5: a model that lost more than the margin is a failed verification.
    """
    set_up_logging(debug=debug)

    def read(source: Path, like: Predictions | None = None) -> Predictions:
        with progress(f"predict {source.name}") as report:
            return predictions_of(source, split, data=data, like=like, on_images=report)

    def task() -> int:
        _check(split, metric, [b, baseline, write_to])
        if isinstance(sys.stdout, io.TextIOWrapper):  # names may hold what a terminal cannot show
            sys.stdout.reconfigure(errors="backslashreplace")
        if write_to is not None:
            return _write_baseline(read(a), split, write_to, with_images=with_images)
        if baseline is not None:
            reference = baseline if is_baseline(baseline) else read(baseline)
            like = reference if isinstance(reference, Predictions) else None
            return _gate(read(a, like), reference, metric, margin)
        assert b is not None
        first = read(a) if a.suffix != ".onnx" or b.suffix == ".onnx" else None
        second = read(b, first)
        reports = (find_report(a), find_report(b))
        _compare(first or read(a, second), second, metric, reports, common=common, out=out)
        return EXIT_OK

    return guarded(task, debug=debug)


def _check(split: str, metric: str, second: list[Path | None]) -> None:
    if split not in SPLITS:
        raise ConfigError(
            f"--split {split} is unknown",
            expected=f"one of {', '.join(SPLITS)}",
            fix="--split test",
        )
    if metric not in METRICS:
        raise ConfigError(
            f"--metric {metric} is unknown",
            expected=f"one of {', '.join(METRICS)}",
            fix="--metric f1_macro",
        )
    if sum(path is not None for path in second) != 1:
        raise ConfigError(
            "it is not said what A is compared with"
            if not any(second)
            else "B, --gate and --write-baseline are three different things",
            expected="one of: B, --gate BASELINE, --write-baseline FILE",
            fix="classifier compare RUN_A RUN_B",
        )


def _compare(
    a: Predictions,
    b: Predictions,
    metric: str,
    reports: tuple[Path | None, Path | None],
    *,
    common: bool,
    out: Path | None,
) -> None:
    found = compare(pair_predictions(a, b, common=common))
    said = sentence(found, metric)  # refuses a metric that is not there before files are written
    if out is not None:
        try:
            write_comparison(found, metric, out, reports)
        except OSError as error:
            raise ConfigError(
                f"cannot write --out {out}: {error.strerror or error}",
                expected="a folder that can be written, or a path where one can be made",
                fix="choose another --out",
            ) from error
    note = f" ({found.pair.left_out:,} that only one answered left out)"
    lines = [
        f"A  {found.pair.names[0]}",
        f"B  {found.pair.names[1]}",
        f"{len(found.pair):,} images{note if found.pair.left_out else ''}",
        "",
        *table(found),
        "",
        said,
    ]
    for letter, report in zip("AB", reports, strict=True):
        if report is not None:
            lines.append(f"report of {letter}: {report}")
    if out is not None:
        files = "comparison.md, comparison.json, per_class_differences.csv, changed_images.csv"
        lines.append(f"{out}  {files}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _write_baseline(answers: Predictions, split: str, path: Path, *, with_images: bool) -> int:
    try:
        write_baseline(answers, split, path, with_images=with_images)
    except OSError as error:
        raise ConfigError(
            f"cannot write --write-baseline {path}: {error.strerror or error}",
            expected="a file in a folder that can be written",
            fix="choose another FILE",
        ) from error
    sys.stdout.write(
        f"{path}: baseline of {len(answers):,} images; commit it, and in CI run\n"
        f"  classifier compare NEW_RUN --split {split} --gate {path} --margin 0.01\n"
    )
    return EXIT_OK


def _gate(new: Predictions, baseline: Path | Predictions, metric: str, margin: float) -> int:
    result = gate(new, baseline, metric, margin)
    if result.passed:
        sys.stdout.write(f"gate passed: {result}\n")
        return EXIT_OK
    sys.stdout.write(f"gate failed: {result}\n")
    sys.stdout.write(
        f"  the new model may be worse by {amount(result.worst, metric)}, "
        f"the margin is {amount(margin, metric)}\n"
    )
    if result.inside:
        sys.stdout.write(
            "  its score itself is inside the margin: more images would narrow the interval\n"
        )
    sys.stdout.flush()
    return EXIT_EXPORT
