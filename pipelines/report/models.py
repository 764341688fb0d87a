"""The parts of the page about shards and the two models: whatever of it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rushes.pipelines.report import charts
from rushes.pipelines.report.accounting import Books
from rushes.pipelines.report.markup import Html, count, data_uri, el, number, seconds, section, share, size, words
from rushes.pipelines.store import storage

VIDEO_BYTES = 5_000_000
IMAGE_BYTES = 1_500_000
CURVES = 9
BUCKETS = 40
"""Buckets that are listed; the others are summed."""
_KINDS = {".mp4": "video/mp4", ".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg"}


def manifest(root: str) -> dict[str, Any]:
    """Return the manifest of a folder of shards; empty where there is none or it cannot be read."""
    uri = f"{root.rstrip('/')}/manifest.json"
    try:
        found = json.loads(storage.read_bytes(uri)) if storage.exists(uri) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def shards(books: Books) -> Html:
    """Return the buckets of a selection's clip shards and latent shards, those with most time first."""
    times = {str(bucket): float(time_s) for bucket, time_s in books.connection.execute(_TIMES).fetchall()}
    panels = []
    for name, title in (("shards", "Clips"), ("latents", "Latents")):
        listed = manifest(f"{books.run.rstrip('/')}/{name}/{books.policy}").get("shards", [])
        if listed:
            panels.append(_buckets(title, listed, times))
    if not panels:
        return Html("")
    return section(
        "shards", "Shards",
        "A bucket holds clips of one shape, size, rate and length, so that a batch needs no padding. Its time is that "
        "of the clips packed into it.", *panels,
    )  # fmt: skip


_TIMES = """
select bucket, sum(duration_s) from packed join fates using (key) where policy = getvariable('policy') group by bucket
"""


@dataclass
class _Bucket:
    """Shards of one bucket, or of several, in numbers."""

    shards: int = 0
    samples: int = 0
    size_bytes: int = 0
    seconds: float = 0.0

    def add(self, other: _Bucket) -> None:
        for name in ("shards", "samples", "size_bytes", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def _buckets(title: str, listed: Sequence[Mapping[str, Any]], times: Mapping[str, float]) -> Html:
    buckets: dict[str, _Bucket] = {}
    for shard in listed:
        name = str(shard["path"]).split("/", 1)[0]
        one = buckets.setdefault(name, _Bucket(seconds=times.get(name, 0.0)))
        one.add(_Bucket(1, shard["samples"], shard["size_bytes"]))
    ranked = sorted(buckets.items(), key=lambda item: (-item[1].seconds, -item[1].samples, item[0]))
    whole, rest = _Bucket(), _Bucket()
    for at, (_, one) in enumerate(ranked):
        whole.add(one)
        if at >= BUCKETS:
            rest.add(one)
    rows = [_row(el("td", el("code", name)), one, whole) for name, one in ranked[:BUCKETS]]
    if len(ranked) > BUCKETS:
        rows.append(_row(el("td", count(len(ranked) - BUCKETS, "other bucket")), rest, whole))
    total = _row(el("th", f"All {title.lower()}", scope="row"), whole, None)
    head = el("tr", *(el("th", name, scope="col", class_=style) for name, style in _COLUMNS))
    table = el("table", el("thead", head), el("tbody", *rows), el("tfoot", total))
    return el("div", el("h3", title), el("div", table, class_="scroll"), class_="block")


_COLUMNS = (("Bucket", ""), ("Time", "n"), ("Share", "n"), ("Samples", "n"), ("Shards", "n"), ("Size", "n"),
            ("", "bar-cell"))  # fmt: skip


def _row(name: Html, one: _Bucket, whole: _Bucket | None) -> Html:
    """Return the row of a bucket, or of all of them where there is no whole."""
    meter = whole and el("i", class_="meter back-kept", style=f"width:{_percent(one.seconds, whole.seconds):.2f}%")
    return el(
        "tr", name, el("td", seconds(one.seconds) if one.seconds else "–", class_="n"),
        el("td", share(one.seconds, (whole or one).seconds), class_="n"), el("td", number(one.samples), class_="n"),
        el("td", number(one.shards), class_="n"), el("td", size(one.size_bytes), class_="n"),
        el("td", meter, class_="bar-cell"), class_=None if whole else "sum",
    )  # fmt: skip


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


def training(run: str, part: str, title: str, lead: str) -> Html:
    """Return the curves, pictures and videos that a training left in `RUN/<part>`."""
    folder = f"{run.rstrip('/')}/{part}"
    found = list(_curves(folder))
    seen = list(_pictures(folder))
    if not found and not seen:
        return Html("")
    return section(
        part, title, lead,
        found and el("div", *found, class_="grid thirds"), seen and el("div", *seen, class_="grid halves media"),
    )  # fmt: skip


def _curves(folder: str) -> Iterator[Html]:
    uri = f"{folder}/metrics.jsonl"
    if not storage.exists(uri):
        return
    columns = charts.series(storage.read_bytes(uri).decode("utf-8", "replace"))
    for name, points, held in charts.paired(columns)[:CURVES]:
        chart = charts.curve(charts.thinned(points), f"Curve of {name}", held=charts.thinned(held))
        if chart:
            caption = el("figcaption", el("b", words(name)), el("small", count(len(points), "value")))
            yield el("figure", caption, chart, class_="panel")


def _pictures(folder: str) -> Iterator[Html]:
    """Yield videos, then the last pictures: they show the model as it is now."""
    uris = storage.list_files(folder)
    pictures = [uri for uri in uris + storage.list_files(f"{folder}/strips") if _kind(uri).startswith("image/")]
    for uri in [uri for uri in uris if _kind(uri) == "video/mp4"][:4] + pictures[-4:]:
        name, kind = uri.rsplit("/", 1)[-1], _kind(uri)
        limit = VIDEO_BYTES if kind == "video/mp4" else IMAGE_BYTES
        caption = el("figcaption", el("b", _titled(name.rsplit(".", 1)[0])), el("small", size(storage.size(uri))))
        if storage.size(uri) > limit:
            note = el("p", f"{name} is larger than {size(limit)}, so it is not on this page.", class_="facts")
            yield el("figure", caption, note, class_="panel")
            continue
        data = data_uri(storage.read_bytes(uri), kind)
        if kind == "video/mp4":
            shown = el("video", src=data, controls=True, loop=True, muted=True, playsinline=True, preload="metadata")
        else:
            shown = el("img", src=data, alt=name)
        yield el("figure", caption, shown, class_="panel")


def _titled(stem: str) -> str:
    return f"step {int(stem)}" if stem.isdecimal() else words(stem)


def _kind(uri: str) -> str:
    return _KINDS.get("." + uri.rsplit(".", 1)[-1].lower(), "")
