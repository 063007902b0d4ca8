"""Colours of fabrics, skins and halls, as measured by eye on broadcast pictures."""

from __future__ import annotations

from typing import NamedTuple

RGB = tuple[int, int, int]

COLORS: dict[str, RGB] = {
    "white": (236, 236, 232),
    "cream": (232, 222, 196),
    "grey": (150, 154, 160),
    "charcoal": (62, 64, 70),
    "black": (26, 26, 30),
    "navy": (24, 36, 82),
    "royal": (32, 72, 172),
    "sky": (112, 172, 222),
    "teal": (0, 124, 132),
    "green": (12, 104, 60),
    "gold": (248, 188, 44),
    "orange": (236, 104, 34),
    "red": (200, 24, 44),
    "maroon": (118, 20, 44),
    "purple": (84, 38, 134),
}


class Scheme(NamedTuple):
    """Names, in ``COLORS``, of one team's fabric, number and third colour (outline and trim)."""

    fabric: str
    number: str
    trim: str


# Written out and not drawn at random: teams choose numbers that are read from the stands, so
# every pair contrasts, and white home shirts are the most common.
SCHEMES: tuple[Scheme, ...] = tuple(
    Scheme(*names.split())
    for names in (
        "white navy red",
        "white black red",
        "white red black",
        "white royal orange",
        "white green gold",
        "white purple gold",
        "white maroon gold",
        "white orange navy",
        "white royal gold",
        "cream green red",
        "cream maroon gold",
        "grey navy white",
        "grey black red",
        "charcoal orange white",
        "charcoal white teal",
        "black white red",
        "black red white",
        "black gold white",
        "black white grey",
        "navy white red",
        "navy gold white",
        "navy white gold",
        "royal white orange",
        "royal gold white",
        "royal white red",
        "sky white navy",
        "sky navy gold",
        "teal white purple",
        "green white gold",
        "green white black",
        "gold purple white",
        "gold navy white",
        "gold black red",
        "orange white navy",
        "orange black white",
        "red white black",
        "red white navy",
        "red gold white",
        "maroon white gold",
        "maroon gold black",
        "purple white gold",
        "purple gold white",
    )
)

SKINS: tuple[RGB, ...] = (
    (238, 200, 172),
    (222, 176, 140),
    (198, 146, 108),
    (166, 112, 78),
    (128, 84, 58),
    (96, 62, 44),
    (70, 46, 36),
)

WOODS: tuple[RGB, ...] = ((206, 160, 104), (190, 138, 82), (222, 184, 132), (166, 116, 70))

BALL: RGB = (206, 104, 44)


def scaled(color: RGB, factor: float) -> RGB:
    """Return ``color`` with each channel multiplied by ``factor`` and kept within 0..255."""
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in color)
    return red, green, blue


def blended(one: RGB, other: RGB, share: float) -> RGB:
    """Return the colour that lies ``share`` (0..1) of the way from ``one`` to ``other``."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(one, other, strict=True))
    return red, green, blue
