"""Training speed end to end, against the bare step and against a plain torchvision loop.

    python -m benchmarks.train_throughput DATA [--rounds 5] [--steps 20] [--model resnet18]

DATA is a folder per class with train and val. Three ways are measured in turn, round after round,
so that a noisy machine disturbs all of them alike; the medians and their ratios are printed:

- bare:  forward, backward, clip and AdamW on one batch in memory, with the precision and memory
         layout that we choose;
- ours:  `classifier train` as configured: reading, decoding, augmenting, training, averaging,
         scoring;
- plain: a loop as in the torchvision references: ImageFolder, Pillow transforms, fp32, NCHW.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning.pytorch as pl
import torch
from loguru import logger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

from classifier_training.config.compose import compose_config, make_strict
from classifier_training.config.schema import TrainerConfig
from classifier_training.config.validate import validate
from classifier_training.system.resources import available_cores
from classifier_training.training.api import train_with
from classifier_training.training.hardware import choose_hardware

WARM_UP = 4


class Clock(pl.Callback):
    """Times the steps after the warm-up; named on the command line through allow_modules."""

    seconds = 0.0
    images = 0

    def __init__(self) -> None:
        super().__init__()
        self._started = 0.0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        """Start after the warm-up, then count."""
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        if batch_idx + 1 == WARM_UP:
            self._started = time.perf_counter()
            Clock.images = 0
        elif batch_idx + 1 > WARM_UP:
            Clock.images += len(batch.labels)
            Clock.seconds = time.perf_counter() - self._started


def ours(data: Path, arguments: argparse.Namespace) -> float:
    """Return images a second of our own training."""
    with tempfile.TemporaryDirectory() as out, contextlib.suppress(StopAfterTraining):
        train_with(
            [
                f"data.data_root={data}",
                f"model={arguments.model}",
                "model.weights=null",
                f"transforms.image_size={arguments.size}",
                f"data.batch_size={arguments.batch}",
                "trainer.max_epochs=1",
                f"trainer.limit_train_batches={WARM_UP + arguments.steps}",
                "callbacks=none",
                "+callbacks.clock._target_=benchmarks.train_throughput.Clock",
                "+callbacks.stop._target_=benchmarks.train_throughput.Stop",
                "allow_modules=[benchmarks.train_throughput]",
                *arguments.overrides,
            ],
            out=Path(out) / "run",
        )
    return Clock.images / Clock.seconds


class StopAfterTraining(Exception):
    """Ends a measured run before validation and export."""


class Stop(pl.Callback):
    """Ends the run when its training batches are done."""

    def on_validation_start(self, trainer, module) -> None:  # type: ignore[no-untyped-def]
        """Leave."""
        raise StopAfterTraining


def bare(precision: str, device: torch.device, arguments: argparse.Namespace) -> float:
    """Return images a second of the optimiser step alone."""
    network = models.get_model(arguments.model, num_classes=10)
    network.to(device, memory_format=torch.channels_last)
    size = (arguments.batch, 3, arguments.size, arguments.size)
    images = torch.randn(size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (arguments.batch,), device=device)
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": None}[precision]
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            loss = nn.functional.cross_entropy(network(images), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()

    return _speed(step, device, arguments)


def plain(data: Path, device: torch.device, arguments: argparse.Namespace) -> float:
    """Return images a second of a torchvision-style loop."""
    augment = transforms.Compose(
        [
            transforms.RandomResizedCrop(arguments.size, scale=(0.35, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.3, 0.3, 0.3),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    loader = DataLoader(
        datasets.ImageFolder(str(data / "train"), augment),
        batch_size=arguments.batch,
        shuffle=True,
        num_workers=available_cores(),
        drop_last=True,
    )
    network = models.get_model(arguments.model, num_classes=10).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-4)
    batches = _endless(loader)

    def step() -> None:
        images, labels = next(batches)
        images, labels = images.to(device), labels.to(device)
        loss = nn.functional.cross_entropy(network(images), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return _speed(step, device, arguments)


def _endless(loader: DataLoader[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def _speed(step: Callable[[], None], device: torch.device, arguments: argparse.Namespace) -> float:
    for _ in range(WARM_UP):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(arguments.steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return float(arguments.steps * arguments.batch / (time.perf_counter() - started))


def _trainer_config(data: Path) -> TrainerConfig:
    composed = compose_config(make_strict([f"data.data_root={data}"]))
    return validate(composed, allow_modules=[]).trainer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("overrides", nargs="*", help="more overrides for our own run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--skip-plain", action="store_true")
    arguments = parser.parse_args()
    logger.remove()
    hardware = choose_hardware(_trainer_config(arguments.data))
    device = torch.device(hardware.device.kind)
    ways: dict[str, Callable[[], float]] = {
        "bare": lambda: bare(hardware.precision, device, arguments),
        "ours": lambda: ours(arguments.data, arguments),
    }
    if not arguments.skip_plain:
        ways["plain"] = lambda: plain(arguments.data, device, arguments)
    results: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds):
        for name, measure in ways.items():
            results[name].append(measure())
        shown = ", ".join(f"{name} {values[-1]:.1f}" for name, values in results.items())
        print(f"round {number + 1}: {shown} img/s", flush=True)
    medians = {name: statistics.median(values) for name, values in results.items()}
    print(f"{hardware.device.name}, {hardware.precision}, {arguments.model}, {arguments.size} px")
    for name, value in medians.items():
        print(f"{name:<6} {value:8.1f} img/s   ours/{name} {medians['ours'] / value:.3f}")


if __name__ == "__main__":
    # The run imports this module by its name; its classes must be the ones used here.
    importlib.import_module("benchmarks.train_throughput").main()
