"""A causal DiT: segments of a clip one after another, each of which sees itself and those before it.

Block-causal attention as in CausVid, arXiv 2412.07772. The network is that of whole clips, and so are its weights;
what differs is how it is asked. Each segment stands in the row as a clip of its own: it has a time of its own, the
caption and the facts of its clip, and its seconds since the segment's first latent and until its last. So nothing tells
where its clip ends, nor which segment of it this is, and clips may become longer than any of training. Attention alone
reaches back, by rotary seconds.

Keys and values of segments that are done are kept, made from their clean latents at time 0: what they are does not
depend on what comes behind. So a segment costs its own tokens in each step, and one step more in which it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from rushes.dit import flow
from rushes.dit.config import SampleConfig
from rushes.dit.data import Packed, latents_told
from rushes.dit.known import Piece
from rushes.dit.layout import Plan, Window
from rushes.dit.model import Condition, DiT, grid, patchify, unpatchify
from rushes.tokenizer.config import Tell

Past = dict[nn.Module, tuple[Tensor, Tensor]]
"""Keys and values of what is done, by layer, `[clips, heads, tokens, d]`: of clips of one layout."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is told of the tokens of clips that stand one behind the other."""

    positions: Float[Tensor, "n 3"]
    rates: Float[Tensor, " n"]
    orders: Float[Tensor, " n"]
    seconds: Float[Tensor, " n"]
    clips: tuple[tuple[int, ...], ...]
    """Tokens of each segment of each clip."""
    condition: Condition
    """Of each clip."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each clip."""
        return [sum(clip) for clip in self.clips]

    @property
    def segments(self) -> list[int]:
        """Tokens of each segment of all clips."""
        return [tokens for clip in self.clips for tokens in clip]

    def taken(self, clips: Sequence[int]) -> Row:
        """Return some of the clips."""
        columns = {name: torch.cat([getattr(self, name).split(self.lengths)[clip] for clip in clips]) for name in TOLD}
        return Row(**columns, clips=tuple(self.clips[c] for c in clips), condition=self.condition.taken(clips))

    def alike(self) -> list[list[int]]:
        """Return which clips have the same segments, and so can be rolled out together."""
        found: dict[tuple[int, ...], list[int]] = {}
        for number, clip in enumerate(self.clips):
            found.setdefault(clip, []).append(number)
        return list(found.values())

    def segment(self, number: int) -> Row:
        """Return one segment of each clip; all clips must have the same segments."""
        count, (begin, end) = len(self.clips), list(pairwise([0, *accumulate(self.clips[0])]))[number]
        columns = {name: getattr(self, name).unflatten(0, (count, -1))[:, begin:end].flatten(0, 1) for name in TOLD}
        return Row(**columns, clips=((end - begin,),) * count, condition=self.condition)


FIXED = ("sampler", "shift", "schedule", "cache", "overlap")
"""What a causal student is not asked by."""
TOLD = ("positions", "rates", "orders", "seconds")


def row_of(packed: Packed, condition: Condition) -> Row:
    """Return what is told of packed clips; a segment begins where the order of latents begins again."""
    clips = []
    for orders, shape in zip(packed.orders.split(packed.lengths), packed.shapes, strict=True):
        tokens = len(orders) // shape[0]
        begins = [*torch.nonzero(orders[::tokens] == 0).flatten().tolist(), shape[0]]
        clips.append(tuple(tokens * (end - begin) for begin, end in pairwise(begins)))
    columns = {name: getattr(packed, name) for name in TOLD}
    return Row(**columns, clips=tuple(clips), condition=condition)


