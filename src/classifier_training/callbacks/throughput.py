"""How fast training is, and whether it waits for data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities.types import STEP_OUTPUT
from loguru import logger

from classifier_training.callbacks.base import Callback, StepTable, log_scalars
from classifier_training.run.folder import RunFolder

COLUMNS = (
    "epoch",
    "images",
    "seconds",
    "images_per_s",
    "data_wait_share",
    "data_wait_s",
    "step_s",
    "first_wait_s",
)
# Fewer batches say little about a share.
_FEWEST_BATCHES = 10


@dataclass
class _Clock:
    """Seconds of one epoch's training part, as this process's clock sees them.

    Attributes:
        at: When the last batch ended.
        images: Trained on, in this process.
        batches: Of them, all but the first.
        first_wait: Until the first batch came: loader processes start then.
        wait: From the end of a batch to the start of the next one, without the first.
        step: From there to its end.
    """

    at: float
    images: int = 0
    batches: int = -1
    first_wait: float = 0.0
    wait: float = 0.0
    step: float = 0.0

    @property
    def wait_share(self) -> float:
        """Time that went into waiting, of that between the first batch and the last."""
        return self.wait / max(self.wait + self.step, 1e-9)


class Throughput(Callback):
    """Measures img/s and the share of time spent waiting for data, without waiting for the device.

    A step is given to the device and not waited for. While the device is behind, the time shows up
    in the step (its queue is full); while the loader is behind, it shows up as waiting. Numbers go
    to the log, to the loggers and to ``plots/throughput.csv``; never into ``metrics.csv`` or a
    checkpoint, which are the same in two equal runs.

    Args:
        advise_above: Share of waiting from which advice is given, once a run.
    """

    def __init__(self, advise_above: float) -> None:
        super().__init__()
        self._advise_above = advise_above
        self._is_advised = False
        self._clock = _Clock(0.0)
        self._table: StepTable | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the table; an epoch that is trained again gets a new row."""
        folder = RunFolder(Path(trainer.default_root_dir))
        self._table = StepTable(folder.plots / "throughput.csv", COLUMNS)
        self._table.go_on(trainer.current_epoch)
        # A run that goes on inside an epoch does not start it.
        self._clock = _Clock(time.perf_counter())

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._clock = _Clock(time.perf_counter())

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is here."""
        clock, now = self._clock, time.perf_counter()
        if clock.batches < 0:
            clock.first_wait = now - clock.at
        else:
            clock.wait += now - clock.at
        clock.at = now

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """The step is given to the device."""
        clock, now = self._clock, time.perf_counter()
        clock.step += now - clock.at
        clock.at = now
        clock.images += len(batch.labels)
        clock.batches += 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the numbers of the epoch: validation follows its last batch."""
        clock, self._clock = self._clock, _Clock(time.perf_counter())
        if clock.batches < 0:
            return
        images = clock.images * trainer.world_size
        seconds = clock.first_wait + clock.wait + clock.step
        row = {
            "epoch": trainer.current_epoch,
            "images": images,
            "seconds": seconds,
            "images_per_s": images / max(seconds, 1e-9),
            "data_wait_share": clock.wait_share,
            "data_wait_s": clock.wait,
            "step_s": clock.step,
            "first_wait_s": clock.first_wait,
        }
        assert self._table is not None
        self._table.append(row)
        shown = {f"throughput/{name}": row[name] for name in ("images_per_s", "data_wait_share")}
        log_scalars(trainer, shown, trainer.global_step - 1)
        is_bound = clock.batches >= _FEWEST_BATCHES and clock.wait_share > self._advise_above
        if is_bound and not self._is_advised:
            self._is_advised = True
            logger.warning("throughput: {}", _advice(trainer, row))


def _advice(trainer: pl.Trainer, row: dict[str, float]) -> str:
    """Name the keys that make data come faster, with what they are now."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    return (
        f"training waited for data {100 * row['data_wait_share']:.0f} % of epoch "
        f"{trainer.current_epoch + 1} ({row['images_per_s']:.0f} img/s); what can help: "
        f"data.num_workers (now {data.workers}), data.cache (now {data.config.cache}), "
        "transforms.reduce_to, fewer or cheaper transforms.train, data.staging_dir if the images "
        "lie on a network"
    )
