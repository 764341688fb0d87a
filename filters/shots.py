"""Where shots begin and end: per-frame change measured by PySceneDetect's detectors, decided over the whole series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from scenedetect import ContentDetector, FrameTimecode, StatsManager

from filters.hashes import hamming

BINS = 64
SIDE_FRAMES = 4
"""Frames on either side that a cut must stand out from."""
FLOOR = 2.0
"""Added to the content of the surroundings, so that the ratio means something in a still picture."""
FLASH_LUMA = 6.0
"""Jump of mean luma that a flash has at least."""
FADE_SLOPE = 6.0
"""Luma per second by which a fade must rise or fall at least."""
FADE_LEAST_S = 0.2
"""Shorter ramps are cuts, or objects that pass."""
FADE_LAG = 3
"""Frames over which the slope is taken, which bridges repeated frames and coding noise."""

Series = npt.NDArray[np.floating]


class _Latest(StatsManager):
    """A statistics store that keeps the last frame only, so that memory does not grow with the length of a video."""

    latest: Mapping[str, float] = {}

    def set_metrics(self, timecode: int | FrameTimecode, metric_kv_dict: dict[str, Any]) -> None:
        self.latest = metric_kv_dict


class _Colour(ContentDetector):
    """scenedetect's content detector without edges and with OpenCV's sums: the same numbers in a fifth of the time."""

    _hsv: cv2.typing.MatLike | None = None

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: npt.NDArray[np.uint8]) -> float:
        """Return the weighted change of hue, saturation and value; sums of bytes are exact, whoever takes them."""
        hsv = cv2.cvtColor(frame_img, cv2.COLOR_BGR2HSV)
        before, self._hsv = self._hsv, hsv
        if before is None:
            return 0.0
        pixels = before.shape[0] * before.shape[1]
        hue, sat, lum, _ = (total / pixels for total in cv2.sumElems(cv2.absdiff(before, hsv)))
        parts, weights = self.Components(hue, sat, lum, 0.0), self._weights
        score = sum(part * weight for part, weight in zip(parts, weights, strict=True)) / sum(map(abs, weights))
        if self.stats_manager is not None:
            self.stats_manager.set_metrics(timecode, {self.FRAME_SCORE_KEY: score, **parts._asdict()})
        return score


class ContentScorer:
    """The change of each frame against the one before, measured as scenedetect's content and histogram detectors do."""

    def __init__(self) -> None:
        # Measures only: the threshold is never reached, so there is never a cut of its own to place or to filter.
        self._detector = _Colour(threshold=256.0, min_scene_len=0)
        self._stats = _Latest()
        self._detector.stats_manager = self._stats
        self._code = FrameTimecode(0, fps=1000.0)
        self._histogram: npt.NDArray[np.float32] | None = None

    def push(self, luma: npt.NDArray[np.uint8], bgr: npt.NDArray[np.uint8]) -> dict[str, float]:
        """Return content, hue, saturation, luma (0–255) and histogram (0–2) of a frame; all 0 on the first."""
        self._detector.process_frame(self._code, bgr)
        found = self._stats.latest
        before, self._histogram = self._histogram, histogram(luma)
        return {
            "content": float(found.get("content_val", 0.0)),
            "hue": float(found.get("delta_hue", 0.0)),
            "saturation": float(found.get("delta_sat", 0.0)),
            "luma": float(found.get("delta_lum", 0.0)),
            "histogram": 0.0 if before is None else histogram_distance(before, self._histogram),
        }


