"""Build the objects that ``_target_`` names, after import and before anything is written.

The names were already checked against a table (:mod:`targets`); here the class must be of the
expected base and its signature must take the arguments.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from classifier_training.errors import ConfigError

T = TypeVar("T")


def instantiate(spec: Mapping[str, Any], base: type[T], where: str) -> T:
    """Build one object.

    Args:
        spec: ``_target_`` and keyword arguments; arguments may themselves hold specs of ``base``.
        base: The class that the object must be an instance of.
        where: The key it stands at, for error messages.

    Raises:
        ConfigError: The class does not exist, is of another kind, or refuses its arguments.
    """
    cls = _resolve(str(spec["_target_"]), base, where)
    arguments = {
        key: _argument(value, base, f"{where}.{key}")
        for key, value in spec.items()
        if key != "_target_"
    }
    try:
        inspect.signature(cls).bind(**arguments)
        return cls(**arguments)
    except ConfigError:
        raise
    except Exception as error:  # each library has its own for arguments that it dislikes
        raise ConfigError(
            f"{where}: {cls.__name__} refuses its arguments: {error}",
            expected=f"{cls.__name__}{inspect.signature(cls)}",
            fix="correct the arguments in the YAML or on the command line",
        ) from error


def _argument(value: Any, base: type[T], where: str) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return instantiate(value, base, where)
        return {key: _argument(item, base, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_argument(item, base, f"{where}.{index}") for index, item in enumerate(value)]
    return value


def _resolve(target: str, base: type[T], where: str) -> type[T]:
    module_name, _, class_name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{where}: cannot import {target}: {error}",
            expected="an importable class",
            fix="check the spelling, and that its package is installed in this environment",
        ) from error
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise ConfigError(
            f"{where}: {target} is not a {base.__name__}",
            expected=f"a subclass of {base.__module__}.{base.__qualname__}",
            fix="name a class of that kind",
        )
    is_library = module_name.startswith(("torchvision.", "lightning.", "classifier_training."))
    if not is_library and found.__module__ != module_name:
        raise ConfigError(
            f"{where}: {target} is an alias of a class of {found.__module__}",
            expected="a class defined in the allowed module itself",
            fix=f"name it where it is defined: allow_modules=[{found.__module__}]",
        )
    return found
