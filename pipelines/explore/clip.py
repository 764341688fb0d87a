"""One clip, looked at: its strip, its video by byte ranges, every measure beside the others', verdict and caption."""

from __future__ import annotations

import json
import mimetypes
import threading
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from rushes.pipelines.explore import borders, labels
from rushes.pipelines.explore.shell import plain
from rushes.pipelines.explore.workbench import Workbench
from rushes.pipelines.report.facts import Strips
from rushes.pipelines.report.measures import TITLES, drawable
from rushes.pipelines.store import storage
from rushes.pipelines.store.encoded import encoded_uri
from rushes.pipelines.store.ledger import Ledger

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
