"""The settings of an export, and what they come to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from typing import Any, Literal

from rushes.pipelines.export.captions import Style
from rushes.pipelines.export.rules import PRESETS, Rules, frames_of
from rushes.pipelines.store import storage

SETTINGS = "export.json"
"""The file in an export that says how it was made."""


class ExportError(ValueError):
    """An export cannot be made as it was asked for; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """How clips are cut for a trainer. What is set here goes before what `--for` sets."""

    fps: float = 0.0
    """Constant frame rate; frames are picked by their times. 0 takes that of --for, else keeps each clip's own."""
    frames: str = ""
    """Which numbers of frames are allowed: a rule such as 4n+1 or 8n+1, or one number. Empty takes that of --for."""
    multiple: int = 0
    """Sides are cropped from the middle to multiples of so many pixels; 0 takes that of --for, else crops nothing."""
    split: bool = False
    """Make several pieces of a clip that is longer than max_frames, rather than trim its end."""
    min_frames: int = 0
    """Clips with fewer frames are refused; 0 means the least that the rule allows (5 for 4n+1)."""
    max_frames: int = 0
    """Longest piece; 0 takes that of --for, else there is no limit."""
    min_shown: float = 0.0
    """Refuse pieces that show less than this share of their clip, whose caption tells of the whole; 0 refuses none."""
    caption: Style = "long"
    """short: the first sentence. long: the whole caption. json: an object of the caption and its known parts."""
    crf: int = 16
    """Constant rate factor of what has to be encoded again, as H.264."""
    link: bool = False
    """Let whole shards (webshart) be hard links rather than copies, where the disk can. A clip by itself stands inside
    a tar, which no link reaches: its bytes are copied, without a decoder, where nothing of it changes."""
    contact: str = ""
    """Whom the data card names for requests to remove footage: an address or a URL."""
    workers: int = 0
    """Clips that are worked on at once; 0 is one for each core. What comes out does not depend on it."""


Preset = Literal["", "wan", "hunyuan", "ltx", "cosmos"]


def rules_of(config: ExportConfig, preset: str, audio: bool) -> Rules:
    """Return what the pieces obey: the preset, overridden by what is set.

    Args:
        config: The settings.
        preset: A name of `rules.PRESETS`, or empty.
        audio: Whether the trainer reads sound; it is kept unless the preset's model has none.

    Raises ValueError for settings that no clip could obey, or that mean nothing.
    """
    rules = PRESETS[preset] if preset else Rules(audio=True)
    rules = replace(
        rules,
        fps=Fraction(config.fps).limit_denominator(1001) if config.fps else rules.fps,
        frames=frames_of(config.frames) if config.frames else rules.frames,
        multiple=config.multiple or rules.multiple,
        min_frames=config.min_frames or rules.min_frames,
        max_frames=config.max_frames or rules.max_frames,
        split=config.split,
        min_shown=config.min_shown,
        audio=rules.audio and audio,
    )
    rules.check()
    if config.split and not rules.max_frames:
        raise ValueError("--split needs to know what is too long; give --max_frames, or --for")
    if not 0 <= config.crf <= 51:
        raise ValueError(f"crf is {config.crf}; it must be from 0 to 51")
    return rules


def record(run: str, dialect: str, selection: str, rules: Rules, config: ExportConfig) -> dict[str, Any]:
    """Return what decides the files of an export, as plain values."""
    return {
        "run": storage.redact(storage.absolute(run)),
        "dialect": dialect,
        "selection": selection,
        **asdict(rules),
        "fps": str(rules.fps) if rules.fps else None,
        "frames": str(rules.frames),
        "caption": config.caption,
        "crf": config.crf,
    }


def claim(folder: str, wanted: dict[str, Any]) -> None:
    """Write how an export is made into its folder. Raises ExportError where another export, or anything else, is there.

    Files made by other settings would be taken for finished ones of these, clips of another run for such as left this
    one, and nobody wants to lose an export by a slip of the hand: so it is refused.
    """
    there = read(folder)
    if there is None:
        if any(not path.name.startswith(".") for path in storage.local_path(folder).iterdir()):
            raise ExportError(f"{folder} holds other things and no export; choose an empty folder as --out")
        text = json.dumps({"rushes_export": 1, "settings": wanted}, indent=1) + "\n"
        storage.write_bytes(f"{folder}/{SETTINGS}", text.encode())
    elif there != wanted:
        names = sorted(name for name in {*there, *wanted} if there.get(name) != wanted.get(name))
        said = ", ".join(f"{name} {there.get(name)!r}, not {wanted.get(name)!r}" for name in names)
        what = "of another run" if "run" in names else "by other settings"
        raise ExportError(f"{folder} holds an export {what} ({said}); choose another --out, or remove it")


def read(folder: str) -> dict[str, Any] | None:
    """Return how an export was made, None where there is none. Raises ExportError where that cannot be told."""
    uri = f"{folder}/{SETTINGS}"
    data = storage.read_if_there(uri)
    try:
        return None if data is None else dict(json.loads(data)["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{uri} is damaged ({error!r}); remove {folder}, or choose another --out") from error


def rules_in(there: Mapping[str, Any]) -> Rules:
    """Return the rules of an export, from the settings that `read` returns."""
    own = {field.name: there[field.name] for field in fields(Rules) if field.name in there}
    frames, fps = frames_of(there["frames"]), there["fps"]
    return Rules(**own | {"fps": Fraction(fps) if fps else None, "frames": frames})
