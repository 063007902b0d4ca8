"""OpenCV preprocessing: the matching filter equals Pillow's, the default one does not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from classifier_training.config.choices import RESIZE_MODES, ResizeMode
from classifier_training.errors import DataError
from classifier_training.inference.backend_comparison import compare_opencv
from classifier_training.inference.opencv import (
    INTERPOLATIONS,
    OpenCvPreprocess,
    decode,
    resize_antialiased,
    triangle_weights,
)
from classifier_training.inference.predictor import Predictor
from classifier_training.inference.preprocess import PreprocessSpec
from tests.helpers.onnx_pair import write_pair
from tests.helpers.pixels import noise, write_images

SPEC = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def pillow_in_two_passes(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Rows first: Pillow 13 takes columns first in some cases."""
    image = Image.fromarray(pixels)
    rows = image.resize((width, image.height), Image.Resampling.BILINEAR)
    return np.asarray(rows.resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.promise("X4")
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    width=st.integers(1, 200),
    height=st.integers(1, 200),
    to=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_antialiased_resize_is_that_of_pillow(
    seed: int, width: int, height: int, to: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    ours = resize_antialiased(pixels, *to)

    np.testing.assert_array_equal(ours, pillow_in_two_passes(pixels, *to))


@pytest.mark.promise("X4")
@pytest.mark.parametrize("resize", RESIZE_MODES)
@pytest.mark.parametrize("size", [(80, 48), (50, 90), (17, 16), (300, 20)])
def test_modes_are_those_of_the_sidecar(resize: ResizeMode, size: tuple[int, int]) -> None:
    spec = PreprocessSpec(32, resize, **SPEC)
    data = noise(3, size)

    by_pillow = spec.load(data, "x").astype(int)
    differences = {
        name: np.abs(OpenCvPreprocess(spec, name).load(data, "x") - by_pillow)
        for name in INTERPOLATIONS
    }

    assert differences["antialias"].max() <= 1
    if min(size) > 32:  # shrinking: the default skips pixels
        assert differences["linear"].mean() > 10


@pytest.mark.promise("X4")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decoding_applies_exif_and_gives_rgb(orientation: int) -> None:
    pixels = np.zeros((16, 24, 3), dtype=np.uint8)
    pixels[:8, :8] = (255, 0, 0)
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(buffer, format="JPEG", quality=95, exif=exif)

    ours = decode(buffer.getvalue(), "x")

    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(buffer.getvalue())))
    np.testing.assert_array_equal(ours, np.asarray(upright.convert("RGB")))


@pytest.mark.parametrize("data", [b"", b"no image", noise(1)[:60]])
def test_undecodable_file_is_named(data: bytes) -> None:
    with pytest.raises(DataError, match=r"cannot decode image here\.png"):
        decode(data, "here.png")


def test_weights_of_a_case_worked_by_hand() -> None:
    # Four pixels to two: the triangle reaches 2 to each side of 1 and of 3.
    found = triangle_weights(4, 2)

    np.testing.assert_allclose(found[0], np.array([3, 3, 1, 0]) / 7, atol=1e-6)
    np.testing.assert_allclose(found[1], np.array([0, 1, 3, 3]) / 7, atol=1e-6)


@pytest.mark.promise("X4")
def test_comparison_counts_what_changed(tmp_path: Path) -> None:
    predictor = Predictor.load(write_pair(tmp_path / "model", size=16, seed=4))
    root = write_images(tmp_path / "images", {f"{i}.png": noise(i, (90, 70)) for i in range(40)})
    paths = sorted(root.iterdir())
    seen: list[tuple[int, int]] = []

    results = compare_opencv(predictor, paths, lambda *done: seen.append(done))

    assert [result.interpolation for result in results] == list(INTERPOLATIONS)
    by_pillow = [item.label for item in predictor.predict(paths)]
    for result in results:
        backend = OpenCvPreprocess(predictor.spec, result.interpolation)
        pixels = np.stack([backend.load(path.read_bytes(), "x") for path in paths])
        labels = [predictor.class_map.names[i] for i in predictor.logits(pixels).argmax(axis=1)]
        assert result.images == 40
        assert result.flips == sum(a != b for a, b in zip(labels, by_pillow, strict=True))
    linear, _, matching = results
    assert linear.flips > 0
    assert linear.golden > 1e-3
    assert matching.flips == 0
    assert matching.mean < linear.mean / 10
    assert seen[-1] == (40, 40)
