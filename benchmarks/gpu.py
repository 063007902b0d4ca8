"""All checks that need a GPU, in one call of under nine minutes; a table comes last.

    python -m benchmarks.gpu [--data DATA] [--seconds 480]

Without DATA (a folder per class with train and val) jersey numbers of 256 px are rendered first.
For ResNet18 and ResNet50 at 224 px, batch 64 and 256, `bf16-mixed` and `16-mixed`: images a second
of the bare step, of training on decoded images in memory, and of training from files; scaler trace
and skipped steps at clip 1.0 and 5.0; host syncs per 100 steps; T1 and X1 after a run on the GPU;
peak memory. What does not fit into the time is said to be missing.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from loguru import logger
from torch import Tensor, nn

from classifier_training.config.compose import compose_config, make_strict
from classifier_training.config.schema import Config
from classifier_training.config.validate import validate
from classifier_training.data.dataset import Batch, TrainingDataset
from classifier_training.data.index import index_data
from classifier_training.data.loading import resolve_workers, training_loader
from classifier_training.data.sampling import EpochBatchSampler
from classifier_training.evaluation.models import exact_fp32
from classifier_training.models.classifier import Classifier
from classifier_training.models.losses import ClassificationLoss
from classifier_training.models.normalize import Normalize
from classifier_training.synthetic.writer import DEFAULT_CLASSES, SynthSpec, write_dataset
from classifier_training.training.api import train
from classifier_training.training.build import preprocess_spec
from classifier_training.training.module import Ema
from classifier_training.training.nan_guard import FiniteGuard
from classifier_training.training.optimizers import build_optimizer
from classifier_training.transforms.build import build_augmentation

WARM_UP, STEPS = 8, 40
DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass
class Table:
    """Lines for the end, and the time that is left."""

    deadline: float
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Print now and keep for the end."""
        print(line, flush=True)
        self.lines.append(line)

    @property
    def has_time(self) -> bool:
        """Whether another measurement may start."""
        return time.monotonic() < self.deadline


class Stepper:
    """Our training step without Lightning: the same network, loss, average and guards."""

    def __init__(self, config: Config, classes: int, *, precision: str, clip: float) -> None:
        self.device = torch.device("cuda")
        self.net = Classifier(config.model.name, classes).to(
            self.device, memory_format=torch.channels_last
        )
        self.net.train()
        self.ema = Ema(self.net, config.ema.decay).to(self.device)
        self.optimizer = build_optimizer(self.net, config.optimizer)
        self.loss = ClassificationLoss(None, label_smoothing=0.1, gamma=0.0)
        self.normalize = Normalize(preprocess_spec(config)).to(self.device)
        self.guard = FiniteGuard(20, str)
        self.dtype = DTYPES[precision]
        self.clip = clip
        self.scaler = torch.amp.GradScaler("cuda", enabled=precision == "16-mixed")
        self.scales: list[float] = []

    def bare(self, images: Tensor, labels: Tensor) -> None:
        """Forward, backward, clip and step on normalised images."""
        with torch.autocast("cuda", dtype=self.dtype):
            loss = self.loss(self.net(images), labels)
        self._step(loss)

    def whole(self, batch: Batch, number: int) -> None:
        """The same from uint8, with the guard and the average."""
        images = self.normalize(batch.images.to(self.device, non_blocking=True))
        images = images.contiguous(memory_format=torch.channels_last)
        labels = batch.labels.to(self.device, non_blocking=True)
        with torch.autocast("cuda", dtype=self.dtype):
            loss = self.loss(self.net(images), labels)
        self.guard.observe(loss, batch.indices, number)
        self._step(loss)
        self.ema.update_parameters(self.net)

    def _step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def _speed(step: Callable[[int], None], batch: int, steps: int = STEPS) -> float:
    for number in range(WARM_UP):
        step(number)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for number in range(steps):
        step(WARM_UP + number)
    torch.cuda.synchronize()
    return steps * batch / (time.perf_counter() - started)


def _config(data: Path, source: str, *overrides: str) -> Config:
    asked = [f"data={source}", f"data.data_root={data}", "model.weights=null", *overrides]
    return validate(compose_config(make_strict(asked)), allow_modules=[])


def _throughput(table: Table, data: Path, source: str) -> None:
    table.add(
        "model     batch precision    bare img/s  memory/bare  files/bare  peak GiB  syncs/100"
    )
    choices = itertools.product(("resnet18", "resnet50"), (64, 256), ("bf16-mixed", "16-mixed"))
    for model, batch, precision in choices:
        if not table.has_time:
            table.add(f"{model:<9} {batch:>5} {precision:<11}  no time left")
            continue
        config = _config(data, source, f"model={model}", f"data.batch_size={batch}")
        table.add(_throughput_row(config, precision))


