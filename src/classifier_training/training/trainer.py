"""Lightning's trainer, built from the configuration."""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.loggers import Logger

from classifier_training.config.instantiate import instantiate
from classifier_training.config.schema import Config
from classifier_training.errors import ConfigError
from classifier_training.run.folder import RunFolder
from classifier_training.trackers.feed import Feed
from classifier_training.trackers.isolation import IsolatedLogger
from classifier_training.training.checkpoint import RunCheckpoint
from classifier_training.training.checkpoint_io import AtomicCheckpointIO
from classifier_training.training.hardware import Hardware

# The package that a logger imports when it is used, which is also the name of the extra.
_EXTRAS = {
    "MLFlowLogger": "mlflow",
    "MlflowTracker": "mlflow",
    "TensorBoardLogger": "tensorboard",
    "TensorBoardTracker": "tensorboard",
    "WandbLogger": "wandb",
    "WandbTracker": "wandb",
}


def build_callbacks(config: Config) -> list[Callback]:
    """Build what ``callbacks`` lists; entries set to null are off.

    Raises:
        ConfigError: A class refuses its arguments.
    """
    return [
        instantiate(spec, Callback, f"callbacks.{name}")
        for name, spec in config.callbacks.items()
        if spec is not None
    ]


def build_loggers(config: Config) -> list[Logger]:
    """Build what ``logging`` lists, each with its errors isolated; entries set to null are off.

    Raises:
        ConfigError: A package is not installed, or a class refuses its arguments.
    """
    loggers: list[Logger] = []
    for key, spec in config.logging.items():
        if spec is not None:
            _require_package(key, str(spec["_target_"]))
            inner = instantiate(spec, Logger, f"logging.{key}")  # type: ignore[type-abstract]
            loggers.append(IsolatedLogger(key, inner))
    return loggers


def _require_package(key: str, target: str) -> None:
    extra = _EXTRAS.get(target.rpartition(".")[2])
    if extra is not None and find_spec(extra) is None:
        raise ConfigError(
            f"logging.{key} needs {extra}, which is not installed",
            expected=f"the extra [{extra}]",
            fix=f"pip install 'classifier-training[{extra}]'",
        )


def build_trainer(
    config: Config,
    hardware: Hardware,
    folder: RunFolder,
    checkpoint: RunCheckpoint,
    callbacks: list[Callback],
    feed: Feed,
) -> pl.Trainer:
    """Build the trainer."""
    _quiet_lightning()
    trainer = config.trainer
    return pl.Trainer(
        accelerator=hardware.accelerator,
        devices=trainer.devices,
        strategy=trainer.strategy,
        num_nodes=trainer.num_nodes,
        precision=hardware.precision,  # type: ignore[arg-type]  # one of Lightning's literals
        max_epochs=trainer.max_epochs,
        gradient_clip_val=trainer.gradient_clip_val,
        gradient_clip_algorithm=trainer.gradient_clip_algorithm,
        accumulate_grad_batches=trainer.accumulate_grad_batches,
        log_every_n_steps=trainer.log_every_n_steps,
        num_sanity_val_steps=trainer.num_sanity_val_steps,
        limit_train_batches=trainer.limit_train_batches,
        limit_val_batches=trainer.limit_val_batches,
        deterministic=trainer.deterministic,
        benchmark=trainer.benchmark and not trainer.deterministic,
        profiler=trainer.profiler,
        callbacks=[*callbacks, feed.callback, checkpoint],
        logger=feed.loggers or False,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder.path,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        use_distributed_sampler=False,  # ours is distributed by itself, and resumable
    )


def _quiet_lightning() -> None:
    """Leave out what Lightning says about itself; its warnings stay, but for those below."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # the number follows from the allowed cores
        ".*is smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*dataloader is not resumable.*",  # it is, through its sampler
        ".*in eval mode at the start of training.*",  # the average, and a frozen backbone
        ".*sync_dist=True.*",  # our scores are summed over processes before they are logged
        ".*isinstance.treespec, LeafSpec.* is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message)
