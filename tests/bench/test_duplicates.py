"""Duplicates among all labelled films against two peers on the same clips: cosine ≥ 0.99 and exact bytes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rushes.filters import embed
from rushes.filters.policy import load
from rushes.filters.shots import Shot
from rushes.pipelines.config import ScanConfig, ShotsConfig
from rushes.pipelines.models import score, weights
from rushes.pipelines.stages.scan.scan import scan_span
from rushes.pipelines.stages.select.select import select
from rushes.pipelines.stages.shots import shots
from rushes.pipelines.stages.shots.sketch import sketch
from rushes.pipelines.store.ledger import to_table
from rushes.pipelines.store.tables import TABLES
from tests.pipelines.clip_rows import matched

COSINE = 0.99
EVERYTHING = load({"name": "everything", "rules": []})
TRUE_COPIES = {  # made from others of the set, though the labels put them into no group
    "derived__webm_named.mp4": "mdn_frog",
    "derived__truncated_40pct.webm": "mdn_crystal",
    "derived__truncated_60pct.mp4": "sam2__02_cups.mp4",
}
Pairs = set[tuple[str, str]]


def scanned(source: dict[str, Any], cuts: list[float]) -> tuple[list[dict[str, Any]], dict[str, list[bytes]]]:
    """Return the clips of a film and the representative frames of each.

    Clips go from labelled cut to labelled cut, so that what is measured is the comparing, not the finding of shots.
    """
    signals, frames, _, _ = scan_span(source, 0, 0.0, math.inf, ScanConfig())
    if not signals["frames"]:
        return [], {}
    whole = shots.joined([signals])
    end_s = float(signals["time_s"][-1] + signals["duration_s"][-1])
    clips = [
        shots._clip(source, Shot(start_s=a, end_s=b, opens_with="cut", closes_with="cut", score=0.0), whole,
                    ShotsConfig(), ScanConfig())
        for a, b in pairwise([0.0, *cuts, end_s])
    ]  # fmt: skip
    jpegs = {row["time_s"]: row["jpeg"] for row in frames}
    return clips, {clip["key"]: [jpegs[at] for at in clip["frame_s"]] for clip in clips}


def by_cosine(clips: list[dict[str, Any]], jpegs: dict[str, list[bytes]]) -> Pairs:
    """Return the pairs of films with clips whose pooled embeddings are as near as the peers ask for."""
    model = embed.load_lite0(weights.lite0())
    shown = [clip for clip in clips if jpegs[clip["key"]]]
    vectors = np.stack([
        embed.pool(embed.look_lite0(model, [score.decode(jpeg, clip["key"]) for jpeg in jpegs[clip["key"]]])[0])
        for clip in shown
    ])  # fmt: skip
    near = np.argwhere(np.triu(vectors @ vectors.T >= COSINE, 1))
    return named((shown[a]["uri"], shown[b]["uri"]) for a, b in near.tolist())


def by_bytes(paths: Iterable[str]) -> Pairs:
    """Return the pairs of files of the same content."""
    same: dict[str, list[str]] = {}
    for path in paths:
        same.setdefault(hashlib.sha256(Path(path).read_bytes()).hexdigest(), []).append(path)
    return named((one, other) for names in same.values() for one in names for other in names if one < other)


def named(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """Return pairs of file names, each once, without a film's pairs with itself."""
    found = {tuple(sorted((Path(a).name, Path(b).name))) for a, b in pairs}
    return {(a, b) for a, b in found if a != b}


def joined(names: set[str], pairs: Pairs) -> bool:
    """Whether pairs lead from each of some films to every other, be it through copies of them."""
    reached, left = {min(names)}, True
    while left:
        more = {y for a, b in pairs for x, y in ((a, b), (b, a)) if x in reached} - reached
        reached, left = reached | more, bool(more)
    return names <= reached


@pytest.mark.bench
def test_duplicates_against_cosine_and_bytes(films: list[dict[str, Any]], footage: Path, show: Any) -> None:
    labels = json.loads((footage / "labels.json").read_text())["files"]
    clips: list[dict[str, Any]] = []
    jpegs: dict[str, list[bytes]] = {}
    seen: set[str] = set()
    for source in films:
        if source["source_id"] not in seen:  # the same bytes are read once
            label = labels[Path(source["uri"]).name]
            found, pictures = scanned(source, [cut["time"] for cut in label.get("cuts", [])])
            clips, jpegs = clips + found, jpegs | pictures
            seen.add(source["source_id"])
    table = to_table("clips", clips)
    middle = {key: shown[len(shown) // 2] for key, shown in jpegs.items() if shown}
    _, pairs = select(table, TABLES["scores"].empty_table(), EVERYTHING, matched(table, sketch(table, middle)))
    rows = pairs.to_pylist()
    uri = {clip["key"]: clip["uri"] for clip in clips}
    paths = [source["uri"] for source in films]
    ours = named((uri[row["key"]], uri[row["kept_key"]]) for row in rows) | by_bytes(paths)
    sides = {"rushes": ours, f"cosine ≥ {COSINE}": by_cosine(clips, jpegs), "exact bytes": by_bytes(paths)}
    group = {name: label.get("dup_group") or TRUE_COPIES.get(name) or name for name, label in labels.items()}
    members: dict[str, set[str]] = {}
    for name, label in labels.items():
        if label.get("dup_group"):
            members.setdefault(label["dup_group"], set()).add(name)
    excerpts = {name: label["subclip_of"]["file"] for name, label in labels.items() if "subclip_of" in label}
    lines, raw = [], {}
    for side, merged in sides.items():
        wrong = sorted(pair for pair in merged if group[pair[0]] != group[pair[1]])
        whole = [name for name, files in members.items() if joined(files, merged)]
        parts = [name for name, of in excerpts.items() if joined({name, of}, merged)]
        lines.append([side, f"{len(whole)} of {len(members)}", f"{len(parts)} of {len(excerpts)}", len(wrong)])
        raw[side] = {"groups": sorted(whole), "excerpts": parts, "wrong": wrong, "pairs": sorted(merged)}
    raw["pair table"] = [
        {**row, "uri": Path(row["uri"]).name, "kept_uri": Path(row["kept_uri"]).name} for row in rows
    ]  # fmt: skip
    title = f"Duplicates among {len(clips)} clips of {len(films)} films"
    show(title, ["", "groups", "excerpts", "wrong merges"], lines, raw=raw)
    assert not raw["rushes"]["wrong"] and len(raw["rushes"]["groups"]) == len(members)
    assert len(raw["rushes"]["excerpts"]) == len(excerpts)
