"""Manifest rows to batches of uint8 images. Normalisation happens later, on the device."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from classifier_training.data.cache import PixelCache
from classifier_training.data.decoding import DecodeSpec, read_file
from classifier_training.data.manifest import Manifest
from classifier_training.data.sampling import Draw
from classifier_training.errors import ClassifierTrainingError, ConfigError
from classifier_training.inference.preprocess import PreprocessSpec

T = TypeVar("T")


class Batch(NamedTuple):
    """Images with their labels.

    Attributes:
        images: ``(N, 3, H, W)`` uint8, RGB.
        labels: ``(N,)`` int64 class indices.
        indices: ``(N,)`` int64 into the manifest, so that everything can name its file.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


@dataclass(frozen=True)
class EvaluationDataset(Dataset[Batch]):
    """Images as evaluation and deployment see them; asked for a whole batch at a time.

    Attributes:
        cache: Holds pixels by ``DecodeSpec(spec)``; None reads the files.
    """

    manifest: Manifest
    spec: PreprocessSpec
    cache: PixelCache | None = None

    def __getitems__(self, indices: list[int]) -> Batch | ClassifierTrainingError:
        return _batch(self._image, indices, indices, self.manifest)

    def _image(self, index: int) -> Tensor:
        return _read(self.manifest, index, DecodeSpec(self.spec), self.cache)


@dataclass(frozen=True)
class TrainingDataset(Dataset[Batch]):
    """Augmented images; the augmentation is a function of (seed, epoch, position in it).

    Attributes:
        transform: Maps a ``(3, H, W)`` uint8 tensor of any size to ``(3, S, S)`` uint8; None trains
            on what evaluation sees.
        at_least: What is augmented is reduced, so that its shorter side is not below this.
        cache: Holds pixels by :attr:`recipe`; None reads the files.
    """

    manifest: Manifest
    spec: PreprocessSpec
    transform: Callable[[Tensor], Tensor] | None
    seed: int
    at_least: int | None = None
    cache: PixelCache | None = None

    @property
    def recipe(self) -> DecodeSpec:
        """What is made of a file before augmentation."""
        return DecodeSpec(self.spec) if self.transform is None else DecodeSpec(None, self.at_least)

    def __getitems__(self, draws: list[Draw]) -> Batch | ClassifierTrainingError:
        return _batch(self._image, draws, [draw.row for draw in draws], self.manifest)

    def _image(self, draw: Draw) -> Tensor:
        pixels = _read(self.manifest, draw.row, self.recipe, self.cache)
        if self.transform is None:
            return pixels
        with seeded(self.seed, draw.epoch, draw.position):
            augmented = self.transform(pixels)
        size = self.spec.image_size
        if augmented.dtype != torch.uint8 or augmented.shape != (3, size, size):
            raise ConfigError(
                f"transforms.train turned {self.manifest.describe(draw.row)} into a tensor of "
                f"shape {tuple(augmented.shape)} and dtype {augmented.dtype}",
                expected=f"(3, {size}, {size}) of dtype uint8",
                fix="let the list contain a RandomResizedCrop or Resize to "
                "size: ${transforms.image_size}, and no conversion to float",
            )
        return augmented


@contextlib.contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Seed torch, numpy and ``random`` from ``entropy``, and restore their states afterwards.

    Restoring matters without worker processes: there the global generators also serve training,
    and results must not depend on the number of workers.
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    seed = int(np.random.SeedSequence(list(entropy)).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - transforms of others may use the global one
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])


def _read(manifest: Manifest, row: int, recipe: DecodeSpec, cache: PixelCache | None) -> Tensor:
    """Return ``(3, H, W)`` uint8 that the caller may write to."""
    pixels = None if cache is None else cache.read(row)
    if pixels is None:
        pixels = recipe.pixels(read_file(manifest, row), manifest.describe(row))
    if not pixels.flags.writeable:  # Pillow's own buffer
        pixels = pixels.copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _batch(
    image_of: Callable[[T], Tensor], wanted: list[T], indices: list[int], manifest: Manifest
) -> Batch | ClassifierTrainingError:
    """Make a batch, or return (not raise) the user's error.

    A DataLoader would turn an error raised in a worker into a RuntimeError with a traceback as
    its message; returned, it reaches :func:`unwrap` in the main process whole.
    """
    try:
        images = torch.stack([image_of(item) for item in wanted])
    except ClassifierTrainingError as error:
        return error
    return Batch(
        images=images,
        labels=torch.from_numpy(manifest.labels[indices]),
        indices=torch.tensor(indices, dtype=torch.int64),
    )


def unwrap(loaded: Batch | ClassifierTrainingError) -> Batch:
    """Return the batch, or raise the error that its worker met."""
    if isinstance(loaded, ClassifierTrainingError):
        raise loaded
    return loaded
