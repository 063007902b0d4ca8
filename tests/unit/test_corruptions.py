"""Each corruption against a reference, and what all of them keep."""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from classifier_training.transforms.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    defocus_blur,
    disk_kernel,
    exposure,
    gaussian_blur,
    gaussian_noise,
    jpeg,
    line_kernel,
    motion_blur,
    pixelate,
    zoom_in,
    zoom_out,
)

RNG = np.random.default_rng(0)
BOTH = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]


def photo(width: int = 90, height: int = 60) -> Image.Image:
    """Smooth shapes with edges and a texture, all values away from the ends."""
    rows, columns = np.indices((height, width))
    waves = 128 + 50 * np.sin(columns / 7) + 30 * np.cos(rows / 5)
    pixels = np.stack([waves, waves[:, ::-1], np.full_like(waves, 90)], axis=2)
    pixels[15:30, 20:40] = (200, 60, 120)
    return Image.fromarray(pixels.astype(np.uint8))


def values(image: Image.Image) -> npt.NDArray[np.float64]:
    return np.asarray(image, dtype=np.float64)


@pytest.mark.parametrize(("name", "severity"), BOTH)
def test_size_mode_and_original_are_kept(name: str, severity: int) -> None:
    for image in (photo(), photo(33, 70), Image.new("RGB", (1, 1), "red"), photo(300, 4)):
        before = image.tobytes()

        found = CORRUPTIONS[name].apply(image, severity, name="x.png", seed=0)

        assert (found.mode, found.size) == ("RGB", image.size)
        assert image.tobytes() == before


# How far a zoomed texture is from itself says nothing of how far it was zoomed.
@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if "zoom" not in name])
def test_each_severity_is_further_from_the_original(name: str) -> None:
    image = photo(240, 200)
    distances = [
        np.abs(
            values(CORRUPTIONS[name].apply(image, level, name="x", seed=0)) - values(image)
        ).mean()
        for level in SEVERITIES
    ]

    assert 0 < distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_randomness_is_of_seed_and_name_alone(name: str) -> None:
    image, corruption = photo(), CORRUPTIONS[name]
    first = corruption.apply(image, 2, name="a.png", seed=0).tobytes()
    np.random.seed(3)  # noqa: NPY002

    assert corruption.apply(image, 2, name="a.png", seed=0).tobytes() == first
    if name in ("gaussian_noise", "motion_blur"):
        assert corruption.apply(image, 2, name="b.png", seed=0).tobytes() != first
        assert corruption.apply(image, 2, name="a.png", seed=1).tobytes() != first


def test_noise_has_the_deviation_it_says_in_each_channel() -> None:
    grey = Image.new("RGB", (400, 300), (128, 128, 128))

    noise = values(gaussian_noise(grey, 0.1, np.random.default_rng(1))) - 128

    assert noise.std(axis=(0, 1)) == pytest.approx([25.5] * 3, rel=0.02)
    assert noise.mean(axis=(0, 1)) == pytest.approx([0] * 3, abs=0.3)
    between = np.corrcoef(noise.reshape(-1, 3).T)
    assert np.abs(between - np.eye(3)).max() < 0.02


def test_noise_is_cut_at_the_ends_and_does_not_wrap() -> None:
    found = values(gaussian_noise(Image.new("RGB", (50, 50), "white"), 0.2, RNG))

    assert found.min() > 20
    assert found.max() == 255


def test_gaussian_blur_is_scipys() -> None:
    image = photo(200, 100)

    found = values(gaussian_blur(image, 0.03, RNG))  # sigma 3 pixels of a shorter side of 100

    expected = ndimage.gaussian_filter(values(image), (3, 3, 0), mode="nearest")
    assert np.abs(found - expected).mean() < 1  # Pillow's is three box filters
    assert np.abs(found - expected).max() < 8


@pytest.mark.parametrize("radius", [0.3, 1.0, 2.5, 6.0])
def test_a_disk_covers_its_area(radius: float) -> None:
    kernel = disk_kernel(radius)
    reach = len(kernel) // 2
    rows, columns = np.indices(kernel.shape) - reach

    assert kernel.sum() == pytest.approx(1)
    assert kernel == pytest.approx(kernel.T)
    assert kernel == pytest.approx(kernel[::-1, ::-1])
    distance = np.hypot(rows, columns)
    assert (kernel[distance > radius + 0.75] == 0).all()
    if radius >= 2:  # pixels wholly inside weigh 1 / area
        inside = kernel[distance < radius - 0.75]
        assert inside == pytest.approx(1 / (math.pi * radius**2), rel=0.03)


