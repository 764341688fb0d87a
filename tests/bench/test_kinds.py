"""Cuts in the kinds of footage that make false ones, against scenedetect and TransNetV2 on the same frames."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.bench import kinds
from tests.bench.test_cuts import NETWORK, OURS, Count, Scanned, picture, scored, theirs

SEEDS = {True: range(2), False: range(5)}
"""Films of a minute of each kind, for tuning and held out; those that are held out show what the others do not."""
BESIDE, ALONE = range(2), range(1)
"""Those of them that scenedetect sees too, and the held-out ones that TransNetV2, which is slow, sees whole."""
SHOWN = (OURS, "ContentDetector", "AdaptiveDetector", NETWORK)


@pytest.mark.bench
def test_cuts_in_cartoons_stutter_lights_and_screens(footage: Path, tmp_path: Path, show: Any) -> None:
    """Takes about twenty minutes of CPU."""
    totals: dict[tuple[str, bool, str], Count] = defaultdict(Counter)
    raw: dict[str, Any] = {}
    for kind, is_tuning, seed in ((k, half, s) for k in kinds.KINDS for half in (True, False) for s in SEEDS[half]):
        made = kinds.make(footage, tmp_path, kind, seed, is_tuning)
        film = Scanned(made.path)
        beside = theirs(made.path, alone=not is_tuning and seed in ALONE) if seed in BESIDE else {}
        for detector, cuts in {OURS: film.cuts(), **beside}.items():
            count, lists = scored(cuts, made.cuts, [])
            totals[kind, is_tuning, detector].update(count, frames=made.frames)
            if detector == OURS:
                ranges = film.ranges()
                totals[kind, is_tuning, OURS].update(ranges=len(ranges), asked=len(film.said))
                raw[made.path.name] = {**lists, "ranges": ranges, "cuts": made.cuts}
                for at in lists["false"]:
                    picture(made.path, at)
        made.path.unlink()
    rows = [_row(kind, is_tuning, totals) for is_tuning in (True, False) for kind in kinds.KINDS]
    head = ["kind", *(f"{name}: recall / false in 10 min" for name in SHOWN)]
    head += ["false ranges in 10 min", "frames asked about"]
    show("Cuts by kind of footage", head, rows, raw=raw)
    for (kind, _, detector), n in totals.items():
        if detector == OURS:
            assert n["right"] >= 0.9 * (n["right"] + n["missed"]), kind


def _row(kind: str, is_tuning: bool, totals: dict[tuple[str, bool, str], Count]) -> list[Any]:
    cells: list[Any] = [f"{kind}, {'tuning' if is_tuning else 'held out'}"]
    for detector in SHOWN:
        n = totals[kind, is_tuning, detector]
        minutes, cuts = n["frames"] / kinds.FPS / 60, n["right"] + n["missed"]
        cells.append(f"{n['right'] / cuts:.2f} / {10 * n['wrong'] / minutes:.1f}" if cuts else "not shown")
    n = totals[kind, is_tuning, OURS]
    return [*cells, f"{10 * n['ranges'] * kinds.FPS * 60 / n['frames']:.1f}", f"{n['asked'] / n['frames']:.1%}"]
