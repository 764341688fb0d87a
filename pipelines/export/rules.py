"""What trainers demand of a clip, and which of its frames become which piece. Pure: facts in, pieces or a refusal out.

A causal video VAE codes the first frame alone and the others in groups of k, so it takes k·n+1 frames and nothing
between; its patches want sides that are multiples of some number of pixels. A trainer that is given another number of
frames cuts the rest away or skips the clip. Here the cutting is done once, and said.

* **Frames.** A clip of D seconds holds round(D × fps) frames at a rate: as many moments k/fps as lie in it, to half a
  frame. It is trimmed at its end to the longest length allowed, or split into several of the longest length and a rest.
* **Sides.** The middle of the picture is cropped to the multiples below; at most a multiple less one goes, by halves on
  either side, on the grid of the chroma. Nothing is scaled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_COUNT = re.compile(r"(?P<step>[1-9][0-9]*)n(?:\+(?P<rest>[0-9]+))?|(?P<exact>[1-9][0-9]*)")
NO_CAPTION = frozenset({"", "n/a", "na", "nan", "none", "null"})
"""What is no caption: readers of CSV take the words for a missing value."""


@dataclass(frozen=True)
class Frames:
    """Which numbers of frames are allowed: `step`·n + `rest`, n from 1 on; with step 0 only `rest`."""

    step: int = 1
    rest: int = 0

    @property
    def least(self) -> int:
        """The smallest number allowed for a video."""
        return self.step + self.rest

    def allows(self, frames: int) -> bool:
        """Whether a number of frames is allowed."""
        return 0 < frames == self.longest(frames)

    def longest(self, frames: int) -> int:
        """Return the largest number allowed that is at most `frames`, 0 where there is none."""
        if frames < self.least:
            return 0
        return frames - (frames - self.rest) % self.step if self.step else self.rest

    def __str__(self) -> str:
        return f"{self.step}n+{self.rest}" if self.step else str(self.rest)


def frames_of(text: str) -> Frames:
    """Return the rule that a text such as `4n+1` or `81` means; empty allows any. Raises ValueError for others."""
    found = _COUNT.fullmatch(text.replace(" ", "")) if text else None
    if text and found is None:
        raise ValueError(f"frames is {text!r}; give a rule such as 4n+1 or 8n+1, or a number of frames such as 81")
    if found is None:
        return Frames()
    if found["exact"]:
        return Frames(0, int(found["exact"]))
    return Frames(int(found["step"]), int(found["rest"] or 0))


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What every piece of an export obeys."""

    fps: Fraction | None = None
    """Constant frame rate; None keeps that of each clip."""
    frames: Frames = Frames()
    """Which numbers of frames are allowed."""
    multiple: int = 1
    """Both sides are multiples of this."""
    min_frames: int = 0
    """Fewer are refused; 0 means the least that `frames` allows."""
    max_frames: int = 0
    """More are trimmed or split; 0 is no limit."""
    split: bool = False
    """Whether what is too long becomes several pieces."""
    min_shown: float = 0.0
    """Pieces that show less than this share of their clip are refused: its caption tells of the whole."""
    audio: bool = False
    """Whether sound is kept."""

    @property
    def least(self) -> int:
        """The smallest number of frames that a piece may have."""
        return max(self.min_frames, self.frames.least)

    @property
    def most(self) -> int:
        """The largest number of frames that a piece may have; 0 is no limit."""
        if self.max_frames:
            return self.frames.longest(self.max_frames)
        return 0 if self.frames.step else self.frames.rest

    def check(self) -> None:
        """Raise ValueError where no clip could obey."""
        if self.fps is not None and not Fraction(1) <= self.fps <= 240:
            raise ValueError(f"fps is {float(self.fps):g}; it must be from 1 to 240")
        if not 0 <= self.min_shown <= 1:
            raise ValueError(f"min_shown is {self.min_shown:g}; it is a share, from 0 to 1")
        if self.multiple < 1 or (self.multiple > 1 and self.multiple % 2):
            raise ValueError(f"multiple is {self.multiple}; it must be even, such as 16 or 32")
        if (self.max_frames or not self.frames.step) and self.most < self.least:
            raise ValueError(
                f"no number of frames is {self.frames}, at least {self.least} and at most "
                f"{self.max_frames or self.most}; "
                "change --frames, --min_frames or --max_frames"
            )


