"""Decoding, told from facts about the pixels that went into each file."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from classifier_training.errors import DataError
from classifier_training.inference.images import decode_image, read_image

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def without_bytes(value: object) -> str | None:
    """Keep files out of the names of tests."""
    return "file" if isinstance(value, bytes) else None


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def corners(width: int = 48, height: int = 32) -> Image.Image:
    """Red, green in the upper half; blue, yellow in the lower half."""
    image = Image.new("RGB", (width, height))
    half = (width // 2, height // 2)
    for color, at in (
        (RED, (0, 0)),
        (GREEN, (half[0], 0)),
        (BLUE, (0, half[1])),
        (YELLOW, half),
    ):
        image.paste(Image.new("RGB", half, color), at)
    return image


def corner_pixels(image: Image.Image) -> list[tuple[int, ...]]:
    right, bottom = image.width - 4, image.height - 4
    return [image.getpixel(at) for at in ((3, 3), (right, 3), (3, bottom), (right, bottom))]


def center(data: bytes) -> tuple[int, ...]:
    image = decode_image(data, "x")
    assert image.mode == "RGB"
    return image.getpixel((image.width // 2, image.height // 2))


# EXIF 2.3, tag 0x0112: which visual corner the stored top left, top right, bottom left and
# bottom right pixels come to lie in, read as the colours of the four visual corners.
ORIENTATIONS = {
    1: (RED, GREEN, BLUE, YELLOW),
    2: (GREEN, RED, YELLOW, BLUE),
    3: (YELLOW, BLUE, GREEN, RED),
    4: (BLUE, YELLOW, RED, GREEN),
    5: (RED, BLUE, GREEN, YELLOW),
    6: (BLUE, RED, YELLOW, GREEN),
    7: (YELLOW, GREEN, BLUE, RED),
    8: (GREEN, YELLOW, RED, BLUE),
}


@pytest.mark.promise("D5")
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_exif_orientation_is_applied(orientation: int, image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if image_format == "JPEG" else {}

    image = decode_image(encoded(corners(), image_format, exif=exif, **options), "x")

    assert image.size == ((32, 48) if orientation >= 5 else (48, 32))
    found = np.array(corner_pixels(image), dtype=int)
    assert np.abs(found - np.array(ORIENTATIONS[orientation])).max() <= 12


@pytest.mark.promise("D5")
@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_unknown_orientation_changes_nothing(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value

    image = decode_image(encoded(corners(), "PNG", exif=exif), "x")

    assert corner_pixels(image) == [RED, GREEN, BLUE, YELLOW]


def flat(mode: str, color: Any) -> Image.Image:
    return Image.new(mode, (8, 6), color)


def palette(transparent: bool) -> bytes:
    image = flat("P", 1)
    image.putpalette([0, 0, 0, 10, 20, 30, 0, 0, 255])
    return encoded(image, "PNG", **({"transparency": 1} if transparent else {}))


def palette_alpha(alpha: int) -> bytes:
    return encoded(flat("RGBA", (10, 20, 30, alpha)).quantize(4), "PNG")


def sixteen_bit(value: int, image_format: str) -> bytes:
    return encoded(Image.fromarray(np.full((6, 8), value, dtype=np.uint16)), image_format)


def png_chunks(header: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body
        data += struct.pack(">I", zlib.crc32(kind + body))
    return data


def rgb_with_key(key: tuple[int, int, int]) -> bytes:
    """An RGB PNG of colour (10, 20, 30) in which one colour is declared transparent."""
    return png_chunks(
        struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0),
        (b"tRNS", struct.pack(">HHH", *key)),
        (b"IDAT", zlib.compress((b"\0" + bytes((10, 20, 30)) * 2) * 2)),
    )


def deep_rgb() -> bytes:
    """A PNG with 16 bits a channel: 0x1234, 0x5678, 0x9abc."""
    return png_chunks(
        struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0),
        (b"IDAT", zlib.compress((b"\0" + bytes.fromhex("123456789abc") * 2) * 2)),
    )


def animated(image_format: str) -> bytes:
    return encoded(
        flat("RGB", RED),
        image_format,
        save_all=True,
        append_images=[flat("RGB", BLUE), flat("RGB", GREEN)],
        **({"lossless": True} if image_format == "WEBP" else {}),
    )


@pytest.mark.promise("D5")
@pytest.mark.parametrize(
    ("data", "color", "tolerance"),
    [
        (encoded(flat("L", 77), "PNG"), (77, 77, 77), 0),
        (encoded(flat("L", 77), "JPEG"), (77, 77, 77), 1),
        (encoded(flat("LA", (77, 255)), "PNG"), (77, 77, 77), 0),
        (encoded(flat("LA", (77, 0)), "PNG"), WHITE, 0),
        (encoded(flat("LA", (0, 51)), "PNG"), (204, 204, 204), 1),
        (palette(transparent=False), (10, 20, 30), 0),
        (palette(transparent=True), WHITE, 0),
        (palette_alpha(255), (10, 20, 30), 0),
        (palette_alpha(0), WHITE, 0),
        (encoded(flat("PA", (1, 0)), "TIFF"), WHITE, 0),
        (encoded(flat("RGBA", (10, 20, 30, 255)), "PNG"), (10, 20, 30), 0),
        (encoded(flat("RGBA", (10, 20, 30, 0)), "PNG"), WHITE, 0),
        (encoded(flat("RGBA", (255, 0, 0, 51)), "PNG"), (255, 204, 204), 1),
        (encoded(flat("RGBA", (0, 0, 0, 0)), "WEBP", lossless=True, exact=True), WHITE, 0),
        (rgb_with_key((10, 20, 30)), WHITE, 0),
        (rgb_with_key((1, 2, 3)), (10, 20, 30), 0),
        (encoded(flat("CMYK", (0, 0, 0, 0)), "TIFF"), WHITE, 0),
        (encoded(flat("CMYK", (0, 255, 255, 0)), "TIFF"), RED, 2),
        (encoded(flat("CMYK", (255, 0, 255, 0)), "JPEG", quality=100), GREEN, 8),
        (encoded(flat("CMYK", (0, 0, 0, 255)), "JPEG", quality=100), BLACK, 8),
        (sixteen_bit(0x1234, "PNG"), (0x12, 0x12, 0x12), 0),
        (sixteen_bit(0xFFFF, "TIFF"), WHITE, 0),
        (sixteen_bit(0x00FF, "PNG"), BLACK, 0),
        (deep_rgb(), (0x12, 0x56, 0x9A), 1),
        (encoded(flat("1", 1), "PNG"), WHITE, 0),
        (encoded(flat("1", 0), "PNG"), BLACK, 0),
        (encoded(flat("RGB", BLUE), "BMP"), BLUE, 0),
        (encoded(flat("RGB", BLUE), "PPM"), BLUE, 0),
        (encoded(flat("L", 9), "PPM"), (9, 9, 9), 0),
        (animated("GIF"), RED, 0),
        (animated("WEBP"), RED, 0),
        (animated("PNG"), RED, 0),
        (animated("TIFF"), RED, 0),
    ],
    ids=without_bytes,
)
def test_every_mode_has_one_rgb_result(
    data: bytes, color: tuple[int, int, int], tolerance: int
) -> None:
    found = np.array(center(data), dtype=int)

    assert np.abs(found - np.array(color)).max() <= tolerance, found


@pytest.mark.promise("D5")
@pytest.mark.parametrize("name", ["x.jpg", "x.gif", "x.tiff", "x.JPEG", "x"])
def test_ending_does_not_matter(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(encoded(corners(), "PNG"))

    assert corner_pixels(read_image(tmp_path / name)) == [RED, GREEN, BLUE, YELLOW]


def bomb(width: int, height: int) -> bytes:
    return png_chunks(
        struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), (b"IDAT", zlib.compress(b"\0" * 99))
    )


JPEG, PNG = encoded(corners(), "JPEG"), encoded(corners(), "PNG")


@pytest.mark.promise("D5")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"\0" * 1000, "not an image in a known format"),
        (b"{}", "not an image in a known format"),
        (JPEG[:2], "not an image"),
        (JPEG[:-40], "truncated"),
        (JPEG[: len(JPEG) // 2], ""),
        (PNG[: len(PNG) // 2], ""),
        (PNG[:40], ""),
        (bomb(20_000, 20_000), "pixels"),
        (bomb(2**31 - 1, 2**31 - 1), "pixels"),
        (bomb(0, 5), ""),
        (encoded(corners(), "JPEG2000") if "JPEG2000" in Image.SAVE else b"", ""),
        (encoded(corners(), "ICO"), "not an image in a known format"),
    ],
    ids=without_bytes,
)
def test_undecodable_file_is_named(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "some name.jpg"
    path.write_bytes(data)

    with pytest.raises(DataError) as caught:
        read_image(path)

    assert f"cannot decode image {path}: " in caught.value.what
    assert reason in caught.value.what
    assert "BytesIO" not in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.promise("D5")
def test_large_photograph_is_no_bomb() -> None:
    data = encoded(Image.new("1", (10_000, 10_000)), "PNG")  # 100 million pixels

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode_image(data, "x")

    assert image.size == (10_000, 10_000)


@pytest.mark.promise("S2")
def test_postscript_starts_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "started"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {marker}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"

    with pytest.raises(DataError, match="not an image in a known format"):
        decode_image(page, "innocent.jpg")

    assert not marker.exists()


@pytest.mark.promise("D4")
@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_unreadable_file_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.png"
    if kind == "folder":
        path.mkdir()

    with pytest.raises(DataError, match=r"cannot read image .*x\.png: (No such|Is a dir)"):
        read_image(path)


SEEDS = [
    PNG,
    JPEG,
    palette_alpha(128),
    animated("GIF"),
    animated("WEBP"),
    encoded(corners(), "BMP"),
    encoded(corners(), "TIFF"),
    encoded(corners(), "TIFF", compression="tiff_lzw"),
    encoded(corners(), "PPM"),
    sixteen_bit(7, "TIFF"),
    encoded(corners(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06"),
]


@pytest.mark.promise("D5")
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=400, deadline=None)
@given(
    data=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=6),
    kept=st.floats(0.1, 1) | st.just(1),
)
def test_any_damage_decodes_or_names_the_file(
    data: bytes, edits: list[tuple[float, bytes]], kept: float
) -> None:
    damaged = bytearray(data)
    for place, change in edits:
        at = int(place * place * len(data))  # headers are where it hurts
        damaged[at : at + len(change)] = change

    try:
        image = decode_image(bytes(damaged[: int(kept * len(damaged))]), "the file")
    except DataError as error:
        outcome = error.what
    else:
        outcome = f"the file is {image.mode}"

    assert "the file" in outcome
    assert outcome == "the file is RGB" or "cannot decode" in outcome
