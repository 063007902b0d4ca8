"""Data time of an epoch with and without a cache, reading alone and with augmentation.

    python -m benchmarks.cache DATA [--rounds 3] [--workers 0] [overrides, such as data=jsonl]

"reading" is what a cache can save: from the files to the pixels that are augmented (train) or
given to the network (val). "loader" is all the data time of an epoch, augmentation, seeding and
batching included, with --workers processes (0: none, which tells the time of one core). Ways are
measured in turn, round after round, and the fastest round of each counts; the first epoch of a
cache is its building, told apart. The target is 0.25 of the uncached reading.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from loguru import logger

from classifier_training.config.compose import compose_config, make_strict
from classifier_training.config.validate import validate
from classifier_training.data.cache import PixelCache
from classifier_training.data.cache_build import CacheJob, cache_in_memory, cache_on_disk
from classifier_training.data.dataset import EvaluationDataset, TrainingDataset, unwrap
from classifier_training.data.decoding import DecodeSpec, read_file
from classifier_training.data.index import index_data
from classifier_training.data.loading import bound_heap, evaluation_loader, training_loader
from classifier_training.data.manifest import Manifest
from classifier_training.data.sampling import EpochBatchSampler
from classifier_training.system.resources import available_cores
from classifier_training.training.build import preprocess_spec, reduction_bound
from classifier_training.transforms.build import build_augmentation

Caches = dict[str, PixelCache]


def seconds(work: Callable[[], None]) -> float:
    """Return how long ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def read_all(manifest: Manifest, recipes: dict[str, DecodeSpec], caches: Caches) -> None:
    """Read every image as it is before augmentation."""
    for split, recipe in recipes.items():
        for row in map(int, manifest.rows(split)):
            if caches:
                caches[split].read(row)
            else:
                recipe.pixels(read_file(manifest, row), "")


def exhaust(batches: Iterable[object]) -> None:
    """Take all batches, as training would."""
    for batch in batches:
        unwrap(batch)  # type: ignore[arg-type]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    logger.remove()
    torch.set_num_threads(1)
    bound_heap()  # as in loader processes
    overrides = [f"data.data_root={arguments.data}", *arguments.overrides]
    config = validate(
        compose_config(make_strict(overrides), root="train", output_dir="unused"), allow_modules=[]
    )
    manifest = index_data(config.data).manifest
    spec = preprocess_spec(config)
    augmentation = build_augmentation(config.transforms)
    at_least = reduction_bound(config.transforms)
    recipes = {
        "train": TrainingDataset(manifest, spec, augmentation, 0, at_least).recipe,
        "val": DecodeSpec(spec),
    }

    def epoch(caches: Caches) -> None:
        training = TrainingDataset(manifest, spec, augmentation, 0, at_least, caches.get("train"))
        sampler = EpochBatchSampler(
            manifest.rows("train"), batch_size=config.data.batch_size, seed=0
        )
        exhaust(
            training_loader(
                training, sampler, workers=arguments.workers, prefetch=4, pin_memory=False
            )
        )
        exhaust(
            evaluation_loader(
                EvaluationDataset(manifest, spec, caches.get("val")),
                manifest.rows("val"),
                batch_size=config.data.batch_size,
                workers=arguments.workers,
                pin_memory=False,
            )
        )

    with tempfile.TemporaryDirectory() as folder:
        places: dict[str, Callable[[CacheJob], PixelCache]] = {
            "ram": cache_in_memory,
            "disk": lambda job: cache_on_disk(job, Path(folder)),
        }
        ways: dict[str, Caches] = {"none": {}}
        for place, build in places.items():
            started = time.perf_counter()
            ways[place] = {
                split: build(
                    CacheJob(
                        manifest,
                        manifest.rows(split),
                        recipe,
                        available_cores(),
                        1 << 50,
                        lambda _done, _total: None,
                    )
                )
                for split, recipe in recipes.items()
            }
            size = sum(len(cache.pixels) for cache in ways[place].values())
            taken = time.perf_counter() - started
            print(f"built in {taken:.1f} s, {size / 1e9:.2f} GB: {place}")
        best = {(way, kind): float("inf") for way in ways for kind in ("reading", "loader")}
        for _ in range(arguments.rounds):
            for way, caches in ways.items():
                reading = seconds(lambda caches=caches: read_all(manifest, recipes, caches))  # type: ignore[misc]
                loader = seconds(lambda caches=caches: epoch(caches))  # type: ignore[misc]
                best[way, "reading"] = min(best[way, "reading"], reading)
                best[way, "loader"] = min(best[way, "loader"], loader)
    for (way, kind), taken in best.items():
        print(f"{kind:<8} {way:<5} {taken:7.2f} s   {taken / best['none', kind]:.2f} of uncached")


if __name__ == "__main__":
    main()
