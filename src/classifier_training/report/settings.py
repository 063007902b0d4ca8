"""What was configured: the keys that were given first, then all of them."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Setting:
    """A key with its value as YAML writes it."""

    key: str
    value: str


@dataclass(frozen=True)
class Settings:
    """The configuration of a run.

    Attributes:
        given: What was typed, in that order, with the values that came of it.
        rest: All other keys, sorted.
    """

    given: tuple[Setting, ...]
    rest: tuple[Setting, ...]


def settings_of(config: Mapping[str, Any], command: str) -> Settings:
    """Sort a configuration by whether its keys were given on the command line."""
    overrides = given_overrides(command)
    given = [
        Setting(key, _as_yaml(config[key]) if key in config else value)
        for key, value in overrides.items()
    ]
    rest = [Setting(key, _as_yaml(config[key])) for key in sorted(config) if key not in overrides]
    return Settings(tuple(given), tuple(rest))


def given_overrides(command: str) -> dict[str, str]:
    """Return ``KEY=VALUE`` of a recorded command, on the command line or in Python, by key."""
    if command.startswith("train(["):
        words = _words_of_call(command)
    else:
        try:
            words = shlex.split(command)
        except ValueError:  # an open quote: nothing can be said
            return {}
    pairs = (word.lstrip("+~").partition("=") for word in words if not word.startswith("--"))
    return {key: value for key, sign, value in pairs if sign and "/" not in key.partition(".")[0]}


def _words_of_call(command: str) -> list[str]:
    try:
        call = ast.parse(command, mode="eval").body
        words = ast.literal_eval(call.args[0]) if isinstance(call, ast.Call) else []
    except (SyntaxError, ValueError, IndexError):
        return []
    return [word for word in words if isinstance(word, str)]


def _as_yaml(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
