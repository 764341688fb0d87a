"""The parts of a block: rotary positions, packed attention, SwiGLU, AdaLN-Zero.

Clips of different lengths stand one behind the other in a single row of tokens ("patch n' pack", arXiv 2307.06304):
`n` tokens of `clips` clips, whose `lengths` sum to `n`. Attention never crosses the border of a clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def spread(values: Float[Tensor, "clips d"], lengths: Sequence[int]) -> Float[Tensor, "n d"]:
    """Return each clip's row once for every one of its tokens."""
    counts = torch.tensor(lengths, device=values.device)
    return torch.repeat_interleave(values, counts, dim=0, output_size=sum(lengths))


def axis_widths(head: int) -> tuple[int, int, int]:
    """Return how many channels of a head turn with t, y and x: a quarter for time, the rest for the picture."""
    space = 2 * (head * 3 // 16)
    return head - 2 * space, space, space


def frequencies(channels: int, wavelengths: tuple[float, float]) -> Float[Tensor, " half"]:
    """Return angular frequencies whose wavelengths grow geometrically from the first to the second."""
    shortest, longest = wavelengths
    steps = torch.linspace(0, 1, max(channels // 2, 1), dtype=torch.float64)
    return (2 * math.pi / (shortest * (longest / shortest) ** steps)).float()


class Rotary(nn.Module):
    """Rotary position embedding (arXiv 2104.09864) over time in seconds, y and x.

    Logits depend on differences of positions alone, so frame rate, latent rate and duration may all vary.
    """

    def __init__(self, head: int, time_s: tuple[float, float], space: tuple[float, float]):
        super().__init__()
        for axis, channels, wavelengths in zip("tyx", axis_widths(head), (time_s, space, space), strict=True):
            self.register_buffer(f"frequencies_{axis}", frequencies(channels, wavelengths), persistent=False)

    @torch.autocast("cuda", enabled=False)
    def forward(self, positions: Float[Tensor, "n 3"]) -> Float[Tensor, "n half"]:
        """Return the angle of every channel pair, in float32."""
        angles = [
            positions[:, i, None].float() * getattr(self, f"frequencies_{axis}")  # n, channels of the axis / 2
            for i, axis in enumerate("tyx")
        ]
        return torch.cat(angles, dim=-1)


def rotate(x: Float[Tensor, "n heads d"], angles: Float[Tensor, "n half"]) -> Float[Tensor, "n heads d"]:
    """Turn channel pairs (i, i + d/2) of every head by the token's angles."""
    cos, sin = angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([torch.addcmul(a * cos, b, -sin), torch.addcmul(b * cos, a, sin)], dim=-1)


def packed_attention(
    q: Float[Tensor, "n heads d"],
    k: Float[Tensor, "m heads d"],
    v: Float[Tensor, "m heads d"],
    q_lengths: Sequence[int],
    k_lengths: Sequence[int],
) -> Float[Tensor, "n heads d"]:
    """Return attention in which a clip's queries see that clip's keys only (a block-diagonal mask, never built).

    On GPUs torch's kernel for packed sequences takes all clips at once. Elsewhere neighbours of equal lengths go
    through one batched call: the cost is the sum of the squares of the lengths and not the square of the sum.
    """
    if has_kernel(q.device.type, q.dtype):
        from torch.nn.attention.varlen import varlen_attn

        q_ends, k_ends = (
            torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=q.device)
            for lengths in (q_lengths, k_lengths)
        )
        return cast(Tensor, varlen_attn(q, k, v, q_ends, k_ends, max(q_lengths), max(k_lengths)))
    runs = [(len(list(run)), *both) for both, run in groupby(zip(q_lengths, k_lengths, strict=True))]
    qs = q.split([clips * length for clips, length, _ in runs])
    ks, vs = (x.split([clips * length for clips, _, length in runs]) for x in (k, v))
    rows = []
    for (clips, *_), *run in zip(runs, qs, ks, vs, strict=True):
        one_q, one_k, one_v = (rearrange(x, "(b l) h d -> b h l d", b=clips) for x in run)
        rows.append(rearrange(F.scaled_dot_product_attention(one_q, one_k, one_v), "b h l d -> (b l) h d"))
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def has_kernel(device: str, dtype: torch.dtype) -> bool:
    """Return whether torch's kernel for packed sequences takes such tokens: those of a GPU, in half precision."""
    return device == "cuda" and dtype in (torch.bfloat16, torch.float16)


Attend = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
"""Attention of a layer: the layer, and the queries, keys and values of its tokens, `[n, heads, d]`; see `causal`."""


class SelfAttention(nn.Module):
    """Joint space-time attention with normalised queries and keys (arXiv 2302.05442)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = nn.RMSNorm(width // heads, eps=1e-6)
        self.k_norm = nn.RMSNorm(width // heads, eps=1e-6)
        self.out = nn.Linear(width, width)

    def logits(self, x: Tensor, angles: Tensor) -> Float[Tensor, "heads n n"]:
        """Return the unscaled attention logits, for looking at them."""
        q, k, _ = self.project(x, angles)
        return torch.einsum("nhd,mhd->hnm", q, k)

    def forward(
        self,
        x: Float[Tensor, "n d"],
        angles: Float[Tensor, "n half"],
        lengths: Sequence[int],
        attend: Attend | None = None,
    ) -> Float[Tensor, "n d"]:
        """Mix the tokens of each clip, or as `attend` does."""
        q, k, v = self.project(x, angles)
        mixed = attend(self, q, k, v) if attend else packed_attention(q, k, v, lengths, lengths)
        return self.out(rearrange(mixed, "n h d -> n (h d)"))

    def project(self, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, `[n, heads, d]`; queries and keys normalised and turned."""
        q, k, v = rearrange(self.qkv(x), "n (three h d) -> three n h d", three=3, h=self.heads)
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        return rotate(q, angles), rotate(k, angles), v


class CrossAttention(nn.Module):
    """Attention from a clip's tokens to its words; its last layer starts at zero, so it begins as nothing."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.q_norm = nn.RMSNorm(width // heads, eps=1e-6)
        self.k_norm = nn.RMSNorm(width // heads, eps=1e-6)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, x: Float[Tensor, "n d"], words: Float[Tensor, "m d"], lengths: Sequence[int], word_lengths: Sequence[int]
    ) -> Float[Tensor, "n d"]:
        """Return what each token reads from the words of its clip."""
        q = rearrange(self.q(x), "n (h d) -> n h d", h=self.heads)
        k, v = rearrange(self.kv(words), "m (two h d) -> two m h d", two=2, h=self.heads)
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        return self.out(rearrange(packed_attention(q, k, v, lengths, word_lengths), "n h d -> n (h d)"))


def hidden_width(width: int) -> int:
    """Return the channels inside a gated layer as costly as a plain one of four times the width, in full 64s."""
    return 64 * math.ceil(width * 8 / 3 / 64)


class SwiGLU(nn.Module):
    """Gated feed-forward layer (arXiv 2002.05202), as costly as a plain one of four times the width."""

    def __init__(self, width: int):
        super().__init__()
        hidden = hidden_width(width)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Transform each token on its own."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Place(nn.Module):
    """Embeds where a token stands: in the picture by row and column, in its clip by seconds from start and to end.

    Rotary attention knows differences of positions alone, and in pure noise nothing tells the sky from the ground, nor
    the beginning of a movement from its end.
    """

    frequencies: Tensor

    def __init__(self, width: int, wavelengths: tuple[float, float], channels: int = 32):
        super().__init__()
        self.register_buffer("frequencies", frequencies(channels, wavelengths), persistent=False)
        self.out = nn.Linear(2 * channels, width)

    def forward(self, places: Float[Tensor, "n 2"]) -> Float[Tensor, "n d"]:
        """Return one embedding for each token from its two numbers."""
        angles = (places[:, :, None].float() * self.frequencies).flatten(1)  # n, channels
        return self.out(torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.out.weight.dtype))


def by_clip(
    act: Callable[..., Tensor], x: Float[Tensor, "n d"], lengths: Sequence[int], *rows: Float[Tensor, "clips d"]
) -> Float[Tensor, "n d"]:
    """Return `act(tokens, *rows)` of every clip's tokens and its own rows, which are never written out for each token.

    Rows for all tokens would be kept for the backward pass: in a block of AdaLN six times as much as the tokens are.
    """
    if len(set(lengths)) == 1:
        return act(rearrange(x, "(b l) d -> b l d", b=len(lengths)), *(row[:, None] for row in rows)).flatten(0, 1)
    return torch.cat([act(one, *each) for one, *each in zip(x.split(list(lengths)), *rows, strict=True)])


def modulate(
    x: Float[Tensor, "n d"], lengths: Sequence[int], shift: Float[Tensor, "clips d"], scale: Float[Tensor, "clips d"]
) -> Float[Tensor, "n d"]:
    """Return x, each token normalised, then moved and scaled as its clip says."""
    normal = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    return by_clip(lambda one, shift, scale: one * (1 + scale) + shift, normal, lengths, shift, scale)


def gated(x: Float[Tensor, "n d"], lengths: Sequence[int], gate: Float[Tensor, "clips d"]) -> Float[Tensor, "n d"]:
    """Return x, each channel let through as far as its clip says."""
    return by_clip(lambda one, gate: one * gate, x, lengths, gate)


class Block(nn.Module):
    """One AdaLN-Zero block (section 3.2 of arXiv 2212.09748): the identity when training starts.

    One that does not read is a single-stream block of HunyuanVideo (arXiv 2412.03603), for rows that are tokens and
    words alike. There attention and feed-forward layer stand side by side; here one follows the other, as in all.
    """

    def __init__(self, width: int, heads: int, reads: bool = True):
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.cross = CrossAttention(width, heads) if reads else None
        self.cross_norm = nn.LayerNorm(width, eps=1e-6) if reads else None
        self.mlp = SwiGLU(width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Float[Tensor, "n d"],
        state: Float[Tensor, "clips d"],
        angles: Float[Tensor, "n half"],
        words: Float[Tensor, "m d"],
        lengths: Sequence[int],
        word_lengths: Sequence[int],
        attend: Attend | None = None,
    ) -> Float[Tensor, "n d"]:
        """Mix tokens in space and time, read the words, transform; `state` is the clip's time and condition."""
        shift_a, scale_a, gate_a, *rest = self.modulation(F.silu(state)).chunk(6, dim=-1)
        x = x + gated(self.attention(modulate(x, lengths, shift_a, scale_a), angles, lengths, attend), lengths, gate_a)
        return self.transform(self.read(x, words, lengths, word_lengths), lengths, *rest)

    def read(self, x: Tensor, words: Tensor, lengths: Sequence[int], word_lengths: Sequence[int]) -> Tensor:
        """Return tokens with what they read from the words of their clip, where the block reads."""
        if self.cross is None or self.cross_norm is None:
            return x
        return x + self.cross(self.cross_norm(x), words, lengths, word_lengths)

    def transform(
        self, x: Float[Tensor, "n d"], lengths: Sequence[int], shift: Tensor, scale: Tensor, gate: Tensor
    ) -> Float[Tensor, "n d"]:
        """Return tokens, each transformed on its own as its clip says."""
        return x + gated(self.mlp(modulate(x, lengths, shift, scale)), lengths, gate)


class Sinusoids(nn.Module):
    """Embeds a number: sinusoids of geometric frequencies, then two layers."""

    frequencies: Tensor

    def __init__(self, width: int, longest: float, channels: int = 256):
        super().__init__()
        self.register_buffer("frequencies", frequencies(channels, (longest / 10_000, longest)), persistent=False)
        self.up = nn.Linear(channels, width)
        self.down = nn.Linear(width, width)

    def forward(self, values: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Return one embedding for each number."""
        angles = values[:, None].float() * self.frequencies
        return self.down(F.silu(self.up(torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.up.weight.dtype))))
