"""What saving a checkpoint costs, against ``torch.save`` of the same state.

    python -m benchmarks.checkpoint_cost [--model resnet18] [--rounds 9] [--folder DIR]

Three ways are measured in turn, round after round, so that a noisy machine disturbs all of them
alike; the medians and their ratios are printed:

- plain:  ``torch.save`` to a file, which may still be in memory when it returns;
- synced: the same, then fsync of the file and its folder: what survives a power cut;
- ours:   what a run does after an epoch: check that weights are finite, save, check that the file
          can be loaded, fsync, note it in the manifest, name it epoch, best and last.

The state is that of a run with EMA and AdamW: four times the weights.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from classifier_training.models.classifier import Classifier
from classifier_training.run.checkpoint_files import CheckpointFiles
from classifier_training.training.checkpoint_io import AtomicCheckpointIO, require_plain
from classifier_training.training.nan_guard import require_finite_weights

EPOCH_S = 60.0


def make_state(model: str, classes: int = 43) -> dict[str, Any]:
    """Return what a checkpoint of a run holds: weights, their average, and AdamW's moments."""
    net = Classifier(model, classes)
    ema = copy.deepcopy(net)
    weights = {f"net.{key}": value for key, value in net.state_dict().items()}
    weights |= {f"ema.module.{key}": value for key, value in ema.state_dict().items()}
    moments = {
        number: {
            "step": torch.tensor(100.0),
            "exp_avg": torch.randn_like(parameter),
            "exp_avg_sq": torch.rand_like(parameter),
        }
        for number, parameter in enumerate(net.parameters())
    }
    optimizer = {"state": moments, "param_groups": [{"lr": 1e-3, "params": list(moments)}]}
    return {"epoch": 3, "state_dict": weights, "optimizer_states": [optimizer]}


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def seconds(task: Callable[[], Any]) -> float:
    """Time one call."""
    started = time.perf_counter()
    task()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: a new one")
    given = parser.parse_args()
    state = make_state(given.model)
    tensors = list(state["state_dict"].values())
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        folder = Path(scratch)
        files, io = CheckpointFiles(folder / "ours"), AtomicCheckpointIO()
        epochs = itertools.count()

        def plain() -> None:
            torch.save(state, folder / "plain.ckpt")

        def synced() -> None:
            torch.save(state, folder / "synced.ckpt")
            sync(folder / "synced.ckpt")
            sync(folder)

        def ours() -> None:
            epoch = next(epochs)
            require_finite_weights(tensors, "the weights")
            names = [f"epoch={epoch:04d}.ckpt", "best.ckpt", "last.ckpt"]
            with files.saving() as draft:
                io.save_checkpoint(state, draft)
                files.publish(draft, names, epoch=epoch, step=epoch)
            files.prune([f"epoch={epoch - 1:04d}.ckpt"])

        ways = {"plain": plain, "synced": synced, "ours": ours}
        times: dict[str, list[float]] = {name: [] for name in [*ways, "plain check", "finite"]}
        for number in range(given.rounds + 1):
            taken = {name: seconds(way) for name, way in ways.items()}
            taken["plain check"] = seconds(lambda: require_plain(folder / "ours" / "last.ckpt"))
            taken["finite"] = seconds(lambda: require_finite_weights(tensors, "the weights"))
            for name, value in taken.items() if number else ():  # the first round warms up
                times[name].append(value)
        size = (folder / "plain.ckpt").stat().st_size
    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"{given.model}: {size / 1e6:.0f} MB, medians of {given.rounds} rounds")
    for name, value in median.items():
        print(f"  {name:12s} {1000 * value:9.1f} ms")
    print(f"  ours / torch.save with fsync      {median['ours'] / median['synced']:.2f}")
    print(f"  ours / torch.save without fsync   {median['ours'] / median['plain']:.2f}")
    print(f"  ours, share of a {EPOCH_S:.0f} s epoch      {100 * median['ours'] / EPOCH_S:.2f} %")


if __name__ == "__main__":
    main()
