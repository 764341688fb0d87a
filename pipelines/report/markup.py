"""HTML that is escaped by construction: whatever is not `Html` already becomes text; and what a part of the page is.

File names, captions and error messages are strangers' text; no template can forget to escape them.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable
from typing import Any

_VOID = {"img", "br", "hr", "meta", "input"}


class Html(str):
    """Markup that is safe to put on the page as it stands."""

    __slots__ = ()


def text(value: Any) -> Html:
    """Return a value as markup: `Html` unchanged, None and False as nothing, lists joined, the rest escaped."""
    if isinstance(value, Html):
        return value
    if value is None or value is False:
        return Html("")
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return Html("".join(text(item) for item in value))
    return Html(html.escape(str(value)))


def el(tag: str, *children: Any, **attributes: Any) -> Html:
    """Return an element; `class_` and `data_x` become `class` and `data-x`, None and False leave an attribute out."""
    pairs = []
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        pairs.append(f" {name}" if value is True else f' {name}="{html.escape(str(value))}"')
    opening = f"<{tag}{''.join(pairs)}>"
    return Html(opening if tag in _VOID and not children else f"{opening}{text(children)}</{tag}>")


def data_uri(data: bytes, kind: str) -> str:
    """Return bytes as a data URI of a media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def number(value: float) -> str:
    """Return a number as people write it: about three digits that matter, thousands with thin spaces."""
    if value != value or value in (float("inf"), float("-inf")):
        return "–"
    size = abs(value)
    if size >= 1000 or value == int(value):
        return f"{value:,.0f}".replace(",", "\u2009").replace("-", "−")
    digits = min(max(2 - math.floor(math.log10(size)), 0), 5)
    text = f"{value:.{digits}f}"
    if not text.strip("-0."):
        return "≈\u202f0"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def seconds(value: float) -> str:
    """Return a stretch of time: `0.08 s`, `12.4 s`, `3 min 05 s`, `2 h 14 min`."""
    if value < 59.95:
        return f"{value:.2f}\u00a0s" if 0 < value < 9.995 else f"{value:.1f}\u00a0s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}\u00a0min {rest:02d}\u00a0s"
    hours, minutes = divmod(minutes, 60)
    return f"{number(hours)}\u00a0h {minutes:02d}\u00a0min"


def clock(value: float) -> str:
    """Return a position in a video: `0:07.25`, `1:02:03.00`."""
    minutes, rest = divmod(max(value, 0.0), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:05.2f}" if hours else f"{minutes}:{rest:05.2f}"


def size(value: float) -> str:
    """Return a number of bytes in powers of ten."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{number(value / factor)} {unit}"
    return f"{number(value)} bytes"


def share(part: float, whole: float) -> str:
    """Return a share in percent; a dash where there is no whole."""
    if whole <= 0:
        return "–"
    percent = 100 * part / whole
    if part > 0 and percent < 0.05:
        return "< 0.1\u00a0%"
    return f"{percent:.0f}\u00a0%" if percent in (0, 100) or percent >= 9.95 else f"{percent:.1f}\u00a0%"


def words(name: str) -> str:
    """Return an identifier such as `too_short` as words."""
    return name.replace("_", " ")


def count(value: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: `1 clip`, `2 clips`."""
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


ASKED = {
    "account": ("funnel", "funnel", "Sources"),
    "selections": ("selection", "", "Compare"),
    "funnel": ("funnel", "funnel", "Policy"),
    "mixture": ("clips_all", "camera", "Policy"),
    "bias": ("clips_all", "bias", "Policy"),
    "licences": ("sources", "", "Sources"),
    "takedowns": ("takedowns", "", "SQL"),
    "measures": ("clips_all", "deciles", "Policy"),
    "clips": ("clips_all", "near", "Clips"),
    "duplicates": ("clips_all", "duplicates", "Clips"),
    "captions": ("captions", "captions", "Clips"),
    "failures": ("errors", "failures", "Sources"),
    "sources": ("sources_all", "yield", "Sources"),
    "shards": ("clips_all", "buckets", "SQL"),
    "latents": ("latents", "", "SQL"),
}
"""Of each part of the page that is about the ledger: the view or table with its figures, a documented query on them,
and the view of `rushes explore` where one goes on."""


def section(name: str, title: str, lead: Any, *children: Any) -> Html:
    """Return a titled part of the page with a sentence that says how to read it and a line that says how to go on."""
    return el("section", el("h2", title), lead and el("p", lead, class_="lead"), *children, _onward(name), id=name)


def _onward(name: str) -> Html | None:
    if name not in ASKED:
        return None
    relation, query, view = ASKED[name]
    how = (
        (", as ", el("code", f"rushes sql RUN {query}"), " asks it")
        if query
        else (", by ", el("code", "rushes sql RUN"))
    )
    onward = (". To go on: ", el("code", "rushes explore RUN"), ", view ", el("b", view), ".")
    return el("p", "Figures: ", el("code", relation), *how, *onward, class_="onward")
