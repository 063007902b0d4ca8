"""What augmentation costs: microseconds an image for each step and for whole chains.

python -m benchmarks.augmentation [--sizes 96 224] [--images 200]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from classifier_training.config.compose import compose_config, make_strict
from classifier_training.config.instantiate import instantiate
from classifier_training.config.schema import TransformsConfig
from classifier_training.config.validate import validate
from classifier_training.data.dataset import seeded
from classifier_training.synthetic.render import render_crop
from classifier_training.transforms.build import build_augmentation

CHAINS = ("plain", "default", "no_flip", "jersey")
Sample = Callable[[Tensor], Tensor]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 224])
    parser.add_argument("--images", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for size in given.sizes:
        images = [_image(size, seed) for seed in range(16)]
        print(f"{size} x {size} pixels, one thread, microseconds an image (median of 5)")
        for name in CHAINS[1:]:
            chain = build_augmentation(_transforms(name, size))
            assert chain is not None
            print(f"  chain {name:<40} {_cost(chain, images, given.images):>8.0f}")
        for where, step in _steps(_transforms("jersey", size)):
            print(f"    {where:<44} {_cost(step, images, given.images):>8.0f}")


def _cost(apply: Sample, images: list[Tensor], count: int) -> float:
    """Return microseconds an image, seeding for each as training does."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        for position in range(count):
            with seeded(0, 0, position):
                apply(images[position % len(images)])
        times.append(time.perf_counter() - started)
    return 1e6 * float(np.median(times)) / count


def _steps(config: TransformsConfig) -> list[tuple[str, nn.Module]]:
    """Return every single step of a chain, degradations applied to every image (p = 1)."""
    found: list[tuple[str, nn.Module]] = []
    for position, spec in enumerate(config.train):
        for inner in _leaves(spec):
            always = {**inner, "p": 1.0} if "p" in inner else inner
            step = instantiate(always, nn.Module, f"transforms.train.{position}")
            found.append((type(step).__name__, step))
    return found


def _leaves(spec: dict[str, object]) -> list[dict[str, object]]:
    inner = spec.get("transforms")
    if not isinstance(inner, list):
        return [spec]
    return [leaf for part in inner for leaf in _leaves(part)]


def _transforms(name: str, size: int) -> TransformsConfig:
    given = ["data.data_root=/images", f"transforms={name}", f"transforms.image_size={size}"]
    return validate(compose_config(make_strict(given), root="train"), allow_modules=[]).transforms


def _image(size: int, seed: int) -> Tensor:
    picture, _ = render_crop(str(seed), image_size=size, difficulty=0.3, seed=[seed])
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


if __name__ == "__main__":
    main()
