"""Each camera degradation against Pillow or numpy, written here a second time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from classifier_training.config.instantiate import instantiate
from classifier_training.data.dataset import seeded
from classifier_training.errors import ConfigError
from classifier_training.synthetic.render import render_crop
from classifier_training.training.api import train_with
from classifier_training.transforms.build import build_augmentation
from classifier_training.transforms.corruptions import (
    BilinearDownscale,
    GaussianNoise,
    JpegCompression,
    Pixelation,
    ZoomIn,
    ZoomOut,
)
from tests.helpers.config import config_of
from tests.helpers.data import write_folder
from tests.helpers.runs import TINY

MEAN = (0.485, 0.456, 0.406)
# Each at one strength, so that a reference needs no chance.
EVERY: dict[str, Callable[[float], nn.Module]] = {
    "jpeg": lambda p: JpegCompression(p, [20, 20]),
    "pixelation": lambda p: Pixelation(p, [0.25, 0.25]),
    "downscale": lambda p: BilinearDownscale(p, [0.3, 0.3]),
    "noise": lambda p: GaussianNoise(p, [12.0, 12.0]),
    "zoom in": lambda p: ZoomIn(p, [1.5, 1.5]),
    "zoom out": lambda p: ZoomOut(p, [1.5, 1.5], MEAN),
}
RANGED: dict[str, Callable[[], nn.Module]] = {
    "jpeg": lambda: JpegCompression(0.5, [1, 100]),
    "pixelation": lambda: Pixelation(0.5, [0.01, 1.0]),
    "downscale": lambda: BilinearDownscale(0.5, [0.01, 1.0]),
    "noise": lambda: GaussianNoise(0.5, [0.0, 255.0]),
    "zoom in": lambda: ZoomIn(0.5, [1.0, 8.0]),
    "zoom out": lambda: ZoomOut(0.5, [1.0, 8.0], MEAN),
}


@pytest.fixture(scope="module")
def jersey() -> Image.Image:
    """A synthetic crop, wider than high and of odd size."""
    picture, _ = render_crop("23", image_size=96, difficulty=0.2, seed=[3])
    return picture.resize((121, 97))


def tensor_of(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def pixels_of(image: Tensor) -> npt.NDArray[np.uint8]:
    return image.permute(1, 2, 0).numpy()


def test_jpeg_is_what_pillow_saves_and_opens(jersey: Image.Image) -> None:
    for quality in (1, 20, 75, 100):
        file = io.BytesIO()
        jersey.save(file, "JPEG", quality=quality)

        found = JpegCompression(1.0, [quality, quality])(tensor_of(jersey))

        assert np.array_equal(pixels_of(found), np.asarray(Image.open(file)))


def test_jpeg_takes_every_quality_of_its_range(jersey: Image.Image) -> None:
    wanted = set()
    for quality in (30, 31, 32):
        file = io.BytesIO()
        jersey.save(file, "JPEG", quality=quality)
        wanted.add(np.asarray(Image.open(file)).tobytes())
    torch.manual_seed(0)
    compress = JpegCompression(1.0, [30, 32])
    image = tensor_of(jersey)

    found = {pixels_of(compress(image)).tobytes() for _ in range(40)}

    assert len(wanted) == 3
    assert found == wanted


def test_pixels_are_the_means_of_their_blocks() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    means = pixels.reshape(6, 4, 8, 4, 3).mean(axis=(1, 3))
    wanted = np.repeat(np.repeat(means, 4, axis=0), 4, axis=1)

    found = pixels_of(Pixelation(1.0, [0.25, 0.25])(tensor_of(Image.fromarray(pixels))))

    assert np.abs(found - wanted).max() < 1  # Pillow rounds after rows and after columns
    assert np.array_equal(found[::4, ::4].repeat(4, 0).repeat(4, 1), found)


def test_downscale_is_pillows_bilinear_there_and_back(jersey: Image.Image) -> None:
    bilinear = Image.Resampling.BILINEAR
    wanted = jersey.resize((36, 29), bilinear).resize((121, 97), bilinear)

    found = pixels_of(BilinearDownscale(1.0, [0.3, 0.3])(tensor_of(jersey)))

    assert np.array_equal(found, np.asarray(wanted))


def test_downscale_follows_torchvisions_antialiased_resize(jersey: Image.Image) -> None:
    image = tensor_of(jersey)
    small = v2.functional.resize(image.float(), [29, 36], antialias=True)
    wanted = v2.functional.resize(small, [97, 121], antialias=True)

    found = BilinearDownscale(1.0, [0.3, 0.3])(image)

    assert float((found.float() - wanted).abs().max()) < 2.5  # rounded four times on the way


@pytest.mark.parametrize("sigma", [3.0, 12.0])
def test_noise_has_the_stated_spread_and_no_bias(sigma: float) -> None:
    torch.manual_seed(1)
    grey = torch.full((3, 200, 200), 128, dtype=torch.uint8)

    noise = GaussianNoise(1.0, [sigma, sigma])(grey).double() - 128

    count = noise.numel()
    spread = (sigma**2 + 1 / 12) ** 0.5  # rounding adds the variance of a uniform step
    assert abs(float(noise.mean())) < 4 * spread / count**0.5
    assert float(noise.std()) == pytest.approx(spread, rel=4 / (2 * count) ** 0.5)
    # Independent between channels and between neighbours.
    flat = noise.reshape(3, -1)
    assert abs(float(torch.corrcoef(flat)[0, 1])) < 4 / flat.shape[1] ** 0.5
    beside = torch.corrcoef(torch.stack([noise[..., :-1].flatten(), noise[..., 1:].flatten()]))
    assert abs(float(beside[0, 1])) < 4 / count**0.5
    # The fourth moment of a normal distribution; that of an even one is 1.8.
    kurtosis = float(noise.pow(4).mean() / noise.square().mean() ** 2)
    assert kurtosis == pytest.approx(3.0, abs=0.05)


def test_noise_is_clipped_and_does_not_wrap() -> None:
    torch.manual_seed(1)
    black, white = (torch.full((3, 64, 64), value, dtype=torch.uint8) for value in (0, 255))

    add = GaussianNoise(1.0, [10.0, 10.0])

    assert int(add(black).max()) < 60
    assert int(add(white).min()) > 195


def test_zoom_in_enlarges_about_the_centre() -> None:
    """Of a plane that rises one a pixel, twofold enlargement leaves half a step and its centre."""
    ramp = np.broadcast_to(np.arange(50, 150, dtype=np.uint8)[None, :, None], (80, 100, 3))

    found = pixels_of(ZoomIn(1.0, [2.0, 2.0])(tensor_of(Image.fromarray(ramp.copy()))))

    middle = found[40, :, 0].astype(float)
    # Pixel x of the enlarged picture sees x / 2 + a quarter of the width, centres aligned.
    wanted = 50 + (np.arange(100) + 0.5) / 2 + 25 - 0.5
    assert found.shape == (80, 100, 3)
    assert np.abs(middle - wanted).max() <= 0.5
    assert (found == found[:1]).all(), "rows are alike"


def test_zoom_out_shrinks_about_the_centre_on_the_mean_colour(jersey: Image.Image) -> None:
    found = pixels_of(ZoomOut(1.0, [1.5, 1.5], MEAN)(tensor_of(jersey)))

    small = np.asarray(jersey.resize((81, 65), Image.Resampling.BILINEAR))
    border = np.array([124, 116, 104])
    assert np.array_equal(found[16:81, 20:101], small)
    outside = np.ones(found.shape[:2], dtype=bool)
    outside[16:81, 20:101] = False
    assert (found[outside] == border).all()


@pytest.mark.parametrize("name", EVERY)
def test_the_tensor_keeps_its_shape_and_the_input_its_pixels(
    name: str, jersey: Image.Image
) -> None:
    image = tensor_of(jersey)
    before = image.clone()

    found = EVERY[name](1.0)(image)

    assert found.dtype == torch.uint8
    assert found.shape == image.shape
    assert torch.equal(image, before)
    assert not torch.equal(found, before)
    assert torch.equal(EVERY[name](1.0).eval()(image), found) or name == "noise"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of memory that may not be written to
        EVERY[name](1.0)(image).zero_()
    assert torch.equal(image, before)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 3)])
def test_the_smallest_images_pass(name: str, size: tuple[int, int]) -> None:
    image = torch.full((3, *size), 200, dtype=torch.uint8)

    assert EVERY[name](1.0)(image).shape == image.shape


@pytest.mark.parametrize("name", EVERY)
def test_with_probability_zero_nothing_happens(name: str, jersey: Image.Image) -> None:
    torch.manual_seed(0)
    image = tensor_of(jersey)

    assert all(EVERY[name](0.0)(image) is image for _ in range(50))


@pytest.mark.parametrize("name", EVERY)
def test_p_is_the_share_of_degraded_images(name: str, jersey: Image.Image) -> None:
    torch.manual_seed(0)
    image = tensor_of(jersey.resize((16, 16)))

    changed = sum(EVERY[name](0.3)(image) is not image for _ in range(1000))

    assert 240 < changed < 360  # four standard deviations


@pytest.mark.parametrize(
    ("build", "arguments"),
    [
        (JpegCompression, ([100, 100],)),
        (Pixelation, ([1.0, 1.0],)),
        (BilinearDownscale, ([1.0, 1.0],)),
        (GaussianNoise, ([0.0, 0.0],)),
        (ZoomIn, ([1.0, 1.0],)),
        (ZoomOut, ([1.0, 1.0], MEAN)),
    ],
)
def test_the_weak_end_of_each_range_changes_next_to_nothing(
    build: Any, arguments: tuple[Any, ...]
) -> None:
    # Smooth and grey: what is left is rounding, for the codec too.
    rows, columns = np.indices((64, 64))
    grey = (60 + rows + columns).astype(np.uint8)
    image = tensor_of(Image.fromarray(np.stack([grey] * 3, axis=-1)))

    found = build(1.0, *arguments)(image)

    assert int((found.int() - image.int()).abs().max()) <= (2 if build is JpegCompression else 0)


@pytest.mark.promise("T10")
@pytest.mark.parametrize("name", RANGED)
def test_the_seed_of_the_sample_decides(name: str, jersey: Image.Image) -> None:
    """Whatever was drawn before; numpy's and Python's generators have no say."""
    degrade, image = RANGED[name](), tensor_of(jersey)
    first = []
    for position in range(30):
        with seeded(1, 2, position):
            first.append(degrade(image))
    np.random.seed(5)  # noqa: NPY002
    for position in reversed(range(30)):
        with seeded(1, 2, position):
            np.random.random(3)  # noqa: NPY002
            assert torch.equal(degrade(image), first[position])
    assert len({found.numpy().tobytes() for found in first}) > 5


BAD: list[tuple[str, dict[str, object], str]] = [
    ("JpegCompression", {"p": 1.2, "quality": [10, 50]}, "p is 1.2"),
    ("JpegCompression", {"p": -0.1, "quality": [10, 50]}, "p is -0.1"),
    ("JpegCompression", {"p": float("nan"), "quality": [10, 50]}, "p is nan"),
    ("JpegCompression", {"p": "half", "quality": [10, 50]}, "p is 'half'"),
    ("JpegCompression", {"p": True, "quality": [10, 50]}, "p is True"),
    ("JpegCompression", {"p": 0.5, "quality": [0, 50]}, "quality is [0, 50]"),
    ("JpegCompression", {"p": 0.5, "quality": [10, 101]}, "quality is [10, 101]"),
    ("JpegCompression", {"p": 0.5, "quality": [50, 10]}, "quality is [50, 10]"),
    ("JpegCompression", {"p": 0.5, "quality": [10.5, 50]}, "whole numbers"),
    ("JpegCompression", {"p": 0.5, "quality": 50}, "quality is 50"),
    ("JpegCompression", {"p": 0.5, "quality": "19"}, "quality is '19'"),
    ("JpegCompression", {"p": 0.5}, "missing a required argument"),
    ("Pixelation", {"p": 0.5, "scale": [0, 0.5]}, "above 0 to 1"),
    ("Pixelation", {"p": 0.5, "scale": [0.5, 1.5]}, "scale is [0.5, 1.5]"),
    ("BilinearDownscale", {"p": 0.5, "scale": [0.0, 0.5]}, "above 0 to 1"),
    ("BilinearDownscale", {"p": 0.5, "scale": [0.1, float("nan")]}, "scale is [0.1, nan]"),
    ("BilinearDownscale", {"p": 0.5, "scale": [0.1, 0.2, 0.3]}, "[lowest, highest]"),
    ("GaussianNoise", {"p": 0.5, "sigma": [-1, 5]}, "from 0 to 255"),
    ("GaussianNoise", {"p": 0.5, "sigma": [None, 5]}, "[lowest, highest]"),
    ("ZoomIn", {"p": 0.5, "factor": [0.5, 2]}, "from 1 to 100"),
    ("ZoomOut", {"p": 0.5, "factor": [0.9, 2], "mean": MEAN}, "from 1 to 100"),
    ("ZoomOut", {"p": 0.5, "factor": [1, 2], "mean": [124, 116, 104]}, "from 0 to 1"),
    ("ZoomOut", {"p": 0.5, "factor": [1, 2], "mean": [0.5]}, "three numbers"),
]


@pytest.mark.promise("C5")
@pytest.mark.parametrize(("name", "arguments", "what"), BAD)
def test_a_wrong_value_is_an_error_of_the_configuration(
    name: str, arguments: dict[str, object], what: str
) -> None:
    spec = {"_target_": f"classifier_training.transforms.corruptions.{name}", **arguments}

    with pytest.raises(ConfigError) as caught:
        instantiate(spec, nn.Module, "transforms.train.4")

    assert what in caught.value.what
    assert f"transforms.train.4: {name} refuses its arguments" in caught.value.what


@pytest.mark.promise("C5")
def test_a_wrong_value_deep_in_the_chain_stops_a_run_before_it_writes(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    key = "transforms.train.4.transforms.1.transforms.0.scale"

    with pytest.raises(ConfigError, match=r"transforms\.train\.4\.transforms\.1\.transforms\.0"):
        train_with(
            [*TINY, f"data.data_root={data}", "transforms=jersey", f"{key}=[0.6,0.15]"],
            out=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def jersey_chain(*overrides: str) -> nn.Module:
    given = ["data.data_root=/images", "transforms=jersey", "transforms.image_size=64", *overrides]
    chain = build_augmentation(config_of(*given).transforms)
    assert chain is not None
    return chain


def test_the_jersey_chain_gives_what_the_network_takes(jersey: Image.Image) -> None:
    chain, image = jersey_chain(), tensor_of(jersey)
    seen = set()
    for position in range(40):
        with seeded(0, 0, position):
            found = chain(image)
        assert found.dtype == torch.uint8
        assert found.shape == (3, 64, 64)
        seen.add(found.numpy().tobytes())
        with seeded(0, 0, position):
            assert found.numpy().tobytes() == chain(image).numpy().tobytes()
    assert len(seen) == 40


def test_the_jersey_chain_never_mirrors() -> None:
    """A picture that is light on the left stays so, whatever is drawn."""
    pixels = np.full((64, 64, 3), 40, dtype=np.uint8)
    pixels[:, :32] = 220
    chain, image = jersey_chain(), tensor_of(Image.fromarray(pixels))
    for position in range(200):
        with seeded(7, 0, position):
            found = chain(image).float()
        assert found[:, 16:48, 8:28].mean() > found[:, 16:48, 36:56].mean()


def test_the_stated_share_passes_clean() -> None:
    """With all other steps taken out, a fifth of the images is untouched."""
    content = config_of("data.data_root=/images", "transforms=jersey").transforms
    step = next(s for s in content.train if str(s["_target_"]).endswith("RandomApply"))
    degrade = instantiate(step, nn.Module, "transforms.train.4")
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    torch.manual_seed(0)

    untouched = sum(degrade(image) is image for _ in range(2000)) / 2000

    # 0.2 by the pass-through, and those that every degradation leaves by its own p:
    # zoom 0.5, resolution (0.4 + 0.6) / 2, noise 0.6, codec 0.4.
    assert untouched == pytest.approx(0.2 + 0.8 * 0.5 * 0.5 * 0.6 * 0.4, abs=0.04)
