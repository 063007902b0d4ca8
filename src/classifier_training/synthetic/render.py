"""One crop from its arguments: the drawing, the pose, the camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from classifier_training.synthetic import effects, scene
from classifier_training.synthetic.jersey import (
    JerseyFrame,
    JerseyLook,
    draw_jersey,
    number_box,
    sample_look,
    torso_center,
    torso_outline,
)

# The canvas is drawn larger than the crop: edges come out smooth, and the pose finds cloth beyond
# the crop's edges.
SUPERSAMPLING = 1.25
MARGIN = 0.14


def render_crop(
    label: str, *, image_size: int, difficulty: float, seed: Sequence[int]
) -> tuple[Image.Image, dict[str, Any]]:
    """Render one torso crop; a pure function of its arguments.

    Args:
        label: Digits on the jersey; an empty string leaves the jersey bare, all else equal.
        image_size: Pixels of the shorter side.
        difficulty: 0 (clean) to 1: strength and frequency of what makes reading hard.
        seed: Whole numbers >= 0 that choose everything but the label.

    Returns:
        The RGB image and what is to be known of it, as plain JSON types.

    Raises:
        ConfigError: matplotlib, whose fonts are used, is not installed.
        ValueError: The label has a character that is no digit.
    """
    if label and not (label.isascii() and label.isdigit()):
        raise ValueError(f"a jersey shows digits only, not {label!r}")
    # its length first: numpy takes [1] and [1, 0] for the same seed
    rng = np.random.default_rng([len(seed), *(int(part) for part in seed)])
    look = sample_look(rng)
    size = _crop_size(image_size, float(rng.uniform(-0.10, 0.28)))
    folds = effects.sample_folds(rng, 0.45 + 0.55 * difficulty)
    pose = effects.sample_pose(rng, difficulty)
    frame = _frame(look, size)
    canvas, occluder = _draw_scene(label, look, frame, folds, rng, difficulty)
    picture = effects.photograph(canvas, size, MARGIN, pose, folds)
    picture, camera = _degrade(picture, rng, difficulty)
    facts: dict[str, Any] = {
        "jersey_color": look.scheme.fabric,
        "number_color": look.scheme.number,
        "trim_color": look.scheme.trim,
        "outline": look.outline != "none",
        "font": look.font,
        "occluder": occluder,
    }
    return picture, facts | camera


def _crop_size(image_size: int, stretch: float) -> tuple[int, int]:
    """Width and height; ``stretch`` > 0 makes the crop taller than wide, < 0 wider."""
    longer = round(image_size * (1 + abs(stretch)))
    return (image_size, longer) if stretch >= 0 else (longer, image_size)


def _frame(look: JerseyLook, size: tuple[int, int]) -> JerseyFrame:
    side = min(size) * SUPERSAMPLING
    width, height = (round(edge * SUPERSAMPLING * (1 + 2 * MARGIN)) for edge in size)
    center = width / 2 + look.shift[0] * side, height / 2 + look.shift[1] * side
    return JerseyFrame((width, height), side, center)


def _draw_scene(
    label: str,
    look: JerseyLook,
    frame: JerseyFrame,
    folds: effects.Folds,
    rng: np.random.Generator,
    difficulty: float,
) -> tuple[Image.Image, str]:
    """Paint from back to front; return the canvas and what stands before the number."""
    box = number_box(look, frame, label)
    canvas = scene.draw_background(frame, rng)
    if rng.random() < 0.35:
        scene.draw_neighbour(canvas, frame, box, rng, front=False)
    scene.draw_body(canvas, look, frame, rng)
    cloth = effects.shade_cloth(
        draw_jersey(look, frame, label),
        folds,
        rng,
        center=torso_center(look, frame),
        half=look.half_width * frame.side,
    )
    cut = Image.new("L", frame.size)
    ImageDraw.Draw(cut).polygon(torso_outline(look, frame), fill=255)
    canvas.paste(cloth, (0, 0), cut)
    if rng.random() >= 0.4 * difficulty:
        return canvas, "none"
    occluder = str(rng.choice(["arm", "neighbour", "ball"], p=[0.5, 0.35, 0.15]))
    if occluder == "arm":
        scene.draw_arm_before(canvas, frame, box, rng)
    elif occluder == "neighbour":
        scene.draw_neighbour(canvas, frame, box, rng, front=True)
    else:
        scene.draw_ball(canvas, frame, box, rng)
    return canvas, occluder


def _degrade(
    picture: Image.Image, rng: np.random.Generator, difficulty: float
) -> tuple[Image.Image, dict[str, Any]]:
    """Take the picture with a camera as bad as ``difficulty`` says."""
    side = min(picture.size)
    reach = 0.25 + 0.75 * difficulty
    gains = rng.uniform(0.86, 1.12) * rng.normal(1.0, 0.035 * reach, size=3)
    exposure = effects.Exposure(
        gains=(float(gains[0]), float(gains[1]), float(gains[2])),
        contrast=float(1 + rng.uniform(-0.22, 0.15) * reach),
        haze=float(rng.uniform(-14, 14) * reach),
        noise=float(rng.uniform(0.5, 8.0) * reach),
    )
    # One main fault a picture: all at once would leave nothing to read.
    fault = str(rng.choice(["none", "motion", "focus", "resolution"], p=_fault_shares(difficulty)))
    amount = float(rng.uniform(0.3, 1.0) * reach) if fault != "none" else 0.0
    angle = float(rng.uniform(-0.5, 0.5) + (math.pi / 2 if rng.random() < 0.25 else 0.0))
    full = picture.size
    if fault == "motion":
        picture = effects.blur_motion(picture, 0.085 * side * amount, angle)
    elif fault == "focus":
        picture = effects.blur_focus(picture, 0.022 * side * amount)
    elif fault == "resolution":
        share = 1 - 0.66 * amount
        small = max(8, round(full[0] * share)), max(8, round(full[1] * share))
        picture = picture.resize(small, Image.Resampling.BILINEAR)
    picture = effects.expose(picture, exposure, rng)
    quality = int(rng.integers(round(92 - 57 * difficulty), 96))
    if rng.random() < 0.6 * difficulty:
        picture = effects.compress(picture, quality)
    if picture.size != full:
        picture = picture.resize(full, Image.Resampling.BICUBIC)
    facts = {"fault": fault, "fault_amount": round(amount, 3), "noise": round(exposure.noise, 2)}
    return picture, facts


def _fault_shares(difficulty: float) -> list[float]:
    blurred = 0.75 * difficulty
    return [1 - blurred, 0.4 * blurred, 0.25 * blurred, 0.35 * blurred]
