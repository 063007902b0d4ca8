"""Rules between keys: values that each are fine but not together, and names that must be known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from classifier_training.config.metric_names import monitorable
from classifier_training.config.registry import BACKBONES, EXPORTS, LOSSES, OPTIMIZERS, SCHEDULES
from classifier_training.errors import Problem


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        keys: What it reads; it is checked only when all of them are valid by themselves.
        check: Called with their values in this order; returns what is wrong with them, if anything.
    """

    keys: tuple[str, ...]
    check: Callable[..., Problem | None]


def rule_problems(config: Mapping[str, Any], invalid: Iterable[str]) -> list[Problem]:
    """Return what contradicts itself.

    Args:
        config: The composed configuration as plain containers.
        invalid: Keys that are reported already; rules that read them are skipped.
    """
    reported = tuple(invalid)
    problems = []
    for rule in RULES:
        if any(_overlap(key, other) for key in rule.keys for other in reported):
            continue
        try:
            values = [_value(config, key) for key in rule.keys]
        except KeyError:
            continue
        if problem := rule.check(*values):
            problems.append(problem)
    return problems


def _overlap(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _value(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise KeyError(key)
        node = node[part]
    return node


def _monitor_is_measured(monitor: str, averaged: bool, score_raw: bool) -> Problem | None:
    allowed = monitorable(raw=averaged and score_raw)
    if monitor in allowed:
        return None
    return Problem(
        "checkpoint.monitor", f"{monitor!r} is not measured", f"choose one of {', '.join(allowed)}"
    )


def _warmup_fits(warmup_epochs: float, max_epochs: int) -> Problem | None:
    if warmup_epochs < max_epochs:
        return None
    return Problem(
        "schedule.warmup_epochs",
        f"{warmup_epochs} leaves nothing of trainer.max_epochs={max_epochs}",
        "shorten the warm-up or train for more epochs",
    )


def _balanced_once(
    sampler: str, class_weights: str, logit_adjustment: float, allow_double: bool
) -> Problem | None:
    corrections = {
        "data.sampler": sampler != "none",
        "loss.class_weights": class_weights != "none",
        "loss.logit_adjustment": logit_adjustment > 0,
    }
    active = [key for key, is_on in corrections.items() if is_on]
    if len(active) < 2 or allow_double:
        return None
    *others, last = active
    return Problem(
        last,
        f"together with {' and '.join(others)} it corrects the same imbalance twice",
        "keep one of them (none and 0 turn them off), or data.allow_double_balance=true",
    )


def _one_start(ckpt_path: str | None, same: str | None, init_from: str | None) -> Problem | None:
    given = {ckpt_path, same} - {None}
    if len(given) > 1:
        return Problem("task.checkpoint_path", "differs from ckpt_path", "give one of the two")
    if given and init_from:
        return Problem(
            "model.init_from",
            "cannot be combined with ckpt_path",
            "give one: ckpt_path resumes a run, init_from starts a new one from its weights",
        )
    return None


def _shares_leave_some(val: float, test: float) -> Problem | None:
    if val + test < 1:
        return None
    return Problem(
        "data.split",
        f"val={val} and test={test} leave nothing for train",
        "make them smaller: together below 1",
    )


def _fold_exists(folds: int | None, fold: int | None) -> Problem | None:
    if folds is None:
        if fold is None:
            return None
        return Problem("data.split.fold", "needs data.split.folds", "data.split.folds=5")
    if fold is None:
        listed = ",".join(map(str, range(min(folds, 10)))) + (",..." if folds > 10 else "")
        return Problem(
            "data.split.folds",
            "is set, but not which fold is val",
            f"data.split.fold=0, or all with -m data.split.fold={listed}",
        )
    if fold >= folds:
        return Problem(
            "data.split.fold",
            f"{fold} is not below data.split.folds={folds}",
            f"use 0 to {folds - 1}",
        )
    return None


def _folds_or_manifest(folds: int | None, manifest: str | None) -> Problem | None:
    if folds is None or manifest is None:
        return None
    return Problem(
        "data.split.manifest",
        "fixes what is val, which data.split.folds decides again",
        "give one of the two",
    )


def _empty_label_named(on_empty: str, name: str | None) -> Problem | None:
    is_class = on_empty == "class"
    if is_class and (name is None or not name.strip()):
        return Problem(
            "data.empty_label_name",
            "is missing: data.on_empty_label=class needs the name of the class",
            "data.empty_label_name=unreadable",
        )
    if name is not None and not is_class:
        return Problem(
            "data.empty_label_name",
            f"is not used with data.on_empty_label={on_empty}",
            "data.on_empty_label=class, or data.empty_label_name=null",
        )
    return None


def _grouped_by_a_field(group_by: str | None, source: str) -> Problem | None:
    kind, _, name = (group_by or "").partition(":")
    if source != "folder" or kind != "field" or not name:
        return None
    return Problem(
        "data.group_by",
        f"{group_by!r}: images in folders have no fields",
        "use path:REGEX, or data=jsonl or data=csv",
    )


def _skips_what_is_checked(on_bad_image: str, check: str) -> Problem | None:
    if on_bad_image != "skip" or check == "full":
        return None
    return Problem(
        "data.on_bad_image",
        f"skip needs every image to be decoded, but data.check={check}",
        "data.check=full, or data.on_bad_image=error",
    )


def _raw_beside_averaged(enabled: bool, score_raw: bool) -> Problem | None:
    if enabled or not score_raw:
        return None
    return Problem(
        "ema.score_raw",
        "without averaged weights (ema.enabled=false) the raw ones are scored anyway",
        "set ema.score_raw=false, or ema.enabled=true",
    )


def _one_target(accuracy: float | None, coverage: float | None) -> Problem | None:
    if (accuracy is None) != (coverage is None):
        return None
    return Problem(
        "calibration.target_accuracy",
        f"{'both' if accuracy is not None else 'neither'} of it and calibration.target_coverage "
        "given",
        "set one of the two and the other to null (calibration.enabled=false turns both off)",
    )


def _cpu_processes_counted(accelerator: str, devices: int) -> Problem | None:
    if accelerator != "cpu" or devices != -1:
        return None
    return Problem("trainer.devices", "-1 means all GPUs; the CPU has none", "use 1")


def _scaler_needs_gpu(accelerator: str, precision: str) -> Problem | None:
    if accelerator != "cpu" or precision != "16-mixed":
        return None
    return Problem("trainer.precision", "16-mixed needs a GPU", "use auto, bf16-mixed or 32-true")


def _frozen_has_weights(freeze: bool, weights: str | None, init_from: str | None) -> Problem | None:
    if not freeze or weights is not None or init_from is not None:
        return None
    return Problem(
        "model.freeze",
        "freezes a backbone of random weights",
        "set model.weights=DEFAULT (or a file), or model.freeze=false",
    )


def _rows_have_columns(source: str, fields: Any) -> Problem | None:
    if source == "folder" or fields is not None:
        return None
    return Problem(
        "data.fields",
        f"names no columns, but data.source={source} has some",
        f"use data={source}",
    )


def _disk_cache_has_folder(cache: str, cache_dir: str | None) -> Problem | None:
    if cache != "disk" or cache_dir is not None:
        return None
    return Problem(
        "data.cache_dir", "is null, but data.cache=disk", "give a folder on a fast local disk"
    )


def _known_export(precision: str) -> Problem | None:
    problem = None if precision == "fp32" else EXPORTS.problem(precision)
    return problem and replace(problem, fix=f"{problem.fix}; fp32 is model.onnx alone")


RULES: tuple[Rule, ...] = (
    Rule(("model.name",), BACKBONES.problem),
    Rule(("optimizer.name",), OPTIMIZERS.problem),
    Rule(("schedule.name",), SCHEDULES.problem),
    Rule(("loss.name",), LOSSES.problem),
    Rule(("export.precision",), _known_export),
    Rule(("checkpoint.monitor", "ema.enabled", "ema.score_raw"), _monitor_is_measured),
    Rule(("schedule.warmup_epochs", "trainer.max_epochs"), _warmup_fits),
    Rule(
        (
            "data.sampler",
            "loss.class_weights",
            "loss.logit_adjustment",
            "data.allow_double_balance",
        ),
        _balanced_once,
    ),
    Rule(("ckpt_path", "task.checkpoint_path", "model.init_from"), _one_start),
    Rule(("data.split.val", "data.split.test"), _shares_leave_some),
    Rule(("data.split.folds", "data.split.fold"), _fold_exists),
    Rule(("data.split.folds", "data.split.manifest"), _folds_or_manifest),
    Rule(("data.on_empty_label", "data.empty_label_name"), _empty_label_named),
    Rule(("data.group_by", "data.source"), _grouped_by_a_field),
    Rule(("data.on_bad_image", "data.check"), _skips_what_is_checked),
    Rule(("ema.enabled", "ema.score_raw"), _raw_beside_averaged),
    Rule(("calibration.target_accuracy", "calibration.target_coverage"), _one_target),
    Rule(("trainer.accelerator", "trainer.devices"), _cpu_processes_counted),
    Rule(("trainer.accelerator", "trainer.precision"), _scaler_needs_gpu),
    Rule(("model.freeze", "model.weights", "model.init_from"), _frozen_has_weights),
    Rule(("data.source", "data.fields"), _rows_have_columns),
    Rule(("data.cache", "data.cache_dir"), _disk_cache_has_folder),
)
