"""What a name in the configuration refers to: backbones, optimizers, schedules, losses, classes.

An entry of this package is a dotted string, so that a configuration is checked without importing
torch. A module of yours adds entries with the ``register_*`` functions; name the module on the
command line (``allow_modules=[my_module]``) and it is imported before the configuration is checked.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, TypeVar

from classifier_training.errors import ConfigError, Problem

T = TypeVar("T")
# "module:attribute" of this package, or the object itself.
Target = str | Any


def load(target: Target) -> Any:
    """Return the object that a target names."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    return attrgetter(attribute)(importlib.import_module(module))


@dataclass(frozen=True)
class Backbone:
    """A network, and where its head is.

    Attributes:
        target: Called without arguments, returns the network with random weights: ``(N, 3, H, W)``
            float32 to ``(N, 1000)`` or any other number of classes.
        published: Its best published weights (a member of torchvision's ``WeightsEnum``), if any.
        head: Dotted name of its last linear layer, which is replaced by one for our classes.
    """

    target: Target
    published: Target | None
    head: str

    def build(self) -> Any:
        """Return the network with random weights."""
        return load(self.target)()

    @property
    def weights(self) -> Any:
        """The published weights; None without."""
        return load(self.published)


@dataclass(frozen=True)
class Builder:
    """A function that builds something from its section of the configuration."""

    target: Target

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        return load(self.target)(*arguments)


@dataclass(frozen=True)
class AllowedClass:
    """A class that a ``_target_`` may name.

    Attributes:
        observes: Whether it only watches training: it may then change between parts of a run.
    """

    observes: bool = False


