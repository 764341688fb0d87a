"""Small charts as inline SVG: no library, no network, colours from the page's style so that they follow its theme."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rushes.pipelines.report.markup import Html, el, number, words

WIDTH, HEIGHT = 300, 118
CURVE_POINTS = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 6, 6, 22, 18


@dataclass(frozen=True)
class Bar:
    """One stretch of a stacked bar or a timeline, in any unit of length."""

    start: float
    end: float
    style: str
    """Class that colours it: kept, dropped, trimmed, failed, pending."""
    title: str
    """Shown when the pointer rests on it."""
    target: str | None = None
    """Anchor on the page to which it leads."""


@dataclass(frozen=True)
class Limit:
    """A policy's limit on a measure."""

    value: float
    keeps_above: bool
    rule: str


@dataclass(frozen=True)
class Histogram:
    """Counts of a measure, kept and dropped apart."""

    edges: Sequence[float]
    """One more than there are bins; the outermost bins also hold what lies beyond."""
    kept: Sequence[int]
    dropped: Sequence[int]
    log: bool
    """Whether the bins are even on a logarithmic axis."""


def stacked(bars: Sequence[Bar], height: int, label: str, gap: float = 0.0) -> Html:
    """Return stretches along one line, scaled to the width of the page; the longest line of text is never needed."""
    total = max((bar.end for bar in bars), default=0.0)
    if total <= 0:
        return Html("")
    shapes = []
    for bar in bars:
        width = 1000 * (bar.end - bar.start) / total
        shape = el(
            "rect",
            el("title", bar.title),
            class_=f"fill-{bar.style}",
            x=f"{1000 * bar.start / total:.2f}",
            width=f"{max(width - gap, min(width, 0.8)):.2f}",
            y=0,
            height=height,
        )
        shapes.append(el("a", shape, href=f"#{bar.target}") if bar.target else shape)
    return el(
        "svg", *shapes, class_="stacked", viewBox=f"0 0 1000 {height}", preserveAspectRatio="none", height=height,
        role="img", aria_label=label,
    )  # fmt: skip


def histogram(data: Histogram, limits: Sequence[Limit], label: str) -> Html:
    """Return a histogram with what was kept below and what was dropped on top, and the policy's limits drawn in."""
    bins = len(data.kept)
    top = max((k + d for k, d in zip(data.kept, data.dropped, strict=True)), default=0) or 1
    step = (WIDTH - _LEFT - _RIGHT) / bins
    scale = (HEIGHT - _TOP - _BOTTOM) / math.sqrt(top)  # areas of rare values stay visible beside common ones
    floor = HEIGHT - _BOTTOM
    shapes = [_excluded(data, limit) for limit in limits]
    for index, (kept, dropped) in enumerate(zip(data.kept, data.dropped, strict=True)):
        if not kept + dropped:
            continue
        whole = scale * math.sqrt(kept + dropped)
        below = whole * kept / (kept + dropped)
        span = f"{number(data.edges[index])} – {number(data.edges[index + 1])}: {kept} kept, {dropped} dropped"
        box = {"x": f"{_LEFT + index * step + 0.5:.1f}", "width": f"{step - 1:.1f}"}
        shapes.append(
            el(
                "g",
                el("title", span),
                below > 0 and el("rect", class_="fill-kept", y=f"{floor - below:.1f}", height=f"{below:.1f}", **box),
                whole > below
                and el("rect", class_="fill-dropped", y=f"{floor - whole:.1f}", height=f"{whole - below:.1f}", **box),
            )
        )
    shapes.append(el("line", class_="axis", x1=_LEFT, x2=WIDTH - _RIGHT, y1=floor, y2=floor))
    shapes += [_mark(data, limit) for limit in limits]
    shapes += _ticks(data)
    return el("svg", *shapes, class_="chart", viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)


def _place(data: Histogram, value: float) -> float:
    low, high = data.edges[0], data.edges[-1]
    if data.log:
        low, high, value = math.log(low), math.log(high), math.log(max(value, low))
    share = (value - low) / (high - low) if high > low else 0.5
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * min(max(share, 0.0), 1.0)