PRESETS: dict[str, Rules] = {
    # Wan 2.1 and 2.2: VAE 4×8×8, patches of 2, 81 frames at 16 fps (the 5B of 2.2: VAE 4×16×16, 121 frames at 24 fps).
    "wan": Rules(fps=Fraction(16), frames=Frames(4, 1), multiple=16, max_frames=81),
    # HunyuanVideo: VAE 4×8×8, patches of 2, 129 frames at 24 fps.
    "hunyuan": Rules(fps=Fraction(24), frames=Frames(4, 1), multiple=16, max_frames=129),
    # LTX-2: VAE 8×32×32; 121 frames at 24 fps; the only ones here that learn sound. LTX-Video before it: 25 fps.
    "ltx": Rules(fps=Fraction(24), frames=Frames(8, 1), multiple=32, max_frames=121, audio=True),
    # Cosmos-Predict2 and 2.5: the VAE of Wan, 24 latents of 93 frames at 16 fps.
    "cosmos": Rules(fps=Fraction(16), frames=Frames(4, 1), multiple=16, max_frames=93),
}
"""What models take, by the names of `--for`: the defaults of their pipelines in diffusers, and of their trainers."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What is written of a clip: some of its frames, cropped."""

    number: int
    """Its place among the pieces of its clip."""
    of: int
    """How many pieces the clip becomes."""
    first: int
    """Its first frame, counted at `fps` from the clip's first."""
    frames: int
    """Its frames."""
    fps: Fraction
    """Its frame rate."""
    crop: tuple[int, int]
    """Columns at the left and rows at the top that go."""
    width: int
    height: int
    whole: bool
    """Whether it is the clip as it is, unless its time is uneven."""
    shown: float = 1.0
    """Which share of its clip it shows, which has one caption for all of it."""

    @property
    def seconds(self) -> float:
        """Its length."""
        return float(self.frames / self.fps)

    @property
    def start_s(self) -> float:
        """Where it begins in its clip."""
        return float(self.first / self.fps)

    def name(self, key: str) -> str:
        """Return the name of its files without an extension."""
        return key if self.of == 1 else f"{key}-{self.number:02d}"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a clip is not exported."""

    rule: str
    """The rule that it does not obey."""
    value: float | str
    """What the clip has."""
    limit: float | str
    """What the rule demands."""
    reason: str
    """Both as a sentence."""


def plan(facts: Mapping[str, Any], rules: Rules) -> list[Piece] | Refusal:
    """Return the pieces of a clip in order, or why there is none.

    Args:
        facts: What its sample says: width, height, fps, frames, duration_s.
        rules: What they obey.
    """
    width, height = int(facts["width"]), int(facts["height"])
    kept = width - width % rules.multiple, height - height % rules.multiple
    if not all(kept):
        short = min(width, height)
        return Refusal(
            rule="multiple", value=short, limit=rules.multiple,
            reason=f"a side of {short} pixels holds no multiple of {rules.multiple}",
        )  # fmt: skip
    fps = rules.fps or Fraction(facts["fps"]).limit_denominator(1001)
    held = int(facts["duration_s"] * float(rules.fps) + 0.5) if rules.fps else int(facts["frames"])
    allowed = list(_lengths(held, rules))
    if not allowed:
        return Refusal(
            rule="frames", value=held, limit=rules.least,
            reason=f"{held} frames at {float(fps):g} fps, at least {_least(rules)} are needed",
        )  # fmt: skip
    lengths = [frames for frames in allowed if frames >= rules.min_shown * held]
    if not lengths:
        share = round(allowed[0] / held, 3)
        return Refusal(
            rule="shown", value=share, limit=rules.min_shown,
            reason=f"its longest piece shows {share:.1%} of it, at least {rules.min_shown:.1%} are asked for",
        )  # fmt: skip
    crop = (width - kept[0]) // 4 * 2, (height - kept[1]) // 4 * 2
    same_rate = rules.fps is None or abs(facts["fps"] - float(rules.fps)) < 1e-3
    whole = lengths == [int(facts["frames"])] and kept == (width, height) and same_rate
    return [
        Piece(
            number=number, of=len(lengths), first=sum(lengths[:number]), frames=frames, fps=fps, crop=crop,
            width=kept[0], height=kept[1], whole=whole, shown=round(frames / held, 6),
        )
        for number, frames in enumerate(lengths)
    ]  # fmt: skip


def _least(rules: Rules) -> int:
    """Return the smallest number of frames that is both allowed and not too few."""
    first = range(rules.least, rules.least + max(rules.frames.step, 1))
    return next((frames for frames in first if rules.frames.allows(frames)), rules.least)


def _lengths(held: int, rules: Rules) -> Iterator[int]:
    """Yield the numbers of frames of the pieces of a clip that holds so many."""
    while True:
        frames = rules.frames.longest(min(held, rules.most) if rules.most else held)
        if frames < rules.least:
            return
        yield frames
        held -= frames
        if not rules.split or not rules.most:
            return
