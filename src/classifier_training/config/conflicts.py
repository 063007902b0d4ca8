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
    is_weighted = config.loss.class_weights in ("inverse", "effective")
    is_double = config.data.sampler == "weighted" and is_weighted
    if not is_double or config.data.allow_double_balance:
        return None
    return Problem(
        "loss.class_weights",
        f"together with data.sampler={config.data.sampler} it corrects the same imbalance twice",
        "set one of the two to none, or data.allow_double_balance=true",
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


def _raw_beside_averaged(config: Any) -> Problem | None:
    if config.ema.enabled or not config.ema.score_raw:
        return None
    return Problem(
        "ema.score_raw",
        "without averaged weights (ema.enabled=false) the raw ones are scored anyway",
        "set ema.score_raw=false, or ema.enabled=true",
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


_RULES: tuple[Callable[[Any], Problem | None], ...] = (
    _monitor_is_measured,
    _warmup_fits,
    _balanced_once,
    _one_start,
    _shares_leave_some,
    _raw_beside_averaged,
    _cpu_processes_counted,
    _scaler_needs_gpu,
    _something_to_train_frozen,
    _rows_have_columns,
)
