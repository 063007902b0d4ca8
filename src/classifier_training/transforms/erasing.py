"""RandomErasing for images that are not normalised yet."""

from __future__ import annotations

from collections.abc import Sequence

from torchvision.transforms import v2


class RandomErasing(v2.RandomErasing):  # type: ignore[misc]  # torchvision has no types
    """Erase a rectangle to the mean colour, which normalisation turns into zero.

    ``torchvision``'s own fills uint8 images with black, a colour that means something.

    Args:
        p: Probability of erasing.
        scale: Range of the erased share of the area.
        mean: Per-channel mean of values in 0..1, as in ``transforms.mean``.
    """

    def __init__(self, p: float, scale: Sequence[float], mean: Sequence[float]) -> None:
        super().__init__(p=p, scale=scale, value=[float(round(255 * channel)) for channel in mean])
