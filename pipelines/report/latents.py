"""The part of the page about latents: where they went. How many segments have which rate, and which clips got most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from heapq import nlargest, nsmallest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rushes.pipelines.report import facts, models
from rushes.pipelines.report.accounting import Books
from rushes.pipelines.report.facts import Card, Strips
from rushes.pipelines.report.markup import Html, count, el, number, section, share
from rushes.pipelines.report.sections import clip_card
from rushes.pipelines.store import storage

SHOWN = 6
"""Clips with most latents a second, and with least."""
_READ = ["key", "rates", "lengths", "frames", "fps"]


@dataclass(frozen=True, kw_only=True)
class Used:
    """What a clip got."""

    key: str
    latents: int
    per_second: float
    rates: list[int]


@dataclass(kw_only=True)
class Spent:
    """What the clips of latent shards got together."""

    segments: Counter[int] = field(default_factory=Counter)
    """By rate."""
    latents: Counter[int] = field(default_factory=Counter)
    """By rate."""
    frames: int = 0
    most: list[Used] = field(default_factory=list)
    least: list[Used] = field(default_factory=list)

    def add(self, rows: pa.Table) -> None:
        """Add the clips of a shard, by its side-car. Of clips only the extremes are held."""
        rates, lengths = (rows[name].combine_chunks() for name in ("rates", "lengths"))
        rate, length = (np.asarray(column.flatten()) for column in (rates, lengths))
        latents = -(-length // rate)
        for each in np.unique(rate).tolist():
            self.segments[each] += int((rate == each).sum())
            self.latents[each] += int(latents[rate == each].sum())
        self.frames += int(length.sum())
        owner = np.repeat(np.arange(len(rows)), rates.value_lengths().to_numpy(zero_copy_only=False))
        own = np.bincount(owner, latents, len(rows))
        pace = own * rows["fps"].to_numpy() / rows["frames"].to_numpy()
        order = np.argsort(pace, kind="stable")
        ends = {int(i): _used(rows, int(i), own, pace) for i in {*order[:SHOWN].tolist(), *order[-SHOWN:].tolist()}}
        self.most = nlargest(SHOWN, [*self.most, *ends.values()], key=lambda one: (one.per_second, one.key))
        self.least = nsmallest(SHOWN, [*self.least, *ends.values()], key=lambda one: (one.per_second, one.key))


def _used(rows: pa.Table, at: int, own: np.ndarray, pace: np.ndarray) -> Used:
    return Used(key=rows["key"][at].as_py(), latents=int(own[at]), per_second=float(pace[at]),
                rates=rows["rates"][at].as_py())  # fmt: skip


def spent(root: str, listed: Iterable[Mapping[str, Any]]) -> Spent:
    """Return what clips got, by the side-cars of their latent shards, one in memory at a time; others are left out."""
    found = Spent()
    for shard in listed:
        uri = f"{root}/{str(shard['path']).removesuffix('.tar')}.parquet"
        data = storage.read_if_there(uri)
        if data is not None:
            found.add(pq.read_table(pa.BufferReader(data), columns=_READ))
    return found


def latents(books: Books, strips: Strips) -> Html:
    """Return how the latents of the selection shown are spread over segments and clips; nothing where it has none."""
    root = f"{books.run.rstrip('/')}/latents/{books.policy}"
    manifest = models.manifest(root)
    found = spent(root, manifest.get("shards", []))
    if not found.frames:
        return Html("")
    extremes = {one.key: one for one in [*found.most, *found.least]}
    known = facts.named(books, strips, sorted(extremes))
    shown = {key: _told(one, extremes[key]) for key, one in known.items()}
    blocks = [
        el("div", el("h3", title), el("div", *(clip_card(shown[one.key], False) for one in ends if one.key in shown),
                                      class_="cards"), class_="block")
        for title, ends in (("Most latents a second", found.most), ("Fewest latents a second", found.least))
    ]  # fmt: skip
    return section("latents", "Where the latents went", _lead(found, manifest.get("extra", {})), _rates(found), *blocks)


def _told(one: Card, used: Used) -> Card:
    rates = " ".join(map(str, used.rates[:24])) + (" …" if len(used.rates) > 24 else "")
    return replace(one, detail=f"{number(used.per_second)} latents a second, {used.latents} in all; rates {rates}")


def _lead(found: Spent, told: Mapping[str, Any]) -> str:
    total = sum(found.latents.values())
    text = f"{count(total, 'latent')} for {count(found.frames, 'frame')}"
    if "budget" in told:
        text += f", of a budget of {number(told['budget'])} for all clips together ({share(total, told['budget'])})"
    if "lam" in told:
        text += f"; λ, the squared error that a latent must save, is {told['lam']:.4g}"
    return f"{text}. A rate is the number of frames for each latent of a segment."


def _rates(found: Spent) -> Html:
    segments, all_ = sum(found.segments.values()), sum(found.latents.values())
    most = max(found.segments.values())
    lines = [
        el(
            "li",
            el("span", f"rate {rate}", class_="clip"),
            el("small", f"{count(found.segments[rate], 'segment')}, {share(found.segments[rate], segments)} · "
                        f"{count(found.latents[rate], 'latent')}, {share(found.latents[rate], all_)}"),
            el("span", el("i", class_="meter back-kept", style=f"width:{100 * found.segments[rate] / most:.2f}%"),
               class_="pairbar"),
        )
        for rate in sorted(found.segments)
    ]  # fmt: skip
    return el("div", el("h3", "Segments by rate"), el("ul", *lines, class_="bars"), class_="panel")
