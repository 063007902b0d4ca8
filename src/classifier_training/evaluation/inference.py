"""Logits or features of images from a trained network: fp32, deterministic, one pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classifier_training.artifacts.checkpoint import TrainedModel
from classifier_training.data.dataset import EvaluationDataset, unwrap
from classifier_training.data.loading import evaluation_loader, shared_heap
from classifier_training.data.manifest import Manifest
from classifier_training.errors import ConfigError
from classifier_training.models.normalize import Normalize


def infer(
    model: TrainedModel,
    manifest: Manifest,
    rows: npt.NDArray[np.int64],
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    on_images: Callable[[int], None],
) -> npt.NDArray[np.float32]:
    """Run images through a network.

    Args:
        model: Moved to ``device``.
        manifest: Where the images are.
        rows: Manifest indices, in the order of the result.
        batch_size: Images at a time.
        workers: Loader processes.
        device: Where to compute.
        on_images: Called with the size of each finished batch.

    Returns:
        ``(len(rows), C)`` float32.

    Raises:
        DataError: An image cannot be read.
    """
    return _over_images(
        model,
        model.network,
        manifest,
        rows,
        batch_size=batch_size,
        workers=workers,
        device=device,
        on_images=on_images,
    )


def embed(
    model: TrainedModel,
    manifest: Manifest,
    rows: npt.NDArray[np.int64],
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    on_images: Callable[[int], None],
) -> npt.NDArray[np.float32]:
    """Return ``(len(rows), D)`` features, what the head is given; otherwise as :func:`infer`."""
    return _over_images(
        model,
        model.network.embed,
        manifest,
        rows,
        batch_size=batch_size,
        workers=workers,
        device=device,
        on_images=on_images,
    )


@torch.inference_mode()
def _over_images(
    model: TrainedModel,
    compute: Callable[[Tensor], Tensor],
    manifest: Manifest,
    rows: npt.NDArray[np.int64],
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    on_images: Callable[[int], None],
) -> npt.NDArray[np.float32]:
    """Compute a row an image; ``compute`` is a method of the model's network."""
    spec = model.card.spec
    layout = torch.channels_last if model.card.channels_last else torch.contiguous_format
    model.network.to(device).to(memory_format=layout)
    normalize = Normalize(spec).to(device)
    loader = evaluation_loader(
        EvaluationDataset(manifest, spec),
        rows,
        batch_size=batch_size,
        workers=workers,
        pin_memory=device.type == "cuda",
    )
    parts = []
    with shared_heap(workers):
        for loaded in loader:
            batch = unwrap(loaded)
            images = normalize(batch.images.to(device, non_blocking=True))
            parts.append(compute(images.contiguous(memory_format=layout)).cpu())
            on_images(len(batch.labels))
    computed: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return computed


def usable_device(name: str) -> torch.device:
    """Return the torch device of a name.

    Raises:
        ConfigError: There is none of that name here, or it does not compute.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name} cannot be used: {str(error).splitlines()[0]}",
            expected="a device that torch can use here",
            mend="--device cpu",
        ) from error
    return device


def exact_fp32() -> None:
    """Compute fp32 as fp32: no TF32 in convolutions and matrix products."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
