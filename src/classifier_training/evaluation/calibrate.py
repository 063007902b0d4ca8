"""Fit the calibration on val, measure on val and test what it brings, and write both down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from loguru import logger

from classifier_training.config.schema import CalibrationConfig
from classifier_training.errors import ExportError
from classifier_training.inference.agreement import softmax
from classifier_training.inference.calibration import (
    Calibration,
    ConformalRule,
    EnergyRule,
    UnsureRule,
    energies,
)
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.prediction_files import format_float
from classifier_training.metrics.calibration import (
    Fitted,
    conformal_threshold,
    coverage_curve,
    energy_limit,
    fit_temperature,
    threshold_for_accuracy,
    threshold_for_coverage,
)
from classifier_training.metrics.intervals import wilson
from classifier_training.metrics.probabilistic import expected_calibration_error, log_losses
from classifier_training.run.folder import RunFolder
from classifier_training.system.files import write_json
from classifier_training.system.tables import write_table

CURVE_NAME = "coverage_accuracy.csv"

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def fit_calibration(
    logits: Logits, labels: Labels, config: CalibrationConfig
) -> tuple[Calibration, list[str]]:
    """Fit everything on ``(N, C)`` val logits and ``(N,)`` labels.

    The temperature comes first; threshold and sets are of the probabilities that it gives. Where
    val cannot support a number, the rule is None (the temperature 1) and a reason is returned.
    """
    temperature = fit_temperature(logits, labels)
    scale = 1.0 if temperature.value is None else temperature.value
    probabilities = softmax(logits.astype(np.float64) / scale)
    curve = coverage_curve(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)
    if config.target_accuracy is not None:
        target, wanted = "accuracy", config.target_accuracy
        unsure = threshold_for_accuracy(curve, wanted)
    else:
        assert config.target_coverage is not None  # a rule between sections demands one
        target, wanted = "coverage", config.target_coverage
        unsure = threshold_for_coverage(curve, wanted)
    true = probabilities[np.arange(len(labels)), labels]
    conformal = conformal_threshold(true, config.conformal_coverage)
    energy = energy_limit(energies(logits), config.ood_kept)
    fitted: dict[str, Fitted] = {
        "temperature (1 is used)": temperature,
        "unsure": unsure,
        "conformal": conformal,
        "out_of_distribution": energy,
    }
    calibration = Calibration(
        images=len(labels),
        temperature=scale,
        unsure=None if unsure.value is None else UnsureRule(unsure.value, target, wanted),
        conformal=None
        if conformal.value is None
        else ConformalRule(config.conformal_coverage, conformal.value),
        energy=None if energy.value is None else EnergyRule(config.ood_kept, energy.value),
    )
    return calibration, [f"{name}: {item.reason}" for name, item in fitted.items() if item.reason]


def refit_calibration(shipped: Calibration, logits: Logits, labels: Labels) -> Calibration:
    """Fit anew what a model ships, with the same targets, to the val logits of a variant of it."""
    unsure, conformal, energy = shipped.unsure, shipped.conformal, shipped.energy
    by_accuracy = unsure is None or unsure.target == "accuracy"
    target = 0.5 if unsure is None else unsure.value  # not used where there is no rule
    config = CalibrationConfig(
        enabled=True,
        target_accuracy=target if by_accuracy else None,
        target_coverage=None if by_accuracy else target,
        conformal_coverage=0.5 if conformal is None else conformal.coverage,
        ood_kept=0.5 if energy is None else energy.kept,
    )
    fitted, _ = fit_calibration(logits, labels, config)
    return replace(
        fitted,
        unsure=fitted.unsure if unsure else None,
        conformal=fitted.conformal if conformal else None,
        energy=fitted.energy if energy else None,
    )


def measure_calibration(
    calibration: Calibration, logits: Logits, labels: Labels, class_map: ClassMap
) -> dict[str, Any]:
    """Return what the calibration brings on labelled images, as plain JSON values."""
    before, after = softmax(logits), calibration.probabilities(logits)
    right = after.argmax(axis=1) == labels
    found: dict[str, Any] = {
        "images": len(labels),
        "nll": {
            "before": float(log_losses(logits, labels).mean()),
            "after": float(log_losses(logits / np.float32(calibration.temperature), labels).mean()),
        },
        "ece": {
            "before": float(expected_calibration_error(before, labels)),
            "after": float(expected_calibration_error(after, labels)),
        },
    }
    if calibration.unsure is not None:
        answered = after.max(axis=1) >= calibration.unsure.below
        found["unsure"] = {
            "coverage": _share(answered),
            "accuracy": _share(right[answered]),
            "accuracy_of_all": _share(right),
        }
    if calibration.conformal is not None:
        found["conformal"] = _measure_sets(calibration.conformal, after, labels, class_map)
    if calibration.energy is not None:
        found["out_of_distribution"] = {
            "flagged": _share(energies(logits) > calibration.energy.above)
        }
    return found


def write_calibration(
    folder: RunFolder,
    epoch: int,
    config: CalibrationConfig,
    class_map: ClassMap,
    splits: dict[str, tuple[Logits, Labels]],
) -> Calibration | None:
    """Fit on ``splits["val"]``, measure on all, and write what was found.

    ``evaluation/calibration.json`` holds the sidecar's section and the measurements;
    ``evaluation/SPLIT/coverage_accuracy.csv`` the curve behind the threshold.

    Args:
        folder: The run.
        epoch: Of the checkpoint that the logits are of.
        config: What is asked for.
        class_map: Names of the classes.
        splits: Logits and labels by split.

    Returns:
        None when the configuration turns it off.
    """
    folder.calibration.unlink(missing_ok=True)  # never that of another checkpoint
    if not config.enabled:
        return None
    calibration, reasons = fit_calibration(*splits["val"], config)
    for split, (logits, labels) in splits.items():
        _write_curve(folder.evaluation(split) / CURVE_NAME, calibration, logits, labels)
    measured = {
        split: measure_calibration(calibration, logits, labels, class_map)
        for split, (logits, labels) in splits.items()
    }
    content = {
        "epoch": epoch,
        "calibration": calibration.to_json(),
        "not_fitted": reasons,
        "measured": measured,
    }
    write_json(folder.calibration, content)
    for reason in reasons:
        logger.warning("calibration: {}", reason)
    for split, found in measured.items():
        logger.info("calibration: {}", _summary(split, calibration, found))
    return calibration


def read_calibration(folder: RunFolder, epoch: int) -> Calibration | None:
    """Return the calibration that the run fitted for the checkpoint of this epoch, if it did.

    Raises:
        ExportError: The file is damaged.
    """
    if not folder.calibration.exists():
        return None
    try:
        content = json.loads(folder.calibration.read_text(encoding="utf-8"))
        if content["epoch"] != epoch:
            logger.warning(
                "{} is of epoch {}, the best checkpoint of epoch {}: the sidecar gets none",
                folder.calibration,
                int(content["epoch"]) + 1,
                epoch + 1,
            )
            return None
        return Calibration.from_json(content["calibration"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(
            f"cannot read {folder.calibration}: {error}",
            expected="the calibration that the run wrote",
            fix="remove the file; the sidecar then gets no calibration",
        ) from error


def _measure_sets(
    rule: ConformalRule, probabilities: Logits, labels: Labels, class_map: ClassMap
) -> dict[str, Any]:
    sets = probabilities >= rule.least_probability
    covered = sets[np.arange(len(labels)), labels]
    by_class = {
        class_map.names[index]: {
            "images": int((labels == index).sum()),
            "covered": int(covered[labels == index].sum()),
        }
        for index in np.unique(labels)
    }
    sizes = sets.sum(axis=1)
    return {
        "coverage": _share(covered),
        "mean_size": float(sizes.mean()),
        "empty": int((sizes == 0).sum()),
        "single": int((sizes == 1).sum()),
        # The promise is over all images together; a rare class may be covered much less.
        "by_class": by_class,
    }


def _share(flags: npt.NDArray[np.bool_]) -> dict[str, float | str] | None:
    return wilson(int(flags.sum()), len(flags)).to_json() if len(flags) else None


def _write_curve(path: Path, calibration: Calibration, logits: Logits, labels: Labels) -> None:
    probabilities = calibration.probabilities(logits)
    curve = coverage_curve(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)
    rows = zip(curve.thresholds, curve.answered, curve.coverage, curve.accuracy, strict=True)
    write_table(
        path,
        ("threshold", "answered", "coverage", "accuracy"),
        (
            (format_float(threshold), int(answered), format_float(coverage), format_float(accuracy))
            for threshold, answered, coverage, accuracy in rows
        ),
    )


def _summary(split: str, calibration: Calibration, found: dict[str, Any]) -> str:
    nll, ece = found["nll"], found["ece"]
    parts = [
        f"{split}: temperature {calibration.temperature:.3f}, NLL {nll['before']:.3f} to "
        f"{nll['after']:.3f}, ECE {ece['before']:.3f} to {ece['after']:.3f}"
    ]
    if accuracy := found.get("unsure", {}).get("accuracy"):
        parts.append(
            f"accuracy {accuracy['value']:.3f} on the {found['unsure']['coverage']['value']:.1%} "
            "that are not unsure"
        )
    if sets := found.get("conformal"):
        parts.append(
            f"sets of {sets['mean_size']:.1f} classes cover {sets['coverage']['value']:.3f}"
        )
    return "; ".join(parts)
