"""The look of one jersey: which team, which numerals, how it is cut, and its flat drawing.

Lengths of a look are shares of the crop's shorter side, so that one look serves any crop size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from classifier_training.synthetic.numerals import (
    BLOCK_FONTS,
    FONTS,
    PADDING,
    REFERENCE_HEIGHT,
    numeral,
    wordmark,
)
from classifier_training.synthetic.palette import (
    COLORS,
    RGB,
    SCHEMES,
    SKINS,
    Scheme,
    blended,
    scaled,
)

Box = tuple[float, float, float, float]
Polygon = list[tuple[float, float]]

NECKS = ("round", "v", "high")
OUTLINES = ("none", "single", "double", "drop")
PATTERNS = ("plain", "side panels", "pinstripes", "yoke")
# Invented towns and families; no club's name.
NAMES = tuple(
    "ALDMORE BRACKEN CALLOWAY DUNFORD EASTVALE FENWICK GREYMILL HARROW IVESON KESTREL LARKHAM "
    "MARLOW NORWELL OAKRIDGE PELLING QUARRY RIVERTON SANDER THORNE UPTON VESPER WALDEN".split()
)
_NECK_DEPTHS = {"round": 0.36, "v": 0.55, "high": 0.10}


@dataclass(frozen=True)
class JerseyLook:
    """What one player wears, independent of the number.

    Lengths (``*_height``, ``half_width``, ``rise``, ``shift``) are shares of the crop's shorter
    side; ``brightness`` multiplies the team's colours (dye, age, light).
    """

    scheme: Scheme
    font: str
    number_height: float
    number_stretch: float
    outline: str
    half_width: float
    rise: float
    shift: tuple[float, float]
    neck: str
    pattern: str
    trimmed: bool
    wordmark: str
    skin: RGB
    brightness: float

    def color(self, part: str) -> RGB:
        """Return the RGB of ``fabric``, ``number`` or ``trim`` as this jersey shows it."""
        return scaled(COLORS[getattr(self.scheme, part)], self.brightness)


def sample_look(rng: np.random.Generator) -> JerseyLook:
    """Draw a look."""
    scheme = SCHEMES[rng.integers(len(SCHEMES))]
    # Most teams sew athletic block numerals, hence half of the jerseys.
    block, face = rng.integers(len(BLOCK_FONTS)), rng.integers(len(BLOCK_FONTS), len(FONTS))
    name = NAMES[rng.integers(len(NAMES))]
    pattern = str(rng.choice(PATTERNS, p=[0.48, 0.32, 0.08, 0.12]))
    outline = str(rng.choice(OUTLINES, p=[0.4, 0.36, 0.12, 0.12]))
    return JerseyLook(
        scheme=scheme,
        font=FONTS[block if rng.random() < 0.55 else face],
        number_height=float(rng.uniform(0.40, 0.58)),
        number_stretch=float(rng.uniform(0.84, 1.14)),
        outline=_readable(scheme, outline),
        half_width=float(rng.uniform(0.40, 0.62)),
        rise=float(rng.uniform(0.46, 0.74)),
        shift=(float(rng.uniform(-0.07, 0.07)), float(rng.uniform(-0.06, 0.06))),
        neck=str(rng.choice(NECKS, p=[0.45, 0.3, 0.25])),
        pattern=pattern,
        trimmed=bool(rng.random() < 0.75),
        wordmark=name if rng.random() < 0.6 and pattern != "yoke" else "",
        skin=scaled(SKINS[rng.integers(len(SKINS))], float(rng.uniform(0.9, 1.08))),
        brightness=float(rng.uniform(0.88, 1.06)),
    )


def _readable(scheme: Scheme, outline: str) -> str:
    """Replace outlines that would fill the digits' holes with a colour as light as the digits."""
    number, trim = (sum(COLORS[name]) / 3 for name in (scheme.number, scheme.trim))
    if abs(number - trim) > 80:
        return outline
    return {"double": "single", "drop": "none"}.get(outline, outline)


@dataclass(frozen=True)
class JerseyFrame:
    """Where things lie on the drawing canvas, in canvas pixels.

    Args:
        size: Width and height of the canvas.
        side: Canvas pixels that the crop's shorter side spans.
        center: Centre of the number.
    """

    size: tuple[int, int]
    side: float
    center: tuple[float, float]


def torso_center(look: JerseyLook, frame: JerseyFrame) -> float:
    """Return where the middle of the torso is, in canvas pixels from the left.

    Half of the crop's shift is the whole player's; the other half is the number's alone, which is
    what a player seen a little from the side shows.
    """
    return frame.center[0] - look.shift[0] * frame.side * 0.5


def torso_outline(look: JerseyLook, frame: JerseyFrame) -> Polygon:
    """Return the sleeveless cut of the jersey as a polygon in canvas pixels."""
    half = look.half_width * frame.side
    center = torso_center(look, frame)
    top = frame.center[1] - look.rise * frame.side
    strap_in, strap_out, armpit = 0.34 * half, 0.66 * half, top + 0.95 * half
    right: Polygon = [(strap_in, top), (strap_out, top + 0.08 * half)]
    for step in range(1, 6):  # the armhole: a quarter of an ellipse from strap to side seam
        angle = step / 5 * math.pi / 2
        x = strap_out + (half - strap_out) * (1 - math.cos(angle))
        right.append((x, top + 0.08 * half + (armpit - top - 0.08 * half) * math.sin(angle)))
    right += [(half * 0.95, armpit + half), (half * 1.02, frame.size[1] * 1.2)]
    depth = _neck_depth(look, frame)
    neck: Polygon = [(0.0, top + depth)]
    if look.neck != "v":
        neck = [(strap_in * math.sin(a), top + depth * math.cos(a)) for a in (-0.9, -0.4, 0.4, 0.9)]
    left = [(-x, y) for x, y in reversed(right)]
    return [(center + x, y) for x, y in (*neck, *right, *left)]


