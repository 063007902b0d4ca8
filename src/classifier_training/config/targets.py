"""Which classes a ``_target_`` may name. Decided on the exact dotted name, before any import.

A prefix would be no check: ``lightning.pytorch.callbacks.model_checkpoint.torch.load`` imports.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from classifier_training.config.registry import CALLBACKS, TRACKERS, TRANSFORMS
from classifier_training.errors import Problem

# Every public class of the kind, by library, as of the locked versions: a class that an upgrade
# brings is refused until the file is updated (make golden-update) and the class was looked at.
_SNAPSHOT = Path(__file__).with_name("library_classes.json")

# Public names of the libraries that are left out, with the reason that a user is told.
EXCLUDED: Mapping[str, str] = {
    **{
        f"torchvision.transforms.v2.{name}": "it runs an arbitrary function"
        for name in ("Lambda", "Transform")
    },
    **{
        f"torchvision.transforms.v2.{name}": "it works on whole batches, not on one image"
        for name in ("CutMix", "MixUp")
    },
    **{
        f"torchvision.transforms.v2.{name}": "it does not return one image"
        for name in ("FiveCrop", "TenCrop", "UniformTemporalSubsample")
    },
    **{
        f"torchvision.transforms.v2.{name}": "images are uint8 tensors until the device "
        "normalises them (transforms.mean and transforms.std)"
        for name in (
            "ConvertImageDtype",
            "LinearTransformation",
            "Normalize",
            "PILToTensor",
            "ToDtype",
            "ToImage",
            "ToPILImage",
            "ToPureTensor",
            "ToTensor",
        )
    },
    **{
        f"torchvision.transforms.v2.{name}": "it is for detection, not classification"
        for name in (
            "ClampBoundingBoxes",
            "ClampKeyPoints",
            "ConvertBoundingBoxFormat",
            "RandomIoUCrop",
            "SanitizeBoundingBoxes",
            "SanitizeKeyPoints",
            "SetClampingMode",
        )
    },
    **{
        f"lightning.pytorch.callbacks.{name}": "it changes weights behind the scored ones"
        for name in (
            "EMAWeightAveraging",
            "ModelPruning",
            "StochasticWeightAveraging",
            "WeightAveraging",
        )
    },
    **{
        f"lightning.pytorch.callbacks.{name}": "the run has its own; a second one would collide"
        for name in ("ProgressBar", "RichProgressBar", "TQDMProgressBar")
    },
    **{
        f"lightning.pytorch.callbacks.{name}": "it trains outside the recorded run"
        for name in ("BatchSizeFinder", "LearningRateFinder")
    },
    **{
        f"lightning.pytorch.callbacks.{name}": "it is a base class or runs arbitrary functions"
        for name in (
            "BaseFinetuning",
            "BasePredictionWriter",
            "Callback",
            "Checkpoint",
            "LambdaCallback",
        )
    },
    "lightning.pytorch.loggers.LitLogger": "it is no Logger of lightning.pytorch",
    "lightning.pytorch.loggers.Logger": "it is a base class",
}

_REGISTRIES = {"transforms": TRANSFORMS, "callbacks": CALLBACKS, "logging": TRACKERS}


@functools.cache
def library_classes() -> dict[str, frozenset[str]]:
    """Return the public classes of the libraries by section, those that are left out too."""
    content: dict[str, list[str]] = json.loads(_SNAPSHOT.read_text(encoding="utf-8"))
    return {section: frozenset(names) for section, names in content.items()}


def known_classes(section: str) -> frozenset[str]:
    """Return the classes that ``_target_`` may name in a section."""
    return (library_classes()[section] - EXCLUDED.keys()) | frozenset(_REGISTRIES[section])


def target_problems(config: Mapping[str, Any], allow_modules: list[str]) -> list[Problem]:
    """Find every ``_target_`` that may not be used.

    Args:
        config: The composed configuration as plain containers.
        allow_modules: Modules named on the command line.
    """
    problems = []
    for path, value in _targets(config, ()):
        where = ".".join(map(str, path))
        section = str(path[0])
        if section not in _REGISTRIES:
            problems.append(
                Problem(
                    where,
                    f"_target_ is not allowed in section {section!r}",
                    f"remove it; classes may be named in {', '.join(_REGISTRIES)} only",
                )
            )
            continue
        allowed = known_classes(section)
        if not isinstance(value, str) or not (value in allowed or _is_under(value, allow_modules)):
            problems.append(_refused(where, value, allowed))
    problems.extend(_missing_targets(config))
    return problems


def special_key_problems(config: Mapping[str, Any]) -> list[Problem]:
    """Refuse Hydra's other instantiation keys (``_args_``, ``_partial_``, …), at every depth."""
    return [
        Problem(".".join(map(str, path)), "this key is not supported", "remove it")
        for path in _special_keys(config, ())
    ]


def _refused(where: str, value: object, allowed: frozenset[str]) -> Problem:
    if not isinstance(value, str):
        return Problem(where, f"{value!r} is not a class name", "give a dotted class name")
    if value in EXCLUDED:
        return Problem(where, f"{value} cannot be used here: {EXCLUDED[value]}", "remove it")
    return Problem(where, f"{value} is not a known class", _how_to_name(value, allowed))


def _how_to_name(value: str, allowed: frozenset[str]) -> str:
    module, _, name = value.rpartition(".")
    same_name = [known for known in sorted(allowed) if known.rpartition(".")[2] == name]
    close = same_name or difflib.get_close_matches(value, sorted(allowed), n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    if not module:
        return "give the full dotted name of the class"
    return f"for a class of your own add allow_modules=[{module}] to the command"


def _missing_targets(config: Mapping[str, Any]) -> Iterator[Problem]:
    train = (config.get("transforms") or {}).get("train") or []
    for index, item in enumerate(train if isinstance(train, list) else []):
        if isinstance(item, dict) and "_target_" not in item:
            yield Problem(
                f"transforms.train.{index}", "_target_ is missing", "name the transform's class"
            )
    for section in ("callbacks", "logging"):
        entries = config.get(section) or {}
        for name, item in entries.items() if isinstance(entries, dict) else ():
            if isinstance(item, dict) and "_target_" not in item:
                others = [str(other) for other in entries if other != name]
                close = difflib.get_close_matches(str(name), others, n=1)
                hint = f"did you mean {section}.{close[0]}?" if close else "check the name"
                yield Problem(
                    f"{section}.{name}",
                    f"there is no such entry, and a new one needs a _target_ "
                    f"({section} has: {', '.join(others) or 'none'})",
                    hint,
                )


def _is_under(target: str, modules: list[str]) -> bool:
    return any(target.rpartition(".")[0] == module for module in modules)


def _targets(node: object, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield (*path, key), value
            yield from _targets(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _targets(value, (*path, index))


def _special_keys(node: object, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            is_special = isinstance(key, str) and key.startswith("_") and key.endswith("_")
            if is_special and key != "_target_":
                yield (*path, key)
            yield from _special_keys(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _special_keys(value, (*path, index))