def histogram(luma: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the histogram that scenedetect's HistogramDetector makes, of a luma that need not be made from BGR."""
    counts = cv2.calcHist([luma], [0], None, [BINS], [0, 256])
    return cv2.normalize(counts, counts).ravel().astype(np.float32, copy=False)


def histogram_distance(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Return 1 − correlation of two histograms: 0 for equal ones, as scenedetect's HistogramDetector compares them."""
    return max(0.0, 1.0 - float(cv2.compareHist(a, b, cv2.HISTCMP_CORREL)))


class Rules(Protocol):
    """What `boundaries` and `clips` need to be told; `pipelines.config.ShotsConfig` holds it."""

    @property
    def min_clip_s(self) -> float: ...  # noqa: D102
    @property
    def max_clip_s(self) -> float: ...  # noqa: D102
    @property
    def cut_content(self) -> float: ...  # noqa: D102
    @property
    def cut_ratio_busy(self) -> float: ...  # noqa: D102
    @property
    def cut_histogram(self) -> float: ...  # noqa: D102
    @property
    def cut_content_calm(self) -> float: ...  # noqa: D102
    @property
    def cut_ratio(self) -> float: ...  # noqa: D102
    @property
    def flash_s(self) -> float: ...  # noqa: D102
    @property
    def same_bits(self) -> int: ...  # noqa: D102
    @property
    def fade_luma(self) -> float: ...  # noqa: D102
    @property
    def fade_max_s(self) -> float: ...  # noqa: D102
    @property
    def dark_s(self) -> float: ...  # noqa: D102
    @property
    def trim_s(self) -> float: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """The end of one shot and the beginning of the next."""

    start_s: float
    """First second that is not the old shot alone; for a cut the time of the first frame of the new shot."""
    end_s: float
    """First second of the new shot; for a cut the same."""
    kind: str
    """cut or fade."""
    score: float
    """How sure: for a cut its content change by that of its surroundings, for a fade the depth of luma it crosses."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A range of time that can be a clip."""

    start_s: float
    end_s: float
    opens_with: str
    """start, cut, fade or split: what stands at its beginning."""
    closes_with: str
    """end, cut, fade or split: what stands at its end."""
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
    """Return cuts and fades in the order of time.

    A frame is a cut if it changes more than the frames before *and* those after: fast motion and shaking change many
    frames in a row. Standing out clearly is enough; amid fast motion, where it stands out less, the histograms must
    differ too. Flashes are taken out by what follows them: the same picture, or the brightness of before.

    Args:
        signals: arrays of one number per frame (`time_s`, `content`, `hue`, `saturation`, `luma`, `histogram`,
            `change`, `luma_mean`, `luma_std`) and per tick (`tick_s`, `phash`), without gaps in time.
        rules: the limits.
    """
    if len(signals["time_s"]) < 2:
        return []
    fades = _fades(signals, rules)
    found = [cut for cut in _cuts(signals, rules) if not any(fade.start_s < cut.start_s < fade.end_s for fade in fades)]
    return sorted([*fades, *found], key=lambda boundary: boundary.start_s)


def _cuts(signals: Mapping[str, npt.NDArray], rules: Rules) -> list[Boundary]:
    time_s, content = signals["time_s"], np.asarray(signals["content"], np.float64)
    ratio = content / (_surroundings(content) + FLOOR)
    clear = (content >= rules.cut_content_calm) & (ratio >= rules.cut_ratio)
    busy = (content >= rules.cut_content) & (ratio >= rules.cut_ratio_busy)
    busy &= signals["histogram"] >= rules.cut_histogram
    level = np.asarray(signals["luma_mean"], np.float64) + signals["luma_std"]
    light = np.maximum(level, np.concatenate([level[:1], level[:-1]])) >= rules.fade_luma
    cuts = []
    for at in np.flatnonzero((clear | busy) & light & _peaks(content)).tolist():
        flash = _same_picture(signals, at, rules) or _flash(signals, at, rules)
        if not flash and (clear[at] or not _jumps_back(signals, at, rules)):
            cuts.append(
                Boundary(start_s=float(time_s[at]), end_s=float(time_s[at]), kind="cut", score=float(ratio[at]))
            )
    return cuts


def _surroundings(values: Series) -> Series:
    """Return for each frame the mean over the frames before or over those after, whichever is larger."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - SIDE_FRAMES, 1), np.minimum(at + 1 + SIDE_FRAMES, len(values))
    before = (total[at] - total[np.minimum(first, at)]) / np.maximum(at - first, 1)
    after = (total[last] - total[at + 1]) / np.maximum(last - at - 1, 1)
    return np.maximum(np.maximum(before, after), 0.0)


def _peaks(values: Series) -> npt.NDArray[np.bool_]:
    """Return which frames change at least as much as the two before and more than the two after; never the first."""
    padded = np.pad(values, 2, constant_values=-1.0)
    peaks = (values >= padded[:-4]) & (values >= padded[1:-3]) & (values > padded[3:-1]) & (values > padded[4:])
    peaks[0] = False
    return peaks


def _same_picture(signals: Mapping[str, npt.NDArray], at: int, rules: Rules) -> bool:
    """Whether only the light changed: mostly luma, and the hashes before and after agree."""
    if signals["luma"][at] < signals["hue"][at] + signals["saturation"][at]:
        return False
    return _agree(signals, at, at, 3, rules)


def _flash(signals: Mapping[str, npt.NDArray], at: int, rules: Rules) -> bool:
    """Whether a frame begins or ends a flash: a jump that another one undoes, with the same picture on either side."""
    return any(_agree(signals, on, at, 1, rules) for on in _jumps_back(signals, at, rules)) or any(
        _agree(signals, at, off, 1, rules) for off in _jumps_undone(signals, at, rules)
    )


def _jumps_back(signals: Mapping[str, npt.NDArray], at: int, rules: Rules) -> list[int]:
    """Return the jumps a moment ago before which it was as bright as it is now."""
    time_s, mean, change = signals["time_s"], signals["luma_mean"], signals["change"]
    first = max(1, int(np.searchsorted(time_s, time_s[at] - rules.flash_s)))
    jumps = np.arange(first, at)[change[first:at] > 0.5 * change[at]]
    return jumps[abs(mean[jumps - 1] - mean[at]) < _near(mean, at)].tolist()


def _jumps_undone(signals: Mapping[str, npt.NDArray], at: int, rules: Rules) -> list[int]:
    """Return the jumps a moment later after which it is as bright as before this one."""
    time_s, mean, change = signals["time_s"], signals["luma_mean"], signals["change"]
    end = int(np.searchsorted(time_s, time_s[at] + rules.flash_s, side="right"))
    jumps = np.arange(at + 1, end)[change[at + 1 : end] > 0.5 * change[at]]
    return jumps[abs(mean[jumps] - mean[at - 1]) < _near(mean, at)].tolist()


def _near(mean: Series, at: int) -> float:
    """Return how near brightness must come back for a flash; never near enough where it hardly changed."""
    step = abs(float(mean[at]) - float(mean[at - 1]))
    return 0.35 * step if step >= FLASH_LUMA else 0.0


def _agree(signals: Mapping[str, npt.NDArray], before: int, after: int, ticks: int, rules: Rules) -> bool:
    """Whether the hash of the last tick before one frame and one of the first ticks from another frame on agree."""
    first = int(np.searchsorted(signals["tick_s"], signals["time_s"][before])) - 1
    last = int(np.searchsorted(signals["tick_s"], signals["time_s"][after]))
    later = signals["phash"][last : last + ticks]
    if first < 0 or not len(later):
        return False
    return bool(hamming(signals["phash"][first], later).min() <= rules.same_bits)


def _fades(signals: Mapping[str, npt.NDArray], rules: Rules) -> list[Boundary]:
    mean, std = (np.asarray(signals[name], np.float64) for name in ("luma_mean", "luma_std"))
    time_s = np.asarray(signals["time_s"], np.float64)
    return [*_fades_of(mean + std, time_s, rules), *_fades_of(255 - mean + std, time_s, rules)]


def _fades_of(level: Series, time_s: Series, rules: Rules) -> list[Boundary]:
    """Return the ramps to and from levels below `fade_luma`, with what lies between them if it is short."""
    found: list[Boundary] = []
    for first, end in _runs(level < rules.fade_luma):
        left = _ramp(level[: first + 1][::-1], time_s[: first + 1][::-1], rules)
        right = _ramp(level[end - 1 :], time_s[end - 1 :], rules)
        start_s, end_s = time_s[first - left], time_s[min(end - 1 + right, len(time_s) - 1)]
        depth = float(max(level[first - left], level[min(end - 1 + right, len(level) - 1)]) - level[first:end].min())
        ranges = [(start_s, end_s)]
        if time_s[end - 1] - time_s[first] > rules.dark_s:
            ranges = [(start_s, time_s[first]), (time_s[end - 1], end_s)]
        elif left and not right:
            ranges = [(start_s, time_s[min(end, len(time_s) - 1)])]
        elif right and not left:
            ranges = [(time_s[first], end_s)]
        if left or right:
            found += [Boundary(start_s=float(a), end_s=float(b), kind="fade", score=depth) for a, b in ranges if b > a]
    return found


def _ramp(level: Series, time_s: Series, rules: Rules) -> int:
    """Return how many frames a steady rise of level from the first frame on lasts; 0 if that is a step or no rise."""
    rise, steepest = 0, 0.0
    while rise + FADE_LAG < len(level):
        ahead = rise + FADE_LAG
        slope = (level[ahead] - level[rise]) / max(abs(time_s[ahead] - time_s[rise]), 1e-9)
        step = np.diff(level[rise : ahead + 1]).max()
        steepest = max(steepest, slope)
        steady = slope >= max(FADE_SLOPE, 0.2 * steepest) and step <= 0.9 * rules.fade_luma
        if not steady or abs(time_s[ahead] - time_s[0]) > rules.fade_max_s:
            break
        rise += 1
    end = rise + FADE_LAG - 1 if rise else 0
    return end if abs(time_s[end] - time_s[0]) >= FADE_LEAST_S and level[end] > rules.fade_luma else 0


def _runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


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
