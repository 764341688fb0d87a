"""From signals to clips: joins the spans of a source, finds its shots and sums up what each shows. Decodes nothing."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from rushes.filters import coding, frames, motion
from rushes.filters.camera import Camera, camera, mean
from rushes.filters.shots import Shot, boundaries, clips
from rushes.pipelines.config import ScanConfig, ShotsConfig
from rushes.pipelines.media.signals import Arrays, joined, stretches
from rushes.pipelines.store.clip import clip_key

FLAT_STD = 6.0
"""Standard deviation of luma below which a picture is flat: its hash and its bars tell nothing."""
STILL_RESIDUAL = 0.003
"""What the camera's motion leaves over in nine tenths of picture and ticks, share of the width: coding noise only."""
STILL_OBJECTS = 0.0035
"""Area × speed of objects, widths per second, that coding noise and grain make of a photograph."""
STILL_SPEED = 0.004
"""Camera speed, widths per second, that a slow zoom over a photograph has and a tripod's wobble does not add up to."""
TOLD_SPEED = 0.4
"""Camera speed, widths per second, above which nobody can tell what moves besides: blur and what enters the picture
lead the flow astray, and the same pan coded twice gave a quarter more or less."""
STILL_SHAKE = 0.2
"""Change of the camera's speed from tick to tick, a share of its mean, that no hand keeps below."""

Row = dict[str, Any]


def shots_of(
    source: Mapping[str, Any],
    signals: Sequence[Mapping[str, Any]],
    shots: ShotsConfig,
    scan: ScanConfig,
    witness: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[Row], list[Row]]:
    """Return the rows of `clips` and of `trims` of one source.

    Clips and trims tile what was decoded: their seconds add up to the `covered_s` of the signals.

    Args:
        source: row of the table `sources`.
        signals: rows of its spans, in order.
        shots: the settings.
        scan: the settings under which the signals were measured.
        witness: rows of the table `witness`; none to decide without it.
    """
    whole = joined(signals)
    whole |= witnessed(whole["time_s"], witness)
    found: list[Row] = []
    trimmed: list[Row] = []
    for stretch in stretches(whole["time_s"], whole["duration_s"]):
        part = _within(whole, stretch.first, stretch.end, stretch.start_s, stretch.end_s)
        kept, trims = clips(
            boundaries(part, shots), stretch.start_s, stretch.end_s, shots,
            time_s=part["time_s"], change=part["change"],
        )  # fmt: skip
        found += [_clip(source, shot, part, shots, scan) for shot in kept]
        trimmed += [
            {"source_id": source["source_id"], "uri": source["uri"], "start_s": t.start_s, "end_s": t.end_s,
             "reason": t.reason} for t in trims
        ]  # fmt: skip
    return found, trimmed


def witnessed(time_s: npt.NDArray[np.float64], witness: Sequence[Mapping[str, Any]]) -> Arrays:
    """Return what the witness says of each frame, `witness_cut` and `witness_part`; NaN where it did not look."""
    at = np.searchsorted(time_s, [row["time_s"] for row in witness]) if len(witness) else np.empty(0, np.int64)
    found = {f"witness_{name}": np.full(len(time_s), np.nan, np.float32) for name in ("cut", "part")}
    for name, values in found.items():
        values[at] = [row[name.removeprefix("witness_")] for row in witness]
    return found


_PER_TICK = {
    "tick_s",
    "phash",
    "dark",
    "bright",
    *motion.Motion._fields,
    *(f"bar_{side}" for side in frames.Bars._fields),
}


def _within(whole: Arrays, first: int, end: int, start_s: float, end_s: float) -> Arrays:
    """Return the frames [first, end) and the ticks in [start_s, end_s)."""
    ticks = slice(*np.searchsorted(whole["tick_s"], [start_s, end_s]))
    return {name: values[ticks if name in _PER_TICK else slice(first, end)] for name, values in whole.items()}


def _clip(source: Mapping[str, Any], shot: Shot, part: Arrays, shots: ShotsConfig, scan: ScanConfig) -> Row:
    first, end = np.searchsorted(part["time_s"], [shot.start_s, shot.end_s])
    own = _within(part, int(first), int(end), shot.start_s, shot.end_s)
    copied = ("source_id", "uri", "wave", "unit", "width", "height", "fps", "bit_rate", "caption", "licence", "rights",
              "extra", "hdr", "color_range", "digest")  # fmt: skip
    return {
        **{name: source.get(name) for name in copied},
        "key": clip_key(source["source_id"], shot.start_s),
        "start_s": shot.start_s, "end_s": shot.end_s, "duration_s": shot.end_s - shot.start_s,
        "frames": int(end - first), "source_duration_s": source["duration_s"],
        "opens_with": shot.opens_with, "closes_with": shot.closes_with, "cut_score": shot.score,
        "has_audio": source.get("audio_codec") is not None,
        **_light(own),
        **_movement(own, source["width"] / source["height"]),
        **_picture(own, source, scan, shot.start_s),
        "frame_s": _representatives(own, shot, shots.frames_per_clip),
    }  # fmt: skip


