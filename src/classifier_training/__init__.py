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
    from classifier_training.evaluation.evaluate import evaluate
    from classifier_training.exporters.onnx import export
    from classifier_training.inference.predictor import Predictor
    from classifier_training.run.checkpoint import load_model
    from classifier_training.training.api import train

__all__ = [
    "Callback",
    "Predictor",
    "",
    "__version__",
    "evaluate",
    "export",
    "load_model",
    "train",
]

_HOMES = {
    "Callback": "callbacks.base",
    "Predictor": "inference.predictor",
    "evaluate": "evaluation.evaluate",
    "export": "exporters.onnx",
    "load_model": "run.checkpoint",
    "": "run.folder",
    "train": "training.api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
