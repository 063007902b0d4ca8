"""A cache changes how long reading takes, and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from loguru import logger

from classifier_training.data.cache import cache_key, open_cache
from classifier_training.data.cache_build import (
    CacheFullError,
    CacheJob,
    cache_in_memory,
    cache_on_disk,
    choose_place,
    open_caches,
)
from classifier_training.data.datamodule import ImageDataModule
from classifier_training.data.dataset import EvaluationDataset, TrainingDataset, unwrap
from classifier_training.data.decoding import DecodeSpec
from classifier_training.data.index import index_data
from classifier_training.data.loading import evaluation_loader, training_loader
from classifier_training.data.manifest import Manifest
from classifier_training.data.sampling import EpochBatchSampler
from classifier_training.errors import DataError
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.run.folder import RunFolder
from classifier_training.transforms.build import build_augmentation
from tests.helpers.config import config_of, data_config
from tests.helpers.onnx_pair import MEAN, STD
from tests.helpers.pixels import noise, write_images
from tests.helpers.runs import tiny_train

SPEC = PreprocessSpec(16, "squash", MEAN, STD)
AUGMENTED = DecodeSpec(None, 20)
AUGMENTATION = config_of(
    "data.data_root=x", "transforms=default", "transforms.image_size=16"
).transforms
COUNT = 40


def write_data(root: Path) -> Path:
    return write_images(
        root,
        {
            f"{split}/{label}/{at}.png": noise(1000 * at + ord(label), (24 + at, 60))
            for split in ("train", "val")
            for label in "ab"
            for at in range(COUNT // 2)
        },
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return index_data(data_config(write_data(tmp_path_factory.mktemp("images")))).manifest


def job_of(
    manifest: Manifest,
    recipe: DecodeSpec = AUGMENTED,
    *,
    split: str = "train",
    workers: int = 0,
    limit: int = 10**9,
) -> CacheJob:
    return CacheJob(manifest, manifest.rows(split), recipe, workers, limit, lambda _d, _t: None)


def serves_the_files(cache: object, manifest: Manifest, recipe: DecodeSpec, split: str) -> bool:
    return all(
        np.array_equal(
            cache.read(int(row)),  # type: ignore[attr-defined]
            recipe.pixels(manifest.file(int(row)).read_bytes(), "x"),
        )
        for row in manifest.rows(split)
    )


def key_of(manifest: Manifest, recipe: DecodeSpec = AUGMENTED) -> str:
    return cache_key(manifest, manifest.rows("train"), recipe)


@pytest.mark.promise("D9")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize(
    ("recipe", "split"),
    [(AUGMENTED, "train"), (DecodeSpec(None), "train"), (DecodeSpec(SPEC), "val")],
)
def test_cache_holds_what_the_files_give(
    manifest: Manifest, tmp_path: Path, workers: int, place: str, recipe: DecodeSpec, split: str
) -> None:
    job = job_of(manifest, recipe, split=split, workers=workers)

    cache = cache_in_memory(job) if place == "memory" else cache_on_disk(job, tmp_path)

    assert serves_the_files(cache, manifest, recipe, split)
    other = "val" if split == "train" else "train"
    same = {manifest.hashes[row].tobytes() for row in manifest.rows(split)}
    for row in manifest.rows(other):  # the same content is found, whoever asks; no other is
        assert (cache.read(int(row)) is not None) == (manifest.hashes[row].tobytes() in same)


@pytest.mark.promise("D9")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_equal_with_and_without_cache(manifest: Manifest, workers: int) -> None:
    transform = build_augmentation(AUGMENTATION)
    plain = TrainingDataset(manifest, SPEC, transform, 3, at_least=20)
    cached = replace(plain, cache=cache_in_memory(job_of(manifest, plain.recipe)))

    def training(dataset: TrainingDataset) -> list[torch.Tensor]:
        sampler = EpochBatchSampler(manifest.rows("train"), batch_size=7, seed=1)
        loader = training_loader(dataset, sampler, workers=workers, prefetch=2, pin_memory=False)
        found = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            found += [tensor for batch in loader for tensor in unwrap(batch)]
        return found

    def evaluation(cache: object) -> list[torch.Tensor]:
        loader = evaluation_loader(
            EvaluationDataset(manifest, SPEC, cache),  # type: ignore[arg-type]
            manifest.rows("val"),
            batch_size=7,
            workers=workers,
            pin_memory=False,
        )
        return [tensor for batch in loader for tensor in unwrap(batch)]

    kept = cache_in_memory(job_of(manifest, DecodeSpec(SPEC), split="val"))
    pairs = zip(
        training(plain) + evaluation(None), training(cached) + evaluation(kept), strict=True
    )
    assert all(torch.equal(one, two) for one, two in pairs)


@pytest.mark.promise("D9")
@pytest.mark.parametrize("workers", [0, 2])
def test_both_splits_are_read_from_the_cache_once_it_is_there(tmp_path: Path, workers: int) -> None:
    root = write_data(tmp_path)
    config = data_config(root, cache="ram", batch_size=8, num_workers=workers)
    manifest = index_data(config).manifest
    transform = build_augmentation(AUGMENTATION)
    data = ImageDataModule(manifest, config, SPEC, transform=transform, seed=0, at_least=20)
    data.trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    data.setup("fit")
    shutil.rmtree(root / "train")
    shutil.rmtree(root / "val")

    loaders = data.train_dataloader(), data.val_dataloader()
    images = [sum(len(unwrap(batch).labels) for batch in loader) for loader in loaders]

    assert images == [COUNT, COUNT]


@pytest.mark.promise("D9")
def test_a_transform_that_works_in_place_does_not_change_the_cache(manifest: Manifest) -> None:
    cache = cache_in_memory(job_of(manifest))
    row = int(manifest.rows("train")[0])
    before = cache.read(row)
    assert before is not None

    cache.read(row)[:] = 7  # type: ignore[index]

    assert np.array_equal(cache.read(row), before)


def change_pixel(root: Path) -> Manifest:
    from PIL import Image

    path = root / "train/a/3.png"
    with Image.open(path) as image:
        image.load()
    image.putpixel((5, 5), tuple(255 - value for value in image.getpixel((5, 5))))
    image.save(path)
    return index_data(data_config(root)).manifest


def change_label(root: Path) -> Manifest:
    manifest = index_data(data_config(root)).manifest
    labels = manifest.labels.copy()
    labels[manifest.rows("train")[3]] ^= 1
    return replace(manifest, labels=labels)


def change_order(root: Path) -> Manifest:
    for old, new in (("1", "x"), ("2", "1"), ("x", "2")):
        (root / f"train/a/{old}.png").rename(root / f"train/a/{new}.png")
    return index_data(data_config(root)).manifest


def remove_one(root: Path) -> Manifest:
    (root / "train/a/3.png").unlink()
    return index_data(data_config(root)).manifest


@pytest.mark.promise("D9")
@pytest.mark.parametrize("change", [change_pixel, change_label, change_order, remove_one])
def test_changed_data_has_another_key_and_other_pixels(tmp_path: Path, change: object) -> None:
    root = write_data(tmp_path / "images")
    before = index_data(data_config(root)).manifest
    cache_on_disk(job_of(before), tmp_path / "cache")

    after = change(root)  # type: ignore[operator]

    assert key_of(after) != key_of(before)
    # Even asked by the old key, it gives no pixels to a file that has changed.
    stale = open_cache(tmp_path / f"cache/{key_of(before)}.pixels", key_of(before), after)
    for row in map(int, after.rows("train")):
        pixels = stale.read(row)
        fresh = AUGMENTED.pixels(after.file(row).read_bytes(), "x")
        assert pixels is None or np.array_equal(pixels, fresh)
    assert serves_the_files(
        cache_on_disk(job_of(after), tmp_path / "cache"), after, AUGMENTED, "train"
    )


@pytest.mark.promise("D9")
def test_key_changes_with_everything_that_makes_the_pixels(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = [
        AUGMENTED,
        DecodeSpec(None),
        DecodeSpec(None, 21),
        DecodeSpec(SPEC),
        DecodeSpec(replace(SPEC, image_size=17)),
        DecodeSpec(replace(SPEC, resize="pad")),
        DecodeSpec(replace(SPEC, mean=(0.5, 0.5, 0.5))),  # the colour of the margin
    ]
    keys = [key_of(manifest, recipe) for recipe in recipes]
    monkeypatch.setattr("PIL.__version__", "0.0")
    keys.append(key_of(manifest))

    assert len(set(keys)) == len(keys)


@pytest.mark.promise("D9")
def test_second_run_reads_what_the_first_one_built(manifest: Manifest, tmp_path: Path) -> None:
    cache_on_disk(job_of(manifest), tmp_path)
    (path,) = tmp_path.glob("*.pixels")
    written = path.stat().st_mtime_ns, path.stat().st_ino

    again = cache_on_disk(job_of(manifest), tmp_path)

    assert (path.stat().st_mtime_ns, path.stat().st_ino) == written
    assert serves_the_files(again, manifest, AUGMENTED, "train")
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".lock", ".pixels"]


@pytest.mark.promise("D9")
@pytest.mark.parametrize("share", [0.0, 0.2, 0.9, "index", "footer", "cut", "cut to nothing"])
def test_damaged_cache_is_built_again(
    manifest: Manifest, tmp_path: Path, share: float | str
) -> None:
    cache_on_disk(job_of(manifest), tmp_path)
    (path,) = tmp_path.glob("*.pixels")
    data = bytearray(path.read_bytes())
    if isinstance(share, float):
        data[int(share * (len(data) - 3000))] ^= 1
    elif share.startswith("cut"):
        del data[-1000 if share == "cut" else 0 :]
    else:
        data[-1 if share == "footer" else -200] ^= 1
    path.write_bytes(bytes(data))
    said: list[str] = []
    sink = logger.add(lambda message: said.append(str(message)), level="WARNING")

    cache = cache_on_disk(job_of(manifest), tmp_path)
    logger.remove(sink)

    assert serves_the_files(cache, manifest, AUGMENTED, "train")
    assert "damaged" in "".join(said)
    assert open_cache(path, key_of(manifest), manifest)


def _build(manifest: Manifest, folder: Path, gate: object, answers: object) -> None:
    done: list[int] = []
    job = replace(job_of(manifest), on_images=lambda count, _total: done.append(count))
    gate.wait()  # type: ignore[attr-defined]
    cache = cache_on_disk(job, folder)
    is_right = serves_the_files(cache, manifest, AUGMENTED, "train")
    answers.put((is_right, bool(done)))  # type: ignore[attr-defined]


@pytest.mark.promise("D9")
def test_runs_that_start_together_share_one_cache(manifest: Manifest, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(4), context.Queue()
    runs = [
        context.Process(target=_build, args=(manifest, tmp_path, gate, answers)) for _ in range(4)
    ]
    for run in runs:
        run.start()
    found = [answers.get(timeout=60) for _ in runs]
    for run in runs:
        run.join(timeout=60)

    assert [is_right for is_right, _ in found] == [True] * 4
    assert [has_built for _, has_built in found].count(True) == 1
    assert len(list(tmp_path.glob("*.pixels"))) == 1
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.promise("D9")
@pytest.mark.parametrize("workers", [0, 2])
def test_no_room_leaves_nothing_behind(manifest: Manifest, tmp_path: Path, workers: int) -> None:
    with pytest.raises(CacheFullError, match="more than"):
        cache_on_disk(job_of(manifest, limit=30_000, workers=workers), tmp_path)

    assert [file.suffix for file in tmp_path.iterdir()] == [".lock"]


FULL_DISK = """
import sys
from pathlib import Path
from loguru import logger
from tests.unit.test_cache import AUGMENTED, job_of
from classifier_training.data.cache_build import open_caches
from classifier_training.data.index import index_data
from tests.helpers.config import data_config
config = data_config(sys.argv[1], cache="disk", cache_dir=sys.argv[2])
manifest = index_data(config).manifest
from classifier_training.data import cache_choice
cache_choice.shutil.disk_usage = lambda path: type("Usage", (), {"free": 10**12})
found = open_caches(manifest, {"train": AUGMENTED}, config, workers=2, processes=1, why_not=None)
left = [path.name for path in Path(sys.argv[2]).iterdir() if path.suffix != ".lock"]
print("FOUND", found, left)
"""


@pytest.mark.slow
@pytest.mark.promise("D9")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a tiny disk")
def test_full_disk_is_a_warning(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    mount = f"mount -t tmpfs -o size=64k none {tmp_path}/disk"
    command = f'{mount} && exec {sys.executable} -c "$0" {manifest.root} {tmp_path}/disk'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, FULL_DISK],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip("mounting is not allowed here")

    assert "FOUND {} []" in done.stdout
    assert "read from its files" in done.stderr
    assert "No space left" in done.stderr


@pytest.mark.promise("D9")
def test_file_that_changes_while_the_run_starts_is_refused(tmp_path: Path) -> None:
    root = write_data(tmp_path)
    manifest = index_data(data_config(root)).manifest
    (root / "train/b/7.png").write_bytes(noise(5))

    with pytest.raises(DataError, match=r"train/b/7\.png changed since"):
        cache_in_memory(job_of(manifest))


@pytest.mark.promise("D4")
@pytest.mark.parametrize("workers", [0, 2])
def test_image_that_cannot_be_cached_is_named(tmp_path: Path, workers: int) -> None:
    root = write_data(tmp_path)
    path = root / "train/b/7.png"
    path.write_bytes(path.read_bytes()[:60])
    manifest = index_data(data_config(root)).manifest

    with pytest.raises(DataError, match=r"cannot decode image train/b/7\.png"):
        cache_in_memory(job_of(manifest, workers=workers))


GB = 10**9


@pytest.mark.promise("D9")
@pytest.mark.parametrize(
    ("cache", "folder", "needed", "memory", "processes", "expected"),
    [
        ("auto", False, 4 * GB, 10 * GB, 1, "memory"),
        ("auto", False, 6 * GB, 10 * GB, 1, "it needs 6.0 GB"),
        ("auto", False, 4 * GB, 10 * GB, 2, "it needs 4.0 GB"),
        ("auto", False, GB, None, 1, "it needs"),
        ("auto", True, 1000, 1000, 1, "disk"),
        ("auto", True, 10**18, GB, 1, "it needs"),
        ("ram", True, 6 * GB, 10 * GB, 1, "memory"),
        ("ram", True, 10 * GB, 10 * GB, 1, "it needs 10.0 GB"),
        ("disk", True, 1000, 10 * GB, 1, "disk"),
    ],
)
def test_place_is_chosen_by_what_is_free(
    tmp_path: Path,
    cache: str,
    folder: bool,
    needed: int,
    memory: int | None,
    processes: int,
    expected: str,
) -> None:
    config = data_config("x", cache=cache, cache_dir=str(tmp_path) if folder else None)

    place = choose_place(config, needed, memory, processes)

    if isinstance(place, str):
        assert place.startswith(expected)
    else:
        assert expected == ("memory" if place.folder is None else "disk")


@pytest.mark.promise("D9")
def test_auto_leaves_it_where_it_does_not_pay(manifest: Manifest) -> None:
    config = data_config(manifest.root, cache="auto")
    recipes = {"train": AUGMENTED, "val": DecodeSpec(SPEC)}

    def found(why_not: str | None) -> set[str]:
        return set(open_caches(manifest, recipes, config, workers=0, processes=1, why_not=why_not))

    assert found(None) == {"train", "val"}
    assert found("each image is read once") == set()


@pytest.mark.slow
@pytest.mark.promise("D9")
@pytest.mark.promise("C8")
def test_run_learns_the_same_with_any_cache(folder_data: Path, tmp_path: Path) -> None:
    weights = {}
    for cache in ("none", "ram", "disk"):
        folder = [f"data.cache_dir={tmp_path / 'cache'}"] if cache == "disk" else []
        run = tiny_train(folder_data, tmp_path / cache, f"data.cache={cache}", *folder)
        weights[cache] = torch.load(RunFolder(run.folder.path).last, weights_only=True)[
            "state_dict"
        ]

    assert len(list((tmp_path / "cache").glob("*.pixels"))) == 2
    for name, tensor in weights["none"].items():
        assert torch.equal(tensor, weights["ram"][name])
        assert torch.equal(tensor, weights["disk"][name])
