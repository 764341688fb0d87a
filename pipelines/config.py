"""Every setting of curation, in one place. A leaf: importing it loads neither Ray nor torch nor OpenCV.

Limits on scores do not stand here but in policies (`filters/presets/*.yaml`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal

STAGES = ("sources", "scan", "witness", "shots", "score", "match", "select", "caption", "encode", "pack")
"""All stages in the order of the job, as `--through` takes them; `engine/job.py` says which form a leg."""
Allocation = Literal["auto", "measured", "predicted"]


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """What the inputs are and how they are split into units of work."""

    uri_column: str = "uri"
    """Column of a CSV, JSONL or Parquet list that names the video."""
    caption_column: str = "caption"
    """Column with a given caption, if the list has one."""
    licence_column: str = "licence"
    """Column with the licence, if the list has one."""
    rights_column: str = "rights"
    """Column with the rights holder, if the list has one."""
    suffixes: list[str] = field(default_factory=list)
    """Suffixes of files that are taken from folders besides those of common video files, such as [.bin, .gif]."""
    units_per_wave: int = 64
    """A wave of inputs is split into at least about this many units, if it has so many; each holds ten minutes of
    footage at most, and more only where a wave has thousands of hours."""


@dataclass(frozen=True, kw_only=True)
class ScanConfig:
    """The single decode of the footage."""

    width_px: int = 128
    """Width to which luma and chroma are shrunk once; every measure works on that."""
    tick_hz: float = 6.0
    """Rate of motion, border and hash measurements; independent of the frame rate."""
    candidate_hz: float = 2.0
    """Rate at which candidate frames for models and strips are kept."""
    candidate_side_px: int = 320
    """Longer side of a candidate frame."""
    span_s: float = 600.0
    """Longer sources are scanned as several spans of about this length."""
    max_side_px: int = 8192
    """Larger frames are refused before they are decoded."""


@dataclass(frozen=True, kw_only=True)
class ShotsConfig:
    """From signals to clips: a change here re-reads no video."""

    min_clip_s: float = 1.0
    """Shorter clips are trimmed away."""
    max_clip_s: float = 20.0
    """Longer shots are divided."""
    cut_likely: float = 0.5
    """How likely a frame must begin a shot to be a cut, 0–1: lower finds more of the jump cuts in the same view."""
    fade_luma: float = 24.0
    """Mean + standard deviation of luma (0–255) below which a picture counts as black in a fade; white likewise."""
    fade_max_s: float = 3.0
    """Longest ramp of a fade."""
    dark_s: float = 4.0
    """Black (or white) between two fades that lasts longer is footage of its own."""
    trim_s: float = 0.08
    """Trimmed on either side of a gradual transition."""
    witness: Literal["transnetv2", "none"] = "transnetv2"
    """Who is asked where the scan's own numbers leave doubt: the network, or nobody."""
    frames_per_clip: int = 3
    """Representative frames that the models look at."""
    strip_frames: int = 6
    """Frames of a contact strip."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Which models look at the representative frames."""

    scorers: list[str] = field(default_factory=lambda: ["embedding", "quality", "tags"])
    """Names of scorers: embedding, quality, tags, text, nsfw, faces, clip, aesthetic."""
    clip_model: str = "ViT-L-14"
    """OpenCLIP architecture for the scorers clip and aesthetic."""
    clip_weights: str = ""
    """Weights of it: a local path, a URL or a pretrained tag."""
    aesthetic_head: str = ""
    """The LAION linear head for that model: a local path or URL."""
    actors: int = 0
    """Actors that hold the models where there are GPUs, which they share; 0 takes one for each GPU. Without a GPU every
    core scores what it has scanned."""
    batch_frames: int = 16
    """Frames a model sees at once; fewer where that is quicker (EfficientNet-Lite0 on a CPU) or memory is short."""


