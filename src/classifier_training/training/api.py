"""Training from Python: the same run as ``classifier train`` makes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from classifier_training.config.compose import (
    CONF_MODULE,
    DEFAULT_ROOT,
    allowed_modules,
    compose_config,
    make_strict,
    set_to,
)
from classifier_training.config.validate import validate
from classifier_training.run.folder import RunFolder
from classifier_training.run.reader import Run
from classifier_training.training.fit import fit

_CONF = resources.files(CONF_MODULE)


def train(
    data: str | Path,
    *,
    out: str | Path,
    model: str | None = None,
    epochs: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    config_name: str = DEFAULT_ROOT,
) -> Run:
    """Train a classifier, or resume the run in ``out``.

    Args:
        data: Folder of the labelled images (``data.data_root``).
        out: Run folder (``hydra.run.dir``).
        model: A model of ``conf/model``, or the name of a registered backbone.
        epochs: ``trainer.max_epochs``.
        overrides: Any other keys, nested or dotted, for example
            ``{"optimizer.learning_rate": 1e-3, "data": "jsonl"}``; the name of a config group
            chooses one of its options.
        config_name: Name of the root configuration.

    Returns:
        The finished run.

    Raises:
        ClassifierTrainingError: What the user can fix; the same errors as on the command line.
    """
    given: dict[str, Any] = dict(overrides or {})
    given["data.data_root"] = str(data)
    if epochs is not None:
        given["trainer.max_epochs"] = epochs
    if model is not None:
        is_option = (_CONF / "model" / f"{model}.yaml").is_file()
        given["model" if is_option else "model.name"] = model
    return train_with(list(as_overrides(given)), out=out, root=config_name)


def train_with(overrides: Sequence[str], *, out: str | Path, root: str = DEFAULT_ROOT) -> Run:
    """Train with overrides as they are typed on the command line.

    Raises:
        ClassifierTrainingError: What the user can fix.
    """
    given, folder = list(overrides), Path(out)
    composed = compose_config(make_strict(given), root=root, output_dir=str(folder))
    config = validate(composed, allow_modules=allowed_modules(given))
    flags = [] if root == DEFAULT_ROOT else ["--config-name", root]
    command = shlex.join(["classifier", "train", *flags, *given])
    resume = f"{command} {shlex.quote(set_to('hydra.run.dir', str(folder)))}"
    run = fit(config, RunFolder(folder, resume_command=resume), command)
    return Run(folder) if run is None else run


def as_overrides(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield Hydra overrides for a nested or dotted mapping."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, str) and (key == "allow_modules" or (_CONF / key).is_dir()):
            yield f"{key}={value}"
        elif key == "allow_modules":
            yield f"{key}=[{','.join(value)}]"
        elif isinstance(value, Mapping) and value:
            yield from as_overrides(value, f"{key}.")
        else:
            yield f"{key}={_quoted(value)}"


def _quoted(value: Any) -> str:
    """Write a value in Hydra's grammar, in which an unquoted string may be read as a number."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_quoted, value)) + "]"
    # A backslash counts only before a quote.
    text = re.sub(
        r"(\\*)('|$)", lambda found: 2 * found[1] + found[2].replace("'", r"\'"), str(value)
    )
    return f"'{text}'"
