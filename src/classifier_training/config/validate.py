"""From what Hydra composed to one frozen :class:`Config`, or all its problems at once."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from classifier_training.config.compose import unresolved
from classifier_training.config.rules import rule_problems
from classifier_training.config.schema import Config
from classifier_training.config.secrets import secret_problems
from classifier_training.config.targets import special_key_problems, target_problems
from classifier_training.errors import ConfigError, Problem

# What other tools call our keys.
_OTHER_NAMES = {
    "lr": "optimizer.learning_rate",
    "epochs": "trainer.max_epochs",
    "batch": "data.batch_size",
    "imgsz": "transforms.image_size",
    "img_size": "transforms.image_size",
    "workers": "data.num_workers",
    "pretrained": "model.weights",
    "amp": "trainer.precision",
    "num_classes": "data.classes (the number is counted)",
}


def validate(composed: DictConfig, *, allow_modules: list[str]) -> Config:
    """Check a composed configuration.

    Args:
        composed: What Hydra made of YAML and command line.
        allow_modules: What the command line itself says, which a stored file cannot.

    Raises:
        ConfigError: With every problem: unknown keys, wrong types and ranges, unset values,
            sections that contradict each other, classes that may not be used.
    """
    _import_modules(allow_modules)
    content = _resolve(composed)
    missing = sorted(_missing_keys(content, ""))
    problems = [Problem(key, "is not set", _how_to_set(key)) for key in missing]
    if _as_list(content.get("allow_modules")) != allow_modules:
        problems.append(
            Problem(
                "allow_modules",
                "is set in a file",
                "give it on the command line, where a stored file cannot: allow_modules=[...]",
            )
        )
    problems.extend(secret_problems(content))
    problems.extend(special_key_problems(content))
    problems.extend(target_problems(content, allow_modules))
    config: Config | None = None
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        problems.extend(_problems_of(error, skip={problem.key for problem in problems}))
    problems.extend(rule_problems(content, [problem.key for problem in problems]))
    if problems or config is None:
        raise ConfigError(
            f"the configuration has {len(problems)} problem{'s' if len(problems) != 1 else ''}",
            expected="keys, types and ranges as in the shipped YAML (classifier train --cfg job)",
            fix="correct what is listed above and run the command again",
            problems=tuple(problems),
        )
    return config


def _import_modules(names: list[str]) -> None:
    """Import the modules that the command line allows: they may register names."""
    for name in names:
        try:
            importlib.import_module(name)
        except (ImportError, SyntaxError, ValueError) as error:
            raise ConfigError(
                f"allow_modules: cannot import {name!r}: {error}",
                expected="a module that Python finds",
                fix="correct the name, install its package, or add its folder to PYTHONPATH",
            ) from error


def _missing_keys(node: Any, prefix: str) -> Iterator[str]:
    if node == "???":
        yield prefix
    children = node.items() if isinstance(node, dict) else ()
    for key, value in children:
        yield from _missing_keys(value, f"{prefix}.{key}" if prefix else str(key))


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def _how_to_set(key: str) -> str:
    example = "PATH_TO_YOUR_IMAGES" if key == "data.data_root" else "VALUE"
    return f"add {key}={example} to the command"


def _resolve(composed: DictConfig) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise unresolved(error) from error
    assert isinstance(content, dict)  # a DictConfig becomes a dict
    return {str(key): value for key, value in content.items()}


def _problems_of(error: ValidationError, skip: set[str]) -> Iterator[Problem]:
    seen: set[str] = set()
    items = [
        (item, ".".join(str(part) for part in _real_path(item["loc"])))
        for item in error.errors(include_url=False)
    ]
    for item, where in items:
        # A list that is no string either is of no interest when one of its members is wrong.
        is_parent = any(other.startswith(f"{where}.") for _, other in items)
        if where in skip or is_parent:
            continue
        if item["type"] == "extra_forbidden":
            yield _unknown_key(item, where)
        elif item["type"] == "missing":
            yield Problem(where, "is missing", f"set {where}=VALUE")
        elif where not in seen:  # a union reports each of its members
            seen.add(where)
            yield _wrong_value(error, item, where)


def _unknown_key(item: ErrorDetails, where: str) -> Problem:
    fields = _fields_at(item["loc"][:-1])
    prefix = where.rpartition(".")[0]
    close = difflib.get_close_matches(str(item["loc"][-1]), fields, n=1, cutoff=0.6)
    if close:
        fix = f"did you mean {f'{prefix}.' if prefix else ''}{close[0]}?"
    elif elsewhere := _same_name_elsewhere(str(item["loc"][-1])):
        fix = f"did you mean {elsewhere}?"
    else:
        fix = f"remove it; {prefix or 'the configuration'} has: {', '.join(fields)}"
    return Problem(where, "this key does not exist", fix)


def _wrong_value(error: ValidationError, item: ErrorDetails, where: str) -> Problem:
    path = _real_path(item["loc"])
    reasons = [
        other["msg"].removeprefix("Value error, ")
        for other in error.errors(include_url=False)
        if _real_path(other["loc"]) == path
    ]
    allowed = " or ".join(dict.fromkeys(reason[0].lower() + reason[1:] for reason in reasons))
    is_label = path[:2] == ("data", "classes") and len(path) == 3
    quoted = ' (quote it in YAML: "00")' if is_label else ""
    return Problem(where, f"{item['input']!r} does not fit", f"{allowed}{quoted}")


def _real_path(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Drop the names of union members that pydantic puts into a location."""
    path: list[int | str] = []
    model: Any = Config
    for part in loc:
        if isinstance(model, type) and issubclass(model, BaseModel):
            path.append(part)
            field = model.model_fields.get(str(part))
            model = _section_of(field.annotation) if field else None
        elif isinstance(part, int) or not _is_union_member(part):
            path.append(part)
    return tuple(path)


def _is_union_member(part: str) -> bool:
    starts = ("int", "float", "str", "bool", "list[", "dict[", "constrained-", "literal[", "none")
    return part.startswith(starts)


def _section_of(annotation: Any) -> Any:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _fields_at(loc: tuple[int | str, ...]) -> list[str]:
    model: Any = Config
    for part in loc:
        field = model.model_fields.get(str(part)) if model else None
        model = _section_of(field.annotation) if field else model
    return list(model.model_fields)


def _same_name_elsewhere(name: str) -> str | None:
    """Find a key of that (or nearly that) name in another section."""
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    names = {
        f"{section}.{key}": key
        for section, field in Config.model_fields.items()
        if (model := _section_of(field.annotation))
        for key in model.model_fields
    }
    close = difflib.get_close_matches(name, list(names.values()), n=1, cutoff=0.75)
    return next((path for path, key in names.items() if close and key == close[0]), None)
