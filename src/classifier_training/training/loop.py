"""Training until the best epoch is known: from the start, resumed, or with nothing left to do."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from loguru import logger

from classifier_training.config.schema import Config
from classifier_training.data.datamodule import ImageDataModule
from classifier_training.data.loading import shared_heap
from classifier_training.training.build import TrainingParts, build_loss
from classifier_training.training.checkpoint import RunCheckpoint
from classifier_training.training.distributed import Processes
from classifier_training.training.failures import explain
from classifier_training.training.module import ClassifierModule
from classifier_training.training.nan_guard import NonFiniteLossError, with_dump
from classifier_training.training.resume import adopt
from classifier_training.training.signals import StopSignals, interrupted
from classifier_training.training.trainer import build_trainer


def train_network(parts: TrainingParts, *, is_main: bool = True) -> dict[str, Any]:
    """Train and return the best epoch: ``epoch``, ``metric``, ``score``.

    Args:
        parts: What to train, with what.
        is_main: Whether this process writes the files of the run.

    Raises:
        ClassifierTrainingError: A DataLoader worker died.
        ConfigError: Not enough memory.
        DivergedError: The loss is not finite; its batch is in ``diverged/``.
        InterruptedRunError: A signal stopped the run; it is saved.
        ResumeError: All epochs are trained, but the best checkpoint is lost.
    """
    config, folder, data, start = parts.config, parts.folder, parts.data, parts.start
    processes = Processes()
    signals = StopSignals(config.checkpoint.grace_s, folder.resume_command, processes)
    checkpoint = RunCheckpoint(folder, config.checkpoint, signals, processes)
    resumed = None
    if start is not None:
        resumed = adopt(start, folder) if is_main else start.path
    if start is not None and _is_trained(start.state, checkpoint, config):
        # The run may have been stopped between its last save and its last plot.
        checkpoint.notify([*parts.callbacks, parts.feed.callback], is_start=True)
    else:
        module = ClassifierModule(
            parts.network,
            build_loss(config.loss, data.manifest),
            parts.metadata,
            config,
            data.manifest.describe,
        )
        trainer = build_trainer(
            config, parts.hardware, folder, checkpoint, parts.callbacks, parts.feed
        )
        _announce(config, data)
        with signals, shared_heap(data.workers), processes.ending(trainer):
            _fit(trainer, module, parts, resumed)
        _report_steps(module, trainer)
    return {
        "epoch": checkpoint.ranking.best_epoch,
        "metric": config.checkpoint.monitor,
        "score": checkpoint.ranking.best_score,
    }


def _fit(
    trainer: pl.Trainer, module: ClassifierModule, parts: TrainingParts, start: Path | None
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
    """Whether nothing is left to train; if so, restore what the checkpoint knows.

    Raises:
        ResumeError: All epochs are trained, but the best checkpoint is lost.
    """
    done = len(state["rows"])
    if not state["stopped_early"] and done < config.trainer.max_epochs:
        return False
    checkpoint.load_state_dict(state)
    checkpoint.require_best()
    checkpoint.tidy()
    return True


def _announce(config: Config, data: ImageDataModule) -> None:
    logger.info(
        "training: {} x {} batches of {} images, {} DataLoader workers",
        config.trainer.max_epochs,
        len(data.sampler()),
        config.data.images_a_batch,
        data.workers,
    )


def _report_steps(module: ClassifierModule, trainer: pl.Trainer) -> None:
    if module.skipped_steps:
        logger.warning(
            "training: {} of {} optimizer steps were skipped by the gradient scaler (overflow)",
            module.skipped_steps,
            trainer.global_step,
        )
