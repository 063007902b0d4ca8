"""Masks of jersey numerals: an athletic block alphabet of our own, and stretched bold fonts.

Masks are drawn once a process at ``REFERENCE_HEIGHT`` and kept: the same few hundred shapes serve
every crop, resized to the size that the crop needs.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageChops, ImageDraw, ImageFont

from classifier_training.errors import ConfigError

REFERENCE_HEIGHT = 112
# Digits of a type face are about 0.73 of its size high: little is lost by the resize.
_TYPE_SIZE = 146
# Room around a numeral for its outlines and its drop shadow, in reference pixels.
PADDING = 14

BLOCK_FONTS = ("block-light", "block", "block-heavy")
_STROKES = {"block-light": 14.5, "block": 17.5, "block-heavy": 20.5}
_DEJAVU = {
    "sans-bold": "DejaVuSans-Bold.ttf",
    "sans-condensed": "DejaVuSans-Bold.ttf",
    "mono-bold": "DejaVuSansMono-Bold.ttf",
    "serif-bold": "DejaVuSerif-Bold.ttf",
}
# How wide a font's digits are made, as jersey makers do: their numerals are taller than type.
_STRETCH = {"sans-bold": 0.92, "sans-condensed": 0.70, "mono-bold": 0.90, "serif-bold": 0.84}
FONTS: tuple[str, ...] = (*BLOCK_FONTS, *_DEJAVU, "rounded")

Point = tuple[float, float]


class Numeral(NamedTuple):
    """Masks of one number, mode ``L``, one size: bare digits, and digits grown by two outlines."""

    fill: Image.Image
    outline: Image.Image
    outer: Image.Image


@lru_cache(maxsize=2048)
def numeral(label: str, font: str) -> Numeral:
    """Return the masks of ``label`` in ``font``; callers must not draw on them.

    Args:
        label: One or more digits.
        font: One of ``FONTS``.

    Raises:
        ConfigError: A DejaVu font is asked for and matplotlib, which carries it, is missing.
    """
    bare = _block_text(label, font) if font in BLOCK_FONTS else _type_text(label, font)
    width = bare.width + 2 * PADDING
    fill = Image.new("L", (width, REFERENCE_HEIGHT + 2 * PADDING))
    fill.paste(bare, (PADDING, PADDING))
    outline = _grown(fill)
    return Numeral(fill, outline, _grown(outline))


@lru_cache(maxsize=64)
def wordmark(word: str) -> Image.Image:
    """Return the mask of a name in bold capitals: mode ``L``, tight, a third of a numeral high."""
    mask = _type_text(word, "sans-condensed")
    return mask.resize((round(mask.width / 3), REFERENCE_HEIGHT // 3), Image.Resampling.BOX)


def _grown(mask: Image.Image) -> Image.Image:
    """Dilate by a square of 9 x 9, which keeps corners sharp as sewn outlines are."""
    for dx, dy in ((1, 0), (0, 1)):
        # the maximum of three neighbours, then of three such maxima: nine pixels in four steps
        for step in (1, 3):
            # offset() wraps around; the padding is empty, so nothing comes in from the far side
            ahead = ImageChops.offset(mask, dx * step, dy * step)
            behind = ImageChops.offset(mask, -dx * step, -dy * step)
            mask = ImageChops.lighter(ImageChops.lighter(mask, ahead), behind)
    return mask


def _type_text(label: str, font: str) -> Image.Image:
    """Draw ``label`` with a type face, tight, ``REFERENCE_HEIGHT`` high."""
    face = _face(font)
    if font == "mono-bold":
        label = label.replace("0", "O")  # its zero has a dot inside, which no jersey has
    # Pillow's own font has one weight only; a stroke makes it as heavy as sewn numerals.
    stroke = 5 if font == "rounded" else 0
    left, top, right, bottom = (
        math.floor(edge) for edge in face.getbbox(label, stroke_width=stroke)
    )
    image = Image.new("L", (right - left + 4, bottom - top + 4))
    draw = ImageDraw.Draw(image)
    draw.text((2 - left, 2 - top), label, fill=255, font=face, stroke_width=stroke)
    tight = image.crop(image.getbbox())
    width = tight.width * REFERENCE_HEIGHT / tight.height * _STRETCH.get(font, 0.92)
    return tight.resize((round(width), REFERENCE_HEIGHT), Image.Resampling.BICUBIC)


@lru_cache(maxsize=len(FONTS))
def _face(font: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if font == "rounded":
        return ImageFont.load_default(_TYPE_SIZE)
    try:
        # here: it is of the [train] extra, and slow to import
        import matplotlib
    except ImportError as error:
        raise ConfigError(
            "matplotlib is not installed; its DejaVu fonts draw the synthetic jerseys",
            expected="the [train] extra",
            fix="pip install 'classifier-training[train]'",
        ) from error
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / _DEJAVU[font]
    return ImageFont.truetype(str(path), _TYPE_SIZE)


# The block alphabet: centre lines on a cell of 60 x 100, drawn with a square pen and cut corners.
_CELL_W, _CELL_H = 60.0, 100.0
_OVERSAMPLING = 3


def _block_text(label: str, font: str) -> Image.Image:
    """Draw ``label`` in the block alphabet, tight, ``REFERENCE_HEIGHT`` high."""
    stroke = _STROKES[font]
    gap = 8.0
    widths = [44.0 if digit == "1" else _CELL_W for digit in label]
    scale = _OVERSAMPLING * REFERENCE_HEIGHT / _CELL_H
    total = sum(widths) + gap * (len(label) - 1)
    image = Image.new("L", (round(total * scale), _OVERSAMPLING * REFERENCE_HEIGHT))
    draw = ImageDraw.Draw(image)
    left = 0.0
    for digit, width in zip(label, widths, strict=True):
        for line, closed in _block_lines(digit, width, stroke):
            for piece in _thick(line, stroke / 2, closed):
                draw.polygon([((x + left) * scale, y * scale) for x, y in piece], fill=255)
        left += width + gap
    return image.resize((image.width // _OVERSAMPLING, REFERENCE_HEIGHT), Image.Resampling.BOX)


def _block_lines(digit: str, width: float, stroke: float) -> list[tuple[list[Point], bool]]:
    """Centre lines of one digit, each with whether it is closed.

    Sides are named by compass: ``w``, ``n``, ``e``, ``s``; ``m`` is the middle's height, ``c`` how
    much of a corner is cut, ``q`` the length of an open end.
    """
    half = stroke / 2
    w, n, e, s = half, half, width - half, _CELL_H - half
    m, c, q = _CELL_H / 2, stroke * 0.46, stroke * 0.5
    six = [(e, n + q + c), (e, n + c), (e - c, n), (w + c, n), (w, n + c), (w, s - c), (w + c, s)]
    six += [(e - c, s), (e, s - c), (e, m + c), (e - c, m), (w, m)]
    hook = [(w, n + q + c), (w, n + c), (w + c, n), (e - c, n), (e, n + c), (e, m - c), (e - c, m)]
    half_three = [*hook, (width * 0.3, m)]
    five = [(width, n), (w, n), (w, m - 4), (e - c, m - 4), (e, m - 4 + c), (e, s - c), (e - c, s)]
    five += [(w + c, s), (w, s - c), (w, s - q - c)]
    middle, bar, post = width * 0.55, m + 14.0, e - stroke * 0.45
    shapes: dict[str, list[tuple[list[Point], bool]]] = {
        "0": [(_ring(w, n, e, s, c), True)],
        "1": [
            ([(middle, 0.0), (middle, _CELL_H)], False),
            ([(middle, n - 2), (0.0, n + stroke * 0.7)], False),
            ([(0.0, s), (width, s)], False),
        ],
        "2": [([*hook, (w + c, m), (w, m + c), (w, s), (width, s)], False)],
        "3": [(half_three, False), ([(x, _CELL_H - y) for x, y in half_three], False)],
        "4": [
            ([(post, 0.0), (post, _CELL_H)], False),
            ([(post, n - 4), (w, bar - 4), (w, bar)], False),
            ([(0.0, bar), (width, bar)], False),
        ],
        "5": [(five, False)],
        "6": [(six, False)],
        "7": [([(0.0, n), (e, n), (e, n + stroke * 0.7), (width * 0.38, _CELL_H)], False)],
        "8": [(_ring(w, n, e, m, c), True), (_ring(w, m, e, s, c), True)],
        "9": [([(width - x, _CELL_H - y) for x, y in six], False)],
    }
    return shapes[digit]


def _ring(w: float, n: float, e: float, s: float, c: float) -> list[Point]:
    ring = [(w + c, n), (e - c, n), (e, n + c), (e, s - c)]
    return [*ring, (e - c, s), (w + c, s), (w, s - c), (w, n + c)]


def _thick(line: list[Point], half: float, closed: bool) -> list[list[Point]]:
    """Turn a centre line into four-sided pieces ``2 * half`` wide that meet in mitred corners."""
    count = len(line)
    sides: list[tuple[Point, Point]] = []
    for index, (x, y) in enumerate(line):
        before = line[index - 1] if closed or index > 0 else None
        after = line[(index + 1) % count] if closed or index < count - 1 else None
        incoming = _direction(before, (x, y)) if before else None
        outgoing = _direction((x, y), after) if after else None
        ux, uy = incoming or outgoing or (1.0, 0.0)
        vx, vy = outgoing or incoming or (1.0, 0.0)
        # the mitre: along the mean of both normals, longer the sharper the corner
        nx, ny = -(uy + vy), ux + vx
        reach = 2.0 * half / max(nx * nx + ny * ny, 0.5)
        sides.append(((x + nx * reach, y + ny * reach), (x - nx * reach, y - ny * reach)))
    pairs = zip(sides, sides[1:] + sides[:1] if closed else sides[1:], strict=False)
    return [[a[0], b[0], b[1], a[1]] for a, b in pairs]


def _direction(start: Point, end: Point) -> Point:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    return dx / length, dy / length
