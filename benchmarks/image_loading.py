"""Images decoded per second and core: ours against Pillow, torchvision and simplejpeg.

    python -m benchmarks.image_loading DATA [--images 400] [--rounds 5] [--reduce-to 112]

DATA is any folder with JPEG files. Each file is decoded by every decoder in turn, round after
round, from memory and on one core; the fastest round of each file counts, so that a disturbed
machine slows none of them. "same" is the share of files whose pixels equal Pillow's bit for bit;
"ratio" is the speed relative to the fastest of the others. The lower half decodes at reduced size
(the shorter side not below --reduce-to).
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
import torchvision
from PIL import Image

from classifier_training.data.decoding import decode_pixels
from classifier_training.data.loading import bound_heap
from classifier_training.inference.images import decode_image, reduction

Pixels = npt.NDArray[np.uint8]
Decoder = Callable[[bytes], Pixels]


def whole() -> dict[str, Decoder]:
    """Return decoders of the whole image."""
    return {
        "ours, training": lambda data: decode_pixels(data, "", None),
        "ours, runtime": lambda data: np.asarray(decode_image(data, "")),
        "Pillow": lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
        "torchvision": torchvision_pixels,
        "simplejpeg": simplejpeg.decode_jpeg,
    }


def reduced(at_least: int) -> dict[str, Decoder]:
    """Return decoders that reduce while they decode."""

    def pillow(data: bytes) -> Pixels:
        image = Image.open(io.BytesIO(data))
        factor = reduction(*image.size, at_least)
        image.draft(None, (image.width // factor, image.height // factor))
        return np.asarray(image.convert("RGB"))

    def turbo(data: bytes) -> Pixels:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        factor = reduction(width, height, at_least)
        return np.asarray(
            simplejpeg.decode_jpeg(
                data, min_height=-(-height // factor), min_width=-(-width // factor)
            )
        )

    return {
        "ours, training": lambda data: decode_pixels(data, "", at_least),
        "ours, runtime": lambda data: np.asarray(decode_image(data, "", at_least=at_least)),
        "Pillow": pillow,
        "simplejpeg": turbo,
    }


def torchvision_pixels(data: bytes) -> Pixels:
    """Decode as torchvision does, to its own layout."""
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    image = torchvision.io.decode_image(encoded, mode="RGB", apply_exif_orientation=True)
    return np.asarray(image.permute(1, 2, 0))


def seconds(decoders: dict[str, Decoder], files: list[bytes], rounds: int) -> dict[str, float]:
    """Return the time of each decoder for all files."""
    best = {name: np.full(len(files), np.inf) for name in decoders}
    for _ in range(rounds):
        for at, data in enumerate(files):
            for name, decode in decoders.items():
                started = time.perf_counter()
                decode(data)
                best[name][at] = min(best[name][at], time.perf_counter() - started)
    return {name: float(times.sum()) for name, times in best.items()}


def report(title: str, decoders: dict[str, Decoder], files: list[bytes], rounds: int) -> None:
    """Measure and print a table."""
    reference = [decoders["ours, runtime"](data) for data in files]
    times = seconds(decoders, files, rounds)
    fastest = min(taken for name, taken in times.items() if not name.startswith("ours"))
    print(f"{title:<24}{'images/s':>10}{'ratio':>8}{'same':>8}")
    for name, decode in decoders.items():
        equal = [
            np.array_equal(decode(data), expected)
            for data, expected in zip(files, reference, strict=True)
        ]
        speed = len(files) / times[name]
        print(f"{name:<24}{speed:>10.0f}{fastest / times[name]:>8.2f}{np.mean(equal):>8.1%}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reduce-to", type=int, default=112)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bound_heap()  # as in loader processes
    paths = sorted(path for path in arguments.data.rglob("*") if path.suffix.lower() == ".jpg")
    chosen = paths[:: max(1, len(paths) // arguments.images)][: arguments.images]
    files = [path.read_bytes() for path in chosen]
    report(f"whole, {len(files)} files", whole(), files, arguments.rounds)
    title = f"reduced to {arguments.reduce_to}"
    report(title, reduced(arguments.reduce_to), files, arguments.rounds)


if __name__ == "__main__":
    main()
