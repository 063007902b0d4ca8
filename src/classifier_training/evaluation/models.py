"""Logits or features of images from a trained network: fp32, deterministic, one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from classifier_training.data.dataset import EvaluationDataset, unwrap
from classifier_training.data.loading import evaluation_loader, shared_heap
from classifier_training.data.manifest import Manifest
from classifier_training.errors import ConfigError
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.predictor import Predictor
from classifier_training.models.normalize import Normalize
from classifier_training.run.checkpoint import TrainedModel
from classifier_training.run.folder import RUN_JSON
from classifier_training.run.reader import Run


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
    spec = model.metadata.spec
    layout = torch.channels_last if model.metadata.channels_last else torch.contiguous_format
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
            fix="--device cpu",
        ) from error
    return device


def exact_fp32() -> None:
    """Compute fp32 as fp32: no TF32 in convolutions and matrix products."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


Backend = Literal["torch", "onnx"]
BACKENDS: tuple[Backend, ...] = ("torch", "onnx")

# (manifest, rows, batch size, loader processes, called with each batch's size) -> (N, C) logits
Infer = Callable[
    [Manifest, npt.NDArray[np.int64], int, int, Callable[[int], None]], npt.NDArray[np.float32]
]


@dataclass(frozen=True)
class Subject:
    """A model that gives logits for rows of a manifest.

    Attributes:
        path: As it was given.
        backend: What computes.
        class_map: Its classes.
        run: The run; None for a bare ONNX file.
        infer: Computes ``(N, C)`` float32 logits.
    """

    path: Path
    backend: Backend
    class_map: ClassMap
    run: Run | None
    infer: Infer


def open_subject(
    path: Path, backend: Backend | None, device: str, data_root: Path | str | None = None
) -> Subject:
    """Open a run folder or an ONNX file.

    Args:
        path: Either.
        backend: Default: torch for a run, onnx for an ONNX file.
        device: A torch device; onnxruntime runs on the CPU.
        data_root: Where the images of a run are, if they moved.

    Raises:
        ConfigError: The backend cannot run this, or the device cannot be used.
        ResumeError: No run folder, or no finished epoch in it.
        ExportError: The ONNX file or its sidecar is missing, damaged or of another model.
    """
    is_onnx = path.suffix.lower() == ".onnx" or (
        path.is_dir() and not (path / RUN_JSON).exists() and bool(list(path.glob("*.onnx")))
    )
    chosen: Backend = backend or ("onnx" if is_onnx else "torch")
    if is_onnx and chosen == "torch":
        raise ConfigError(
            f"{path} is an ONNX file, which torch does not run",
            expected="--backend onnx, or a run folder",
            fix="--backend onnx",
        )
    if chosen == "torch":
        run, usable = Run(path, data_root=data_root), usable_device(device)
        model = run.model()
        return Subject(path, chosen, model.metadata.class_map, run, _by_torch(model, usable))
    if device != "cpu":
        raise ConfigError(
            f"--device {device} was asked for, but onnxruntime is used on the CPU",
            expected="--device cpu with --backend onnx",
            fix="--device cpu, or --backend torch with a run folder",
        )
    stored = None if is_onnx else Run(path, data_root=data_root)
    predictor = Predictor.load(path)
    return Subject(path, chosen, predictor.class_map, stored, _by_onnx(predictor))


def _by_torch(model: TrainedModel, device: torch.device) -> Infer:
    def compute(
        manifest: Manifest,
        rows: npt.NDArray[np.int64],
        batch_size: int,
        workers: int,
        on_images: Callable[[int], None],
    ) -> npt.NDArray[np.float32]:
        return infer(
            model,
            manifest,
            rows,
            batch_size=batch_size,
            workers=workers,
            device=device,
            on_images=on_images,
        )

    return compute


def _by_onnx(predictor: Predictor) -> Infer:
    def compute(
        manifest: Manifest,
        rows: npt.NDArray[np.int64],
        batch_size: int,
        workers: int,
        on_images: Callable[[int], None],
    ) -> npt.NDArray[np.float32]:
        loader = evaluation_loader(
            EvaluationDataset(manifest, predictor.spec),
            rows,
            batch_size=batch_size,
            workers=workers,
            pin_memory=False,
        )
        parts = []
        with shared_heap(workers):
            for loaded in loader:
                batch = unwrap(loaded)
                pixels = batch.images.permute(0, 2, 3, 1).contiguous().numpy()
                parts.append(predictor.logits(pixels))
                on_images(len(batch.labels))
        return np.concatenate(parts)

    return compute
