"""One clip, looked at: its strip, its video by byte ranges, every measure beside the others', verdict and caption."""

from __future__ import annotations

import dataclasses
import json
import math
import mimetypes
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from rushes.filters.policy import DUPLICATE, Policy, Rule, Value
from rushes.filters.verdicts import UNMEASURED, Verdicts
from rushes.pipelines.explore import borders, labels
from rushes.pipelines.explore.shell import plain
from rushes.pipelines.explore.workbench import Workbench
from rushes.pipelines.report.facts import Strips
from rushes.pipelines.report.measures import TITLES, drawable
from rushes.pipelines.stages.select import trial
from rushes.pipelines.store import storage
from rushes.pipelines.store.encoded import encoded_uri
from rushes.pipelines.store.ledger import Ledger

BOUNDS = ("min", "max")
HELD_BYTES = 64 * 2**20
"""Strips that are held at once."""
HELD_VIDEOS = 256
"""Clips of which it is known where their videos stand."""
HELD_BORDERS = 8
"""Clips whose frames at their borders are held at once."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """Where the bytes of a video stand."""

    uri: str
    offset: int
    size_bytes: int
    kind: str
    """Its media type."""


class Looks:
    """Looks at single clips of a run."""

    def __init__(self, bench: Workbench):
        """Look at the clips of a workbench."""
        self.bench = bench
        self._strips = Strips(bench.run, HELD_BYTES)
        self._reading = threading.Lock()
        self._videos: dict[str, Video | None] = {}
        self._borders: dict[str, borders.Borders] = {}
        self._seeing = threading.Lock()

    def _unit(self, key: str) -> str:
        return str(self.bench.clips["unit"][self.bench.place(key)].as_py())

    def strip(self, key: str) -> bytes:
        """Return the contact strip of a clip as WebP. Raises KeyError, and ValueError where it has none."""
        unit = self._unit(key)
        with self._reading:
            if self._strips.left_bytes <= 0:
                self._strips = Strips(self.bench.run, HELD_BYTES)
            found = self._strips.of(key, unit)
        if found is None:
            raise ValueError(f"the clip {key} has no strip")
        return found

    def plays(self, key: str) -> dict[str, Any]:
        """Return what a player needs, before all else is known: whether a clip was encoded, and its time in its source.

        Raises KeyError.
        """
        start_s = int(key.rpartition("-")[2]) / 1000 if self._unit(key) else 0.0
        end_s = start_s + float(self.bench.seconds[self.bench.place(key)])
        return {"encoded": self._encoded(key) is not None, "start_s": start_s, "end_s": end_s}

    def _encoded(self, key: str) -> Video | None:
        """Return where a clip's own video stands, None where it was not encoded; known for the last clips asked for."""
        if key not in self._videos:
            while len(self._videos) >= HELD_VIDEOS:
                self._videos.pop(next(iter(self._videos)), None)
            self._videos[key] = self._found(key)
        return self._videos[key]

    def _found(self, key: str) -> Video | None:
        for part in self.bench.ledger.parts("encoded", self._unit(key)):
            rows = self.bench.ledger.read_whole("encoded", part)  # of a bucket in one request
            for row in rows.filter(pc.equal(rows["key"], key)).select(["offset", "size_bytes"]).to_pylist():
                return Video(uri=encoded_uri(self.bench.run, part.unit, part.fingerprint), kind="video/mp4", **row)
        return None

    def video(self, key: str) -> Video:
        """Return where a clip's encoded video stands; of one that was not encoded, its whole source.

        Raises KeyError, and StorageError where the source is gone.
        """
        if found := self._encoded(key):
            return found
        uri = str(self.bench.clips["uri"][self.bench.place(key)].as_py())
        kind = mimetypes.guess_type(uri)[0] or "application/octet-stream"
        return Video(uri=uri, offset=0, size_bytes=storage.size(uri), kind=kind)

    def borders(self, key: str) -> borders.Borders:
        """Return the frames around the borders of a clip; those of the last few stay at hand. Raises KeyError."""
        unit = self._unit(key)
        with self._seeing:
            if key not in self._borders:
                (row,) = self.bench.ledger.read_unit("clips", unit, where=pc.field("key") == key).to_pylist()
                while len(self._borders) >= HELD_BORDERS:
                    self._borders.pop(next(iter(self._borders)))
                self._borders[key] = borders.around(self.bench.ledger, row)
            return self._borders[key]

    def of(self, key: str) -> dict[str, Any]:
        """Return all that is known of a clip. Raises KeyError."""
        unit, ledger = self._unit(key), self.bench.ledger
        mine = pc.field("key") == key
        (row,) = ledger.read_unit("clips", unit, where=mine).to_pylist()
        captions = ledger.read_unit("captions", unit, where=mine).to_pylist()
        scores = ledger.read_unit("scores", unit, ["scorer", "model", "value", "label"], mine).to_pylist()
        left_out = {"phash", "phash_s", "frame_s", "digest"}
        facts = {name: plain(value) for name, value in row.items() if name not in left_out and value is not None}
        return {
            "key": key,
            "uri": storage.redact(row["uri"] or ""),
            **self.plays(key),
            "facts": facts | {"uri": storage.redact(row["uri"] or "")},
            "scores": scores,
            "measures": self._beside(row, scores),
            "caption": _caption(captions[0]) if captions else None,
            "verdicts": self._verdicts(key),
            "copies": self._copies(key),
            "labels": labels.of(Ledger(self.bench.run), key),
        }

    def _beside(self, row: dict[str, Any], scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the numbers of a clip, with how many of the clips in memory have less, where they are in memory."""
        values = {name: row[name] for name in drawable() if row.get(name) is not None}
        values |= {one["scorer"]: one["value"] for one in scores if one["value"] is not None}
        there = set(self.bench.clips.column_names)
        found = []
        for name, value in values.items():
            title, unit = TITLES.get(name, (name.replace("_", " ").capitalize(), ""))
            below = None
            if name in there:
                column = self.bench.clips[name].drop_null()
                below = (pc.sum(pc.less(column, value)).as_py() or 0) / max(len(column), 1)
            found.append({"name": name, "title": title, "unit": unit, "value": plain(value), "below": below})
        return found

    def _verdicts(self, key: str) -> list[dict[str, Any]]:
        names = ["policy", "kept", "rule", "value", "limit", "detail"]
        now = Ledger(self.bench.run)  # a selection may have been made again since
        rows = now.read("selection", names, pc.field("key") == key).to_pylist()
        return [{name: plain(value) for name, value in row.items()} for row in rows]

    def _copies(self, key: str) -> list[dict[str, Any]]:
        """Return the clips that were dropped for this one, or for which it was, under the selection."""
        policy = self.bench.selection or ""
        other = (pc.field("key") == key) | (pc.field("kept_key") == key)
        names = ["level", "key", "kept_key", "distance", "limit", "unit", "speed", "offset_s", "why"]
        rows = Ledger(self.bench.run).read("pairs", names, (pc.field("policy") == policy) & other).to_pylist()
        return [{name: plain(value) for name, value in row.items()} for row in rows if row["key"]]


def _caption(row: dict[str, Any]) -> dict[str, Any]:
    try:
        checks = json.loads(row["checks"] or "null")
    except ValueError:
        checks = None
    return {name: row[name] for name in ("source", "model", "short", "long")} | {"checks": checks}


def verdict(bench: Workbench, policy: Policy, key: str) -> dict[str, Any]:
    """Return the verdict of a policy on a clip: `kept`, `by` (what drops it), `detail`, and all its `rules`.

    `rushes select` names the first rule that fails, since one is enough; who moves limits has to see them all.
    `rules` has a row for each limit: the rule, its measure, the exact `value`, `form` (min, max, keep_highest,
    keep_lowest or list), the `limit` as a number, of a list as people write it, whether it `fails` (null of a share
    where the clip never came so far), what else is `said`, and the limit of that form that just `keeps` it, or null.

    Args:
        bench: the run.
        policy: whose verdict is meant.
        key: the clip.

    Raises KeyError for a key that is none, PolicyError and MissingMeasure as a selection does.
    """
    with bench.lock:
        verdicts, at = bench.verdicts(policy), bench.place(key)
        first, word = int(verdicts.failed[at]), int(verdicts.words[at])
        names = [*(rule.name for rule in policy.rules), DUPLICATE]
        return {
            "policy": policy.name,
            "kept": first < 0,
            "by": None if first < 0 else names[first],
            "detail": verdicts.texts[word] if word >= 0 else None,
            "rules": [
                row for place, rule in enumerate(policy.rules) for row in _rows(bench, verdicts, rule, place, at)
            ],
        }


def _rows(bench: Workbench, verdicts: Verdicts, rule: Rule, place: int, at: int) -> Iterator[dict[str, Any]]:
    value = bench.value(rule.measure, at)
    row = {"rule": rule.name, "measure": rule.measure, "value": value}
    if rule.share is not None:
        yield row | _share(bench, verdicts, rule, place, at, value)
        return
    for form in BOUNDS:
        if getattr(rule, form) is not None:
            others: dict[str, Any] = {other: None for other in (*BOUNDS, "among", "not_among") if other != form}
            yield row | _limit(dataclasses.replace(rule, **others), form, value)
    if rule.among is not None or rule.not_among is not None:
        yield row | _limit(dataclasses.replace(rule, min=None, max=None), "list", value)


def _limit(rule: Rule, form: str, value: Value) -> dict[str, Any]:
    fails = not rule.passes(value)
    number = form in BOUNDS and value is not None
    return {
        "form": form,
        "limit": getattr(rule, form) if form in BOUNDS else trial.limit_text(rule),
        "fails": fails,
        "said": UNMEASURED if value is None else None,
        "keeps": value if fails and number else None,  # limits are inclusive
    }


def _share(bench: Workbench, verdicts: Verdicts, rule: Rule, place: int, at: int, value: Value) -> dict[str, Any]:
    """Return what a share makes of a clip: it is taken of those that the rules before left, equals in their order."""
    form = "keep_lowest" if rule.keep_highest is None else "keep_highest"
    found: dict[str, Any] = {"form": form, "limit": rule.share, "fails": None, "said": None, "keeps": None}
    comes = verdicts.failed[at] < 0 or verdicts.failed[at] >= place
    if value is None:
        return found | {"fails": comes and rule.missing == "drop", "said": UNMEASURED}
    threshold, left, of = verdicts.thresholds.get(rule.name, (math.nan, 0, 0))
    if math.isfinite(threshold):
        found["said"] = f"{left} of {of}, to {threshold!r}"
    if not comes:
        return found
    values = bench.numbers_of(rule.measure)
    assert values is not None and isinstance(value, int | float)
    rivals = np.flatnonzero(((verdicts.failed < 0) | (verdicts.failed >= place)) & np.isfinite(values))
    ahead = values[rivals] < value if form == "keep_lowest" else values[rivals] > value
    rank = int(ahead.sum()) + int((values[rivals[rivals < at]] == value).sum()) + 1
    fails = bool(verdicts.failed[at] == place)
    return found | {"fails": fails, "keeps": _of(rule, form, rank, len(rivals)) if fails else None}


def _of(rule: Rule, form: str, rank: int, clips: int) -> float:
    """Return the share that keeps as many of the clips as it says; one clip more where no shorter number says it."""
    share: Any = rank / clips
    said = dataclasses.replace(rule, **{form: share})
    return float(share if said.count(clips) <= rank else math.nextafter(share, 0))
