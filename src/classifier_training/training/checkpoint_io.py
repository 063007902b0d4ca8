"""Writing and reading one checkpoint file: complete or absent, and without pickles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from classifier_training.errors import ConfigError
from classifier_training.system.files import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a temporary file in the same folder, syncs it and renames it; reads no pickles."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save atomically, and only what can be loaded again.

        Raises:
            ConfigError: It holds a value that is not plain, most likely the state of a callback.
        """
        with replacing(Path(path)) as temporary:
            _save(checkpoint, temporary)
            require_plain(temporary)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Load plain types only, whatever the caller requests."""
        loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded


def require_plain(path: Path) -> None:
    """Refuse a file that could never be loaded again. Its tensors are not read.

    Raises:
        ConfigError: It holds a value that only running code could make.
    """
    found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    if found:
        raise ConfigError(
            f"the checkpoint would hold a {found[0]} that cannot be loaded without running code",
            expected="plain values and tensors in what every callback's state_dict returns",
            fix="turn that value into a Python number, string, list or dict, or switch the "
            "callback off",
        )


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    """Raise the error of a full or failing disk, where torch would report "unexpected pos"."""
    try:
        with path.open("wb") as file:
            torch.save(checkpoint, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
