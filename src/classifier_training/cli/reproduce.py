"""``classifier reproduce``: a run trained again from what it recorded, and compared with itself."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loguru import logger
from rich.console import Console
from rich.table import Table
from rich.text import Text

from classifier_training.cli.console import guarded, need_extra, set_up_logging
from classifier_training.errors import (
    EXIT_EXPORT,
    EXIT_OK,
    ConfigError,
    DataError,
    ResumeError,
)

if TYPE_CHECKING:
    from classifier_training.config.schema import Config
    from classifier_training.evaluation.reproduction import Condition, Outcome
    from classifier_training.run.reader import Run


def run_reproduce(
    run: Path,
    *,
    out: Path | None,
    data_root: Path | None,
    allow_modules: list[str],
    tolerance: float,
    debug: bool,
) -> int:
    """Train the run again and return the exit code: 0 when its numbers came again, 5 if not."""
    set_up_logging(debug=debug)

    def task() -> int:
        for module in ("omegaconf", "pydantic", "torch", "lightning"):
            if find_spec(module) is None:
                raise need_extra(module, "train")
        from classifier_training.run.folder import RunFolder
        from classifier_training.run.reader import Run

        stored = Run(run)
        record = stored.record
        target = out or run.with_name(f"{run.name}_reproduced")
        config = _stored_config(stored, data_root, allow_modules)
        if config.data.batch_size == "auto":
            config = config.with_batch_size(int(record["batch_size"]))
        then = _epochs(stored)
        if target.resolve() == run.resolve():
            raise ConfigError(
                f"--out {target} is the run itself",
                expected="another folder",
                fix="choose another one, or leave --out out",
            )
        found = _conditions(config, record)
        _show_conditions(found, record["changes"])
        _require_same_data(found, config)

        from classifier_training.training.fit import fit

        command = shlex.join(["classifier", "reproduce", str(run), "--out", str(target)])
        if fit(config, RunFolder(target, resume_command=command), command) is None:
            return EXIT_OK  # a further process of a distributed run
        from classifier_training.evaluation.reproduction import compare_epochs

        outcome = compare_epochs(
            then,
            _epochs(Run(target)),
            is_finished=record["status"] == "finished",
            tolerance=tolerance,
        )
        _show_outcome(outcome, found, tolerance, target)
        return EXIT_EXPORT if outcome.verdict == "different" else EXIT_OK

    return guarded(task, debug=debug)


def _stored_config(run: Run, data_root: Path | None, allow_modules: list[str]) -> Config:
    """Read ``config.yaml`` and check it as if it had been typed.

    A stored file is not trusted: classes of modules outside the built-in table are refused unless
    the modules are allowed again, and references (``${...}``) are not followed. Trackers and
    ``output_uri`` are off: a repetition is no news and belongs nowhere else.
    """
    from omegaconf import OmegaConf

    from classifier_training.config.validate import validate

    content, path = dict(run.config), run.folder.config
    if not isinstance(content.get("data"), dict):
        raise ResumeError(
            f"cannot read {path}: it is not a configuration",
            expected="the config.yaml that the run wrote",
            fix="restore it from a copy",
        )
    _refuse_references(content, path)
    content |= {"allow_modules": allow_modules, "logging": {}, "output_uri": None, "resume": "auto"}
    if data_root is not None:
        content["data"]["data_root"] = str(data_root)
    return validate(OmegaConf.create(content), allow_modules=allow_modules)


def _refuse_references(node: Any, path: Path) -> None:
    if isinstance(node, str) and "${" in node:
        raise ConfigError(
            f"{path} holds a reference: {node!r}",
            expected="the resolved values that a run writes",
            fix="restore the file from a copy",
        )
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        _refuse_references(child, path)


def _epochs(run: Run) -> list[dict[str, float]]:
    if not run.history:
        raise ResumeError(
            f"{run.path} has no metrics.csv with a row",
            expected="a run with at least one finished epoch",
            fix="resume that run until it has one",
        )
    return run.history


def _conditions(config: Config, record: dict[str, Any]) -> list[Condition]:
    from classifier_training.data.index import index_data
    from classifier_training.evaluation.reproduction import conditions
    from classifier_training.run.provenance import git_state, machine, versions
    from classifier_training.training.hardware import choose_hardware

    root = Path(config.data.data_root).expanduser()
    if not root.exists():
        raise DataError(
            f"the data is not there: {root} does not exist",
            expected="the images that the run was trained on",
            fix="--data-root PATH, where they lie now",
        )
    hardware = choose_hardware(config.trainer)
    now = {
        "git": git_state(),
        "versions": versions(),
        "hardware": {
            **machine(),
            "device": hardware.device.name,
            "precision": hardware.precision,
        },
        "data_fingerprint": index_data(config.data).manifest.fingerprint(),
    }
    return conditions(record, now)


def _require_same_data(found: list[Condition], config: Config) -> None:
    data = next(condition for condition in found if condition.name == "data")
    if not data.is_same:
        raise DataError(
            f"the data in {config.data.data_root} is not what the run was trained on: fingerprint "
            f"{data.now} now, {data.then} then (images, labels or splits changed)",
            expected="the same images with the same labels in the same splits",
            fix="--data-root PATH of an unchanged copy, or train a new run: classifier train",
        )


def _show_conditions(found: list[Condition], changes: list[str]) -> None:
    different = [condition for condition in found if not condition.is_same]
    same = ", ".join(condition.name for condition in found if condition.is_same)
    print(f"as when the run was trained: {same or 'nothing'}")
    if sys.stdout.isatty() and different:
        table = Table("different", "then", "now", box=None, pad_edge=False)
        for condition in different:
            table.add_row(*map(Text, (condition.name, condition.then, condition.now)))
        Console().print(table)
    else:
        for condition in different:
            print(f"different: {condition.name}: {condition.then} then, {condition.now} now")
    for change in changes:
        print(f"the run itself was changed since it began: {change}")
    sys.stdout.flush()
    if different or changes:
        logger.info("results may differ in the last digits, or more")


def _show_outcome(outcome: Outcome, found: list[Condition], tolerance: float, target: Path) -> None:
    if outcome.verdict == "equal":
        print(f"\nreproduced: all metrics of {outcome.epochs} epochs are equal bit by bit")
    elif outcome.verdict == "close":
        print(
            f"\nreproduced within {tolerance:g}: the metrics of {outcome.epochs} epochs differ by "
            f"at most {outcome.largest:.2g} ({outcome.where})"
        )
    else:
        different = ", ".join(condition.name for condition in found if not condition.is_same)
        print(
            f"\nnot reproduced: {outcome.where} differs by {outcome.largest:.2g} (allowed: "
            f"{tolerance:g}); different conditions: {different or 'none that is recorded'}"
        )
    print(f"the repetition: {target}")
    sys.stdout.flush()