class Registry(Generic[T]):
    """Entries by name.

    Args:
        key: The configuration key that holds such a name.
    """

    def __init__(self, key: str, entries: dict[str, T]) -> None:
        self._key = key
        self._entries = entries

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def add(self, name: str, entry: T) -> None:
        """Add an entry.

        Raises:
            ConfigError: Another one has the name.
        """
        if self._entries.setdefault(name, entry) != entry:
            raise ConfigError(
                f"{self._key}: {name!r} is registered already",
                expected="a name of its own for each entry",
                fix="register it under another name",
            )

    def __getitem__(self, name: str) -> T:
        """Return an entry.

        Raises:
            ConfigError: There is none of that name.
        """
        if problem := self.problem(name):
            raise ConfigError(
                f"{self._key}={name}: {problem.message}",
                expected=f"one of {', '.join(self)}",
                fix=problem.fix,
            )
        return self._entries[name]

    def problem(self, name: str) -> Problem | None:
        """Return what is wrong with a name in the configuration, None if it is registered."""
        if name in self._entries:
            return None
        close = difflib.get_close_matches(name, self._entries, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return Problem(
            self._key,
            f"{name!r} is not registered",
            f"{hint}there are: {', '.join(self)}; a module of yours adds others: allow_modules=[…]",
        )


_MODELS = "torchvision.models"

BACKBONES = Registry(
    "model.name",
    {
        "resnet18": Backbone(f"{_MODELS}:resnet18", f"{_MODELS}:ResNet18_Weights.DEFAULT", "fc"),
        "resnet34": Backbone(f"{_MODELS}:resnet34", f"{_MODELS}:ResNet34_Weights.DEFAULT", "fc"),
        "resnet50": Backbone(f"{_MODELS}:resnet50", f"{_MODELS}:ResNet50_Weights.DEFAULT", "fc"),
    },
)
OPTIMIZERS = Registry(
    "optimizer.name", {"adamw": Builder("classifier_training.training.optimizers:adamw")}
)
SCHEDULES = Registry(
    "schedule.name", {"cosine": Builder("classifier_training.training.schedules:warmup_cosine")}
)
LOSSES = Registry(
    "loss.name", {"cross_entropy": Builder("classifier_training.models.losses:cross_entropy")}
)
# Beside model.onnx, which is always written.
EXPORTS = Registry(
    "export.precision",
    {
        "int8": Builder("classifier_training.exporters.int8:export_configured"),
    },
)

_CALLBACKS = "classifier_training.callbacks"
_CORRUPTIONS = "classifier_training.transforms.corruptions"
_TRACKERS = "classifier_training.trackers"
_LIGHTNING = "lightning.pytorch.callbacks"
_OBSERVING = AllowedClass(observes=True)

TRANSFORMS: Registry[AllowedClass] = Registry(
    "transforms",
    {
        "classifier_training.transforms.erasing.RandomErasing": AllowedClass(),
        **{
            f"{_CORRUPTIONS}.{name}": AllowedClass()
            for name in (
                "BilinearDownscale",
                "GaussianNoise",
                "JpegCompression",
                "Pixelation",
                "ZoomIn",
                "ZoomOut",
            )
        },
    },
)
CALLBACKS: Registry[AllowedClass] = Registry(
    "callbacks",
    {
        f"{_CALLBACKS}.confusion_matrix.ConfusionMatrix": _OBSERVING,
        f"{_CALLBACKS}.dataset_statistics.DatasetStatistics": _OBSERVING,
        f"{_CALLBACKS}.early_stopping.EarlyStopping": AllowedClass(),
        f"{_CALLBACKS}.gradient_monitor.GradientMonitor": _OBSERVING,
        f"{_CALLBACKS}.learning_rate_monitor.LearningRateMonitor": _OBSERVING,
        f"{_CALLBACKS}.model_info.ModelInfo": _OBSERVING,
        f"{_CALLBACKS}.onnx_export.ONNXExport": _OBSERVING,
        f"{_CALLBACKS}.progress.Progress": AllowedClass(),
        f"{_CALLBACKS}.sample_visualization.SampleVisualization": _OBSERVING,
        f"{_CALLBACKS}.sampler_distribution.SamplerDistribution": _OBSERVING,
        f"{_CALLBACKS}.throughput.Throughput": _OBSERVING,
        f"{_CALLBACKS}.training_history.TrainingHistory": _OBSERVING,
        **{
            f"{_LIGHTNING}.{name}": _OBSERVING
            for name in (
                "DeviceStatsMonitor",
                "LearningRateMonitor",
                "ModelCheckpoint",
                "ModelSummary",
                "OnExceptionCheckpoint",
                "RichModelSummary",
                "SpikeDetection",
                "ThroughputMonitor",
            )
        },
    },
)
TRACKERS: Registry[AllowedClass] = Registry(
    "logging",
    {
        f"{_TRACKERS}.mlflow_tracker.MlflowTracker": AllowedClass(),
        f"{_TRACKERS}.steps_csv.StepsCsv": AllowedClass(),
        f"{_TRACKERS}.tensorboard_tracker.TensorBoardTracker": AllowedClass(),
        f"{_TRACKERS}.wandb_tracker.WandbTracker": AllowedClass(),
    },
)


def register_backbone(name: str, *, head: str, weights: Any = None) -> Callable[[T], T]:
    """Register what builds a network, under ``model.name``.

    Decorates a class or function that is called without arguments; see :class:`Backbone`.

    Args:
        name: Its name.
        head: Dotted name of its last linear layer.
        weights: Its published weights, a member of torchvision's ``WeightsEnum``.
    """

    def register(build: T) -> T:
        BACKBONES.add(name, Backbone(build, weights, head))
        return build

    return register


def register_optimizer(name: str) -> Callable[[T], T]:
    """Register a function ``(parameter groups, OptimizerConfig) -> torch.optim.Optimizer``.

    Each group is a dict with ``params``, ``lr``, ``weight_decay`` and ``name``. Its state dict must
    hold plain values and tensors, or a run cannot be resumed.
    """
    return _registers(OPTIMIZERS, name)


def register_schedule(name: str) -> Callable[[T], T]:
    """Register a function ``(ScheduleConfig, warm-up steps, total steps) -> factor``.

    ``factor(step)`` is what the base learning rate is multiplied by at an optimizer step (from 0);
    it depends on the step alone, so that a resumed run continues exactly.
    """
    return _registers(SCHEDULES, name)


def register_loss(name: str) -> Callable[[T], T]:
    """Register a function ``(LossConfig, class weights, log priors) -> nn.Module``.

    The module maps logits ``(N, C)`` float32 and labels ``(N,)`` int64 to a scalar. Class weights
    ``(C,)`` float32 are None where none are configured; log priors ``(C,)`` float32 are the
    logarithms of the classes' shares of the training images.
    """
    return _registers(LOSSES, name)


def register_export(name: str) -> Callable[[T], T]:
    """Register a function ``(run folder, ExportConfig)`` under ``export.precision``.

    It is called when a run is complete, and writes beside ``model.onnx`` what it verified.
    """
    return _registers(EXPORTS, name)


def register_transform(cls: T) -> T:
    """Let ``_target_`` in ``transforms.train`` name a class: an ``nn.Module`` on uint8 images."""
    return _allows(TRANSFORMS, cls)


def register_callback(cls: T) -> T:
    """Let ``_target_`` in ``callbacks`` name a class, a subclass of Lightning's ``Callback``."""
    return _allows(CALLBACKS, cls)


def _registers(registry: Registry[Builder], name: str) -> Callable[[T], T]:
    def register(build: T) -> T:
        registry.add(name, Builder(build))
        return build

    return register


def _allows(registry: Registry[AllowedClass], cls: T) -> T:
    observes = bool(getattr(cls, "observes", False))
    registry.add(f"{cls.__module__}.{getattr(cls, '__qualname__', '')}", AllowedClass(observes))
    return cls