def test_defocus_is_scipys_convolution_with_the_disk() -> None:
    image = photo(120, 80)

    found = values(defocus_blur(image, 0.05, RNG))  # 4 pixels

    kernel = disk_kernel(4.0)[..., None]
    expected = ndimage.convolve(values(image), kernel, mode="nearest")
    assert np.abs(found - expected).max() <= 0.51


def test_motion_blur_is_scipys_convolution_with_a_line_in_a_drawn_direction() -> None:
    image = photo(121, 80)

    found = values(motion_blur(image, 0.1, np.random.default_rng(5)))  # 8 pixels

    angle = np.random.default_rng(5).uniform(0, math.pi)
    kernel = line_kernel(8.0, angle)[::-1, ::-1, None]  # symmetric: a line through the centre
    expected = ndimage.convolve(values(image), kernel, mode="nearest")
    assert np.abs(found - expected).max() <= 0.51


@pytest.mark.parametrize(("angle", "is_row"), [(0.0, True), (math.pi / 2, False)])
def test_a_line_lies_in_its_direction(angle: float, is_row: bool) -> None:
    kernel = line_kernel(6.0, angle)
    along = kernel.sum(axis=0 if is_row else 1)
    across = kernel.sum(axis=1 if is_row else 0)

    assert kernel.sum() == pytest.approx(1)
    assert across[3] == pytest.approx(1)
    assert along[1:6] == pytest.approx([1 / 6] * 5, rel=0.05)


def test_jpeg_is_pillows_of_that_quality() -> None:
    image, buffer = photo(), io.BytesIO()
    image.save(buffer, "JPEG", quality=15, subsampling=2)

    expected = Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")

    assert jpeg(image, 15.0, RNG).tobytes() == expected.tobytes()


def test_exposure_multiplies_and_cuts() -> None:
    image = Image.new("RGB", (2, 2), (10, 101, 200))

    assert exposure(image, 1.4, RNG).getpixel((0, 0)) == (14, 141, 255)
    assert exposure(image, 0.35, RNG).getpixel((1, 1)) == (4, 35, 70)


def test_pixelate_replaces_blocks_by_their_mean() -> None:
    image = photo(80, 60)

    found = values(pixelate(image, 1 / 15, RNG))  # blocks of 4 pixels

    blocks = values(image).reshape(15, 4, 20, 4, 3).mean(axis=(1, 3))
    assert (
        np.abs(found - blocks.repeat(4, axis=0).repeat(4, axis=1)).max() <= 1
    )  # Pillow rounds twice


def test_zoom_in_enlarges_the_centre() -> None:
    image = photo(80, 60)

    found = zoom_in(image, 0.5, RNG)

    expected = image.crop((20, 15, 60, 45)).resize((80, 60), Image.Resampling.BILINEAR)
    inner = (slice(4, -4), slice(4, -4))  # at the edge the crop knows no neighbours
    assert np.abs(values(found)[inner] - values(expected)[inner]).max() <= 2


def test_zoom_out_centres_the_whole_image_on_its_mean_colour() -> None:
    image = photo(80, 60)

    found = zoom_out(image, 0.5, RNG)

    small = image.resize((40, 30), Image.Resampling.BILINEAR)
    assert found.crop((20, 15, 60, 45)).tobytes() == small.tobytes()
    mean = tuple(np.rint(values(image).mean(axis=(0, 1))).astype(int))
    assert {found.getpixel(place) for place in ((0, 0), (79, 59), (10, 30))} == {mean}


def test_a_severity_looks_alike_at_every_resolution() -> None:
    large = photo(1200, 800).resize((1200, 800))
    small = large.resize((300, 200), Image.Resampling.BOX)

    for name in ("gaussian_blur", "defocus_blur", "pixelate", "zoom_in", "zoom_out"):
        on_large = CORRUPTIONS[name].apply(large, 3, name="x", seed=0)
        on_small = CORRUPTIONS[name].apply(small, 3, name="x", seed=0)
        again = on_large.resize((300, 200), Image.Resampling.BOX)
        assert np.abs(values(again) - values(on_small)).mean() < 2.5, name