class Causal:
    """Attention of segments to themselves and to those before them in their clip; no mask is ever built."""

    def __init__(self, clips: Sequence[Sequence[int]], past: Past | None = None, keep: bool = False):
        """Take the tokens of each segment of each clip.

        Args:
            clips: of clips with a past the segments must be the same.
            past: what is done before the first of these segments.
            keep: whether these are added to it.
        """
        self.clips, self.past, self.keep = clips, past, keep

    def __call__(self, layer: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "n heads d"]:
        """Return what a layer's tokens see."""
        if len(set(map(tuple, self.clips))) == 1:
            return self._alike(layer, q, k, v)
        lengths = [sum(clip) for clip in self.clips]
        parts = zip(self.clips, *(one.split(lengths) for one in (q, k, v)), strict=True)
        return torch.cat([Causal([clip])(layer, *each) for clip, *each in parts])

    def _alike(self, layer: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "n heads d"]:
        q, k, v = (rearrange(one, "(b l) h d -> b h l d", b=len(self.clips)) for one in (q, k, v))
        if self.past is not None and layer in self.past:
            k, v = (torch.cat(pair, dim=2) for pair in zip(self.past[layer], (k, v), strict=True))
        if self.past is not None and self.keep:
            self.past[layer] = k, v
        behind, found = k.shape[2] - q.shape[2], []
        for begin, end in pairwise([0, *accumulate(self.clips[0])]):
            seen = k[:, :, : behind + end], v[:, :, : behind + end]
            found.append(F.scaled_dot_product_attention(q[:, :, begin:end], *seen))
        return rearrange(torch.cat(found, dim=2), "b h l d -> (b l) h d")


def velocity(
    net: DiT,
    row: Row,
    x: Float[Tensor, "n token"],
    t: Float[Tensor, " segments"],
    past: Past | None = None,
    keep: bool = False,
) -> Float[Tensor, "n token"]:
    """Return the velocity of every token, as its segment and those before it tell.

    Args:
        net: the network.
        row: what is told of the tokens.
        x: noisy tokens, normalised.
        t: time of each segment: 0 for those that are done.
        past: keys and values of segments before these.
        keep: whether those of these are added to it.
    """
    whose = [number for number, clip in enumerate(row.clips) for _ in clip]
    told = (row.positions, row.rates, row.orders, row.segments)
    return net(x, *told, t, row.condition.taken(whose), attend=Causal(row.clips, past, keep))


@torch.no_grad()
def remember(net: DiT, part: Row, data: Float[Tensor, "n token"], past: Past) -> None:
    """Add keys and values of a segment of each clip, from its clean latents, to what is done."""
    velocity(net, part, data, torch.zeros(len(part.clips), device=data.device), past, keep=True)


def denoised(
    net: DiT, part: Row, levels: Sequence[float], dice: torch.Generator, past: Past
) -> Float[Tensor, "n token"]:
    """Return a segment of each clip, made of noise: a look at each level, and new noise between (arXiv 2303.01469).

    A gradient goes through the last look alone, as in arXiv 2506.08009, so its memory does not grow with the levels.
    """

    def noise() -> Tensor:
        return torch.randn(len(part.rates), net.config.token_width, generator=dice).to(net.device)

    x, learning = noise(), torch.is_grad_enabled()
    for number, level in enumerate(levels, start=1):
        with torch.set_grad_enabled(learning and number == len(levels)):
            t = torch.full((len(part.clips),), level, device=x.device)
            data = x - level * velocity(net, part, x, t, past)
        if number < len(levels):
            x = flow.mix(data, noise(), torch.tensor(levels[number]))
    return data


def roll_out(
    net: DiT, row: Row, levels: Sequence[float], dice: torch.Generator, looks: Sequence[int] | None = None
) -> Float[Tensor, "n token"]:
    """Return clips of one layout, made segment by segment.

    Args:
        net: the network.
        row: what is told of the clips.
        levels: times at which each segment is looked at, falling from 1.
        dice: what noise is drawn from.
        looks: levels after which each segment is taken as done; all where they are not given.
    """
    past: Past = {}
    made, clips, count = [], len(row.clips), len(row.clips[0])
    for number in range(count):
        part = row.segment(number)
        made.append(denoised(net, part, levels[: looks[number]] if looks else levels, dice, past))
        if number + 1 < count:
            remember(net, part, made[-1].detach(), past)
    return torch.cat([one.unflatten(0, (clips, -1)) for one in made], dim=1).flatten(0, 1)


def is_causal(about: Mapping[str, Any]) -> bool:
    """Return whether a saved model is a student that makes segments one after another."""
    return bool(about.get("student", {}).get("method") == "causal")


