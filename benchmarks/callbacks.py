"""Epoch time with all callbacks against none of them.

    python -m benchmarks.callbacks DATA [--rounds 3] [--epochs 2] [overrides]

DATA is a folder per class with train and val. Whole trainings of ResNet18 at 224 px from random
weights, with ``callbacks=default`` and with ``callbacks=none`` in turn, the order reversed from
round to round, so that a noisy machine disturbs both alike. Printed are seconds of an epoch
(validation, saving and pictures included), of the start (until the first epoch), and the ratio of
epochs: the median over rounds of all against none in the same round. The target is 1.03.

Where a machine's speed wanders by more than three percent, that ratio says little. So the seconds
that Lightning's profiler counts inside the hooks of callbacks are printed as well, and their share
of the epochs: with none, what the progress bar and saving take, and with all, the rest on top.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import lightning.pytorch as pl
from lightning.pytorch.profilers import SimpleProfiler
from loguru import logger

from classifier_training.training.api import train_with

TARGET = 1.03
WAYS = ("none", "default")
# Hooks before the first epoch, or around all of them.
_OUTSIDE = ("setup", "on_fit_start", "on_sanity_check_start", "on_sanity_check_end")


@dataclass(frozen=True)
class Timing:
    """Seconds of one training.

    Attributes:
        start: From Lightning's set-up to the first epoch.
        epoch: Mean of an epoch.
        inside: Of it, inside of hooks of callbacks.
    """

    start: float
    epoch: float
    inside: float


class StopAfterTraining(Exception):
    """Ends a measured run before evaluation and export."""


class Clock(pl.Callback):
    """Notes when a training begins, when its first epoch does, and when all is over."""

    moments: ClassVar[dict[str, float]] = {}
    hooks: ClassVar[dict[str, float]] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin."""
        Clock.moments = {"begun": time.perf_counter()}
        Clock.hooks = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first one counts."""
        Clock.moments.setdefault("first", time.perf_counter())

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End, and leave."""
        Clock.moments["over"] = time.perf_counter()
        profiler = cast("SimpleProfiler", trainer.profiler)  # type: ignore[attr-defined]
        Clock.hooks = {
            name.partition("]")[2]: sum(seconds)
            for name, seconds in profiler.recorded_durations.items()
            if name.startswith("[Callback]") and name.rpartition(".")[2] not in _OUTSIDE
        }
        raise StopAfterTraining


def measure(data: Path, way: str, epochs: int, overrides: list[str]) -> Timing:
    """Train once."""
    with tempfile.TemporaryDirectory() as out, contextlib.suppress(StopAfterTraining):
        train_with(
            [
                f"data.data_root={data}",
                "model.weights=null",
                "data.check=labels",
                "trainer.profiler=simple",
                f"trainer.max_epochs={epochs}",
                f"callbacks={way}",
                "allow_modules=[benchmarks.callbacks]",
                "callbacks.clock._target_=benchmarks.callbacks.Clock",
                *overrides,
            ],
            out=Path(out) / "run",
        )
    moments = Clock.moments
    start = moments["first"] - moments["begun"]
    inside = sum(Clock.hooks.values()) / epochs
    return Timing(start, (moments["over"] - moments["first"]) / epochs, inside)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_intermixed_args()  # overrides may follow options
    logger.remove()
    measured: dict[str, list[Timing]] = {way: [] for way in WAYS}
    for number in range(arguments.rounds):
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            timing = measure(arguments.data, way, arguments.epochs, arguments.overrides)
            measured[way].append(timing)
            print(
                f"round {number + 1}: callbacks={way:<8} start {timing.start:6.2f} s, "
                f"epoch {timing.epoch:7.2f} s, in hooks {timing.inside:5.2f} s",
                flush=True,
            )
    pairs = zip(measured["default"], measured["none"], strict=True)
    ratios = [with_all.epoch / with_none.epoch for with_all, with_none in pairs]
    for way in WAYS:
        start = statistics.median(timing.start for timing in measured[way])
        epoch = statistics.median(timing.epoch for timing in measured[way])
        inside = statistics.median(timing.inside for timing in measured[way])
        print(
            f"callbacks={way:<8} start {start:6.2f} s, epoch {epoch:7.2f} s, "
            f"in hooks {inside:5.2f} s (medians)"
        )
    print(
        f"all against none, an epoch: {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f}..{max(ratios):.3f}; target {TARGET})"
    )
    pairs = zip(measured["default"], measured["none"], strict=True)
    shares = [(with_all.inside - without.inside) / without.epoch for with_all, without in pairs]
    print(f"seconds inside of the hooks of all but those of none: {statistics.median(shares):.2%}")


if __name__ == "__main__":
    # The run imports Clock by its name; that of __main__ would be another class.
    importlib.import_module("benchmarks.callbacks").main()
