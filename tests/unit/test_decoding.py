"""The training decoder gives the runtime's pixels, bit for bit; reduced ones are true to them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from classifier_training.data import decoding
from classifier_training.data.decoding import decode_pixels, is_turbo
from classifier_training.errors import DataError
from classifier_training.inference.images import decode_image

needs_turbo = pytest.mark.skipif(decoding.simplejpeg is None, reason="simplejpeg is not installed")


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Shapes and noise: fine detail, where decoders that differ show it."""
    rng = np.random.default_rng([width, height])
    rows, columns = np.indices((height, width))
    smooth = 128 + 100 * np.sin(rows / 17)[..., None] * np.cos(columns / 23)[..., None]
    noisy = smooth + rng.normal(0, 25, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).convert(mode)


def jpeg(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def runtime_pixels(data: bytes, at_least: int | None) -> npt.NDArray[np.uint8]:
    return np.asarray(decode_image(data, "x", at_least=at_least))


XMP = (
    b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'>"
    b'<rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
)


@pytest.mark.promise("D9")
@needs_turbo
@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    options=st.fixed_dictionaries(
        {
            "quality": st.integers(5, 100),
            "subsampling": st.sampled_from([0, 1, 2]),
            "progressive": st.booleans(),
            "exif": st.sampled_from([b"", *(orientation(value) for value in range(10))]),
        }
    ),
    at_least=st.none() | st.integers(1, 160),
)
def test_jpeg_decodes_to_the_pixels_of_the_runtime(
    width: int, height: int, mode: str, options: dict[str, Any], at_least: int | None
) -> None:
    data = jpeg(picture(width, height, mode), **options)

    found = decode_pixels(data, "x", at_least)

    assert np.array_equal(found, runtime_pixels(data, at_least))
    assert found.flags.writeable


@pytest.mark.promise("D5")
@needs_turbo
@pytest.mark.parametrize("kind", ["xmp", "multi-picture", "restart", "comment", "optimized"])
def test_rarer_jpegs_decode_to_the_pixels_of_the_runtime(kind: str) -> None:
    image = picture(61, 40)
    options: dict[str, dict[str, Any]] = {
        "xmp": {"xmp": XMP.partition(b"\0")[2]},
        "restart": {"restart_marker_blocks": 2},
        "comment": {"comment": b"\xff\xd9 not the end"},
        "optimized": {"optimize": True},
    }
    if kind == "multi-picture":
        file = io.BytesIO()
        image.save(file, "MPO", save_all=True, append_images=[picture(61, 40, "L").convert("RGB")])
        data = file.getvalue()
    else:
        data = jpeg(image, **options[kind])

    found = decode_pixels(data, "x", None)

    assert np.array_equal(found, runtime_pixels(data, None))
    assert found.shape == ((61, 40, 3) if kind == "xmp" else (40, 61, 3))


@pytest.mark.promise("D5")
@settings(max_examples=200, deadline=None)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=4),
    kept=st.floats(0.1, 1) | st.just(1),
    at_least=st.sampled_from([None, 10]),
)
def test_damaged_jpeg_has_the_fate_it_has_in_the_runtime(
    edits: list[tuple[float, bytes]], kept: float, at_least: int | None
) -> None:
    data = bytearray(jpeg(picture(64, 48), exif=orientation(6)))
    for place, change in edits:
        at = int(place * place * len(data))
        data[at : at + len(change)] = change
    damaged = bytes(data[: int(kept * len(data))])

    def outcome(pixels: Any) -> object:
        try:
            return np.asarray(pixels()).tobytes()
        except DataError as error:
            return error.what

    assert outcome(lambda: decode_pixels(damaged, "x", at_least)) == outcome(
        lambda: runtime_pixels(damaged, at_least)
    )


@pytest.mark.promise("D9")
def test_without_simplejpeg_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [jpeg(picture(90, 70), exif=orientation(value)) for value in (1, 6)]
    expected = [decode_pixels(data, "x", 20) for data in files]
    monkeypatch.setattr(decoding, "simplejpeg", None)
    is_turbo.cache_clear()
    try:
        found = [decode_pixels(data, "x", 20) for data in files]
        assert not is_turbo()
    finally:
        is_turbo.cache_clear()

    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@needs_turbo
def test_the_locked_decoders_agree() -> None:
    assert is_turbo()


@pytest.mark.promise("D9")
@needs_turbo
def test_a_decoder_that_rounds_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = decoding.simplejpeg.decode_jpeg
    monkeypatch.setattr(
        decoding.simplejpeg, "decode_jpeg", lambda *a, **k: decode(*a, fastdct=True, **k) ^ 1
    )
    is_turbo.cache_clear()
    try:
        assert not is_turbo()
    finally:
        is_turbo.cache_clear()


@pytest.mark.promise("D5")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize(
    ("size", "at_least", "expected"),
    [
        ((400, 300), None, (400, 300)),
        ((400, 300), 151, (400, 300)),
        ((400, 300), 150, (200, 150)),
        ((401, 300), 75, (101, 75)),
        ((400, 300), 1, (50, 38)),
        ((60, 300), 31, (60, 300)),
        ((60, 300), 30, (30, 150)),
    ],
)
def test_reduced_images_keep_their_shorter_side_and_content(
    kind: str, size: tuple[int, int], at_least: int | None, expected: tuple[int, int]
) -> None:
    file = io.BytesIO()
    ImageOps.scale(picture(*(side // 10 for side in size)), 10).resize(size).save(file, kind)
    whole = decode_image(file.getvalue(), "x")

    found = decode_image(file.getvalue(), "x", at_least=at_least)

    assert found.size == expected
    box = np.asarray(whole.resize(expected, Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(found) - box).mean() < 6


@pytest.mark.promise("D4")
def test_undecodable_file_is_named(tmp_path: Path) -> None:
    data = jpeg(picture(64, 48))

    with pytest.raises(DataError, match=r"cannot decode image some\.jpg: .*truncated"):
        decode_pixels(data[:-60], "some.jpg", None)