def _throughput_row(config: Config, precision: str) -> str:
    manifest = index_data(config.data).manifest
    size, batch = config.transforms.image_size, config.data.batch_size
    stepper = Stepper(config, len(manifest.class_map), precision=precision, clip=1.0)
    torch.cuda.reset_peak_memory_stats()
    images = torch.randn(batch, 3, size, size, device="cuda")
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, len(manifest.class_map), (batch,), device="cuda")
    bare = _speed(lambda _: stepper.bare(images, labels), batch)
    in_memory = Batch(
        torch.randint(0, 255, (batch, 3, size, size), dtype=torch.uint8).pin_memory(),
        labels.cpu().pin_memory(),
        torch.arange(batch),
    )
    memory = _speed(lambda number: stepper.whole(in_memory, number), batch)
    syncs = _syncs(lambda number: stepper.whole(in_memory, number))
    files = _from_files(config, manifest, stepper)
    peak = torch.cuda.max_memory_allocated() / 2**30
    return (
        f"{config.model.name:<9} {batch:>5} {precision:<11} {bare:>10.0f} {memory / bare:>12.3f} "
        f"{files / bare:>11.3f} {peak:>9.2f} {syncs:>10}"
    )


def _from_files(config: Config, manifest, stepper: Stepper) -> float:  # type: ignore[no-untyped-def]
    spec = preprocess_spec(config)
    dataset = TrainingDataset(manifest, spec, build_augmentation(config.transforms), 0)
    loader = training_loader(
        dataset,
        EpochBatchSampler(manifest.rows("train"), batch_size=config.data.batch_size, seed=0),
        workers=resolve_workers("auto"),
        prefetch=4,
        pin_memory=True,
    )
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    steps = 2 * len(loader) if len(loader) < STEPS else STEPS
    return _speed(
        lambda number: stepper.whole(next(batches), number), config.data.batch_size, steps
    )


def _syncs(step: Callable[[int], None]) -> int:
    """Count how often the host waits for the device in 100 steps, as torch's sync debug tells."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for number in range(100):
                step(number)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


def _scaler(table: Table, data: Path, source: str) -> None:
    for clip in (1.0, 5.0):
        if not table.has_time:
            table.add(f"scaler at clip {clip}: no time left")
            continue
        with tempfile.TemporaryDirectory() as out:
            run = train(
                [
                    f"data={source}",
                    f"data.data_root={data}",
                    "model.weights=null",
                    "trainer.precision=16-mixed",
                    f"trainer.gradient_clip_val={clip}",
                    "trainer.max_epochs=2",
                    "data.batch_size=64",
                ],
                out=Path(out) / "run",
            )
            state = torch.load(run.folder.last, map_location="cpu", weights_only=True)
        scaler = next(value for key, value in state.items() if "MixedPrecision" in key)
        steps = state["steps"]
        table.add(
            f"16-mixed, clip {clip}: scale {scaler['scale']:.0f} at the end, "
            f"{steps['skipped']} of {steps['optimizer'] + steps['skipped']} steps skipped, "
            f"val/f1_macro {run.best_score:.3f}"
        )


def _same_scores(table: Table, data: Path, source: str) -> None:
    """T1 and X1: fit itself refuses when score, checkpoint and ONNX disagree."""
    for model, precision in (("resnet18", "bf16-mixed"), ("resnet50", "16-mixed")):
        if not table.has_time:
            table.add(f"T1 and X1, {model}, {precision}: no time left")
            continue
        with tempfile.TemporaryDirectory() as out:
            run = train(
                [
                    f"data={source}",
                    f"data.data_root={data}",
                    f"model={model}",
                    "model.weights=null",
                    f"trainer.precision={precision}",
                    "trainer.max_epochs=1",
                    "data.batch_size=64",
                ],
                out=Path(out) / "run",
            )
            measured = run.metrics("val")["metrics"]["f1_macro"]["value"]
            table.add(
                f"T1 {model} {precision}: trained {run.best_score:.6f}, reloaded {measured:.6f}, "
                f"difference {abs(measured - run.best_score):.1e}; X1: verified"
            )


def _render(folder: Path) -> Path:
    spec = SynthSpec(
        classes=DEFAULT_CLASSES[:12],
        train_per_class=250,
        val_per_class=30,
        test_per_class=10,
        imbalance=1.0,
        image_size=256,
        difficulty=0.5,
        seed=0,
    )
    return write_dataset(folder / "data", spec)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seconds", type=float, default=480.0)
    arguments = parser.parse_args()
    logger.remove()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU here: torch.cuda.is_available() is False")
    exact_fp32()
    torch.backends.cudnn.benchmark = True
    table = Table(time.monotonic() + arguments.seconds)
    with tempfile.TemporaryDirectory() as folder:
        source = "folder" if arguments.data else "jsonl"
        data = arguments.data or _render(Path(folder))
        _throughput(table, data, source)
        _same_scores(table, data, source)
        _scaler(table, data, source)
    print(f"\n{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print("\n".join(table.lines))


if __name__ == "__main__":
    main()
