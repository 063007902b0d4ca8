"""What light, cloth, lens and codec do to a picture. Each effect is one function."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Array = NDArray[np.floating]
_WEAVE_SIZE = 512


@dataclass(frozen=True)
class Folds:
    """Folds of the cloth: ridges of Gaussian profile along bent lines.

    One height field gives both the shading and the displacement, as on real cloth: where a fold
    is dark, the print on it is shortened. Coordinates are shares of the canvas (0..1, both axes).
    Arrays have one entry a fold.
    """

    normal: Array
    offset: Array
    bend: Array
    width: Array
    height: Array

    def slope(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return the slope of the cloth along x and y at the points ``x``, ``y`` (any shape)."""
        nx, ny = self.normal[:, 0], self.normal[:, 1]
        across = np.multiply.outer(x - 0.5, nx) + np.multiply.outer(y - 0.5, ny)
        along = np.multiply.outer(y - 0.5, nx) - np.multiply.outer(x - 0.5, ny)
        distance = (across - self.offset + self.bend * along * along) / self.width
        steep = -self.height / self.width * distance * np.exp(-0.5 * distance * distance)
        # the direction across a bent fold turns along it
        turn = 2 * self.bend * along
        return (steep * (nx - turn * ny)).sum(-1), (steep * (ny + turn * nx)).sum(-1)


def sample_folds(rng: np.random.Generator, strength: float) -> Folds:
    """Draw 3 to 7 folds, mostly steep ones, as cloth hangs from the shoulders."""
    count = int(rng.integers(3, 8))
    angle = rng.normal(0.0, 0.7, size=count)
    width = rng.uniform(0.03, 0.16, size=count)
    lift = rng.uniform(0.25, 1.0, size=count) * rng.choice([-1.0, 1.0], size=count)
    return Folds(
        normal=np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32),
        offset=rng.uniform(-0.5, 0.5, size=count).astype(np.float32),
        bend=rng.uniform(-0.8, 0.8, size=count).astype(np.float32),
        width=width.astype(np.float32),
        # a wide fold may be higher than a narrow one without being steeper
        height=(strength * lift * width).astype(np.float32),
    )


