"""Line charts as SVG that opens anywhere, without a drawing library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 40, 52
COLOURS = ("#0f62a8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#5d6d7e", "#117a65", "#a04000")


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    points: Sequence[tuple[float, float]]
    """In ascending order of x."""
    marks: bool = False
    """Draw the points, too."""


def chart(lines: Sequence[Line], title: str, x_label: str, y_label: str, log_x: bool = False) -> str:
    """Return an SVG of curves over one x axis; points that are not finite are left out.

    Raises ValueError where there is not one point to draw.
    """
    drawn = [Line(one.name, [p for p in one.points if all(map(math.isfinite, p))], one.marks) for one in lines]
    drawn = [one for one in drawn if one.points]
    if not drawn:
        raise ValueError(f"{title}: there is no point to draw")
    xs = _ticks([x for one in drawn for x, _ in one.points], log_x)
    ys = _ticks([y for one in drawn for _, y in one.points], False)

    def place(x: float, y: float) -> tuple[float, float]:
        across = _share(x, xs, log_x) * (WIDTH - LEFT - RIGHT) + LEFT
        return across, HEIGHT - BOTTOM - _share(y, ys, False) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img"><title>{escape(title)}</title>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, TOP - 18, title, size=15),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_label, anchor="middle"),
        f'<g transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">'
        + _text(0, 0, y_label, anchor="middle")
        + "</g>",
    ]
    for x in xs:
        across, down = place(x, ys[0])
        parts.append(_rule(across, down, across, TOP) + _text(across, down + 18, f"{x:.4g}", anchor="middle"))
    for y in ys:
        across, down = place(xs[0], y)
        parts.append(_rule(across, down, WIDTH - RIGHT, down) + _text(across - 8, down + 4, f"{y:.4g}", anchor="end"))
    for i, one in enumerate(drawn):
        colour, dash = COLOURS[i % len(COLOURS)], ' stroke-dasharray="6 3"' if i >= len(COLOURS) else ""
        places = [place(*point) for point in one.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if one.marks or len(places) == 1:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        down = TOP + 14 + 20 * i
        parts.append(
            f'<line x1="{WIDTH - RIGHT + 14}" y1="{down - 4}" x2="{WIDTH - RIGHT + 38}" y2="{down - 4}" '
            f'stroke="{colour}" stroke-width="2"{dash}/>' + _text(WIDTH - RIGHT + 44, down, one.name)
        )
    return "\n".join([*parts, "</svg>", ""])


def _ticks(values: Sequence[float], log: bool) -> list[float]:
    """Return about six round numbers around all values."""
    low, high = min(values), max(values)
    if log and low > 0:
        first = math.floor(math.log2(low))
        return [2.0**n for n in range(first, max(math.ceil(math.log2(high)), first + 1) + 1)]
    raw = (high - low or abs(high) or 1.0) / 5
    step = next(s for s in (m * 10.0 ** math.floor(math.log10(raw)) for m in (1, 2, 2.5, 5, 10)) if s >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [n * step for n in range(first, max(last, first + 1) + 1)]


def _share(value: float, ticks: Sequence[float], log: bool) -> float:
    """Return where a value lies between the first tick, 0, and the last, 1."""
    if log and ticks[0] > 0:
        return (math.log(value) - math.log(ticks[0])) / (math.log(ticks[-1]) - math.log(ticks[0]))
    return (value - ticks[0]) / (ticks[-1] - ticks[0])


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e3e6ea"/>'


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222">{escape(words)}</text>'
