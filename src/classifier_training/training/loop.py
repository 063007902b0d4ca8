"""Training until the best epoch is known: a fresh start, a resume, or nothing left to do."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from loguru import logger

from classifier_training.config.schema import Config, ModelConfig
from classifier_training.data.balance import class_weights, log_priors
from classifier_training.data.datamodule import ImageDataModule
from classifier_training.data.loading import shared_heap
from classifier_training.data.manifest import Manifest
from classifier_training.errors import ClassifierTrainingError, ConfigError
from classifier_training.inference.class_map import ClassMap
from classifier_training.models.classifier import Classifier
from classifier_training.models.losses import ClassificationLoss
from classifier_training.models.weights import read_checkpoint
from classifier_training.run.checkpoint import ModelMetadata, scored_state, unpack_metadata
from classifier_training.run.folder import RunFolder
from classifier_training.training.checkpoint import RunCheckpoint
from classifier_training.training.distributed import Processes
from classifier_training.training.hardware import Hardware
from classifier_training.training.module import ClassifierModule
from classifier_training.training.nan_guard import NonFiniteLossError, with_dump
from classifier_training.training.resume import Start, adopt
from classifier_training.training.signals import StopSignals, interrupted
from classifier_training.training.trainer import build_trainer


def build_network(config: ModelConfig, class_map: ClassMap) -> Classifier:
    """Build the network with its starting weights, in the layout it is trained in.

    Raises:
        ConfigError: Weights that cannot be had or do not fit.
    """
    weights = None if config.init_from else config.weights
    network = Classifier(config.name, len(class_map), weights=weights, freeze=config.freeze)
    if config.init_from:
        _warm_start(network, config, class_map)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)
    return network


def build_loss(config: Config, manifest: Manifest) -> ClassificationLoss:
    """Build the training loss; class weights and priors follow from the training counts."""
    counts = manifest.counts("train")
    weights = class_weights(counts, config.loss.class_weights)
    tau = config.loss.logit_adjustment
    return ClassificationLoss(
        None if weights is None else torch.from_numpy(weights),
        label_smoothing=config.loss.label_smoothing,
        gamma=config.loss.focal_gamma,
        logit_offsets=tau * torch.from_numpy(log_priors(counts)) if tau else None,
    )


def _warm_start(network: Classifier, config: ModelConfig, class_map: ClassMap) -> None:
    """Copy the scored weights of an earlier run; the head only when the classes are the same."""
    given = Path(str(config.init_from))
    path = RunFolder(given).best if given.is_dir() else given
    checkpoint = read_checkpoint(path)
    metadata = unpack_metadata(checkpoint, path)
    if metadata.model_name != config.name:
        raise ConfigError(
            f"model.init_from={given} is a {metadata.model_name}, not a {config.name}",
            expected="a run of the same model",
            fix=f"model={metadata.model_name}, or another run",
        )
    state = scored_state(checkpoint, metadata)
    same_classes = metadata.class_map == class_map
    if not same_classes:
        head = network.head_prefix
        state = {key: value for key, value in state.items() if not key.startswith(head)}
    network.load_state_dict(state, strict=same_classes)
    logger.info(
        "model: weights of run {} ({})",
        metadata.run_id,
        "with its head" if same_classes else "head new: other classes",
    )


_NO_MEMORY = re.compile(r"can't allocate memory|out of memory|not enough memory", re.IGNORECASE)
_WORKER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) "
    r"(?:is (killed by signal: [^.]+)|(exited[^.]*))"
)


def explain(error: BaseException, config: Config) -> ClassifierTrainingError | None:
    """Return what to tell instead of an error of torch; None for one that nothing is known about.

    Args:
        error: What training raised.
        config: For what could be made smaller.
    """
    text = str(error)
    is_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _NO_MEMORY.search(text)
    worker = _WORKER.search(text)
    if worker is not None:
        return _worker_death(worker, config)
    return _out_of_memory(text, config) if is_memory else None


def _out_of_memory(text: str, config: Config) -> ConfigError:
    size, batch = config.transforms.image_size, config.data.images_a_batch
    batches = config.trainer.accumulate_grad_batches
    smaller = max(1, batch // 2)
    ways = [
        f"data.batch_size={smaller} trainer.accumulate_grad_batches={2 * batches} "
        "(the same step, half the memory)",
        "data.batch_size=auto (the largest that fits)",
        f"a smaller transforms.image_size than {size}",
        "a smaller model",
    ]
    if config.trainer.precision == "32-true":
        ways.insert(1, "trainer.precision=auto")
    if not config.model.freeze:
        ways.append("model.freeze=true")
    return ConfigError(
        f"the memory does not suffice for batches of {batch} images of {size} x {size}: "
        f"{(text.splitlines() or ['out of memory'])[0][:300]}",
        expected="a batch, its activations and gradients in the memory of the device",
        fix=f"in a new hydra.run.dir: {'; or '.join(ways)}. What was saved before is whole",
    )


def _worker_death(found: re.Match[str], config: Config) -> ClassifierTrainingError:
    how = found[2] or found[3]
    return ClassifierTrainingError(
        f"a process that loads images (pid {found[1].strip()}) was lost: {how.strip()}",
        expected="loader processes that live as long as the run; a kill from outside is most often "
        "the system's answer to too little memory",
        fix="run the same command again to go on from the newest checkpoint, with fewer of them: "
        f"data.num_workers=N (now {config.data.num_workers}), data.prefetch_factor=1 or "
        "data.cache=none",
    )


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


def train_network(parts: TrainingParts, metadata: ModelMetadata) -> dict[str, Any]:
    """Train and return the best epoch: ``epoch``, ``metric``, ``score``.

    Args:
        parts: What to train, with what.
        metadata: What checkpoints say about the network.

    Raises:
        ClassifierTrainingError: A loader process died.
        ConfigError: The memory does not suffice.
        DivergedError: The loss is not finite; its batch is in ``diverged/``.
        InterruptedRunError: A signal stopped the run; it is saved.
        ResumeError: All is trained, but the best epoch is lost.
    """
    config, folder, data = parts.config, parts.folder, parts.data
    signals = StopSignals()
    processes = Processes()
    checkpoint = RunCheckpoint(folder, config.checkpoint, signals, processes)
    last = None if parts.start is None else adopt(parts.start, folder)
    if parts.start is None or not _is_trained(parts.start.state, checkpoint, config):
        loss = build_loss(config, data.manifest)
        module = ClassifierModule(parts.network, loss, metadata, config, data.manifest.describe)
        trainer = build_trainer(
            config, parts.hardware, folder, checkpoint, parts.callbacks, parts.loggers
        )
        _announce(config, data)
        with signals, shared_heap(data.workers), processes.ending(trainer):
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
