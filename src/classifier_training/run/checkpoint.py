"""What our checkpoints say about the network they hold, and how to get it back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifier_training.errors import ClassifierTrainingError, ResumeError
from classifier_training.inference.class_map import ClassMap
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.models.classifier import Classifier
from classifier_training.models.normalize import Normalize
from classifier_training.models.weights import read_checkpoint

METADATA_KEY = "classifier_training"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ModelMetadata:
    """All that is needed, besides weights, to build the network and feed it.

    Attributes:
        run_id: The run that trained it.
        model_name: A registered backbone.
        channels_last: Memory layout it is scored in.
        class_map: Its classes.
        spec: Its evaluation preprocessing.
        averaged: Whether the scored weights are the moving average.
    """

    run_id: str
    model_name: str
    channels_last: bool
    class_map: ClassMap
    spec: PreprocessSpec
    averaged: bool


@dataclass(frozen=True)
class TrainedModel:
    """A network from a checkpoint: fp32, in evaluation mode, on the CPU.

    Attributes:
        metadata: What it is, and how it is fed.
        network: Maps normalised images to logits.
        epoch: The epoch after which it was saved, from 0.
    """

    metadata: ModelMetadata
    network: Classifier
    epoch: int

    def logits(self, images: Tensor) -> Tensor:
        """Map ``(N, 3, H, W)`` uint8 images of the model's size to ``(N, C)`` float32 logits."""
        with torch.inference_mode():
            found: Tensor = self.network(Normalize(self.metadata.spec)(images))
        return found


def pack_metadata(checkpoint: dict[str, Any], metadata: ModelMetadata) -> None:
    """Write the metadata into a checkpoint as plain types."""
    spec = asdict(metadata.spec)
    checkpoint[METADATA_KEY] = {
        "schema_version": SCHEMA_VERSION,
        "run_id": metadata.run_id,
        "model_name": metadata.model_name,
        "channels_last": metadata.channels_last,
        "classes": list(metadata.class_map.names),
        "spec": {**spec, "mean": list(metadata.spec.mean), "std": list(metadata.spec.std)},
        "averaged": metadata.averaged,
    }


def unpack_metadata(checkpoint: dict[str, Any], path: Path) -> ModelMetadata:
    """Read the metadata of a checkpoint.

    Raises:
        ResumeError: It is not one of ours, or of a newer version.
    """
    try:
        stored = checkpoint[METADATA_KEY]
        if stored["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {stored['schema_version']!r} is unknown")
        spec = stored["spec"]
        red, green, blue = spec["mean"]
        std_red, std_green, std_blue = spec["std"]
        return ModelMetadata(
            run_id=stored["run_id"],
            model_name=stored["model_name"],
            channels_last=stored["channels_last"],
            class_map=ClassMap(tuple(stored["classes"])),
            spec=PreprocessSpec(
                spec["image_size"],
                spec["resize"],
                (red, green, blue),
                (std_red, std_green, std_blue),
            ),
            averaged=stored["averaged"],
        )
    except (KeyError, TypeError, ValueError, ClassifierTrainingError) as error:
        raise ResumeError(
            f"{path} is no checkpoint of this project: {error}",
            expected="checkpoints/best.ckpt or last.ckpt of a run",
            fix="give another checkpoint; for weights of other tools use model.weights=FILE",
        ) from error


def plain_key(key: str) -> str:
    """Return the name that a tensor has in a network that is not compiled."""
    return key.replace("_orig_mod.", "")


def scored_state(checkpoint: dict[str, Any], metadata: ModelMetadata) -> dict[str, Tensor]:
    """Return the state dict of the weights that were scored, with the network's own keys."""
    prefix = "ema.module." if metadata.averaged else "net."
    state: dict[str, Tensor] = checkpoint["state_dict"]
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash a network's state: the same weights give the same digest, in whichever file they lie.

    Of each tensor, by name: ``"NAME DTYPE HxWx...\\n"`` and its bytes (little-endian, row by row).
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous().numpy()
        shape = "x".join(map(str, values.shape))
        digest.update(f"{name} {values.dtype} {shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def load_model(path: Path | str) -> TrainedModel:
    """Build the scored network of a checkpoint.

    Raises:
        ConfigError: The file is missing or damaged.
        ResumeError: It is not one of ours.
    """
    checkpoint = read_checkpoint(Path(path))
    metadata = unpack_metadata(checkpoint, Path(path))
    network = Classifier(metadata.model_name, len(metadata.class_map))
    network.load_state_dict(scored_state(checkpoint, metadata))
    network.eval()
    return TrainedModel(metadata, network, int(checkpoint["epoch"]))