def _excluded(data: Histogram, limit: Limit) -> Html:
    x = _place(data, limit.value)
    left, right = (_LEFT, x) if limit.keeps_above else (x, WIDTH - _RIGHT)
    return el(
        "rect", class_="excluded", x=f"{left:.1f}", width=f"{right - left:.1f}", y=_TOP, height=HEIGHT - _TOP - _BOTTOM
    )


def _mark(data: Histogram, limit: Limit) -> Html:
    x = _place(data, limit.value)
    sign = "≥" if limit.keeps_above else "≤"
    at_right = x > WIDTH * 0.6
    return el(
        "g",
        el("title", f"{limit.rule}: kept where {sign} {number(limit.value)}"),
        el("line", class_="limit", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=_TOP - 8, y2=HEIGHT - _BOTTOM),
        el(
            "text",
            f"keep {sign} {number(limit.value)}",
            class_="limit-label",
            x=f"{x - 4 if at_right else x + 4:.1f}",
            y=_TOP - 6,
            text_anchor="end" if at_right else "start",
        ),
    )


def _ticks(data: Histogram) -> list[Html]:
    low, high = data.edges[0], data.edges[-1]
    middle = math.sqrt(low * high) if data.log else (low + high) / 2
    first = f"≤ {number(low)}" if data.log else number(low)
    marks = [(_LEFT, first, "start"), (WIDTH / 2, number(middle), "middle"), (WIDTH - _RIGHT, number(high), "end")]
    return [el("text", text, class_="tick", x=x, y=HEIGHT - 5, text_anchor=anchor) for x, text, anchor in marks]


def curve(
    points: Sequence[tuple[float, float]], label: str, style: str = "kept", held: Sequence[tuple[float, float]] = ()
) -> Html:
    """Return a curve of (step, value) with a smoothed line over the raw one; logarithmic where values span decades.

    What held-out clips give of the same figure, `held`, is drawn into it in another colour.
    """
    points, held = ([(x, y) for x, y in one if math.isfinite(x) and math.isfinite(y)] for one in (points, held))
    if len(points) < 2:
        return Html("")
    ys = [y for _, y in (*points, *held)]
    log = min(ys) > 0 and max(ys) / min(ys) > 20
    heights = [math.log(y) if log else y for y in ys]
    low, high = min(heights), max(heights)
    heights, others = heights[: len(points)], heights[len(points) :]
    x0, x1 = points[0][0], points[-1][0]

    def path(values: Sequence[float], points: Sequence[tuple[float, float]] = points) -> str:
        places = (
            f"{_LEFT + (WIDTH - _LEFT - _RIGHT) * (x - x0) / max(x1 - x0, 1e-12):.1f} "
            f"{_TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / max(high - low, 1e-12):.1f}"
            for (x, _), value in zip(points, values, strict=True)
        )
        return "M" + "L".join(places)

    floor = HEIGHT - _BOTTOM
    return el(
        "svg",
        el("line", class_="axis", x1=_LEFT, x2=WIDTH - _RIGHT, y1=floor, y2=floor),
        el("path", class_=f"curve raw stroke-{style}", d=path(heights)),
        el("path", class_=f"curve stroke-{style}", d=path(_smooth(heights))),
        len(held) > 0 and el("path", el("title", "held-out clips"), class_="curve held", d=path(others, held)),
        el("text", number(x0), class_="tick", x=_LEFT, y=HEIGHT - 5),
        el("text", f"step {number(x1)}", class_="tick", x=WIDTH - _RIGHT, y=HEIGHT - 5, text_anchor="end"),
        el("text", number(max(ys)), class_="tick", x=_LEFT, y=_TOP - 8),
        el(
            "text",
            f"{number(points[-1][1])}{f', held out {number(held[-1][1])}' if held else ''} at the end",
            class_="limit-label",
            x=WIDTH - _RIGHT,
            y=_TOP - 8,
            text_anchor="end",
        ),
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=label,
    )


