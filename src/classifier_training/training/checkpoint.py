"""Saving at the moments from which a run can go on exactly, in files that are whole or absent."""

from __future__ import annotations

import math
import pickle
import re
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT

from classifier_training.artifacts.history import write_history
from classifier_training.artifacts.run_folder import RunFolder
from classifier_training.config.metric_names import mode_of
from classifier_training.errors import ConfigError, DivergedError, ResumeError
from classifier_training.runtime.files import drafting, duplicate, move, replacing
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
            _require_plain(temporary)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load plain types only, whatever the caller asks for."""
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded


class RunCheckpoint(Checkpoint):
    """Keeps ``last``, ``best`` and the top k, and the rows of ``metrics.csv``.

    It saves (a) after an epoch, when validation, early stopping and all scores are done, and (b)
    when a signal asks for a stop, after an optimiser step that is not the epoch's last. A save in
    a validation hook would lose that epoch's score on resume, one inside an accumulation window
    its gradients.

    Args:
        run: Where files go.
        monitor: Metric that decides which epoch is best.
        save_top_k: How many epochs are kept by name.
        signals: Says whether a stop was asked for.
    """

    def __init__(
        self, run: RunFolder, *, monitor: str, save_top_k: int, signals: StopSignals
    ) -> None:
        super().__init__()
        self._run = run
        self._monitor = monitor
        self._sign = 1.0 if mode_of(monitor) == "max" else -1.0
        self._top_k = save_top_k
        self._signals = signals
        self.rows: list[dict[str, float]] = []
        self.best_epoch = -1
        self.best_score = float("nan")
        self._kept: dict[str, float] = {}
        self._is_stopped_early = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals from Lightning, and bring ``metrics.csv`` to the restored epoch."""
        self._signals.install()
        if trainer.received_sigterm:  # while Lightning was setting up
            raise interrupted(signal.SIGTERM, "what was saved before", self._run.resume_command)
        # A run that goes on from another folder brings that folder's state but not its files.
        self._kept = {
            name: score
            for name, score in self._kept.items()
            if (self._run.checkpoints / name).exists()
        }
        if not self._run.best.exists():
            self.best_epoch, self.best_score = -1, float("nan")
        if trainer.is_global_zero:
            self.write_history()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save and stop, if a signal asks for it and this is a point to go on from."""
        if not self._signals.stop_asked:
            return
        is_last = trainer.is_last_batch
        steps_now = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if steps_now and not is_last:
            trainer.save_checkpoint(self._run.last)
            self._signals.stop(self._run.resume_command)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row, save once, and let best, top k and last follow in this order."""
        row = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        row.pop("train/loss_step", None)
        epoch = trainer.current_epoch
        self.rows.append({"epoch": epoch, "step": trainer.global_step, **row})
        self._is_stopped_early = trainer.should_stop
        self._save(trainer, epoch, row[self._monitor])
        if trainer.is_global_zero:
            self.write_history()
        if self._signals.stop_asked:
            self._signals.stop(self._run.resume_command)

    def write_history(self) -> None:
        """Write ``metrics.csv`` from the rows known here."""
        if self.rows:
            write_history(self._run.history, self.rows)

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
            mend="put it back, or train longer: trainer.max_epochs",
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

    def _save(self, trainer: pl.Trainer, epoch: int, score: float) -> None:
        if math.isnan(score):
            raise DivergedError(
                f"{self._monitor} of epoch {epoch} is not a number",
                expected="a finite score",
                mend="a lower optimizer.learning_rate, or trainer.precision=32-true",
            )
        is_best = self.best_epoch < 0 or self._sign * score > self._sign * self.best_score
        if is_best:
            self.best_epoch, self.best_score = epoch, score
        name = f"epoch={epoch:04d}.ckpt"
        self._kept[name] = score
        ranked = sorted(self._kept, key=lambda key: (-self._sign * self._kept[key], key))
        dropped = ranked[self._top_k :]
        for key in dropped:
            del self._kept[key]
        # The state above is part of what is saved.
        with drafting(self._run.checkpoints / "saving.ckpt") as saved:
            trainer.save_checkpoint(saved)
            if not trainer.is_global_zero:
                return
            if name in self._kept:
                duplicate(saved, self._run.checkpoints / name)
            if is_best:
                duplicate(saved, self._run.best)
            move(saved, self._run.last)
        for key in dropped:
            (self._run.checkpoints / key).unlink(missing_ok=True)


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    """Let a full or failing disk say so: torch would say "unexpected pos" in its place."""
    try:
        with path.open("wb") as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _require_plain(path: Path) -> None:
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise ConfigError(
            f"the checkpoint would hold a {found[1] if found else 'value'} that cannot be loaded "
            "without running code",
            expected="plain values and tensors in what every callback's state_dict returns",
            mend="turn that value into a Python number, string, list or dict, or switch the "
            "callback off",
        ) from error
