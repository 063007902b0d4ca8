"""What a checkpoint holds, and whether two hold the same, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint the way a careful user would."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def differences(left: Any, right: Any, where: str = "") -> list[str]:
    """List the places where two nests of plain values and tensors differ at all."""
    if type(left) is not type(right):
        return [f"{where}: {type(left).__name__} and {type(right).__name__}"]
    if isinstance(left, dict):
        found = [f"{where}: keys {sorted(map(str, left.keys() ^ right.keys()))}"] * (
            left.keys() != right.keys()
        )
        for key in left.keys() & right.keys():
            found += differences(left[key], right[key], f"{where}/{key}")
        return found
    if isinstance(left, (list, tuple)):
        if len(left) != len(right):
            return [f"{where}: {len(left)} and {len(right)} items"]
        pairs = enumerate(zip(left, right, strict=True))
        return [line for at, pair in pairs for line in differences(*pair, f"{where}/{at}")]
    if isinstance(left, torch.Tensor):
        same = left.dtype == right.dtype and torch.equal(left, right)
        return [] if same else [f"{where}: tensors differ"]
    return [] if left == right else [f"{where}: {left!r} and {right!r}"]


def training_state(path: Path) -> dict[str, Any]:
    """Return what must be equal after an interruption: all but names and versions."""
    content = read(path)
    return {
        "epoch": content["epoch"],
        "global_step": content["global_step"],
        "weights": content["state_dict"],
        "optimizer": content["optimizer_states"],
        "schedule": content["lr_schedulers"],
        "steps": content["steps"],
        "callbacks": {
            name: state for name, state in content["callbacks"].items() if "Kill" not in name
        },
    }
