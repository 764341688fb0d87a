"""Rows of the table `clips` as a scan would write them, made in code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from rushes.filters.duplicates import DuplicateRules, same_alignment
from rushes.filters.policy import load
from rushes.pipelines.stages.match import match
from rushes.pipelines.stages.match.clips import gather
from rushes.pipelines.store.tables import TABLES

EVERYTHING = load({"name": "everything"})
NO_SCORES = TABLES["scores"].empty_table()


def hashes(seed: int, ticks: int = 24) -> list[int]:
    """Perceptual hashes of a shot: half of the bits are set, and three pairs change places from tick to tick."""
    rng = np.random.default_rng(seed)
    bits = rng.permutation(np.arange(64) < 32)
    rows = []
    for _ in range(ticks):
        rows.append(int(np.packbits(bits).view(">u8")[0]))
        on, off = rng.choice(np.flatnonzero(bits), 3), rng.choice(np.flatnonzero(~bits), 3)
        bits[on], bits[off] = False, True
    return rows


def clip(number: int, content: int | None = None, **facts: Any) -> dict[str, Any]:
    """A clip of four seconds; those with equal `content` show the same."""
    row = {
        "key": f"{number:016x}-000000000",
        "source_id": f"{number:016x}",
        "duration_s": 4.0,
        "width": 640,
        "height": 360,
        "fps": 25.0,
        "bit_rate": 1_000_000,
        "luma_mean": 100.0,
        "luma_std": 40.0,
        "sharpness": 50.0,
        "camera": "static",
        "still_picture": False,
        "phash": hashes(number if content is None else content),
    }
    row |= facts
    return row | {"phash_s": [tick / 6 for tick in range(len(row["phash"]))]}


def matched(clips: pa.Table, sketches: pa.Table | None = None, rules: DuplicateRules = match.DEFAULTS) -> pa.Table:
    """The table `matches` of some clips, aligned by a policy's rules, as the step of that name makes it."""
    sketches = TABLES["sketches"].empty_table() if sketches is None else sketches
    pictures = dict(zip(sketches["key"].to_pylist(), sketches["picture"].to_pylist(), strict=True))
    found, _ = match.find(
        gather(clips.to_batches(), sketches.to_batches(), {}),
        lambda keys: {key: pictures[key] for key in keys.to_pylist() if pictures.get(key)},
    )
    return found if same_alignment(rules, match.DEFAULTS) else match.realigned(found, clips, rules)
