"""Secrets stay in the environment: what a run writes holds none of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from classifier_training.errors import Problem

# Variables that hold a secret by their name, as WANDB_API_KEY, HF_TOKEN, AWS_SECRET_ACCESS_KEY.
_NAME = re.compile(
    r"(API_?KEY|ACCESS_KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE
)
# Shorter values occur in texts by chance.
_SHORTEST = 8
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@:]*:[^/\s@]+@")


def secret_problems(config: Mapping[str, Any]) -> list[Problem]:
    """Find values that hold a secret of the environment, as ``${oc.env:WANDB_API_KEY}`` does.

    They would be written to ``config.yaml`` and sent to trackers.

    Args:
        config: The composed configuration as plain containers.
    """
    return [
        Problem(key, f"it holds the value of ${name}", "remove it: it is read where it is needed")
        for key, value in _leaves(config, "")
        for name, secret in _secrets().items()
        if secret in value
    ]


def holds_secret(text: str) -> str | None:
    """Return the name of the environment's secret whose value a text holds, if any."""
    return next((name for name, secret in _secrets().items() if secret in text), None)


def redacted(text: str) -> str:
    """Return the text with secrets of the environment, and passwords in addresses, struck out."""
    for secret in sorted(_secrets().values(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _USER_IN_ADDRESS.sub("***@", text)


def _secrets() -> dict[str, str]:
    """Return them by the name of their variable."""
    return {
        name: value
        for name, value in os.environ.items()
        if _NAME.search(name) and len(value) >= _SHORTEST
    }


def _leaves(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _leaves(value, f"{key}.{index}")
    elif isinstance(node, str):
        yield key, node