def require(config: SampleConfig, student: Mapping[str, Any]) -> None:
    """Raise ValueError where a student is asked for what it cannot do; `student` is what its config.json says of it."""
    if config.guidance not in (None, 1.0) or config.guide:
        name = "guide" if config.guide else f"guidance={config.guidance:g}"
        raise ValueError(
            f"{name}: the model is a student, which has a guidance of {student['guidance']:g} built in; leave it out, "
            "or sample its teacher"
        )
    if student["method"] != "causal":
        return
    looks = len(student["levels"])
    fixed: dict[str, tuple[Any, ...]] = {name: (getattr(SampleConfig, name),) for name in FIXED} | {"steps": (0, looks)}
    for name, allowed in fixed.items():
        if getattr(config, name) not in allowed:
            raise ValueError(
                f"{name}={getattr(config, name)}: a causal student looks at {looks} levels of noise of its "
                "own; leave it out, or sample its teacher"
            )
    if config.last or config.source:
        name = "last" if config.last else "source"
        raise ValueError(
            f"{name}={getattr(config, name)}: the model is a causal student, which makes segments in the order of time "
            "and sees none that comes later; give first or extend, or sample its teacher"
        )


def windows(planned: Plan, seconds: float) -> list[Window]:
    """Return a window for each segment that is made: it, and what it sees, no longer than so many seconds together."""
    behind, room = [0, *accumulate(planned.lengths)], seconds * planned.fps + 0.5  # half a frame, for rounding
    found, first = [], 0
    for new in range(planned.known.index(False), len(planned.lengths)):
        while first < new and behind[new + 1] - behind[first] > room:
            first += 1
        found.append((first, new, new + 1))
    return found


class Stream:
    """Segments that a causal student makes one after another: it generates windows as `sample.Guided` does.

    What it keeps is bounded by the longest window. Where a window begins later than the one before, what stays is kept
    anew, once, as that of a clip that begins there: keys and values would still tell of what is gone, which no clip of
    training did.
    """

    def __init__(self, dit: DiT, wanted: Condition, seed: int, levels: Sequence[float], tell: Tell, times: int):
        """Take what is asked for, and the levels of each segment; `tell` is told of each of `times` segments."""
        self.dit, self.wanted, self.levels, self.tell, self.times = dit, wanted, levels, tell, times
        self.dice = torch.Generator().manual_seed(seed)
        self.past: Past = {}
        self.held: list[Tensor] = []
        """Latents of the segments that are kept."""
        self.made = 0

    @torch.no_grad()
    def generate(self, planned: Plan, pieces: Sequence[Piece | None]) -> Float[Tensor, "l c h w"]:
        """Return the latents of a window, whose last segment alone is not known."""
        row, p = self._row(planned), self.dit.config.patch
        behind = [one.z for one in pieces if one is not None]
        if [id(z) for z in self.held] != [id(z) for z in behind[: len(self.held)]]:
            self.past, self.held = {}, []
        for number, z in list(enumerate(behind))[len(self.held) :]:
            remember(self.dit, row.segment(number), self.dit.normalise(patchify(z.to(self.dit.device), p)), self.past)
            self.held.append(z)
        data = denoised(self.dit, row.segment(len(behind)), self.levels, self.dice, self.past)
        self.made += 1
        self.tell(self.made, self.times, "segments", {})
        made = unpatchify(self.dit.denormalise(data), p, *planned.cells)
        return torch.cat([*(z.to(made.device) for z in behind), made])

    def _row(self, planned: Plan) -> Row:
        device, tokens = self.dit.device, planned.grid[0] * planned.grid[1]
        told = latents_told(planned.rates, planned.counts).repeat_interleave(tokens, dim=0).to(device)
        return Row(
            positions=grid(planned.times_s.to(device), self.dit.config.patch, *planned.cells),
            rates=told[:, 0], orders=told[:, 1], seconds=told[:, 0] / planned.fps,
            clips=(tuple(tokens * count for count in planned.counts),), condition=self.wanted,
        )  # fmt: skip