@dataclass(frozen=True, kw_only=True)
class SelectConfig:
    """Which clips stay."""

    policy: str = "default"
    """A preset's name, the path of a YAML file, or a selection that the run has. The `name` in the file is that of its
    selection: edited under its own name a policy replaces it, and the name of a preset is refused to other rules."""


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Where captions come from."""

    source: Literal["tags", "endpoint", "transformers"] = "tags"
    """tags: composed from measured facts and ImageNet tags. endpoint: an OpenAI-compatible server. transformers: a
    vision-language model in a local folder. A caption that stands in the list of inputs is kept whatever the source."""
    endpoint: str = ""
    """Base URL of the server, such as http://host:8000/v1. Captions are made again for another model, not for the same
    one at another address."""
    model: str = ""
    """Model name to ask the endpoint for (empty takes its only one); for transformers the folder of the model."""
    api_key_env: str = "RUSHES_API_KEY"
    """Environment variable that holds the key, on the machines that ask; the key itself is never saved."""
    actors: int = 0
    """Processes that ask an endpoint, 0 being one (so that the limits below are the run's), or that hold a model of
    transformers where there are GPUs, 0 being one for each. What needs no GPU runs beside the encoder on every core."""
    retries: int = 6
    """Retries of a request, with exponential back-off: half a minute in all before a server counts as down."""
    concurrency: int = 4
    """Requests under way at once for each actor."""
    requests_per_minute: float = 0.0
    """Most requests in a minute, retries counted, of all actors together (each gets its even share); 0 is no limit."""
    timeout_s: float = 120.0
    """Time limit of one request."""
    batch_clips: int = 4
    """Clips that a transformers model answers at once."""


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How kept clips become shards."""

    name: str = "clips"
    """Start of every shard's name."""
    codec: Literal["h264", "hevc", "av1"] = "h264"
    """Codec of re-encoded clips."""
    hdr: Literal["tonemap", "keep", "drop"] = "tonemap"
    """What becomes of clips in HDR (PQ, HLG). tonemap: BT.709 in 8 bits, as models see them; keep: as they are, in 10
    bits and tagged, with codec hevc or av1; drop: the rule `hdr` of a selection named POLICY-sdr leaves them out."""
    copy: Literal["never", "keyframes"] = "keyframes"
    """keyframes: a clip that begins at a key frame, ends where the stream can be ended exactly and needs no change is
    copied, which is exact to the bit and far cheaper; never: every clip is encoded, so that all have one GOP length."""
    copy_codecs: list[Literal["h264", "hevc", "av1", "vp9"]] = field(default_factory=list)
    """Codecs that may be copied besides `codec`, such as [vp9, hevc]; by default shards hold one codec alone."""
    crf: int = 21
    """Constant rate factor of the encoder."""
    max_side_px: int = 0
    """Clips are shrunk so that their shorter side is at most this; 0 keeps the size."""
    crop_bars: bool = True
    """Whether measured black bars are cropped away."""
    audio: bool = True
    """Whether audio is kept."""
    shard_mb: float = 512.0
    """Shards hold at most this many megabytes (10⁶ bytes), unless one clip is larger."""
    seed: int = 0
    """Seed of the order in which clips stand in shards."""


@dataclass(frozen=True, kw_only=True)
class LatentsConfig:
    """How clip shards become latent shards."""

    side_px: int = 256
    """Clips are shrunk so that the shorter side has this many pixels; 0 keeps their size."""
    share: float = 0.4
    """Latents that all clips of the selection may have together, as a share of what the lowest rate would take; 0 means
    no limit, and nothing is measured."""
    per_second: float = 0.0
    """Latents that they may have for each of their seconds, with share=0; 0 means no limit."""
    per_clip: bool = False
    """The budget holds for each clip by itself."""
    lam: float | None = None
    """λ in place of a budget: the squared error that one latent must save. Each clip's rates depend on that clip alone,
    and it is looked at once: for streams and data sets that grow. `rushes tokenizer eval` tells which λ spends which
    share at which side_px."""
    rate: int = 0
    """Frames per latent of every segment, such as 4, in place of a budget: nothing is chosen."""
    pictures: float = 0.1
    """Share of the clips, chosen by a hash of their keys, whose first frame is a segment of its own, as a picture that
    is given at sampling: so a DiT learns to go on from one. Others' VAEs begin every clip so."""
    allocation: Allocation = "auto"
    """measured: each clip is coded at every rate first; predicted: the model's linear code foresees what each segment
    loses, many times faster; auto: predicted where the model has such a code."""

    @property
    def together(self) -> bool:
        """Whether one budget is shared out over all clips."""
        return self.lam is None and not (self.rate or self.per_clip) and bool(self.share or self.per_second)


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """How the work is spread."""

    address: str = ""
    """Address of a cluster, such as auto; empty takes RAY_ADDRESS of the environment, else starts a local Ray."""
    object_store_mb: int = 256
    """Object store of a local Ray; frames never travel, so it stays small."""
    max_in_flight: int = 0
    """Units under way at once; 0 means one for each CPU."""


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """The whole of `rushes curate`."""

    inputs: InputConfig = field(default_factory=InputConfig)
    """Inputs."""
    scan: ScanConfig = field(default_factory=ScanConfig)
    """The single decode."""
    shots: ShotsConfig = field(default_factory=ShotsConfig)
    """Shots and clips."""
    score: ScoreConfig = field(default_factory=ScoreConfig)
    """Model scores."""
    select: SelectConfig = field(default_factory=SelectConfig)
    """Policy and duplicates."""
    caption: CaptionConfig = field(default_factory=CaptionConfig)
    """Captions."""
    pack: PackConfig = field(default_factory=PackConfig)
    """Shards."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Ray."""


# What no stage could work with: the lowest and the highest value of each setting.
RANGES: dict[str, tuple[float, float]] = {
    "inputs.units_per_wave": (1, 99_999),
    "scan.width_px": (16, 1024),
    "scan.tick_hz": (4, 120),  # between pictures further apart there is no telling what moved
    "scan.candidate_hz": (0.01, 120),
    "scan.candidate_side_px": (16, 8192),
    "scan.span_s": (1, math.inf),
    "scan.max_side_px": (16, 65_535),
    "shots.min_clip_s": (0, math.inf),
    "shots.max_clip_s": (0.1, math.inf),
    "shots.cut_likely": (0, 1),
    "shots.frames_per_clip": (1, 1000),
    "shots.strip_frames": (1, 100),
    "score.actors": (0, math.inf),
    "score.batch_frames": (1, math.inf),
    "caption.retries": (0, 100),
    "caption.concurrency": (1, 10_000),
    "caption.actors": (0, math.inf),
    "caption.requests_per_minute": (0, math.inf),
    "caption.timeout_s": (0.001, math.inf),
    "caption.batch_clips": (1, 4096),
    "pack.crf": (0, 63),
    "pack.max_side_px": (0, 65_535),
    "pack.shard_mb": (0.001, math.inf),
    "ray.max_in_flight": (0, math.inf),
}


def check(config: CurateConfig) -> None:
    """Raise ValueError for a setting that no stage could work with, naming it and its range."""
    for name, (low, high) in RANGES.items():
        group, setting = name.split(".")
        value = getattr(getattr(config, group), setting)
        if not low <= value <= high:
            raise ValueError(f"{name} is {value}; it must be from {low} to {high}")
    if config.shots.min_clip_s > config.shots.max_clip_s:
        raise ValueError(
            f"shots.min_clip_s is {config.shots.min_clip_s}, more than shots.max_clip_s ({config.shots.max_clip_s}): "
            "no clip could be that long"
        )
    if config.pack.hdr == "keep" and config.pack.codec == "h264":
        raise ValueError(
            "pack.hdr is keep, which takes 10 bits, and pack.codec is h264, which few decoders read in 10 bits; "
            "set --pack.codec hevc or av1, or --pack.hdr tonemap"
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]+", config.pack.name):
        raise ValueError(f"pack.name is {config.pack.name!r}; it must be made of A-Z a-z 0-9 _ -")
