"""Rules between sections: values that are each fine but not together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from classifier_training.config.metric_names import monitorable
from classifier_training.errors import Problem


def conflicts(config: Any) -> list[Problem]:
    """Return what contradicts itself.

    Args:
        config: A :class:`Config`, or a plain namespace of the same shape. In the latter, values may
            be missing or of a wrong type (those problems are reported elsewhere); rules that cannot
            be decided are passed over.
    """
    problems = []
    for rule in _RULES:
        with contextlib.suppress(AttributeError, TypeError):
            if problem := rule(config):
                problems.append(problem)
    return problems


def _monitor_is_measured(config: Any) -> Problem | None:
    allowed = monitorable(raw=config.ema.enabled and config.ema.score_raw)
    if config.checkpoint.monitor in allowed:
        return None
    return Problem(
        "checkpoint.monitor",
        f"{config.checkpoint.monitor!r} is not measured",
        f"choose one of {', '.join(allowed)}",
    )


def _warmup_fits(config: Any) -> Problem | None:
    if config.schedule.warmup_epochs < config.trainer.max_epochs:
        return None
    return Problem(
        "schedule.warmup_epochs",
        f"{config.schedule.warmup_epochs} leaves nothing of "
        f"trainer.max_epochs={config.trainer.max_epochs}",
        "shorten the warm-up or train for more epochs",
    )


def _balanced_once(config: Any) -> Problem | None:
    corrections = {
        "data.sampler": config.data.sampler in ("weighted", "sqrt"),
        "loss.class_weights": config.loss.class_weights in ("inverse", "effective"),
        "loss.logit_adjustment": config.loss.logit_adjustment > 0,
    }
    active = [key for key, is_on in corrections.items() if is_on]
    if len(active) < 2 or config.data.allow_double_balance:
        return None
    *others, last = active
    return Problem(
        last,
        f"together with {' and '.join(others)} it corrects the same imbalance twice",
        "keep one of them (none and 0 turn them off), or data.allow_double_balance=true",
    )


def _one_start(config: Any) -> Problem | None:
    spelt = {config.ckpt_path, config.task.checkpoint_path} - {None}
    if len(spelt) > 1:
        return Problem("task.checkpoint_path", "differs from ckpt_path", "give one of the two")
    if spelt and config.model.init_from:
        return Problem(
            "model.init_from",
            "cannot be combined with ckpt_path",
            "give one: ckpt_path goes on with a run, init_from starts a new one from its weights",
        )
    return None


def _shares_leave_some(config: Any) -> Problem | None:
    split = config.data.split
    if split.val + split.test < 1:
        return None
    return Problem(
        "data.split",
        f"val={split.val} and test={split.test} leave nothing for train",
        "make them smaller: together below 1",
    )


def _fold_exists(config: Any) -> Problem | None:
    split = config.data.split
    if split.folds is None and split.fold is None:
        return None
    if split.folds is None:
        return Problem("data.split.fold", "needs data.split.folds", "data.split.folds=5")
    if split.fold is None:
        return Problem(
            "data.split.folds",
            "does not say which fold is val",
            f"data.split.fold=0, or all with -m data.split.fold={_listed(split.folds)}",
        )
    if split.fold >= split.folds:
        return Problem(
            "data.split.fold",
            f"{split.fold} is not below data.split.folds={split.folds}",
            f"use 0 to {split.folds - 1}",
        )
    return None


def _listed(folds: int) -> str:
    shown = range(min(folds, 10))
    return ",".join(map(str, shown)) + (",..." if folds > len(shown) else "")


def _folds_or_manifest(config: Any) -> Problem | None:
    if config.data.split.folds is None or config.data.split.manifest is None:
        return None
    return Problem(
        "data.split.manifest",
        "fixes what is val, which data.split.folds decides anew",
        "give one of the two",
    )


def _empty_label_named(config: Any) -> Problem | None:
    is_class = config.data.on_empty_label == "class"
    name = config.data.empty_label_name
    if is_class and (name is None or not name.strip()):
        return Problem(
            "data.empty_label_name",
            "is missing: data.on_empty_label=class needs the name of the class",
            "data.empty_label_name=unreadable",
        )
    if name is not None and not is_class:
        return Problem(
            "data.empty_label_name",
            f"is not used with data.on_empty_label={config.data.on_empty_label}",
            "data.on_empty_label=class, or data.empty_label_name=null",
        )
    return None


def _grouped_by_a_field(config: Any) -> Problem | None:
    kind, _, name = config.data.group_by.partition(":")
    if config.data.source == "folder" and kind == "field" and name:
        return Problem(
            "data.group_by",
            f"{config.data.group_by!r}: images in folders have no fields",
            "use path:REGEX, or data=jsonl or data=csv",
        )
    return None


def _skips_what_is_checked(config: Any) -> Problem | None:
    if config.data.on_bad_image != "skip" or config.data.check == "full":
        return None
    return Problem(
        "data.on_bad_image",
        f"skip needs every image to be decoded, but data.check={config.data.check}",
        "data.check=full, or data.on_bad_image=error",
    )


def _raw_beside_averaged(config: Any) -> Problem | None:
    if config.ema.enabled or not config.ema.score_raw:
        return None
    return Problem(
        "ema.score_raw",
        "without averaged weights (ema.enabled=false) the raw ones are scored anyway",
        "set ema.score_raw=false, or ema.enabled=true",
    )


def _one_target(config: Any) -> Problem | None:
    section = config.calibration
    if (section.target_accuracy is None) != (section.target_coverage is None):
        return None
    both = "both" if section.target_accuracy is not None else "neither"
    return Problem(
        "calibration.target_accuracy",
        f"{both} of it and calibration.target_coverage given",
        "set one of the two and the other to null (calibration.enabled=false turns both off)",
    )


def _cpu_processes_counted(config: Any) -> Problem | None:
    if config.trainer.accelerator != "cpu" or config.trainer.devices != -1:
        return None
    return Problem("trainer.devices", "-1 means all GPUs; the CPU has none", "use 1")


def _scaler_needs_gpu(config: Any) -> Problem | None:
    if config.trainer.accelerator == "cpu" and config.trainer.precision == "16-mixed":
        return Problem(
            "trainer.precision", "16-mixed needs a GPU", "use auto, bf16-mixed or 32-true"
        )
    return None


def _something_to_train_frozen(config: Any) -> Problem | None:
    if config.model.freeze and config.model.weights is None and config.model.init_from is None:
        return Problem(
            "model.freeze",
            "freezes a backbone of random weights",
            "set model.weights=DEFAULT (or a file), or model.freeze=false",
        )
    return None


def _rows_have_columns(config: Any) -> Problem | None:
    if config.data.source != "folder" and config.data.fields is None:
        return Problem(
            "data.fields",
            f"names no columns, but data.source={config.data.source} has some",
            f"use data={config.data.source}",
        )
    return None


def _disk_cache_has_folder(config: Any) -> Problem | None:
    if config.data.cache != "disk" or config.data.cache_dir is not None:
        return None
    return Problem(
        "data.cache_dir", "is null, but data.cache=disk", "give a folder on a fast local disk"
    )


_RULES: tuple[Callable[[Any], Problem | None], ...] = (
    _monitor_is_measured,
    _warmup_fits,
    _balanced_once,
    _one_start,
    _shares_leave_some,
    _fold_exists,
    _folds_or_manifest,
    _empty_label_named,
    _grouped_by_a_field,
    _skips_what_is_checked,
    _raw_beside_averaged,
    _one_target,
    _cpu_processes_counted,
    _scaler_needs_gpu,
    _something_to_train_frozen,
    _rows_have_columns,
    _disk_cache_has_folder,
)
