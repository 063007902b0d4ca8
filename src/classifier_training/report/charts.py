"""The geometry of charts; the template draws it as SVG. Numbers in, coordinates out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 18, 36
_MOST_DOTS = 40  # more of them would hide the line


@dataclass(frozen=True)
class Line:
    """Points to be drawn as a line.

    Attributes:
        name: In the legend.
        style: CSS class.
        points: (x, y) in the units of the data.
    """

    name: str
    style: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where it lies, and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class DrawnLine:
    """A line in the picture.

    Attributes:
        name: In the legend.
        style: CSS class.
        path: Points of an SVG polyline.
        dots: (x, y, what a pointer on it shows); empty when there are too many.
        end: (x, y) of the last point.
    """

    name: str
    style: str
    path: str
    dots: tuple[tuple[float, float, str], ...]
    end: tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle in the picture, with what a pointer on it shows."""

    x: float
    y: float
    width: float
    height: float
    text: str
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class Mark:
    """A vertical line in the picture, with its text and the side that the text stands on."""

    x: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Chart:
    """A picture as the template draws it.

    Attributes:
        title: Above it.
        summary: What it shows, in words, for those who cannot see it.
        x_title: Below it.
        x_ticks: On the horizontal axis.
        y_ticks: On the vertical axis.
        lines: Drawn lines.
        boxes: Drawn bars.
        marks: Vertical lines.
    """

    title: str
    summary: str
    x_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[DrawnLine, ...]
    boxes: tuple[Box, ...] = ()
    marks: tuple[Mark, ...] = ()

    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


@dataclass(frozen=True)
class Frame:
    """The ranges of both axes, and how they map to the picture."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """Return where a value lies horizontally."""
        share = (value - self.x_low) / ((self.x_high - self.x_low) or 1.0)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 2)

    def y(self, value: float) -> float:
        """Return where a value lies vertically, kept inside."""
        share = (value - self.y_low) / ((self.y_high - self.y_low) or 1.0)
        inside = min(1.0, max(0.0, share))
        return round(HEIGHT - _BOTTOM - inside * (HEIGHT - _TOP - _BOTTOM), 2)

    def draw(self, line: Line, *, x_name: str, y_digits: int = 3) -> DrawnLine:
        """Place a line."""
        placed = [(self.x(x), self.y(y)) for x, y in line.points]
        dots = tuple(
            (px, py, f"{line.name}, {x_name} {x:g}: {y:.{y_digits}f}")
            for (px, py), (x, y) in zip(placed, line.points, strict=True)
        )
        return DrawnLine(
            name=line.name,
            style=line.style,
            path=" ".join(f"{px:g},{py:g}" for px, py in placed),
            dots=dots if len(dots) <= _MOST_DOTS else dots[-1:],
            end=placed[-1],
        )

    def mark(self, x: float, text: str) -> Mark:
        """Place a vertical line; its text stands on the side with more room."""
        at = self.x(x)
        return Mark(at, text, "end" if at > (WIDTH + _LEFT) / 2 else "start")


def line_chart(
    title: str,
    summary: str,
    x_title: str,
    lines: Sequence[Line],
    *,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    mark: tuple[float, str] | None = None,
    whole_x: bool = False,
) -> Chart:
    """Draw lines over a common axis.

    Args:
        title: Of the chart.
        summary: In words.
        x_title: Of the horizontal axis.
        lines: At least one, each with at least one point.
        y_range: Lowest and highest value; by default what the points span.
        x_range: Likewise.
        mark: Where to draw a vertical line, and its text.
        whole_x: Whether only whole numbers stand on the horizontal axis.
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points if math.isfinite(y)]
    y_low, y_high = y_range or (min(ys, default=0.0), max(ys, default=1.0))
    y_ticks = nice_ticks(y_low, y_high, most=5)
    if y_range is None:
        y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])
    x_low, x_high = x_range or (min(xs), max(xs))
    frame = Frame(x_low, x_high, y_low, y_high)
    x_ticks = nice_ticks(x_low, x_high, most=6, whole=whole_x)
    return Chart(
        title=title,
        summary=summary,
        x_title=x_title,
        x_ticks=_placed(x_ticks, x_low, x_high, frame.x),
        y_ticks=_placed(y_ticks, y_low, y_high, frame.y),
        lines=tuple(frame.draw(line, x_name=x_title.lower()) for line in lines),
        marks=() if mark is None else (frame.mark(*mark),),
    )


def _placed(
    values: Sequence[float], low: float, high: float, place: Callable[[float], float]
) -> tuple[Tick, ...]:
    """Place the ticks inside a range, all written with the decimals of the longest."""
    decimals = max(len(f"{value:g}".partition(".")[2]) for value in values)
    slack = 1e-9 * max(1.0, abs(high))
    return tuple(
        Tick(place(value), f"{value:.{decimals}f}")
        for value in values
        if low - slack <= value <= high + slack
    )


def nice_ticks(low: float, high: float, *, most: int, whole: bool = False) -> list[float]:
    """Return round numbers that span a range: multiples of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low if math.isfinite(low) else 0.0]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    step = max(1.0, round(step)) if whole else step
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]
