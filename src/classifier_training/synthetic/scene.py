"""What surrounds the number: the hall, the player's skin, other players, arms and the ball."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from classifier_training.synthetic.jersey import Box, JerseyFrame, JerseyLook, torso_center
from classifier_training.synthetic.palette import (
    BALL,
    COLORS,
    RGB,
    SCHEMES,
    SKINS,
    WOODS,
    scaled,
)

_CROWD_COLORS = np.array([*COLORS.values(), *SKINS, *SKINS], dtype=np.float64)


def draw_background(frame: JerseyFrame, rng: np.random.Generator) -> Image.Image:
    """Return the hall behind the player, out of focus: RGB, ``frame.size``."""
    kind = rng.choice(["court", "crowd", "dark", "wall"], p=[0.42, 0.30, 0.14, 0.14])
    # Drawn small and enlarged: what is out of focus has no fine detail, and it costs little.
    width, height = (max(4, edge // 6) for edge in frame.size)
    if kind == "crowd":
        low = _crowd(width, height, rng)
    elif kind == "court":
        low = _court(width, height, rng)
    else:
        tone = rng.uniform(14, 60) if kind == "dark" else rng.uniform(120, 215)
        tint = rng.uniform(0.85, 1.15, size=3)
        slope = np.linspace(0.75, 1.2, height)[:, None, None]
        low = tone * tint * slope * rng.uniform(0.8, 1.2, size=(height, width, 1))
    pixels = np.clip(low, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize(frame.size, Image.Resampling.BILINEAR)


def _crowd(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Spectators: blobs of clothes and faces on dark, (height, width, 3)."""
    rows, columns = max(2, height // 2), max(2, width // 2)
    blobs = _CROWD_COLORS[rng.integers(len(_CROWD_COLORS), size=(rows, columns))]
    blobs *= rng.uniform(0.15, 0.85, size=(rows, columns, 1))
    return np.repeat(np.repeat(blobs, 2, axis=0), 2, axis=1)


def _court(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Parquet with planks, at times a painted area and a line, (height, width, 3)."""
    wood = np.array(WOODS[rng.integers(len(WOODS))], dtype=np.float64)
    planks = rng.uniform(0.9, 1.06, size=(height, 1, 1)) * rng.uniform(0.95, 1.05, (1, width, 1))
    low = wood * planks * rng.uniform(0.7, 1.05)
    edge, slant = rng.uniform(-0.4, 1.4) * height, rng.uniform(-0.5, 0.5)
    paint = np.array(list(COLORS.values())[rng.integers(len(COLORS))], dtype=np.float64) * 0.8
    distance = np.arange(height)[:, None] - edge - slant * np.arange(width)[None, :]
    if rng.random() < 0.5:
        low = np.where((distance > 0)[..., None], paint, low)
    return np.where((np.abs(distance) < 0.8)[..., None], 225.0, low)


def draw_limb(
    picture: Image.Image,
    start: tuple[float, float],
    end: tuple[float, float],
    width: float,
    skin: RGB,
) -> None:
    """Paint an arm or a neck between two points: rounded, darker towards its edges."""
    draw = ImageDraw.Draw(picture)
    length = math.hypot(end[0] - start[0], end[1] - start[1]) or 1.0
    # light comes from above: the bright core lies on the upper side of the limb
    nx, ny = (end[1] - start[1]) / length, -(end[0] - start[0]) / length
    if ny > 0:
        nx, ny = -nx, -ny
    for step in range(4):
        share, tone = 1 - step / 4, 0.62 + 0.13 * step
        lift = 0.16 * width * (1 - share)
        line = [(x + nx * lift, y + ny * lift) for x, y in (start, end)]
        draw.line(line, fill=scaled(skin, tone), width=max(1, round(width * share)))
        for x, y in line:
            radius = width * share / 2
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), scaled(skin, tone))


def draw_body(
    picture: Image.Image, look: JerseyLook, frame: JerseyFrame, rng: np.random.Generator
) -> None:
    """Paint neck, shoulders and upper arms, of which the jersey will cover a part."""
    half, side = look.half_width * frame.side, frame.side
    center = torso_center(look, frame)
    top = frame.center[1] - look.rise * side
    shadow = scaled(look.skin, 0.86)
    draw_limb(picture, (center, top - side), (center, top + 0.3 * half), 0.62 * half, shadow)
    lift = rng.uniform(-0.5, 1.3, size=2)
    for sign, raised in zip((-1, 1), lift, strict=True):
        shoulder = (center + sign * 0.80 * half, top + 0.34 * half)
        elbow = (
            center + sign * half * (1.12 + 0.35 * abs(raised - 1)),
            top + half * (1.9 - 0.9 * (1 - raised)),
        )
        draw_limb(picture, shoulder, elbow, 0.50 * half, look.skin)


def draw_neighbour(
    picture: Image.Image, frame: JerseyFrame, box: Box, rng: np.random.Generator, *, front: bool
) -> None:
    """Paint the edge of another player's jersey at one side of the picture.

    Args:
        picture: RGB canvas, painted on.
        frame: Canvas geometry.
        box: The number's box; a neighbour in front covers little of it.
        rng: Source of the neighbour's team, side and place.
        front: Whether the neighbour stands before the player (near the number) or behind.
    """
    scheme = SCHEMES[rng.integers(len(SCHEMES))]
    sign = -1 if rng.random() < 0.5 else 1
    overlap, slant, trim = rng.uniform(-0.25, 0.11), rng.uniform(-0.25, 0.25), rng.random() < 0.6
    height, bulge, tone = frame.size[1], rng.uniform(0.0, 0.12), rng.uniform(0.7, 1.0)
    distance = rng.uniform(0.15, 0.65)
    # how far the leaning, bulging edge comes nearer than its ends, within the number's height
    lead = (bulge + 0.25 * abs(slant)) * frame.side
    edge = box[2] if sign > 0 else box[0]
    x = edge + sign * (lead - (overlap if front else -distance) * (box[3] - box[1]))
    draw = ImageDraw.Draw(picture)

    def strip(inset: float, color: RGB) -> None:
        points = [(x + sign * 2 * frame.side, 0.0), (x + sign * 2 * frame.side, float(height))]
        for share in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0):
            lean = slant * (0.5 - share) - sign * bulge * (1 - (2 * share - 1) ** 2)
            points.append((x + sign * inset * frame.side + lean * frame.side, share * height))
        draw.polygon(points, fill=color)

    # the body turns away at its edge, hence from dark to light; the trim is a seam between
    for inset, shade in ((0.0, 0.62), (0.02, 0.76), (0.06, 0.88), (0.14, 1.0)):
        strip(
            inset,
            scaled(COLORS[scheme.trim if trim and inset < 0.06 else scheme.fabric], tone * shade),
        )


def draw_arm_before(
    picture: Image.Image, frame: JerseyFrame, box: Box, rng: np.random.Generator
) -> None:
    """Paint an arm that crosses the picture, over little of the number."""
    skin = SKINS[rng.integers(len(SKINS))]
    thickness = rng.uniform(0.16, 0.28) * frame.side
    overlap, slant = rng.uniform(-0.15, 0.14), rng.uniform(-0.35, 0.35) * frame.side
    width, height = frame.size
    side = rng.integers(3)
    if side == 2:
        y = box[3] - overlap * (box[3] - box[1]) + thickness / 2 + abs(slant) * 0.3
        draw_limb(
            picture, (-thickness, y - slant / 3), (width * 0.9, y + slant / 3), thickness, skin
        )
        return
    sign = -1 if side == 0 else 1
    edge = box[2] if sign > 0 else box[0]
    x = edge - sign * (overlap * (box[3] - box[1]) - thickness / 2 - abs(slant) * 0.4)
    draw_limb(picture, (x - slant, -thickness), (x + slant, height * 1.05), thickness, skin)


def draw_ball(picture: Image.Image, frame: JerseyFrame, box: Box, rng: np.random.Generator) -> None:
    """Paint a basketball that touches a lower corner of the number."""
    radius = rng.uniform(0.16, 0.26) * frame.side
    sign = -1 if rng.random() < 0.5 else 1
    x = (box[2] if sign > 0 else box[0]) + sign * radius * rng.uniform(0.5, 1.2)
    y = box[3] + radius * rng.uniform(0.35, 1.0)
    draw = ImageDraw.Draw(picture)
    for share, tone in ((1.0, 0.6), (0.88, 0.8), (0.66, 1.0), (0.4, 1.12)):
        r, up = radius * share, 0.2 * radius * (1 - share)
        draw.ellipse((x - r - up, y - r - up, x + r - up, y + r - up), scaled(BALL, tone))
    seam, width = scaled(BALL, 0.2), max(1, round(radius / 14))
    for way, start in ((-1, -60), (1, 120)):
        near, far = x + way * 0.1 * radius, x + way * 1.7 * radius
        box_of_seam = (min(near, far), y - radius, max(near, far), y + radius)
        draw.arc(box_of_seam, start, start + 120, seam, width)
    draw.line([(x - radius, y), (x + radius, y)], seam, width)
