"""The diffusion transformer: packed latent tokens in, velocities out.

Legend: n tokens, m words (both packed over clips), c channels, p side of a patch, h w latent cells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as tensors_to
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rushes.dit import flow
from rushes.dit.cache import StepCache
from rushes.dit.config import DiTConfig
from rushes.dit.forms import Axes, DualBlock, apart, blocks, together
from rushes.dit.layers import Attend, Block, Place, Rotary, Sinusoids, gated, modulate, spread
from rushes.pipelines.store import storage

KIND = "rushes-dit"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is known of each clip: its caption and its measured facts."""

    words: Float[Tensor, "m text"]
    """Embedded word pieces of all captions, one behind the other; a clip may have none."""
    word_lengths: tuple[int, ...]
    """Words of each clip."""
    pooled: Float[Tensor, "clips text"]
    """One embedding of each caption; zero where there is none."""
    facts: Float[Tensor, "clips facts"]
    """Measured facts in the order of `DiTConfig.facts`; NaN where unknown."""
    known: Bool[Tensor, " n"] | None = None
    """Which tokens are known and so come without noise, see `known`; None where none is."""

    def where_unknown(self, values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return numbers of the tokens, 0 for those that are known."""
        return values if self.known is None else values.masked_fill(self.known, 0.0)

    def dropped(self, drop: Sequence[bool]) -> Condition:
        """Return the condition without captions and facts of the clips that are marked; tokens that are known stay."""
        gone = torch.tensor(list(drop), device=self.pooled.device)[:, None]
        return self.without_captions(drop).without_facts(gone.expand_as(self.facts))

    def without_captions(self, drop: Sequence[bool]) -> Condition:
        """Return the condition without the captions of the clips that are marked."""
        gone = torch.tensor(list(drop), device=self.pooled.device)[:, None]
        kept = [w for w, d in zip(self.words.split(list(self.word_lengths)), drop, strict=True) if not d]
        return replace(
            self,
            words=torch.cat(kept) if kept else self.words[:0],
            word_lengths=tuple(0 if d else length for length, d in zip(self.word_lengths, drop, strict=True)),
            pooled=self.pooled.masked_fill(gone, 0.0),
        )

    def without_facts(self, gone: Bool[Tensor, "clips facts"]) -> Condition:
        """Return the condition without the facts that are marked."""
        return replace(self, facts=self.facts.masked_fill(gone, torch.nan))

    def joined(self, other: Condition) -> Condition:
        """Return the condition of these clips followed by those of another; of both tokens are known or of neither."""
        return Condition(
            words=torch.cat([self.words, other.words]),
            word_lengths=self.word_lengths + other.word_lengths,
            pooled=torch.cat([self.pooled, other.pooled]),
            facts=torch.cat([self.facts, other.facts]),
            known=None if self.known is None or other.known is None else torch.cat([self.known, other.known]),
        )

    def taken(self, clips: Sequence[int]) -> Condition:
        """Return the condition of some of the clips, each as often as it is named; of known tokens it tells nothing."""
        words, rows = self.words.split(list(self.word_lengths)), list(clips)
        return Condition(
            words=torch.cat([words[clip] for clip in rows]),
            word_lengths=tuple(self.word_lengths[clip] for clip in rows),
            pooled=self.pooled[rows],
            facts=self.facts[rows],
        )

    def to(self, device: torch.device) -> Condition:
        """Return the condition on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)  # type: ignore[arg-type]


