from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from classifier_training.config.choices import RESIZE_MODES, ResizeMode
from classifier_training.errors import ConfigError
from classifier_training.inference.preprocess import PreprocessSpec
from classifier_training.models.normalize import Normalize
from tests.helpers.onnx_pair import MEAN, STD

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def spec_of(resize: ResizeMode, size: int = 32) -> PreprocessSpec:
    return PreprocessSpec(size, resize, MEAN, STD)


def thirds(width: int, height: int) -> Image.Image:
    """Red, green and blue along the longer side."""
    image = Image.new("RGB", (width, height), GREEN)
    if width >= height:
        third = (width // 3, height)
        image.paste(RED, (0, 0, *third))
        image.paste(BLUE, (width - third[0], 0, width, height))
    else:
        third = (width, height // 3)
        image.paste(RED, (0, 0, *third))
        image.paste(BLUE, (0, height - third[1], width, height))
    return image


channels = st.tuples(*[st.floats(0, 1, width=32)] * 3)
deviations = st.tuples(*[st.floats(0.0078125, 1, width=32)] * 3)


@pytest.mark.promise("X4")
@settings(max_examples=50, deadline=None)
@given(
    images=hnp.arrays(np.uint8, (2, 5, 7, 3)),
    mean=channels | st.just(MEAN),
    std=deviations | st.just(STD),
)
def test_numpy_and_torch_normalise_bitwise_alike(
    images: np.ndarray, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    spec = PreprocessSpec(8, "squash", mean, std)

    ours = spec.normalize(images)
    theirs = Normalize(spec)(torch.from_numpy(images.copy()).permute(0, 3, 1, 2))

    assert ours.dtype == np.float32
    assert ours.flags.c_contiguous
    assert ours.tobytes() == theirs.contiguous().numpy().tobytes()


@pytest.mark.promise("X4")
def test_every_pixel_value_normalises_as_exact_arithmetic_says() -> None:
    values = np.arange(256, dtype=np.uint8)
    images = np.repeat(values[:, None], 3, axis=1)[None, :, None, :]
    spec = spec_of("squash")

    found = spec.normalize(images)[0, :, :, 0]

    for channel in range(3):
        exact = (values / 255 - MEAN[channel]) / STD[channel]
        np.testing.assert_allclose(found[channel], exact, atol=1e-6)


@pytest.mark.promise("D5")
@pytest.mark.parametrize("size", [(90, 30), (30, 90), (301, 100), (33, 11)])
def test_squash_keeps_all_of_the_image(size: tuple[int, int]) -> None:
    pixels = spec_of("squash").resize_image(thirds(*size))
    along = pixels[16] if size[0] > size[1] else pixels[:, 16]

    assert pixels.shape == (32, 32, 3)
    assert [tuple(int(v) for v in along[at]) for at in (3, 16, 28)] == [RED, GREEN, BLUE]


@pytest.mark.promise("D5")
@pytest.mark.parametrize("size", [(90, 30), (30, 90), (9, 3), (600, 200)])
def test_pad_keeps_the_aspect_on_the_mean_colour(size: tuple[int, int]) -> None:
    spec = spec_of("pad")
    pixels = spec.resize_image(thirds(*size))
    upright = pixels if size[0] > size[1] else pixels.transpose(1, 0, 2)

    assert [tuple(int(v) for v in upright[16, at]) for at in (3, 16, 28)] == [RED, GREEN, BLUE]
    # 32 x 32/3: eleven rows of image, ten above, eleven below.
    assert (upright[:10] == (124, 116, 104)).all()
    assert (upright[21:] == (124, 116, 104)).all()
    assert (upright[10:21, 3] == RED).all()
    assert np.abs(spec.normalize(pixels[None])[0, :, 0, 0]).max() < 0.01


@pytest.mark.promise("D5")
@pytest.mark.parametrize("size", [(90, 30), (30, 90), (600, 200)])
def test_crop_keeps_the_middle(size: tuple[int, int]) -> None:
    pixels = spec_of("crop").resize_image(thirds(*size))

    assert pixels.shape == (32, 32, 3)
    assert (pixels[2:-2, 2:-2] == GREEN).all()


@pytest.mark.promise("D5")
@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    size=st.integers(8, 40),
    resize=st.sampled_from(RESIZE_MODES),
)
def test_any_image_becomes_the_square(
    width: int, height: int, size: int, resize: ResizeMode
) -> None:
    pixels = spec_of(resize, size).resize_image(Image.new("RGB", (width, height), RED))

    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    middle = (size - 1) // 2
    assert (pixels[middle, middle] == RED).all()


_PEAK = """
from pathlib import Path
from PIL import Image
from classifier_training.inference.preprocess import PreprocessSpec
image = Image.new("RGB", (60_000, 1), (9, 9, 9))
image.paste((200, 100, 0), (29_000, 0, 31_000, 1))
pixels = PreprocessSpec(224, "crop", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).resize_image(image)
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(pixels.shape, pixels[112, 112], int(peak) // 1024)
"""


@pytest.mark.promise("D5")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_cropping_a_line_of_pixels_does_not_fill_the_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PEAK], check=False, capture_output=True, text=True
    )

    shape, _, rest = done.stdout.partition("[")
    assert shape.strip() == "(224, 224, 3)", done.stderr
    color, _, megabytes = rest.partition("]")
    assert color.split() == ["200", "100", "0"]
    assert int(megabytes) < 400  # made whole, the resized line takes 12 GB


@pytest.mark.promise("D5")
@pytest.mark.parametrize("at", ["wide", "tall"])
def test_large_crop_is_the_crop_of_the_whole(at: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 9_000, 3), dtype=np.uint8)
    image = Image.fromarray(pixels if at == "wide" else pixels.transpose(1, 0, 2).copy())

    # 320 x 120,000 pixels would be made; the middle of the long side decides alone.
    found = spec_of("crop", 320).resize_image(image).astype(int)
    around = image.crop((4488, 0, 4512, 24) if at == "wide" else (0, 4488, 24, 4512))
    expected = np.asarray(around.resize((320, 320), Image.Resampling.BILINEAR)).astype(int)

    inner = slice(20, -20)  # at the very edge the middle alone lacks its neighbours
    assert np.abs(found - expected)[inner, inner].max() <= 1


@pytest.mark.promise("D5")
def test_unknown_resize_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="resize mode 'stretch' is unknown"):
        PreprocessSpec(32, "stretch", MEAN, STD)  # type: ignore[arg-type]
