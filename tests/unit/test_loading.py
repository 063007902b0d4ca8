"""From manifest to batches: determinism, workers, and errors that name the file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classifier_training.data.datamodule import ImageDataModule
from classifier_training.data.dataset import Batch, EvaluationDataset, TrainingDataset, unwrap
from classifier_training.data.index import index_data
from classifier_training.data.loading import evaluation_loader, training_loader
from classifier_training.data.manifest import Manifest
from classifier_training.data.sampling import EpochBatchSampler
from classifier_training.errors import ConfigError, DataError
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.transforms.build import build_augmentation
from tests.helpers.config import config_of, data_config
from tests.helpers.onnx_pair import MEAN, STD
from tests.helpers.pixels import noise, write_images

SPEC = PreprocessSpec(16, "squash", MEAN, STD)
AUGMENTATION = config_of(
    "data.data_root=x", "transforms=default", "transforms.image_size=16"
).transforms


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    counts = {"train": 11, "val": 6}
    root = write_images(
        tmp_path_factory.mktemp("images"),
        {
            f"{split}/{label}/{at}.png": noise(1000 * at + ord(label) + len(split))
            for split, count in counts.items()
            for label in "ab"
            for at in range(count)
        },
    )
    return index_data(data_config(root)).manifest


def training_batches(
    manifest: Manifest,
    *,
    workers: int,
    epochs: tuple[int, ...] = (0,),
    start: tuple[int, int] = (0, 0),
    transform: object = None,
) -> list[list[Batch]]:
    sampler = EpochBatchSampler(
        manifest.rows("train"), batch_size=8, seed=3, epoch=start[0], start_batch=start[1]
    )
    augmentation = build_augmentation(AUGMENTATION) if transform is None else transform
    assert callable(augmentation)
    loader = training_loader(
        TrainingDataset(manifest, SPEC, augmentation, 3),
        sampler,
        workers=workers,
        prefetch=2,
        pin_memory=False,
    )
    found = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        found.append([unwrap(batch) for batch in loader])
    return found


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        for one, two in zip(first, second, strict=True)
    )


@pytest.mark.promise("T10")
def test_batches_do_not_depend_on_workers_or_history(manifest: Manifest) -> None:
    alone = training_batches(manifest, workers=0, epochs=(0, 1))
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    shared = training_batches(manifest, workers=2, epochs=(0, 1))
    resumed = training_batches(manifest, workers=2, epochs=(1,), start=(1, 1))

    assert same(alone[0], shared[0])
    assert same(alone[1], shared[1])
    assert same(resumed[0], alone[1][1:])
    assert not same(alone[0], alone[1])
    assert [len(batch.labels) for batch in alone[0]] == [8, 8, 6]


@pytest.mark.promise("T10")
def test_an_image_is_augmented_anew_each_epoch(manifest: Manifest) -> None:
    epochs = training_batches(manifest, workers=0, epochs=(0, 1))
    images = [
        {
            int(row): image
            for batch in epoch
            for row, image in zip(batch.indices, batch.images, strict=True)
        }
        for epoch in epochs
    ]

    changed = [not torch.equal(images[0][row], images[1][row]) for row in images[0]]

    assert images[0].keys() == images[1].keys()
    assert all(changed)


@pytest.mark.promise("T10")
def test_loading_leaves_the_global_generators_alone(manifest: Manifest) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    training_batches(manifest, workers=0)

    assert torch.equal(torch.rand(3), expected)


@pytest.mark.promise("N3")
def test_indices_name_the_image_and_its_label(manifest: Manifest) -> None:
    plain = training_batches(manifest, workers=0, transform=_Resize())[0]

    for batch in plain:
        for image, label, row in zip(batch.images, batch.labels, batch.indices, strict=True):
            path = manifest.file(int(row))
            assert path.parent.name == manifest.class_map.names[int(label)]
            expected = SPEC.load(path.read_bytes(), "x")
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


class _Resize(nn.Module):
    """What evaluation does, on a tensor."""

    def forward(self, image: Tensor) -> Tensor:
        from PIL import Image

        pixels = SPEC.resize_image(Image.fromarray(image.permute(1, 2, 0).numpy()))
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


class _Blacken(nn.Module):
    """An augmentation that nobody can overlook."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.zeros(3, 16, 16, dtype=torch.uint8)


@pytest.mark.promise("D8")
@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_never_reaches_evaluation(manifest: Manifest, workers: int) -> None:
    config = data_config(manifest.root, batch_size=4, num_workers=workers)
    data = ImageDataModule(manifest, config, SPEC, transform=_Blacken(), seed=0)
    data.trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )

    train = [unwrap(batch) for batch in data.train_dataloader()]
    loader = data.val_dataloader()
    val = [[unwrap(batch) for batch in loader] for _ in range(2)]

    assert all(int(batch.images.max()) == 0 for batch in train)
    assert same(val[0], val[1])
    rows = torch.cat([batch.indices for batch in val[0]])
    assert rows.tolist() == manifest.rows("val").tolist()
    for row, image in zip(rows, torch.cat([batch.images for batch in val[0]]), strict=True):
        expected = SPEC.load(manifest.file(int(row)).read_bytes(), "x")
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


@pytest.mark.promise("D4")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("split", "damage", "reason"),
    [
        ("train", "cut", "cannot decode image train/b/5.png"),
        ("val", "cut", "cannot decode image val/b/5.png"),
        ("train", "gone", "cannot read image train/b/5.png: No such file"),
        ("val", "gone", "cannot read image val/b/5.png: No such file"),
    ],
)
def test_failure_at_run_time_names_the_file(
    tmp_path: Path, workers: int, split: str, damage: str, reason: str
) -> None:
    root = write_images(
        tmp_path,
        {f"{s}/{c}/{at}.png": noise(at) for s in ("train", "val") for c in "ab" for at in range(6)},
    )
    manifest = index_data(data_config(root)).manifest
    path = root / split / "b/5.png"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    config = data_config(root, batch_size=4, num_workers=workers)
    data = ImageDataModule(
        manifest, config, SPEC, transform=build_augmentation(AUGMENTATION), seed=0
    )
    data.trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    loader = data.train_dataloader() if split == "train" else data.val_dataloader()

    error = first_error(data, loader)

    assert reason in error.what
    assert error.exit_code == 3
    assert error.fix


def first_error(data: ImageDataModule, loader: Iterable[Batch]) -> DataError:
    """Return the first error of a loader without its frames: they would keep the workers."""
    try:
        for batch in loader:
            data.on_before_batch_transfer(batch, 0)
    except DataError as error:
        return error.with_traceback(None)
    raise AssertionError("nothing was wrong")


@pytest.mark.promise("C5")
def test_augmentation_that_does_not_resize_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match=r"of shape \(3, 20, 24\)") as caught:
        training_batches(manifest, workers=0, transform=nn.Identity())

    assert "(3, 16, 16)" in caught.value.expected


@pytest.mark.promise("D8")
def test_evaluation_covers_every_row_whatever_the_batch(manifest: Manifest) -> None:
    rows = manifest.rows("train")
    found = []
    for batch_size in (1, 7, 22, 100):
        loader = evaluation_loader(
            EvaluationDataset(manifest, SPEC),
            rows,
            batch_size=batch_size,
            workers=0,
            pin_memory=False,
        )
        found.append(torch.cat([unwrap(batch).images for batch in loader]))

    assert all(torch.equal(images, found[0]) for images in found)
    assert len(found[0]) == len(rows) == 22