def shade_cloth(
    cloth: Image.Image, folds: Folds, rng: np.random.Generator, *, center: float, half: float
) -> Image.Image:
    """Light the cloth: folds, the roundness of the chest, the mesh of the fabric.

    Args:
        cloth: RGB drawing of the flat cloth.
        folds: Shape of the cloth.
        rng: Source of the direction of light, the yarn's irregularity and the mesh.
        center: Middle of the torso, canvas pixels from the left.
        half: Half of the torso's width, canvas pixels.

    Returns:
        RGB image of the same size.
    """
    width, height = cloth.size
    grid = 20
    line = np.linspace(0, 1, grid, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    slope_x, slope_y = folds.slope(x, y)
    sun = rng.uniform(-0.9, 0.9)
    shade = 1 + 0.55 * (slope_x * sun - slope_y * 0.8)
    round_off = np.clip(np.abs(x * width - center - sun * 0.3 * half) / half, 0, 1.4)
    shade *= 1.04 - rng.uniform(0.14, 0.34) * round_off**2.5
    shade *= 1 + rng.uniform(-0.14, 0.05) * y
    light = np.asarray(
        Image.fromarray(shade.astype(np.float32)).resize(cloth.size, Image.Resampling.BILINEAR)
    )
    period = rng.uniform(2.2, 4.2)
    depth = rng.uniform(0.0, 0.05)
    columns = np.sin(np.arange(width, dtype=np.float32) * np.float32(2 * math.pi / period))
    rows = np.sin(np.arange(height, dtype=np.float32) * np.float32(2 * math.pi / period))
    light = light * (1 + np.float32(depth) * np.outer(rows, columns) + _yarn(height, width, rng))
    # a little is added, not multiplied: black cloth shines on its folds as well
    lit = np.asarray(cloth, dtype=np.float32)
    lit += 26
    lit *= light[..., None]
    lit -= 26
    np.clip(lit, 0, 255, out=lit)
    return Image.fromarray(lit.astype(np.uint8))


def _yarn(height: int, width: int, rng: np.random.Generator) -> Array:
    """Return a window of the yarn's irregularity, (height, width)."""
    weave = _weave()
    top, left = (int(start) for start in rng.integers(_WEAVE_SIZE, size=2))
    rows, columns = np.arange(top, top + height), np.arange(left, left + width)
    return weave.take(rows, axis=0, mode="wrap").take(columns, axis=1, mode="wrap")


@lru_cache(maxsize=1)
def _weave() -> Array:
    # one piece of cloth for all jerseys: to draw it for each took longer than to light it
    noise = np.random.default_rng(0).standard_normal((_WEAVE_SIZE, _WEAVE_SIZE), dtype=np.float32)
    return np.float32(0.014) * noise


@dataclass(frozen=True)
class Pose:
    """How the torso stands to the camera. Angles in radians; the others are unitless shares.

    Args:
        angle: In-plane rotation.
        shear: Horizontal shear.
        tilt: Perspective along x and y: change of scale from the centre to the edge.
        round: How much the sides are foreshortened by the roundness of the chest.
        drape: How far folds displace the print.
    """

    angle: float
    shear: float
    tilt: tuple[float, float]
    round: float
    drape: float


def sample_pose(rng: np.random.Generator, difficulty: float) -> Pose:
    """Draw a pose; ``difficulty`` widens every range but never closes it."""
    reach = 0.35 + 0.65 * difficulty
    return Pose(
        angle=float(rng.normal(0, math.radians(5.0)) * reach),
        shear=float(rng.normal(0, 0.07) * reach),
        tilt=(float(rng.uniform(-0.20, 0.20) * reach), float(rng.uniform(-0.12, 0.12) * reach)),
        round=float(rng.uniform(0.0, 0.22) * reach),
        drape=float(rng.uniform(0.02, 0.055) * reach),
    )


def photograph(
    canvas: Image.Image, size: tuple[int, int], margin: float, pose: Pose, folds: Folds
) -> Image.Image:
    """Resample the canvas once through pose and folds.

    Args:
        canvas: RGB drawing, larger than the crop by ``margin`` on each side.
        size: Width and height of the result in pixels.
        margin: Share of the crop's width and height drawn beyond each of its edges.
        pose: Rotation, shear and perspective.
        folds: Shape of the cloth.

    Returns:
        RGB image of ``size``.
    """
    cells = 6
    columns = [round(size[0] * step / cells) for step in range(cells + 1)]
    rows = [round(size[1] * step / cells) for step in range(cells + 1)]
    x, y = np.meshgrid(
        np.array(columns, dtype=np.float32) / np.float32(size[0]) - np.float32(0.5),
        np.array(rows, dtype=np.float32) / np.float32(size[1]) - np.float32(0.5),
    )
    shares = np.clip(_source_points(x, y, size, margin, pose, folds), 0, 1)
    corners = (shares * np.array(canvas.size)).tolist()
    mesh = []
    for j in range(cells):
        for i in range(cells):
            box = (columns[i], rows[j], columns[i + 1], rows[j + 1])
            quad = corners[j][i], corners[j + 1][i], corners[j + 1][i + 1], corners[j][i + 1]
            mesh.append((box, tuple(value for corner in quad for value in corner)))
    return canvas.transform(size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


def _source_points(
    x: Array, y: Array, size: tuple[int, int], margin: float, pose: Pose, folds: Folds
) -> Array:
    """Map crop coordinates (-0.5..0.5) to canvas coordinates (0..1), both (rows, columns)."""
    depth = 1 + pose.tilt[0] * x + pose.tilt[1] * y
    x, y = x / depth, y / depth
    x = x * (1 + pose.round * (4 * x * x - 0.3))
    aspect = size[0] / size[1]
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    x, y = cos * x + sin * y / aspect + pose.shear * y, cos * y - sin * x * aspect
    whole = 1 + 2 * margin
    u, v = x / whole + 0.5, y / whole + 0.5
    slope_x, slope_y = folds.slope(u, v)
    return np.stack([u + pose.drape * slope_x, v + pose.drape * slope_y], axis=-1)


def blur_motion(picture: Image.Image, length: float, angle: float) -> Image.Image:
    """Average the picture along a straight path of ``length`` pixels at ``angle`` radians."""
    steps = max(2, math.ceil(length) + 1)
    reach = math.ceil(length / 2) + 1
    pixels = np.pad(
        np.asarray(picture, dtype=np.uint16), ((reach, reach), (reach, reach), (0, 0)), mode="edge"
    )
    height, width = picture.height, picture.width
    total = np.zeros((height, width, 3), dtype=np.uint16)
    for share in np.linspace(-0.5, 0.5, steps):
        dx = reach + round(share * length * math.cos(angle))
        dy = reach + round(share * length * math.sin(angle))
        total += pixels[dy : dy + height, dx : dx + width]
    return Image.fromarray((total // steps).astype(np.uint8))


def blur_focus(picture: Image.Image, radius: float) -> Image.Image:
    """Put the picture out of focus; ``radius`` in pixels."""
    return picture.filter(ImageFilter.GaussianBlur(radius))


@dataclass(frozen=True)
class Exposure:
    """How the sensor turns light into levels.

    Args:
        gains: Factor of the red, green and blue channel (white balance, exposure time).
        contrast: Factor of the distance to a middle grey.
        haze: Grey levels added everywhere.
        noise: Standard deviation of the noise in grey levels.
    """

    gains: tuple[float, float, float]
    contrast: float
    haze: float
    noise: float


def expose(picture: Image.Image, exposure: Exposure, rng: np.random.Generator) -> Image.Image:
    """Return the picture as the sensor reads it: RGB, same size."""
    height, width = picture.height, picture.width
    # Rows of 3 * width values: arithmetic on an innermost axis of three is several times slower.
    levels = np.asarray(picture, dtype=np.float32).reshape(height, 3 * width)
    gains = np.tile(np.array(exposure.gains, dtype=np.float32), width)
    levels = levels * (gains * np.float32(exposure.contrast))
    levels += gains * np.float32(112 * (1 - exposure.contrast) + exposure.haze)
    # Uniform, not normal: after the codec nobody sees which, and it is drawn in a third of the
    # time. Its deviation is 12 ** -0.5.
    noise = rng.random(levels.shape, dtype=np.float32)
    noise -= np.float32(0.5)
    noise *= np.float32(exposure.noise * math.sqrt(12))
    levels += noise
    np.clip(levels, 0, 255, out=levels)
    return Image.fromarray(levels.astype(np.uint8).reshape(height, width, 3))


def compress(picture: Image.Image, quality: int) -> Image.Image:
    """Return the picture after one generation of JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    buffer.seek(0)
    with Image.open(buffer) as decoded:
        return decoded.convert("RGB")
