"""``config.yaml`` of a run: the one place that reads it, also those of earlier versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from classifier_training.errors import ResumeError

# libyaml where PyYAML has it: 0.8 ms per configuration instead of 11.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Modules whose classes a `_target_` may name and that have moved since.
MOVED_MODULES: Mapping[str, str] = {
    "classifier_training.transforms.degradations": "classifier_training.transforms.corruptions",
}

# Keys that a stored configuration may lack, with the value that was in force before they existed.
# A row is added with each new key; without it every older run would refuse to resume.
ADDED_KEYS: Mapping[str, Any] = {
    "loss.name": "cross_entropy",
    "optimizer.name": "adamw",
    "schedule.name": "cosine",
}


def read_config(path: Path) -> dict[str, Any]:
    """Read a stored configuration as nested plain values, in today's names.

    Args:
        path: ``config.yaml`` of a run.

    Raises:
        ResumeError: It is missing or damaged.
    """
    try:
        content = yaml.load(path.read_bytes(), Loader=_LOADER)  # noqa: S506 - a safe loader
        if not isinstance(content, dict):
            raise ValueError("it holds no mapping")
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ResumeError(
            f"cannot read {path}: {error}",
            expected="the config.yaml that the run wrote",
            fix="restore it from a copy of the run",
        ) from error
    return migrated(content)


def migrated(content: dict[Any, Any]) -> dict[str, Any]:
    """Return a stored configuration with moved classes renamed and missing keys added."""
    found: dict[str, Any] = _renamed(content)
    for key, value in ADDED_KEYS.items():
        *sections, name = key.split(".")
        node: Any = found
        for section in sections:
            node = node.setdefault(section, {}) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.setdefault(name, value)
    return found


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings by dotted key; lists are leaves."""
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _renamed(node: Any) -> Any:
    if isinstance(node, list):
        return [_renamed(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        str(key): _target(value) if key == "_target_" else _renamed(value)
        for key, value in node.items()
    }


def _target(name: Any) -> Any:
    if not isinstance(name, str):
        return name
    module, _, cls = name.rpartition(".")
    return f"{MOVED_MODULES[module]}.{cls}" if module in MOVED_MODULES else name
