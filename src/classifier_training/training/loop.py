"""Training until the best epoch is known: a fresh start, a resume, or nothing left to do."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from loguru import logger

from classifier_training.artifacts.checkpoint import ModelCard
from classifier_training.artifacts.run_folder import RunFolder
from classifier_training.config.schema import Config
from classifier_training.data.datamodule import ImageDataModule
from classifier_training.data.loading import shared_heap
from classifier_training.models.classifier import Classifier
from classifier_training.training.checkpoint import RunCheckpoint
from classifier_training.training.diverged import with_dump
from classifier_training.training.failures import explain
from classifier_training.training.finite import NonFiniteLossError
from classifier_training.training.hardware import Hardware
from classifier_training.training.module import ClassifierModule
from classifier_training.training.resume import Start, adopt
from classifier_training.training.signals import StopSignals, interrupted
from classifier_training.training.start import build_loss
from classifier_training.training.together import Together
from classifier_training.training.trainer import build_trainer


@dataclass(frozen=True)
class TrainingParts:
    """What training is made of; all of it can be refused, so all is built before it starts.

    Attributes:
        config: The validated configuration.
        folder: The run folder.
        hardware: Device and precision.
        network: With its starting weights.
        data: Feeds the manifest.
        callbacks: Observers and early stopping.
        loggers: Trackers.
        start: The checkpoint to go on from, if any.
    """

    config: Config
    folder: RunFolder
    hardware: Hardware
    network: Classifier
    data: ImageDataModule
    callbacks: list[Callback]
    loggers: list[Logger]
    start: Start | None


def train_network(parts: TrainingParts, card: ModelCard) -> dict[str, Any]:
    """Train and return the best epoch: ``epoch``, ``metric``, ``score``.

    Args:
        parts: What to train, with what.
        card: What checkpoints say about the network.

    Raises:
        ClassifierTrainingError: A loader process died.
        ConfigError: The memory does not suffice.
        DivergedError: The loss is not finite; its batch is in ``diverged/``.
        InterruptedRunError: A signal stopped the run; it is saved.
        ResumeError: All is trained, but the best epoch is lost.
    """
    config, folder, data = parts.config, parts.folder, parts.data
    signals = StopSignals()
    together = Together()
    checkpoint = RunCheckpoint(folder, config.checkpoint, signals, together)
    last = None if parts.start is None else adopt(parts.start, folder)
    if parts.start is None or not _is_trained(parts.start.state, checkpoint, config):
        loss = build_loss(config, data.manifest)
        module = ClassifierModule(parts.network, loss, card, config, data.manifest.describe)
        trainer = build_trainer(
            config, parts.hardware, folder, checkpoint, parts.callbacks, parts.loggers
        )
        _announce(config, data)
        with signals, shared_heap(data.workers), together.ending(trainer):
            _fit(trainer, module, parts, last)
        _report_steps(module, trainer)
    else:  # it may have been stopped between its last save and its last picture
        checkpoint.tell(parts.callbacks)
    return {
        "epoch": checkpoint.best_epoch,
        "metric": config.checkpoint.monitor,
        "score": checkpoint.best_score,
    }


def _fit(
    trainer: pl.Trainer,
    module: ClassifierModule,
    parts: TrainingParts,
    start: Path | None,
) -> None:
    folder, data = parts.folder, parts.data
    try:
        trainer.fit(module, data, ckpt_path=start, weights_only=True)
    except SystemExit as error:
        # What Lightning makes of SIGINT before training starts, and of a second one.
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise interrupted(signal.SIGINT, "the newest checkpoint", folder.resume_command) from error
    except NonFiniteLossError as error:
        raise with_dump(error, folder, data, module.global_rank) from error
    except (RuntimeError, MemoryError) as error:
        explained = explain(error, parts.config)
        if explained is None:
            raise
        raise explained from error


def _is_trained(state: dict[str, Any], checkpoint: RunCheckpoint, config: Config) -> bool:
    """Say whether nothing is left to train, and if so restore what the checkpoint knows.

    Raises:
        ResumeError: All is trained, but the best epoch is lost.
    """
    done = len(state["rows"])
    if not state["stopped_early"] and done < config.trainer.max_epochs:
        return False
    checkpoint.load_state_dict(state)
    checkpoint.require_best()
    checkpoint.tidy()
    return True


def _announce(config: Config, data: ImageDataModule) -> None:
    batches = len(data.sampler())
    logger.info(
        "training: {} x {} batches of {} images, {} loader processes",
        config.trainer.max_epochs,
        batches,
        config.data.images_a_batch,
        data.workers,
    )


def _report_steps(module: ClassifierModule, trainer: pl.Trainer) -> None:
    if module.skipped_steps:
        logger.warning(
            "training: {} of {} optimiser steps were skipped by the gradient scaler (overflow)",
            module.skipped_steps,
            trainer.global_step,
        )
