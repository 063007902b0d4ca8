"""Train image classifiers whose measured, saved and exported weights are the same weights.

The public API is what ``__all__`` lists; everything else may change without notice. Names are
imported lazily so that ``import classifier_training`` costs neither torch nor Hydra.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from classifier_training.callbacks.base import Callback
    from classifier_training.config.registry import (
        register_backbone,
        register_callback,
        register_export,
        register_loss,
        register_optimizer,
        register_schedule,
        register_transform,
    )
    from classifier_training.evaluation.evaluate import evaluate
    from classifier_training.exporters.onnx import export
    from classifier_training.inference.predictor import Predictor
    from classifier_training.run.checkpoint import load_model
    from classifier_training.run.reader import Run
    from classifier_training.training.api import train

__all__ = [
    "Callback",
    "Predictor",
    "Run",
    "__version__",
    "evaluate",
    "export",
    "load_model",
    "register_backbone",
    "register_callback",
    "register_export",
    "register_loss",
    "register_optimizer",
    "register_schedule",
    "register_transform",
    "train",
]

_HOMES = {
    "Callback": "callbacks.base",
    "Predictor": "inference.predictor",
    "Run": "run.reader",
    "evaluate": "evaluation.evaluate",
    "export": "exporters.onnx",
    "load_model": "run.checkpoint",
    "register_backbone": "config.registry",
    "register_callback": "config.registry",
    "register_export": "config.registry",
    "register_loss": "config.registry",
    "register_optimizer": "config.registry",
    "register_schedule": "config.registry",
    "register_transform": "config.registry",
    "train": "training.api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
