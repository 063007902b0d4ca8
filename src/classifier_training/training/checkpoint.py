"""Saving at the moments from which a run can go on exactly, in files that are whole or absent."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT

from classifier_training.callbacks.base import Callback
from classifier_training.config.metric_names import mode_of
from classifier_training.config.schema import CheckpointConfig
from classifier_training.errors import ConfigError, DivergedError, ResumeError
from classifier_training.run.checkpoint_files import CheckpointFiles
from classifier_training.run.folder import RunFolder
from classifier_training.run.history import History, write_history
from classifier_training.system.files import replacing
from classifier_training.training.distributed import Processes
from classifier_training.training.signals import StopSignals, interrupted


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file in the same folder, syncs it and renames it; reads no pickles."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save atomically, and only what can be loaded again.

        Raises:
            ConfigError: Something in it is no plain value, most likely the state of a callback.
        """
        with replacing(Path(path)) as temporary:
            _save(checkpoint, temporary)
            require_plain(temporary)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load plain types only, whatever the caller asks for."""
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded


class RunCheckpoint(Checkpoint):
    """Keeps ``last``, ``best`` and the top k, and the rows of ``metrics.csv``.

    It saves (a) after an epoch, when validation, early stopping and all scores are done, and (b)
    inside an epoch, after an optimiser step that is not the epoch's last: when a signal asks for a
    stop, and every so many steps or minutes. A save in a validation hook would lose that epoch's
    score on resume, one inside an accumulation window its gradients.

    Args:
        run: Where files go.
        config: What decides which epoch is best, and when to save.
        signals: Says whether a stop was asked for.
        processes: Connects the processes of the run.
    """

    def __init__(
        self, run: RunFolder, config: CheckpointConfig, signals: StopSignals, processes: Processes
    ) -> None:
        super().__init__()
        self._run = run
        self._config = config
        self._sign = 1.0 if mode_of(config.monitor) == "max" else -1.0
        self._signals = signals
        self._processes = processes
        self._files = CheckpointFiles(run.checkpoints)
        self._saved_at = time.monotonic()
        self._save_s = 0.0
        self._validation_started = 0.0
        self.rows: list[dict[str, float]] = []
        self.best_epoch = -1
        self.best_score = float("nan")
        self._kept: dict[str, float] = {}
        self._is_stopped_early = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals from Lightning, and bring the files to the restored epoch."""
        self._signals.install()
        if trainer.received_sigterm:  # while Lightning was setting up
            raise interrupted(signal.SIGTERM, "what was saved before", self._run.resume_command)
        self._processes.connect(trainer.world_size)
        self._saved_at = time.monotonic()
        # A run that goes on from another folder brings that folder's state but not its files.
        self._kept = {
            name: score
            for name, score in self._kept.items()
            if (self._run.checkpoints / name).exists()
        }
        if not self._run.best.exists():
            self.best_epoch, self.best_score = -1, float("nan")
        if trainer.is_global_zero:
            self.tidy()
            self.tell(trainer.callbacks)  # type: ignore[attr-defined]  # Lightning sets it untyped

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save at a point to go on from, if it is time or a signal asks for it; then also stop."""
        is_exact = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not is_exact or trainer.is_last_batch:
            if self._processes.is_alone and self._signals.is_late(self._config.grace_s):
                self._stop(trainer, "the newest checkpoint")
            return
        received, is_due = self._processes.largest(
            self._signals.received, self._is_due(trainer.global_step)
        )
        if not received and not is_due:
            return
        if received:
            self._signals.adopt(received)
        self._publish(trainer, [self._run.last.name])
        if received:
            self._stop(trainer, "everything up to the last optimiser step", is_saved=True)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._validation_started = time.monotonic()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop without saving, if validation would outlast the grace that a signal leaves.

        Several processes need not have the same number of batches here; they always finish.
        """
        if not self._signals.received or not self._processes.is_alone:
            return
        per_batch = (time.monotonic() - self._validation_started) / (batch_idx + 1)
        total = sum(int(count) for count in trainer.num_val_batches)
        ahead = per_batch * (total - batch_idx - 1) + self._save_s
        if self._signals.is_late(self._config.grace_s, ahead=ahead):
            self._stop(trainer, "the newest checkpoint (the validation would have taken too long)")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row, save once, and let best, top k and last follow in this order."""
        row = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        row.pop("train/loss_step", None)
        epoch = trainer.current_epoch
        self.rows.append({"epoch": epoch, "step": trainer.global_step, **row})
        self._is_stopped_early = trainer.should_stop
        self._save_epoch(trainer, epoch, row[self._config.monitor])
        if trainer.is_global_zero:
            self.write_history()
            self.tell(trainer.callbacks)  # type: ignore[attr-defined]  # Lightning sets it untyped
        (received,) = self._processes.largest(self._signals.received)
        if received:
            self._signals.adopt(received)
            self._stop(trainer, "everything up to the end of the epoch", is_saved=True)

    def write_history(self) -> None:
        """Write ``metrics.csv`` from the rows known here."""
        if self.rows:
            write_history(self._run.history, self.rows)

    def tell(self, callbacks: Iterable[pl.Callback]) -> None:
        """Show the observers what is recorded; on the first process only."""
        if not self.rows:
            return
        history = History(list(self.rows), self._config.monitor, self.best_epoch)
        for callback in callbacks:
            if isinstance(callback, Callback):
                callback.on_epoch_recorded(self._run, history)

    def tidy(self) -> None:
        """Finish what a kill cut short after the last save: pruning, and ``metrics.csv``."""
        past = {f"epoch={int(row['epoch']):04d}.ckpt" for row in self.rows}
        there = {path.name for path in self._run.checkpoints.glob("epoch=*.ckpt")}
        self._files.drop_unfinished()
        if self.best_epoch >= 0:
            self._files.restore(self._run.best.name, self.best_epoch)
        self._files.prune(sorted((past & there) - self._kept.keys()))
        self.write_history()

    def require_best(self) -> None:
        """Refuse to end a run whose best epoch is lost.

        Raises:
            ResumeError: There is no ``best.ckpt``.
        """
        if self._run.best.exists():
            return
        raise ResumeError(
            f"all epochs are trained, but {self._run.best} (epoch {self.best_epoch}) is missing",
            expected="the checkpoint of the best epoch beside the one to go on from",
            fix="put it back, or train longer: trainer.max_epochs",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return plain types: rows, the best so far, and the files that are ours to prune."""
        return {
            "rows": self.rows,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "kept": self._kept,
            "stopped_early": self._is_stopped_early,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.rows = state_dict["rows"]
        self.best_epoch = state_dict["best_epoch"]
        self.best_score = state_dict["best_score"]
        self._kept = state_dict["kept"]

    def _is_due(self, step: int) -> bool:
        steps, minutes = self._config.every_n_steps, self._config.every_minutes
        is_time = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        return is_time or (steps is not None and step % steps == 0)

    def _save_epoch(self, trainer: pl.Trainer, epoch: int, score: float) -> None:
        if math.isnan(score):
            raise DivergedError(
                f"{self._config.monitor} of epoch {epoch} is not a number",
                expected="a finite score",
                fix="a lower optimizer.learning_rate, or trainer.precision=32-true",
            )
        is_best = self.best_epoch < 0 or self._sign * score > self._sign * self.best_score
        if is_best:
            self.best_epoch, self.best_score = epoch, score
        name = f"epoch={epoch:04d}.ckpt"
        self._kept[name] = score
        ranked = sorted(self._kept, key=lambda key: (-self._sign * self._kept[key], key))
        dropped = ranked[self._config.save_top_k :]
        for key in dropped:
            del self._kept[key]
        # The state above is part of what is saved. Last comes last: a kill in between leaves the
        # epoch to be trained again, to the same best.
        names = [name] * (name in self._kept) + [self._run.best.name] * is_best
        self._publish(trainer, [*names, self._run.last.name])
        if trainer.is_global_zero:
            self._files.prune(dropped)

    def _publish(self, trainer: pl.Trainer, names: list[str]) -> None:
        """Save once, under these names; when it returns, that is so for all processes."""
        started = time.monotonic()
        with self._files.saving() as draft:
            trainer.save_checkpoint(draft)
            if trainer.is_global_zero:
                self._files.publish(
                    draft, names, epoch=trainer.current_epoch, step=trainer.global_step
                )
        self._processes.wait()
        self._saved_at = time.monotonic()
        self._save_s = self._saved_at - started

    def _stop(self, trainer: pl.Trainer, saved: str, *, is_saved: bool = False) -> NoReturn:
        self._processes.part(trainer)
        self._signals.stop(saved, self._run.resume_command, is_saved=is_saved)


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    """Let a full or failing disk say so: torch would say "unexpected pos" in its place."""
    try:
        with path.open("wb") as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def require_plain(path: Path) -> None:
    """Refuse a file that could never be loaded again. Its tensors are not read.

    Raises:
        ConfigError: It holds a value that only running code could make.
    """
    found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    if found:
        raise ConfigError(
            f"the checkpoint would hold a {found[0]} that cannot be loaded without running code",
            expected="plain values and tensors in what every callback's state_dict returns",
            fix="turn that value into a Python number, string, list or dict, or switch the "
            "callback off",
        )
