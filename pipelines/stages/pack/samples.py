"""One sample by itself: whether its members are of one clip, and whether its video is as its facts say."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import av
import av.error
import numpy as np

from rushes.pipelines.store import binding

MEMBERS = {"clips": ["mp4", "json", "txt"], "latents": ["npy", "json", "txt"]}
SLACK_FRAMES = 1.5  # durations are rounded to time bases


@dataclass
class Checked:
    """The members of one sample as they come by; a video is looked at and forgotten."""

    key: str
    kind: str
    """clips or latents."""
    decodes: bool
    """Whether the video or the latents are decoded."""
    members: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    """Of the mp4."""
    film: Film | None = None
    latents: int | None = None
    text: str | None = None

    def add(self, extension: str, data: bytes) -> Iterator[str]:
        """Look at one member; yield what is wrong with it alone."""
        self.members.append(extension)
        try:
            if extension == "json":
                self.facts = json.loads(data)
                if not isinstance(self.facts, dict):
                    raise ValueError("it is no object")
            elif extension == "txt":
                self.text = data.decode()
            elif extension == "mp4":
                self.sha256 = hashlib.sha256(data).hexdigest()
                self.film = decoded(data) if self.decodes else None
            elif extension == "npy" and self.decodes:
                self.latents = len(np.load(io.BytesIO(data), allow_pickle=False))
        except (av.error.FFmpegError, ValueError, TypeError) as error:
            self.facts = self.facts if isinstance(self.facts, dict) else {}
            yield f"{self.key}.{extension} cannot be read: {error!r}"

    def end(self) -> Iterator[str]:
        """Yield what does not fit together, once all members were seen."""
        wanted = MEMBERS.get(self.kind, self.members)
        if self.members != wanted:
            yield f"{self.key} has the members {' '.join(self.members)}, a sample has {' '.join(wanted)}"
        if not self.facts:
            return
        own = self.facts.get("key") == self.key
        if not own:
            yield f"{self.key}.json is of another clip: its key is {self.facts.get('key')!r}"
        if self.text is not None and self.text != self.facts.get("caption", self.text):
            yield f"{self.key}.txt is not the caption that its json holds"
        elif "caption" in self.facts and not (own and binding.holds_in_shard(self.facts, self.text or "")):
            yield f"{self.key}: its caption was not bound to this clip, or was changed"
        if self.sha256 and self.sha256 != self.facts.get("sha256", self.sha256):
            yield f"{self.key}.mp4 is not the video that its json describes: the SHA-256 is another"
        if self.latents is not None and self.latents != len(self.facts.get("times_s") or ()):
            yield f"{self.key} decodes to {self.latents} latents, its facts have {len(self.facts.get('times_s') or ())}"
        if self.film is not None:
            yield from (f"{self.key} {fault}" for fault in faults(self.film, self.facts))


@dataclass(frozen=True)
class Film:
    """What a video turned out to be when it was decoded."""

    frames: int
    width: int
    height: int
    first_s: float
    last_s: float
    longest_s: float
    """Longest time between two pictures."""
    rises: bool
    """Whether the times of the pictures do."""
    codec: str
    has_audio: bool


def decoded(mp4: bytes) -> Film:
    """Return what a video holds, all its pictures and the first of its sound decoded. Raises FFmpegError."""
    with av.open(io.BytesIO(mp4), "r", metadata_errors="ignore") as container:
        stream = container.streams.video[0] if container.streams.video else None
        if stream is None:
            raise ValueError("it has no video stream")
        stream.thread_type = "AUTO"
        frames, width, height, first_s, last_s, longest_s, rises = 0, 0, 0, 0.0, 0.0, 0.0, True
        for frame in container.decode(stream):
            time_s = frame.time if frame.time is not None else last_s
            if frames:
                rises &= time_s > last_s
                longest_s = max(longest_s, time_s - last_s)
            else:
                first_s, width, height = time_s, frame.width, frame.height
            rises &= not frame.is_corrupt
            frames, last_s = frames + 1, time_s
        codec = stream.codec_context.codec.canonical_name
    return Film(frames, width, height, first_s, last_s, longest_s, rises, codec, _sounds(mp4))


def _sounds(mp4: bytes) -> bool:
    with av.open(io.BytesIO(mp4), "r", metadata_errors="ignore") as container:
        return bool(container.streams.audio) and next(container.decode(audio=0), None) is not None


def faults(film: Film, facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield in what a decoded video is not as the facts of its sample say; facts that are absent say nothing."""
    if film.frames != facts.get("frames", film.frames):
        yield f"decodes to {film.frames} frames, its facts say {facts['frames']}"
    size = facts.get("width", film.width), facts.get("height", film.height)
    if (film.width, film.height) != size:
        yield f"is {film.width}×{film.height}, its facts say {size[0]}×{size[1]}"
    if film.codec != facts.get("codec", film.codec):
        yield f"is {film.codec}, its facts say {facts['codec']}"
    if film.has_audio != facts.get("has_audio", film.has_audio):
        yield f"has {'sound' if film.has_audio else 'no sound'}, its facts say otherwise"
    if not film.rises:
        yield "has pictures that are broken or whose times do not rise"
    duration_s, frame_s = facts.get("duration_s"), 1 / facts["fps"] if facts.get("fps") else 0.0
    if duration_s is not None and frame_s:
        # A picture may be shown as long as the longest step: the last one of a variable rate has no end of its own.
        tail_s = duration_s - film.last_s
        if not -0.5 * frame_s < film.first_s < 0.5 * frame_s or not 0 < tail_s < SLACK_FRAMES * max(
            frame_s, film.longest_s
        ):
            yield f"shows pictures from {film.first_s:.3f} to {film.last_s:.3f} s, its facts say {duration_s:.3f} s"
