"""The parts of the page about shards and the two models: whatever of it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rushes.pipelines.report import charts
from rushes.pipelines.report.markup import Html, count, data_uri, el, number, size, words
from rushes.pipelines.report.sections import section
from rushes.pipelines.store import storage

VIDEO_BYTES = 5_000_000
IMAGE_BYTES = 1_500_000
CURVES = 9
_KINDS = {".mp4": "video/mp4", ".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg"}


def manifest(root: str) -> dict[str, Any]:
    """Return the manifest of a folder of shards; empty where there is none or it cannot be read."""
    uri = f"{root.rstrip('/')}/manifest.json"
    try:
        found = json.loads(storage.read_bytes(uri)) if storage.exists(uri) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def shards(run: str, policy: str | None) -> Html:
    """Return the buckets of a selection's clip shards and latent shards."""
    panels = []
    for name, title in (("shards", "Clips"), ("latents", "Latents")):
        listed = manifest(f"{run.rstrip('/')}/{name}/{policy}").get("shards", [])
        if listed:
            panels.append(_buckets(title, listed))
    if not panels:
        return Html("")
    return section(
        "shards", "Shards",
        "A bucket holds clips of one shape, size, rate and length, so that a batch needs no padding.", *panels,
    )  # fmt: skip


def _buckets(title: str, listed: list[dict[str, Any]]) -> Html:
    buckets: dict[str, list[dict[str, Any]]] = {}
    for shard in listed:
        buckets.setdefault(str(shard["path"]).split("/", 1)[0], []).append(shard)
    most = max(sum(shard["samples"] for shard in group) for group in buckets.values()) or 1
    rows = []
    for bucket, group in sorted(buckets.items()):
        samples = sum(shard["samples"] for shard in group)
        rows.append(
            el(
                "tr",
                el("td", el("code", bucket)),
                el("td", number(len(group)), class_="n"),
                el("td", number(samples), class_="n"),
                el("td", size(sum(shard["size_bytes"] for shard in group)), class_="n"),
                el(
                    "td",
                    el("i", class_="meter back-kept", style=f"width:{100 * samples / most:.2f}%"),
                    class_="bar-cell",
                ),
            )
        )
    total = (
        el("th", f"All {title.lower()}", scope="row"), el("td", number(len(listed)), class_="n"),
        el("td", number(sum(shard["samples"] for shard in listed)), class_="n"),
        el("td", size(sum(shard["size_bytes"] for shard in listed)), class_="n"), el("td"),
    )  # fmt: skip
    head = el(
        "tr", *(el("th", n, class_=s) for n, s in zip(("Bucket", "Shards", "Samples", "Size", ""), _ALIGN, strict=True))
    )
    table = el("table", el("thead", head), el("tbody", *rows), el("tfoot", el("tr", *total, class_="sum")))
    return el("div", el("h3", title), el("div", table, class_="scroll"), class_="block")


_ALIGN = ("", "n", "n", "n", "bar-cell")


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
