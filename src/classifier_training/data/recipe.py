"""What is made of an image file before augmentation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier_training.data.decoding import decode_pixels
from classifier_training.data.manifest import Manifest
from classifier_training.errors import DataError
from classifier_training.runtime.preprocess import PreprocessSpec


@dataclass(frozen=True)
class Recipe:
    """A function of a file's bytes alone, so that its result can be kept.

    Attributes:
        spec: Evaluation preprocessing; None when the image is augmented.
        at_least: Without ``spec``: reduce so that the shorter side is not below it; None: never.
    """

    spec: PreprocessSpec | None
    at_least: int | None = None

    def pixels(self, data: bytes, name: str) -> npt.NDArray[np.uint8]:
        """Return ``(H, W, 3)`` uint8, RGB.

        Raises:
            DataError: The image cannot be decoded; ``name`` is in the message.
        """
        if self.spec is None:
            return decode_pixels(data, name, self.at_least)
        return self.spec.load(data, name)

    def facts(self) -> dict[str, Any]:
        """Return all that the pixels depend on besides the file, as plain types."""
        return asdict(self)


def read_file(manifest: Manifest, row: int) -> bytes:
    """Read the file of a manifest row.

    Raises:
        DataError: It cannot be read; the message names it.
    """
    try:
        return manifest.file(row).read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read image {manifest.describe(row)}: {error.strerror or error}",
            expected="the data to stay where it was when the run started",
            mend="restore the file, then run the same command again",
        ) from error