class DiT(nn.Module):
    """A diffusion transformer over (seconds, y, x) with text and measured facts as conditions.

    The statistics of the training latents are buffers, so that a saved model knows how to scale its own output.
    """

    latent_mean: Tensor
    latent_std: Tensor
    fact_mean: Tensor
    fact_std: Tensor

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        self.checkpointing = False
        """Whether blocks are computed again in the backward pass: only what goes in is kept of each."""
        d = config.width
        self.tokens_in = nn.Linear(config.token_width, d)
        self.rate_in = Sinusoids(d, longest=64.0, channels=32)
        self.order_in = Sinusoids(d, longest=64.0, channels=32)
        self.place_in = Place(d, config.space_wavelengths)
        self.moment_in = Place(d, config.time_wavelengths_s)
        self.time_in = Sinusoids(d, longest=4.0)
        self.pooled_in = nn.Linear(config.text_width, d, bias=False)
        self.facts_in = nn.Sequential(nn.Linear(2 * len(config.facts), d, bias=False), nn.SiLU(), nn.Linear(d, d))
        self.words_in = nn.Linear(config.text_width, d)
        self.null_word = nn.Parameter(torch.zeros(1, d))
        self.rotary = Rotary(d // config.heads, config.time_wavelengths_s, config.space_wavelengths)
        self.blocks = nn.ModuleList(blocks(config))
        self.out_modulation = nn.Linear(d, 2 * d)
        self.tokens_out = nn.Linear(d, config.token_width)
        self.known_in = nn.Linear(config.token_width + 1, d, bias=False)
        nn.init.zeros_(self.known_in.weight)
        for layer in (self.out_modulation, self.tokens_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.register_buffer("latent_mean", torch.zeros(config.in_channels))
        self.register_buffer("latent_std", torch.ones(config.in_channels))
        self.register_buffer("fact_mean", torch.zeros(len(config.facts)))
        self.register_buffer("fact_std", torch.ones(len(config.facts)))

    def forward(
        self,
        tokens: Float[Tensor, "n token"],
        positions: Float[Tensor, "n 3"],
        rates: Float[Tensor, " n"],
        orders: Float[Tensor, " n"],
        lengths: Sequence[int],
        t: Float[Tensor, " clips"],
        condition: Condition,
        cache: StepCache | None = None,
        attend: Attend | None = None,
    ) -> Float[Tensor, "n token"]:
        """Return the velocity of every token; of those that are known it means nothing.

        Args:
            tokens: noisy latent patches of all clips, one clip behind the other, clean where they are known.
            positions: (seconds, y, x) of each token; y and x count tokens.
            rates: frames per latent, for each token.
            orders: place of each token's latent in its segment, from 0: the first may hold what stays, others changes.
            lengths: tokens of each clip.
            t: time of each clip on the path from data (0) to noise (1).
            condition: captions, facts, and which tokens are known.
            cache: answers for the blocks where it can.
            attend: what tokens see, where it is not all of their clip and nothing else: see `causal`.
        """
        state = self.time_in(t) + self._known(condition)  # clips d
        words, word_lengths = self._words(condition)  # m d
        angles = self.rotary(positions)  # n head/2
        skip_scale, out_scale, in_scale = (scale[:, None] for scale in flow.preconditioning(t))  # clips 1
        x = self.tokens_in(gated(tokens, lengths, in_scale)) + self.place_in(positions[:, 1:])  # n d
        x = x + self.moment_in(moments(positions[:, 0], lengths))
        x = x + self.rate_in(rates.float().log2()) + self.order_in(orders)
        if condition.known is not None:
            told = condition.known[:, None].to(tokens.dtype)
            x = x + self.known_in(torch.cat([tokens * told, told], dim=1))
        given: tuple[Any, ...] = (state, angles, words, lengths, word_lengths)
        if self.config.attention != "joint":
            given += (Axes.of(positions, lengths),)
        elif attend:
            given += (attend,)
        if cache:
            x = cache(x, self._seen(x, state, lengths), lambda x: self._mixed(x, *given))
        else:
            x = self._mixed(x, *given)
        shift, scale = self.out_modulation(F.silu(state)).chunk(2, dim=-1)
        found = self.tokens_out(modulate(x, lengths, shift, scale))
        return gated(tokens, lengths, skip_scale) + gated(found, lengths, out_scale)

    def _mixed(self, x: Float[Tensor, "n d"], *given: Any) -> Float[Tensor, "n d"]:
        """Return what all blocks make of tokens."""
        return self._through(x, *given) if self.config.streams == "cross" else self._beside_words(x, *given)

    def _beside_words(
        self,
        x: Float[Tensor, "n d"],
        state: Float[Tensor, "clips d"],
        angles: Float[Tensor, "n half"],
        words: Float[Tensor, "m d"],
        lengths: Sequence[int],
        word_lengths: Sequence[int],
    ) -> Float[Tensor, "n d"]:
        """Return what blocks make of tokens whose clip's words stand behind them.

        Words stand where the first token of their clip does: at no place of all videos, for then a shift of a clip's
        time would change what it sees of them. Their order is in them already.
        """
        first = torch.stack([one[0] for one in angles.split(list(lengths))])
        where = together(angles, spread(first, word_lengths), lengths, word_lengths)
        both = [own + more for own, more in zip(lengths, word_lengths, strict=True)]
        rows = together(x, words, lengths, word_lengths)
        return apart(self._through(rows, state, where, words, both, word_lengths), lengths, word_lengths)[0]

    def _through(self, x: Float[Tensor, "n d"], *given: Any) -> Float[Tensor, "n d"]:
        """Return what blocks make of rows, one after another."""
        again = self.checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, *given, use_reentrant=False) if again else block(x, *given)
        return x

    def _seen(self, x: Float[Tensor, "n d"], state: Float[Tensor, "clips d"], lengths: Sequence[int]) -> Tensor:
        """Return what the attention of the first block sees."""
        first = self.blocks[0].tokens if isinstance(self.blocks[0], DualBlock) else self.blocks[0]
        assert isinstance(first, Block)
        shift, scale, *_ = first.modulation(F.silu(state)).chunk(6, dim=-1)
        return modulate(x, lengths, shift, scale)

    def _known(self, condition: Condition) -> Float[Tensor, "clips d"]:
        known = ~condition.facts.isnan()
        facts = ((condition.facts - self.fact_mean) / self.fact_std).clamp(-5, 5)
        facts = torch.cat([torch.where(known, facts, 0.0), known.float()], dim=-1)
        return self.pooled_in(condition.pooled) + self.facts_in(facts)

    def _words(self, condition: Condition) -> tuple[Float[Tensor, "m d"], list[int]]:
        """Every clip's words begin with a learned one, so that a clip without a caption has something to look at."""
        words = self.words_in(F.layer_norm(condition.words, condition.words.shape[-1:]))
        null = self.null_word.to(words.dtype)
        rows = [row for one in words.split(list(condition.word_lengths)) for row in (null, one)]
        return torch.cat(rows), [length + 1 for length in condition.word_lengths]

    def normalise(self, tokens: Float[Tensor, "n token"]) -> Float[Tensor, "n token"]:
        """Return tokens with the mean and spread of each latent channel taken out."""
        mean, std = self._statistics()
        return (tokens - mean) / std

    def denormalise(self, tokens: Float[Tensor, "n token"]) -> Float[Tensor, "n token"]:
        """Undo `normalise`."""
        mean, std = self._statistics()
        return tokens * std + mean

    def _statistics(self) -> tuple[Float[Tensor, " token"], Float[Tensor, " token"]]:
        cells = self.config.patch**2  # a token is (channel, p, q), the channel outermost
        return self.latent_mean.repeat_interleave(cells), self.latent_std.repeat_interleave(cells)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.latent_mean.device


def patchify(latents: Float[Tensor, "l c h w"], p: int) -> Float[Tensor, "n token"]:
    """Return the tokens of a clip; sides that p does not divide are filled up by repeating the last cells."""
    h, w = latents.shape[-2:]
    filled = F.pad(latents, (0, -w % p, 0, -h % p), mode="replicate")
    return rearrange(filled, "l c (y p) (x q) -> (l y x) (c p q)", p=p, q=p)


def unpatchify(tokens: Float[Tensor, "n token"], p: int, h: int, w: int) -> Float[Tensor, "l c h w"]:
    """Undo `patchify`."""
    y, x = -(-h // p), -(-w // p)
    return rearrange(tokens, "(l y x) (c p q) -> l c (y p) (x q)", y=y, x=x, p=p, q=p)[..., :h, :w]


def grid(times_s: Float[Tensor, " l"], p: int, h: int, w: int) -> Float[Tensor, "n 3"]:
    """Return (seconds, y, x) of the tokens that `patchify` makes."""
    y, x = (torch.arange(-(-side // p), device=times_s.device).float() for side in (h, w))
    return torch.cartesian_prod(times_s.float(), y, x)


def moments(seconds: Float[Tensor, " n"], lengths: Sequence[int]) -> Float[Tensor, "n 2"]:
    """Return how long after its clip's first latent, and how long before its last, each token stands, in seconds."""
    ends = torch.stack([torch.stack([one[0], one[-1]]) for one in seconds.split(list(lengths))])
    first, last = spread(ends, lengths).unbind(dim=1)
    return torch.stack([seconds - first, last - seconds], dim=1)


def save(model: DiT, folder: str, extra: dict[str, object]) -> None:
    """Write `model.safetensors`, and `config.json` with the config, `extra` and the fingerprint of it all."""
    weights = tensors_to({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})
    about: dict[str, object] = {"kind": KIND, "model": asdict(model.config), **extra}
    about["fingerprint"] = hashlib.sha256(weights + json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
    storage.write_bytes(f"{folder.rstrip('/')}/model.safetensors", weights)
    storage.write_bytes(f"{folder.rstrip('/')}/config.json", (json.dumps(about, indent=2) + "\n").encode())


def load(folder: str) -> tuple[DiT, dict[str, Any]]:
    """Return a saved model in evaluation mode, and what was saved with it. Raises ValueError where there is none.

    One that was saved before tokens could be known gets the layer for them as it starts, at zero, and so answers as it
    did; nobody asks it more, for `sample` refuses known latents where a model was not trained on any.
    """
    root = folder.rstrip("/")
    if not storage.exists(f"{root}/config.json"):
        raise ValueError(f"{folder} holds no trained DiT (no config.json); train one with `rushes dit train`")
    about = json.loads(storage.read_bytes(f"{root}/config.json"))
    if about.get("kind") != KIND:
        raise ValueError(f"{root}/config.json describes {about.get('kind', 'something else')}, not a DiT")
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in about["model"].items()
    }
    model = DiT(DiTConfig(**plain))
    try:
        weights = tensors_from(storage.read_bytes(f"{root}/model.safetensors"))
        model.load_state_dict({"known_in.weight": model.known_in.weight, **weights})
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"the weights in {folder} are damaged or of another size: {error}; train again") from error
    return model.eval().requires_grad_(False), about
