"""The clips that were cut, one tar for each unit, and the bucket that each belongs to.

RUN/encoded/<unit>.<fingerprint>.tar   KEY.mp4 each; table `encoded` says where
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow.compute as pc

from rushes.pipelines.store import archive, storage
from rushes.pipelines.store.ledger import Ledger, Part
from rushes.pipelines.store.tables import TABLES

ASPECTS = ((9, 21), (9, 16), (3, 4), (1, 1), (4, 3), (16, 9), (21, 9))
LINES = (16, 32, 64, 96, 144, 240, 360, 480, 720, 1080, 1440, 2160)
RATES = (1, 5, 8, 10, 12, 15, 24, 25, 30, 48, 50, 60, 120)
SECONDS = (0, 1, 2, 4, 8, 16, 32, 64)
ENCODED = [f for f in TABLES["encoded"] if f.name not in ("key", "made_by", "offset", "size_bytes", "unit", "wave")]


class PackError(storage.StopsTheRun, ValueError):
    """A clip cannot be packed; the message names it and the remedy."""


# ------------------------------------------------------------------------------------------------------ what goes where


def bucket_of(width: int, height: int, fps: float, duration_s: float) -> str:
    """Return the bucket of a clip by shape, lines, rate and length, such as `16x9-480p-24fps-04s`.

    Shape and rate are the nearest named ones. Lines (of the shorter side) and length are the largest named ones that
    the clip reaches, so whatever stands in a bucket has at least what its name says. The names are few whatever comes:
    wider than 21:9 counts as 21:9, fewer than 16 lines as 16, more than 120 fps as 120, longer than 64 s as 64.
    """
    if min(width, height) < 1 or not fps > 0 or not duration_s > 0:
        raise PackError(f"{width}x{height} at {fps} fps for {duration_s} s is no clip; encode it again")
    across, down = min(ASPECTS, key=lambda shape: abs(math.log(width / height * shape[1] / shape[0])))
    lines = max((lines for lines in LINES if lines <= min(width, height)), default=LINES[0])
    rate = min(RATES, key=lambda rate: abs(math.log(fps / rate)))
    seconds = max(length for length in SECONDS if length <= duration_s + 1e-6)
    return f"{across}x{down}-{lines:03d}p-{rate:02d}fps-{seconds:02d}s"


def encoded_uri(run: str, unit: str, fingerprint_: str) -> str:
    """Return where a unit's encoded clips stand."""
    return f"{run.rstrip('/')}/encoded/{unit}.{fingerprint_}.tar"


def write_encoded(
    run: str,
    unit: str,
    fingerprint_: str,
    clips: Iterable[tuple[str, bytes, Mapping[str, Any]]],
    wave: int = 0,
    made_by: str = "",
) -> list[dict[str, Any]]:
    """Write the clips that a unit encoded as one tar, streaming; return the rows of table `encoded`.

    The tar appears whole or not at all, and is there even without a clip, so that a listing tells what is done.

    Args:
        run: The run's folder.
        unit: Name of the unit.
        fingerprint_: Fingerprint under which the rows will stand in the ledger.
        clips: Key, mp4 bytes and what `encode.cut` says about them.
        wave: The wave of the unit.
        made_by: Fingerprint of the settings under which each clip was encoded; see `Earlier`.
    """
    rows = []
    with storage.open_write(encoded_uri(run, unit, fingerprint_)) as file:
        tar = archive.Writer(file)
        for key, mp4, info in clips:
            row = {field.name: info[field.name] for field in ENCODED if field.name in info}
            row |= {"key": key, "unit": unit, "wave": wave, "made_by": made_by, "size_bytes": len(mp4)}
            row["bucket"] = bucket_of(info["width"], info["height"], info["fps"], info["duration_s"])
            row["sha256"] = hashlib.sha256(mp4).hexdigest()
            row["offset"] = tar.add(f"{key}.mp4", mp4)
            rows.append(row)
        tar.end()
    return rows


class Earlier:
    """The clips that a unit encoded before, for another selection or in a run that was since given more of them."""

    def __init__(self, ledger: Ledger, parts: Iterable[Part], made_by: str):
        """Look up which clips of a unit's earlier parts were encoded with the settings of this fingerprint."""
        self.rows: dict[str, tuple[str, dict[str, Any]]] = {}
        for part in parts:
            tar = encoded_uri(ledger.run, part.unit, part.fingerprint)
            if storage.exists(tar):
                rows = ledger.read_part(part, "encoded", where=pc.field("made_by") == made_by).to_pylist()
                self.rows |= {row["key"]: (tar, row) for row in rows}

    def take(self, key: str) -> tuple[bytes, dict[str, Any]] | None:
        """Return mp4 and facts of a clip as they stand in the old tar; None where they do not, or are damaged."""
        tar, row = self.rows.get(key, ("", {}))
        if not tar:
            return None
        mp4 = storage.read_range(tar, row["offset"], row["size_bytes"])
        return (mp4, row) if hashlib.sha256(mp4).hexdigest() == row["sha256"] else None


def prune_encoded(run: str) -> list[str]:
    """Remove encoded tars that no part of table `encoded` stands for any more; return their URIs."""
    live = {encoded_uri(run, part.unit, part.fingerprint) for part in Ledger(run).parts("encoded")}
    stale = [uri for uri in storage.list_files(f"{run.rstrip('/')}/encoded") if uri not in live]
    storage.remove_many(stale)
    return stale


# ------------------------------------------------------------------------------------------------------------- assembly
