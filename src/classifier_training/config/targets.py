"""Which classes a ``_target_`` may name. Decided on the exact dotted name, before any import.

A prefix would be no check: ``lightning.pytorch.callbacks.model_checkpoint.torch.load`` imports.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from classifier_training.errors import Problem

_V2 = """
AugMix AutoAugment CenterCrop ColorJitter Compose ElasticTransform GaussianBlur GaussianNoise
Grayscale Identity JPEG Pad RGB RandAugment RandomAdjustSharpness RandomAffine RandomApply
RandomAutocontrast RandomChannelPermutation RandomChoice RandomCrop RandomEqualize RandomErasing
RandomGrayscale RandomHorizontalFlip RandomInvert RandomOrder RandomPerspective
RandomPhotometricDistort RandomPosterize RandomResize RandomResizedCrop RandomRotation
RandomShortestSize RandomSolarize RandomVerticalFlip RandomZoomOut Resize ScaleJitter
TrivialAugmentWide
"""

_DEGRADED_BY = "classifier_training.transforms.corruptions"
_DEGRADATIONS = "BilinearDownscale GaussianNoise JpegCompression Pixelation ZoomIn ZoomOut"

_CALLBACKS = """
BackboneFinetuning DeviceStatsMonitor EarlyStopping GradientAccumulationScheduler
LearningRateMonitor ModelCheckpoint ModelSummary OnExceptionCheckpoint RichModelSummary
SpikeDetection ThroughputMonitor Timer
"""

_OWN_CALLBACKS = """
confusion_matrix.ConfusionMatrix dataset_statistics.DatasetStatistics early_stopping.EarlyStopping
gradient_monitor.GradientMonitor learning_rate_monitor.LearningRateMonitor model_info.ModelInfo
onnx_export.ONNXExport progress.Progress sample_visualization.SampleVisualization
sampler_distribution.SamplerDistribution throughput.Throughput training_history.TrainingHistory
"""

_LOGGERS = "CometLogger CSVLogger MLFlowLogger TensorBoardLogger WandbLogger"

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

KNOWN: Mapping[str, frozenset[str]] = {
    "transforms": frozenset(
        {
            *(f"torchvision.transforms.v2.{name}" for name in _V2.split()),
            "classifier_training.transforms.erasing.RandomErasing",
            *(f"{_DEGRADED_BY}.{name}" for name in _DEGRADATIONS.split()),
        }
    ),
    "callbacks": frozenset(
        {
            *(f"lightning.pytorch.callbacks.{name}" for name in _CALLBACKS.split()),
            *(f"classifier_training.callbacks.{name}" for name in _OWN_CALLBACKS.split()),
        }
    ),
    "logging": frozenset(
        {
            *(f"lightning.pytorch.loggers.{name}" for name in _LOGGERS.split()),
            "classifier_training.trackers.mlflow_tracker.MlflowTracker",
            "classifier_training.trackers.steps_csv.StepsCsv",
            "classifier_training.trackers.tensorboard_tracker.TensorBoardTracker",
            "classifier_training.trackers.wandb_tracker.WandbTracker",
        }
    ),
}


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
        allowed = KNOWN.get(section)
        if allowed is None:
            problems.append(
                Problem(
                    where,
                    f"_target_ is not allowed in section {section!r}",
                    f"remove it; classes may be named in {', '.join(KNOWN)} only",
                )
            )
        elif not isinstance(value, str) or not (
            value in allowed or _is_under(value, allow_modules)
        ):
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
