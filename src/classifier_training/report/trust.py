"""Whether the confidence can be believed: reliability, coverage, and the fitted rules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from classifier_training.metrics.intervals import wilson
from classifier_training.report.charts import Box, Chart, Frame, Line, line_chart
from classifier_training.report.content import CalibrationSection, Table
from classifier_training.report.formatting import Interval, amount, count, percent, span
from classifier_training.run.reader import Run, StoredEvaluation


def calibration_of(data: Run, split: StoredEvaluation) -> CalibrationSection:
    """Draw reliability and risk against coverage, and say what the fitted rules bring."""
    fitted = data.calibration.get("calibration", {})
    measured = data.calibration.get("measured", {}).get(split.name, {})
    return CalibrationSection(
        charts=(_reliability(split), _coverage(split, measured)),
        sentences=tuple(_calibration_sentences(split, fitted, measured, data.calibration)),
        gains=_gains(measured),
    )


def _reliability(split: StoredEvaluation) -> Chart:
    frame = Frame(0, 1, 0, 1)
    diagonal = Line("perfect", "s-ideal", ((0, 0), (1, 1)))
    chart = line_chart("Accuracy by confidence", "", "Confidence", [diagonal], y_range=(0, 1))
    boxes = []
    for row in split.reliability:
        low, high = float(row["confidence_low"]), float(row["confidence_high"])
        images, accuracy = int(row["images"]), float(row["accuracy"])
        if not images:
            continue
        bounds = wilson(round(accuracy * images), images)
        boxes.append(
            Box(
                x=round(frame.x(low) + 1.5, 2),
                y=frame.y(accuracy),
                width=round(frame.x(high) - frame.x(low) - 3, 2),
                height=round(frame.y(0) - frame.y(accuracy), 2),
                text=f"confidence {low:.2f} to {high:.2f}: {percent(accuracy)} of "
                f"{count(images, 'image')} right",
                low=frame.y(bounds.low),
                high=frame.y(bounds.high),
            )
        )
    error = Interval.of(split.scores["metrics"]["ece"])
    summary = (
        "Bars that reach the dashed line are honest: of the answers with that confidence so many "
        f"are right. The gap is {percent(error.value)} on average ({span(error)}), before "
        "calibration. Whiskers: 95\u202f% intervals."
    )
    return replace(chart, boxes=tuple(boxes), summary=summary)


def _coverage(split: StoredEvaluation, measured: Mapping[str, Any]) -> Chart:
    points = tuple((float(row["coverage"]), 1 - float(row["risk"])) for row in split.risk_coverage)
    unsure = measured.get("unsure")
    mark = None
    if unsure and unsure.get("coverage"):
        mark = (float(unsure["coverage"]["value"]), "the “unsure” threshold")
    low = min((y for _, y in points), default=0.0)
    floor = max(0.0, math.floor(low * 10 - 1e-9) / 10 - 0.1)
    all_right = points[-1][1] if points else 0.0
    return line_chart(
        "Accuracy when only the most confident are answered",
        f"From right to left the least confident answers are left out. All images: "
        f"{percent(all_right)} right.",
        "Share of images answered",
        [Line("accuracy", "s-val", points)],
        y_range=(floor, 1.0),
        x_range=(0.0, 1.0),
        mark=mark,
    )


def _calibration_sentences(
    split: StoredEvaluation,
    fitted: Mapping[str, Any],
    measured: Mapping[str, Any],
    stored: Mapping[str, Any],
) -> list[str]:
    if not stored:
        return ["No calibration was fitted (calibration.enabled=false)."]
    said = []
    temperature = fitted.get("temperature")
    if temperature is not None:
        kind = "too sure" if temperature > 1 else "not sure enough"
        said.append(
            f"Temperature {temperature:.3f}, fitted on val: the network is {kind} as it is."
        )
    unsure = measured.get("unsure")
    if unsure and unsure.get("accuracy") and fitted.get("unsure"):
        said.append(
            f"Below a calibrated confidence of {fitted['unsure']['below']:.3f} an answer is "
            f"“unsure”. On {split.name} {percent(unsure['coverage']['value'])} of the images are "
            f"answered, {percent(unsure['accuracy']['value'])} of these correctly "
            f"({span(Interval.of(unsure['accuracy']))}); of all, "
            f"{percent(unsure['accuracy_of_all']['value'])}."
        )
    sets = measured.get("conformal")
    if sets and sets.get("coverage") and fitted.get("conformal"):
        said.append(
            f"Sets that are to hold the true class in {percent(fitted['conformal']['coverage'], 0)}"
            f" of cases do so in {percent(sets['coverage']['value'])}, with "
            f"{sets['mean_size']:.1f} classes on average."
        )
    said += [f"Not fitted: {reason}" for reason in stored.get("not_fitted", ())]
    return said


def _gains(measured: Mapping[str, Any]) -> Table | None:
    rows = tuple(
        (title, amount(measured[key]["before"], name), amount(measured[key]["after"], name))
        for key, title, name in (("nll", "Log loss", "loss"), ("ece", "Calibration error", "ece"))
        if key in measured
    )
    return Table(("", "as it is", "calibrated"), rows) if rows else None
