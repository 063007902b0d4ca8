"""Memory of real loader processes, as the kernel counts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.manifest_memory import Memory, measure, process_memory
from PIL import Image

from classifier_training.data.cache_build import CacheJob, cache_in_memory
from classifier_training.data.dataset import TrainingDataset, unwrap
from classifier_training.data.index import index_data
from classifier_training.data.loading import shared_heap, training_loader
from classifier_training.data.sampling import EpochBatchSampler
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.transforms.build import build_augmentation
from tests.helpers.config import config_of, data_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

SPEC = PreprocessSpec(64, "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.promise("D10")
def test_a_million_rows_cost_no_copy_a_worker() -> None:
    # More rows than the first measure has seen are drawn afterwards: each would cost a page.
    small, large = (measure(rows, workers=2, batches=400) for rows in (320, 1_000_000))

    assert large[-1].pss - large[0].pss < 40
    assert large[-1].private - small[-1].private < 40


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many sizes, the way heaps get holes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 4)):
        for at in range(count):
            folder = root / split / "ab"[at % 2]
            folder.mkdir(parents=True, exist_ok=True)
            height, width = rng.integers(100, 1200, 2)
            pixels = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((int(width), int(height))).save(folder / f"{at}.jpg")
    return root


@pytest.mark.promise("D10")
@pytest.mark.parametrize("is_cached", [False, True])
def test_memory_does_not_grow_with_epochs(photos: Path, is_cached: bool) -> None:
    manifest = index_data(data_config(photos)).manifest
    transforms = config_of("data.data_root=x", "transforms.image_size=64").transforms
    rows = manifest.rows("train")
    dataset = TrainingDataset(manifest, SPEC, build_augmentation(transforms), 0, at_least=128)
    if is_cached:
        job = CacheJob(manifest, rows, dataset.recipe, 2, 1 << 40, lambda _d, _t: None)
        dataset = TrainingDataset(
            manifest, SPEC, dataset.transform, 0, at_least=128, cache=cache_in_memory(job)
        )
    sampler = EpochBatchSampler(rows, batch_size=8, seed=0)
    with shared_heap(2):
        loader = training_loader(dataset, sampler, workers=2, prefetch=2, pin_memory=False)
        seen: list[Memory] = []
        for epoch in range(24):
            sampler.set_epoch(epoch)
            iterator = iter(loader)
            for batch in iterator:
                unwrap(batch)
            pids = [os.getpid(), *(worker.pid for worker in iterator._workers)]  # type: ignore[attr-defined]
            found = [process_memory(pid) for pid in pids]
            seen.append(Memory(*map(sum, zip(*found, strict=True))))

    # The first epochs fill heaps and map the cache; after them three processes together stay.
    settled = max(memory.private for memory in seen[4:8])
    assert max(memory.private for memory in seen[-4:]) < settled + 15
