"""From cuts and transitions to clips: what lies between them, trimmed and divided so that every second is told of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rushes.filters import cuts, transitions
from rushes.filters.boundary import Boundary, Rules

__all__ = ["Boundary", "Shot", "Trim", "boundaries", "clips", "questions"]

Series = npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A range of time that can be a clip."""

    start_s: float
    end_s: float
    opens_with: str
    """start, cut, fade, dissolve, wipe or split: what stands at its beginning."""
    closes_with: str
    """end, cut, fade, dissolve, wipe or split: what stands at its end."""
    score: float
    """Score of the weaker of its two boundaries; 0 where it has none (start, end, split)."""


@dataclass(frozen=True, kw_only=True)
class Trim:
    """A range of time that is in no clip."""

    start_s: float
    end_s: float
    reason: str
    """too_short or transition."""


def boundaries(signals: Mapping[str, npt.NDArray], rules: Rules) -> list[Boundary]:
    """Return cuts and gradual transitions in the order of time.

    A frame may be a cut if it changes more than the frames before *and* those after, in the whole picture or, as at a
    jump cut, in parts of it: fast motion and shaking change many frames in a row. Of these the numbers of the step are
    weighed by small networks, together with what the witness says where it was asked; a picture that comes back at once
    was a flash.

    Args:
        signals: arrays of one number per frame (`time_s`, `content`, `hue`, `saturation`, `luma`, `histogram`,
            `change`, `luma_mean`, `luma_std`, `key`, `corners`) and the cells `cell_light` `[n, 9, 16]`, without gaps
            in time; optionally `witness_cut`, NaN where the witness was not asked.
        rules: the limits.
    """
    if len(signals["time_s"]) < 2:
        return []
    ranges, last_s = transitions.gradual(signals, rules), float(signals["time_s"][-1])
    found = [cut for cut in cuts.cuts(signals, rules) if not _within(cut.start_s, ranges, last_s)]
    return sorted([*ranges, *found], key=lambda boundary: boundary.start_s)


def _within(time_s: float, ranges: Sequence[Boundary], last_s: float) -> bool:
    """Whether a time lies in a transition; but one that ends with the footage may have been cut off."""
    return any(found.start_s < time_s < found.end_s < last_s for found in ranges)


def questions(signals: Mapping[str, npt.NDArray], rules: Rules) -> list[tuple[int, int]]:
    """Return the ranges of frames, half-open and apart, of which what a witness says can change a boundary.

    These are the frames beside each that is a cut or none by its word, and those of what may be a dissolve; where a
    fade stands, neither is asked.

    Args:
        signals: as `boundaries` takes them, without a witness.
        rules: the limits.
    """
    if len(signals["time_s"]) < 2:
        return []
    time_s, fades = signals["time_s"], transitions.fades(signals, rules)
    doubtful = [at for at in cuts.doubts(signals, rules).tolist() if not _within(time_s[at], fades, time_s[-1])]
    beside = [(max(0, at - cuts.BESIDE), min(len(time_s), at + cuts.BESIDE)) for at in doubtful]
    found: list[tuple[int, int]] = []
    for first, end in sorted([*beside, *transitions.doubts(signals, fades)]):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((first, end))
    return found


def clips(
    found: Sequence[Boundary], start_s: float, end_s: float, rules: Rules, *, time_s: Series, change: Series
) -> tuple[list[Shot], list[Trim]]:
    """Return the clips between boundaries and what is trimmed; together they tile [start_s, end_s] without a gap.

    Args:
        found: boundaries in the order of time.
        start_s: where the footage starts.
        end_s: where it ends.
        rules: the limits.
        time_s: time of each frame.
        change: change of each frame; over-long shots are divided where it is least.
    """
    shots: list[Shot] = []
    trims: list[Trim] = []
    at, opens, score = start_s, "start", 0.0
    for boundary in [*found, Boundary(start_s=end_s, end_s=end_s, kind="end", score=0.0)]:
        if boundary.end_s < at:
            continue  # a cut in a transition that was trimmed, such as to the black that a fade begins with
        margin = rules.trim_s if boundary.end_s > boundary.start_s else 0.0
        stop = min(max(boundary.start_s - margin, at), end_s)
        scores = [s for s in (score, boundary.score) if s > 0]
        shot = Shot(start_s=at, end_s=stop, opens_with=opens, closes_with=boundary.kind, score=min(scores, default=0.0))
        if stop - at >= rules.min_clip_s:
            shots += _divided(shot, rules, time_s, change)
        elif stop > at:
            trims.append(Trim(start_s=at, end_s=stop, reason="too_short"))
        at, opens, score = min(max(boundary.end_s + margin, stop), end_s), boundary.kind, boundary.score
        if at > stop:
            trims.append(Trim(start_s=stop, end_s=at, reason="transition"))
    return shots, trims


def _divided(shot: Shot, rules: Rules, time_s: Series, change: Series) -> list[Shot]:
    """Return an over-long shot in equal parts, each division moved to the calmest frame near it."""
    edges = [shot.start_s]
    while shot.end_s - edges[-1] > rules.max_clip_s:
        edges.append(_division(edges[-1], shot.end_s, rules.max_clip_s, time_s, change))
    edges.append(shot.end_s)
    kinds = [shot.opens_with, *["split"] * (len(edges) - 2), shot.closes_with]
    return [
        Shot(start_s=a, end_s=b, opens_with=opens, closes_with=closes, score=shot.score)
        for a, b, opens, closes in zip(edges[:-1], edges[1:], kinds[:-1], kinds[1:], strict=True)
    ]


def _division(start_s: float, end_s: float, longest_s: float, time_s: Series, change: Series) -> float:
    parts = int(np.ceil((end_s - start_s) / longest_s))
    ideal_s = start_s + (end_s - start_s) / parts
    slack_s = 0.15 * (ideal_s - start_s)
    earliest_s = max(ideal_s - slack_s, end_s - (parts - 1) * longest_s)
    latest_s = min(ideal_s + slack_s, start_s + longest_s)
    near = np.flatnonzero((time_s >= earliest_s) & (time_s <= latest_s))
    if not len(near):
        return float(ideal_s)
    order = np.lexsort((abs(time_s[near] - ideal_s), np.round(np.asarray(change, np.float64)[near], 3)))
    return float(time_s[near[order[0]]])
