"""Which checkpoint a run goes on from, and bringing one from elsewhere into the run's folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loguru import logger

from classifier_training.config.schema import Config
from classifier_training.errors import ConfigError, ResumeError
from classifier_training.models.classifier import Classifier
from classifier_training.models.weights import read_checkpoint
from classifier_training.run.checkpoint import ModelMetadata, unpack_metadata
from classifier_training.run.checkpoint_files import CheckpointFiles
from classifier_training.run.folder import RunFolder
from classifier_training.system.files import replacing
from classifier_training.training.checkpoint import RunCheckpoint
from classifier_training.training.optimizers import parameter_groups


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run goes on from.

    Attributes:
        path: Where it lies.
        state: What :class:`RunCheckpoint` keeps in it.
    """

    path: Path
    state: dict[str, Any]


def find_start(
    config: Config, folder: RunFolder, metadata: ModelMetadata, network: Classifier
) -> Start | None:
    """Return the checkpoint to go on from, or None for a fresh start. Nothing is written.

    It is read and checked here; Lightning reads it a second time, to restore it.

    Raises:
        ConfigError: The given checkpoint is missing or damaged, or all those of the run are.
        ResumeError: It does not fit the configuration, or is none of ours.
    """
    found = _newest_valid(folder)
    if found is None and config.start_checkpoint:
        given = Path(config.start_checkpoint).expanduser()
        found = given, read_checkpoint(given)
    if found is None:
        return None
    path, checkpoint = found
    stored = unpack_metadata(checkpoint, path)
    try:
        state = _state_of(checkpoint)
        trained = _trained(network, config, checkpoint)
    except (KeyError, IndexError, TypeError) as error:
        raise ResumeError(
            f"{path} holds weights but no state of a training to go on with ({error!r})",
            expected="checkpoints/last.ckpt, or another that a run saved by itself",
            fix="start a new run from its weights: model.init_from",
        ) from error
    for what, ours, theirs in (
        ("model", metadata.model_name, stored.model_name),
        ("classes", metadata.class_map.names, stored.class_map.names),
        ("preprocessing", metadata.spec, stored.spec),
        ("ema.enabled", metadata.averaged, stored.averaged),
        ("number of trained tensors (model.freeze)", *trained),
    ):
        if ours != theirs:
            raise ResumeError(
                f"{path} has another {what}: {theirs!r:.200}",
                expected=f"{ours!r:.200}",
                fix="go on with the configuration of that run, or start a new run from its "
                "weights: model.init_from",
            )
    logger.info(
        "run: going on from {} (epoch {}, step {})",
        path,
        checkpoint["epoch"],
        checkpoint["global_step"],
    )
    return Start(path, state)


def _trained(
    network: Classifier, config: Config, checkpoint: dict[str, Any]
) -> tuple[list[int], list[int]]:
    stored = checkpoint["optimizer_states"][0]["param_groups"]
    ours = parameter_groups(network, config.optimizer)
    return [len(group["params"]) for group in ours], [len(group["params"]) for group in stored]


def adopt(start: Start, folder: RunFolder) -> Path:
    """Make a checkpoint the ``last`` of this folder, and the best of its past the ``best``.

    A best checkpoint of another moment (of a later epoch, or of some other run in that folder) is
    left alone: what counts as best must be what this checkpoint calls best.

    Returns:
        The path of ``last``.
    """
    if start.path == folder.last:
        return start.path
    best = _best_beside(start)
    if best is None:
        folder.best.unlink(missing_ok=True)
    else:
        _copy(best, folder.best)
    _copy(start.path, folder.last)
    return folder.last


def _newest_valid(folder: RunFolder) -> tuple[Path, dict[str, Any]] | None:
    """Return ``last``, or, if the disk lost it, the newest other whole checkpoint; with content."""
    others = sorted(folder.checkpoints.glob("epoch=*.ckpt"), reverse=True)
    files = CheckpointFiles(folder.checkpoints)
    damage: ConfigError | None = None
    for path in (folder.last, *others, folder.best):
        if not path.exists():
            continue
        try:
            content = read_checkpoint(path)
        except ConfigError as error:
            logger.warning("run: {}; looking for the next newest", error.what)
            damage = damage or error
            continue
        if files.is_listed(path.name) and not files.is_ours(path):
            logger.warning("run: {} is whole, but not what this run wrote there", path)
        return path, content
    if damage is not None:
        raise ConfigError(
            f"{damage.what}; no other checkpoint of this run is whole",
            expected=f"one whole checkpoint in {folder.checkpoints}",
            fix="put one back from a copy, or train anew in another hydra.run.dir",
        ) from damage
    return None


def _best_beside(given: Start) -> Path | None:
    start, state = given.path, given.state
    epoch = state["best_epoch"]
    if epoch < 0:
        return None
    past = state["rows"][: epoch + 1]
    for path in (start, start.with_name("best.ckpt"), start.with_name(f"epoch={epoch:04d}.ckpt")):
        if path.exists() and _ends_with(path, past):
            return path
    return None


def _ends_with(path: Path, past: list[dict[str, float]]) -> bool:
    """Say whether a checkpoint was saved at the end of the last of these epochs."""
    try:
        checkpoint = read_checkpoint(path)
        rows = _state_of(checkpoint)["rows"]
        step = checkpoint["global_step"]
    except (ConfigError, KeyError):
        return False
    return bool(rows == past and step == past[-1]["step"])


def _state_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = checkpoint["callbacks"][RunCheckpoint.__qualname__]
    return state


def _copy(source: Path, target: Path) -> None:
    if source != target:  # a copy, no link: another run's file stays that run's
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