def _neck_depth(look: JerseyLook, frame: JerseyFrame) -> float:
    return _NECK_DEPTHS[look.neck] * look.half_width * frame.side


def number_box(look: JerseyLook, frame: JerseyFrame, label: str) -> Box:
    """Return left, top, right, bottom of the digits in canvas pixels (``"0"`` if no label)."""
    digits = numeral(label or "0", look.font).fill
    aspect = (digits.width - 2 * PADDING) / REFERENCE_HEIGHT * look.number_stretch
    height = look.number_height * frame.side
    # Two digits must fit between the side seams; the tailor narrows them first, then shortens.
    room = 1.5 * look.half_width * frame.side / (aspect * height)
    width = aspect * height * min(1.0, room)
    height *= min(1.0, max(room * 1.25, 0.7))
    x, y = frame.center
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def draw_jersey(look: JerseyLook, frame: JerseyFrame, label: str) -> Image.Image:
    """Return the flat cloth with its trim, lettering and number: RGB, ``frame.size``.

    The cloth fills the canvas; cutting it along ``torso_outline`` is the caller's part. An empty
    label draws no number.
    """
    cloth = Image.new("RGB", frame.size, look.color("fabric"))
    draw = ImageDraw.Draw(cloth)
    outline = torso_outline(look, frame)
    _draw_pattern(draw, look, frame)
    if look.trimmed:
        # half of the line falls outside of the cut
        width = max(2, round(0.075 * frame.side))
        draw.line([*outline, outline[0]], look.color("trim"), width, joint="curve")
        if look.outline == "double":
            draw.line([*outline, outline[0]], look.color("number"), max(1, width // 2))
    box = number_box(look, frame, label)
    _draw_wordmark(cloth, look, frame, box)
    if label:
        _sew_number(cloth, look, label, box)
    return cloth


def _draw_pattern(draw: ImageDraw.ImageDraw, look: JerseyLook, frame: JerseyFrame) -> None:
    half, trim = look.half_width * frame.side, look.color("trim")
    center, (width, height) = torso_center(look, frame), frame.size
    if look.pattern == "side panels":
        for sign in (-1, 1):
            seam = [(center + sign * half * 0.98, frame.center[1] - 0.15 * frame.side)]
            seam += [(center + sign * half * 0.80, frame.center[1] + 0.12 * frame.side)]
            seam += [(center + sign * half * 0.74, height), (center + sign * half * 1.4, height)]
            draw.polygon(seam, fill=trim)
    elif look.pattern == "pinstripes":
        stripe = blended(look.color("fabric"), trim, 0.4)
        for x in np.arange(center % (0.085 * frame.side), width, 0.085 * frame.side):
            draw.line([(x, 0), (x, height)], fill=stripe, width=max(1, round(frame.side / 90)))
    elif look.pattern == "yoke":
        y = frame.center[1] - 0.62 * look.rise * frame.side
        draw.rectangle((0, 0, width, min(y, number_box(look, frame, "0")[1] - 3)), fill=trim)


def _draw_wordmark(cloth: Image.Image, look: JerseyLook, frame: JerseyFrame, box: Box) -> None:
    """Put the team's or the player's name above the number, if there is cloth for it."""
    height = round(0.105 * frame.side)
    top = box[1] - 1.5 * height
    neckline = frame.center[1] - look.rise * frame.side + _neck_depth(look, frame)
    if not look.wordmark or top < neckline:
        return
    mask = wordmark(look.wordmark)
    width = min(mask.width * height / mask.height, 1.25 * look.half_width * frame.side)
    mask = mask.resize((max(1, round(width)), max(1, height)), Image.Resampling.BILINEAR)
    cloth.paste(look.color("number"), (round(frame.center[0] - width / 2), round(top)), mask)


def _sew_number(cloth: Image.Image, look: JerseyLook, label: str, box: Box) -> None:
    masks = numeral(label, look.font)
    scale_x = (box[2] - box[0]) / (masks.fill.width - 2 * PADDING)
    scale_y = (box[3] - box[1]) / REFERENCE_HEIGHT
    size = round(masks.fill.width * scale_x), round(masks.fill.height * scale_y)
    corner = round(box[0] - PADDING * scale_x), round(box[1] - PADDING * scale_y)

    def stamp(mask: Image.Image, part: str, at: tuple[int, int]) -> None:
        cloth.paste(look.color(part), at, mask.resize(size, Image.Resampling.BILINEAR))

    if look.outline == "double":
        stamp(masks.outer, "number", corner)
    if look.outline == "drop":
        away = max(1, round(6 * scale_y))
        stamp(masks.fill, "trim", (corner[0] + away, corner[1] + away))
    elif look.outline != "none":
        stamp(masks.outline, "trim", corner)
    stamp(masks.fill, "number", corner)