_SHEET_STYLE = """
svg { --ink: #14181c; --soft: #57616b; --rule: #dfe3e7; --kept: #14788f; --dropped: #e0952f; --sheet: #fff; }
@media (prefers-color-scheme: dark) {
  svg { --ink: #e8ebed; --soft: #98a3ad; --rule: #2b3238; --kept: #4db3c8; --dropped: #e3a44b; --sheet: #181c20; }
}
text { font: 11px system-ui, "Helvetica Neue", Helvetica, Arial, sans-serif; fill: var(--soft); }
.sheet { fill: var(--sheet); } .name { font-size: 13px; } .name, .limit-label { fill: var(--ink); font-weight: 600; }
.axis { stroke: var(--rule); } .stroke-kept { stroke: var(--kept); }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .curve.raw { opacity: .28; stroke-width: 1; }
.curve.held { stroke: var(--dropped); }
"""


def series(metrics: str) -> dict[str, list[tuple[float, float]]]:
    """Return the (step, value) points of each figure in a training's `metrics.jsonl`, losses first.

    A line that is no record is passed over: a run that was killed may leave half of one.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for index, line in enumerate(metrics.splitlines()):
        row = _record(line)
        step = next((row[name] for name in ("step", "batches", "batch") if _is_number(row.get(name))), index)
        for name, value in row.items():
            if name not in _CLOCKS and _is_number(value):
                found.setdefault(name, []).append((float(step), float(value)))
    return dict(sorted(found.items(), key=lambda item: "loss" not in item[0]))


def paired(
    found: Mapping[str, Sequence[tuple[float, float]]],
) -> list[tuple[str, Sequence[tuple[float, float]], Sequence[tuple[float, float]]]]:
    """Return name, points, and points of held-out clips of each figure; what is told of these alone is one, too."""
    own = [name for name in found if name.removeprefix("held_") == name or name.removeprefix("held_") not in found]
    return [(name, found[name], found.get(f"held_{name}", ())) for name in own]


_CLOCKS = {"step", "batch", "batches", "epoch", "time_s", "elapsed_s", "seconds"}


def _record(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Return every so many of the points of a curve: as many as can be seen."""
    return points[:: max(1, len(points) // CURVE_POINTS)]


def sheet(found: Mapping[str, Sequence[tuple[float, float]]], columns: int = 3) -> Html:
    """Return curves by name as one picture that stands alone, with its own style: the content of an SVG file."""
    shown = [
        (name, one)
        for name, points, held in paired(found)
        if (one := curve(thinned(points), f"Curve of {name}", held=thinned(held)))
    ]
    wide, high, gap = WIDTH + 24, HEIGHT + 34, 12
    panels = [
        el(
            "svg",
            el("text", words(name), class_="name", x=12, y=20),
            el("svg", one, x=12, y=28, width=WIDTH, height=HEIGHT),
            x=gap + index % columns * wide,
            y=gap + index // columns * high,
            width=wide,
            height=high,
        )
        for index, (name, one) in enumerate(shown)
    ]
    width, height = min(columns, max(len(shown), 1)) * wide + 2 * gap, -(-len(shown) // columns) * high + 2 * gap
    ground = el("rect", class_="sheet", width=width, height=height)
    return el(
        "svg", el("style", Html(_SHEET_STYLE)), ground, *panels,
        xmlns="http://www.w3.org/2000/svg", width=width, height=height, viewBox=f"0 0 {width} {height}",
    )  # fmt: skip


def _smooth(values: Sequence[float]) -> list[float]:
    """Return means over a window centred on each value, so that the line does not lag behind what it sums up."""
    sums = [0.0, *itertools.accumulate(values)]
    reach = max(len(values) // 30, 1)
    smooth = []
    for place in range(len(values)):
        half = min(reach, place, len(values) - 1 - place)
        smooth.append((sums[place + half + 1] - sums[place - half]) / (2 * half + 1))
    return smooth
