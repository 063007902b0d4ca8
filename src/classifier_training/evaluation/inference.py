"""Logits of a split from a trained network: fp32, deterministic, one pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from classifier_training.artifacts.checkpoint import TrainedModel
from classifier_training.data.dataset import EvaluationDataset, unwrap
from classifier_training.data.loading import evaluation_loader, shared_heap
from classifier_training.data.manifest import Manifest
from classifier_training.errors import ConfigError
from classifier_training.models.normalize import Normalize


@torch.inference_mode()
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
    spec = model.card.spec
    layout = torch.channels_last if model.card.channels_last else torch.contiguous_format
    network = model.network.to(device).to(memory_format=layout)
    normalize = Normalize(spec).to(device)
    loader = evaluation_loader(
        EvaluationDataset(manifest, spec),
        rows,
        batch_size=batch_size,
        workers=workers,
        pin_memory=device.type == "cuda",
    )
    parts = []
    with shared_heap():
        for loaded in loader:
            batch = unwrap(loaded)
            images = normalize(batch.images.to(device, non_blocking=True))
            parts.append(network(images.contiguous(memory_format=layout)).cpu())
            on_images(len(batch.labels))
    logits: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return logits


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