def _light(own: Arrays) -> Row:
    mean, std, change = own["luma_mean"], own["luma_std"], own["change"]
    cadence = coding.cadence(change, own["duration_s"])
    return {
        "black": frames.black_share(mean, std),
        "white": frames.white_share(mean, std),
        "frozen": frames.frozen_share(change, own["duration_s"]),
        "duplicate_frames": frames.duplicate_share(change[1:]),
        "cadence": None if cadence is None else cadence.label,
        "cadence_fps": None if cadence is None else cadence.fps,
        "luma_mean": _mean(mean),
        "luma_std": _mean(std),
        "exposure": frames.exposure(mean),
        "clipped_dark": _mean(own["dark"]),
        "clipped_bright": _mean(own["bright"]),
        "flicker": frames.flicker(mean, own["time_s"]),
        "sharpness": _median(own["sharpness"]),
        "interlaced": coding.interlaced(own["parity"]),
        "blockiness": _median(own["blockiness"]),
    }


def _movement(own: Arrays, aspect: float) -> Row:
    """Sum up the ticks but for the first, which compares with what stood before the clip; each by how long it lasts."""
    ticks = {name: np.asarray(own[name][1:], np.float64) for name in motion.Motion._fields}
    lasting_s = np.diff(own["tick_s"])
    found = camera(ticks, lasting_s, aspect)
    area = mean(ticks["object_area"], lasting_s)
    moved = mean(ticks["object_area"] * ticks["object_speed"], lasting_s)
    residual = float(np.quantile(ticks["residual"], 0.9)) if len(lasting_s) else 0.0
    frozen = frames.frozen_share(own["change"], own["duration_s"]) > 0.95
    told = found.speed <= TOLD_SPEED
    return {
        "motion": found.speed + moved,
        "camera_speed": found.speed, "camera": found.label, "shake": found.shake,
        "pan": found.pan, "tilt": found.tilt, "zoom": found.zoom, "roll": found.roll,
        "object_speed": (moved / area if area > 0 else 0.0) if told else None, "object_area": area if told else None,
        "residual": residual,
        "still_picture": bool(frozen or _is_moved_photograph(found, residual, moved)),
    }  # fmt: skip


def _is_moved_photograph(found: Camera, residual: float, objects: float) -> bool:
    """Whether a clip is a pan or zoom over a still picture (Ken Burns): one exact, smooth motion explains all of it.

    Dropping footage is worse than keeping a photograph: a picture on which the camera hardly moves (label static) is
    kept, and so is one whose coding noise reaches the limit. Wrong where nothing else can be seen: a rendered camera
    before a far, motionless landscape moves as exactly.
    """
    if found.label == "static":
        return False
    smooth = found.steady >= STILL_SPEED and found.shake <= STILL_SHAKE * found.speed
    return smooth and residual < STILL_RESIDUAL and objects < STILL_OBJECTS


def _picture(own: Arrays, source: Mapping[str, Any], scan: ScanConfig, start_s: float) -> Row:
    """Return bars and hashes, taken from the ticks that show something."""
    at = np.searchsorted(own["time_s"], own["tick_s"])
    telling = own["luma_std"][at] >= FLAT_STD
    rows = max(2, round(scan.width_px * min(source["height"] / source["width"], 8.0) / 2) * 2)
    sides = np.stack([own[f"bar_{side}"] for side in frames.Bars._fields], axis=1)[telling]
    crop = frames.crop(np.asarray(sides, np.float64), rows, scan.width_px)
    return {
        **{f"crop_{side}": share for side, share in crop._asdict().items()},
        "phash": own["phash"][telling].tolist(),
        "phash_s": (own["tick_s"][telling] - start_s).tolist(),
    }


def _median(values: npt.NDArray[np.floating]) -> float | None:
    """Return the median of what was measured; None where nothing was."""
    told = values[np.isfinite(values)]
    return float(np.median(told)) if len(told) else None


def _mean(values: npt.NDArray[np.floating]) -> float | None:
    return float(values.mean(dtype=np.float64)) if len(values) else None


def _representatives(own: Arrays, shot: Shot, count: int) -> list[float]:
    """Return the times of the sharpest candidate in each of `count` equal parts of a shot.

    Parts without a candidate give none: a clip shorter than the distance of candidates has fewer.
    """
    shown = np.isfinite(own["sharpness"])  # it is measured of candidates alone
    times, sharpness = own["time_s"][shown], own["sharpness"][shown]
    part = np.minimum((times - shot.start_s) / (shot.end_s - shot.start_s) * count, count - 1).astype(int)
    best = [np.flatnonzero(part == k) for k in range(count)]
    return [float(times[of[np.argmax(sharpness[of])]]) for of in best if len(of)]


def strip_times(times: Sequence[float], start_s: float, end_s: float, count: int) -> list[float]:
    """Return at most `count` of some candidate times within a clip, spread evenly over it, for its contact strip."""
    inside = [t for t in times if start_s <= t < end_s]
    if len(inside) <= count:
        return inside
    return [inside[math.floor((k + 0.5) * len(inside) / count)] for k in range(count)]


def strip(jpegs: Sequence[bytes], height_px: int = 96, quality: int = 70) -> bytes:
    """Return a contact strip: the pictures side by side at one height, as WebP. Raises ValueError without a picture."""
    if not jpegs:
        raise ValueError("a strip of 0 pictures; give at least one candidate frame of the clip")
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in jpegs]
    small = [
        p.resize((max(1, round(p.width * height_px / p.height)), height_px), Image.Resampling.BOX) for p in pictures
    ]
    sheet = Image.new("RGB", (sum(p.width for p in small), height_px))
    at = 0
    for picture in small:
        sheet.paste(picture, (at, 0))
        at += picture.width
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()
