"""Frames around the two borders of a clip, from its source; where that is out of reach, those that the run keeps.

found = around(ledger, clip)
found.frames[0].jpeg     # as the source shows it last but one before the clip begins
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow.compute as pc

from rushes.pipelines.media import decode, footage
from rushes.pipelines.store import storage
from rushes.pipelines.store.ledger import Ledger

EACH = 2
"""Frames on each side of a border."""
REACH_S = 0.5
"""Seconds before a border that are decoded for them; more of a film of few frames a second."""
KEPT_S = 1.5
"""Of the frames that a run keeps, so far away they still tell of a border."""
SIDE_PX = 320

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame near a border."""

    border: str
    """begins or ends"""
    is_inside: bool
    """Whether it belongs to the clip."""
    time_s: float
    """When its source shows it."""
    jpeg: bytes


@dataclass(frozen=True, kw_only=True)
class Borders:
    """What is seen around the borders of a clip, in the order in which it is shown."""

    frames: list[Frame]
    told: str
    """Where they are from, and why not from the source."""


def around(ledger: Ledger, clip: Row) -> Borders:
    """Return the frames around the borders of a clip.

    Args:
        ledger: the run's ledger.
        clip: its row of the table `clips`.
    """
    try:
        source = _source(ledger, clip)
        footage.check_unchanged(source)
        return Borders(frames=list(_decoded(source, clip)), told="Frames from the source")
    except (footage.FootageError, storage.StorageError, OSError) as error:
        why = getattr(error, "reason", "") or " ".join(str(error).split())
    kept = list(_kept(ledger, clip))
    told = "The nearest frames that the run keeps" if kept else "The run keeps no frame near the borders"
    return Borders(frames=kept, told=f"{told}, since the source is out of reach ({storage.redact(why)})")


def _ends(clip: Row) -> tuple[tuple[str, float], tuple[str, float]]:
    return ("begins", clip["start_s"]), ("ends", clip["end_s"])


def _source(ledger: Ledger, clip: Row) -> dict[str, Any]:
    """Return the row of a clip's source. Raises FootageError where the ledger has none any more."""
    own = (pc.field("source_id") == clip["source_id"]) & (pc.field("uri") == clip["uri"])
    rows = ledger.read_unit("sources", clip["unit"], where=own) or ledger.read("sources", where=own)
    if not len(rows):
        raise footage.FootageError(clip["uri"], "missing", "no source of this name in the ledger", "curate it again")
    return dict(rows.to_pylist()[0])


def _decoded(source: Row, clip: Row) -> Iterator[Frame]:
    reach_s = max(REACH_S, 2 * EACH / max(source["fps"] or 1.0, 0.1))
    for border, at_s in _ends(clip):
        before, after = deque[decode.Picture](maxlen=EACH), list[decode.Picture]()
        found = decode.pictures(source["uri"], source, max(0.0, at_s - reach_s), at_s + reach_s, warm_s=0.0)
        with closing(found):  # type: ignore[type-var]
            try:
                for one in found:
                    (before if one.time_s < at_s else after).append(one)
                    if len(after) == EACH:
                        break
            except decode.DecodeError:  # every sound picture came before it
                pass
        for one in (*before, *after):
            jpeg = decode.jpeg(decode.rgb(one.frame, source, SIDE_PX))
            inside = (one.time_s >= at_s) == (border == "begins")
            yield Frame(border=border, is_inside=inside, time_s=one.time_s, jpeg=jpeg)


def _kept(ledger: Ledger, clip: Row) -> Iterator[Frame]:
    own = pc.field("source_id") == clip["source_id"]
    for border, at_s in _ends(clip):
        near = (pc.field("time_s") >= at_s - KEPT_S) & (pc.field("time_s") <= at_s + KEPT_S)
        rows = ledger.read_unit("frames", clip["unit"], ["time_s", "jpeg"], own & near).sort_by("time_s").to_pylist()
        before = [row for row in rows if row["time_s"] < at_s][-EACH:]
        after = islice((row for row in rows if row["time_s"] >= at_s), EACH)
        for row in (*before, *after):
            inside = (row["time_s"] >= at_s) == (border == "begins")
            yield Frame(border=border, is_inside=inside, **row)
