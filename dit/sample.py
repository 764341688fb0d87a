"""Generate a clip: `rushes dit sample RUN/dit/model --tokenizer RUN/tokenizer/model --prompt TEXT --out clip.mp4`.

Noise becomes latents along the learned flow; the tokenizer's decoder, segment by segment, makes frames of them.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rushes.dit import flow
from rushes.dit.cache import StepCache
from rushes.dit.config import SampleConfig
from rushes.dit.data import facts_of, latents_told, require_same
from rushes.dit.model import Condition, DiT, grid, load, unpatchify
from rushes.dit.text import TextEncoder
from rushes.pipelines.colour.picture import Screen, tag
from rushes.pipelines.store import storage
from rushes.tokenizer import codec as codecs
from rushes.tokenizer.codec import AnyTokenizer
from rushes.tokenizer.config import Tell, silent
from rushes.tokenizer.model import counts
from rushes.tokenizer.rates import latent_times

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The latents of the clip to be: how many, how large, when."""

    lengths: tuple[int, ...]
    """Frames of each segment."""
    height: int
    width: int
    fps: float
    rates: tuple[int, ...]
    """Frames per latent of each segment."""
    counts: tuple[int, ...]
    """Latents of each segment."""
    cells: tuple[int, int]
    """Latent cells in height and width."""

    @property
    def times_s(self) -> Float[Tensor, " l"]:
        """The time of each latent, as the tokenizer counts it."""
        frames_s = [frame / self.fps for frame in range(sum(self.lengths))]
        return torch.tensor(latent_times(frames_s, self.rates, self.lengths))


def sample(config: SampleConfig, model: str, tokenizer: str, out: str, tell: Tell = silent) -> Plan:
    """Generate one clip, write it as an mp4 that plays, and return what was planned.

    Args:
        config: Prompt, facts, size, sampler and seed.
        model: Folder of a trained model (`train` returns it).
        tokenizer: Name of the tokenizer whose latents it was trained on, see `tokenizer.codec`.
        out: The mp4 to write, local or in an object store.
        tell: Told of each look of the network, then of each frame.

    Raises:
        ValueError: the tokenizer is another one, a rate or fact is unknown to the model, or the size is odd.
    """
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    if config.device == "cuda" and device.type != "cuda":
        raise ValueError("device='cuda', but torch sees no GPU; use device='auto'")
    dit, about = load(model)
    codec = codecs.load(tokenizer)
    trained = about.get("tokenizer_name", codecs.OURS), str(about["tokenizer"])
    require_same(model, trained, (codecs.name_of(codec), codecs.fingerprint(codec)), f"{tokenizer} is")
    dit, codec = dit.to(device), codec.to(device)
    config = resolved(config, about)
    planned = plan(config, codec)
    latents = generate(dit, planned, condition(config, dit, TextEncoder(dit.config, device)), config, tell)
    write_mp4(_told(frames_of(codec, latents, planned), planned, tell), planned, out)
    return planned


def resolved(config: SampleConfig, about: dict[str, Any]) -> SampleConfig:
    """Return the config with what was commonest in training where it asks for nothing."""
    typical = about["typical"]
    missing = [name for name in ("fps", "height", "width") if not getattr(config, name) and name not in typical]
    if missing:
        raise ValueError(f"the training latents did not tell their {', '.join(missing)}; set what you want")
    if config.prompt and not about["captioned"]:
        log.warning("the model was trained without captions; the prompt will do nothing")
    return replace(
        config,
        rate=config.rate or int(typical["rate"]),
        fps=config.fps or typical["fps"],
        height=config.height or 2 * round(typical["height"] / 2),
        width=config.width or 2 * round(typical["width"] / 2),
    )


def plan(config: SampleConfig, tokenizer: AnyTokenizer) -> Plan:
    """Return the latents that a clip of this length and size takes. Raises ValueError for odd sides, unknown rates."""
    if config.height % 2 or config.width % 2:
        raise ValueError(f"{config.width}×{config.height} must have even sides, which video codecs want")
    frames = max(1, round(config.seconds * config.fps))
    lengths = codecs.lengths_of(tokenizer, frames)
    rates = tokenizer.rates_of(lengths, config.rate)
    return Plan(
        lengths=lengths,
        height=config.height,
        width=config.width,
        fps=config.fps,
        rates=rates,
        counts=tuple(counts(lengths, rates)),
        cells=tokenizer.config.cells(config.height, config.width),
    )


def condition(config: SampleConfig, dit: DiT, text: TextEncoder) -> Condition:
    """Return the prompt and the facts as the network takes them. Raises ValueError for facts that it never saw."""
    known = dit.config.facts
    unknown = sorted(set(config.facts) - set(known))
    if unknown:
        raise ValueError(f"facts {', '.join(unknown)} are unknown to this model; it knows {', '.join(known)}")
    words, lengths, pooled = text([config.prompt])
    facts = facts_of([{"fps": config.fps, **config.facts}], known)
    return Condition(words=words, word_lengths=lengths, pooled=pooled, facts=facts.to(dit.device))


@torch.no_grad()
def generate(
    dit: DiT, planned: Plan, wanted: Condition, config: SampleConfig, tell: Tell = silent
) -> Float[Tensor, "l c h w"]:
    """Return latents drawn from the model; equal seeds give equal latents, whatever the device."""
    h, w = planned.cells
    p = dit.config.patch
    positions = grid(planned.times_s, p, h, w).to(dit.device)
    told = latents_told(planned.rates, planned.counts)
    rates, orders = told.repeat_interleave(len(positions) // len(told), dim=0).to(dit.device).unbind(dim=1)
    generator = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(len(positions), dit.config.token_width, generator=generator).to(dit.device)
    guiding = config.guidance != 1 and bool(config.prompt or config.facts)
    both = wanted.joined(wanted.dropped([True])) if guiding else wanted
    clips = 2 if guiding else 1
    looks, total = itertools.count(1), flow.looks(config.sampler, config.steps)
    cache = StepCache(config.cache) if config.cache else None

    def velocity(x: Tensor, t: float) -> Tensor:
        lengths, when = [len(x)] * clips, torch.full((clips,), t, device=x.device)
        where = (positions.repeat(clips, 1), rates.repeat(clips), orders.repeat(clips), lengths)
        found = dit(x.repeat(clips, 1), *where, when, both, cache).chunk(clips)
        tell(next(looks), total, "looks of the network", {})
        return flow.guided(found[0], found[1], config.guidance) if guiding else found[0]

    shift = float(flow.shifts([len(noise)], dit.config.shift_tokens, config.shift))
    data = flow.SAMPLERS[config.sampler](velocity, noise, config.steps, shift)
    if cache:
        log.info("cache     the blocks were asked in %d of %d steps", cache.computed, cache.asked)
    return unpatchify(dit.denormalise(data), p, h, w)


@torch.no_grad()
def frames_of(codec: AnyTokenizer, latents: Float[Tensor, "l c h w"], planned: Plan) -> Iterator[np.ndarray]:
    """Yield RGB frames as uint8 [h, w, 3], a segment at a time, so that memory does not grow with the clip."""
    pieces = latents[None].split(list(planned.counts), dim=1)
    videos = codecs.stream_decode(codec, zip(pieces, planned.rates, strict=True))
    for video, length in zip(videos, planned.lengths, strict=True):
        shown = video[0, :, :length, : planned.height, : planned.width]
        yield from ((shown.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).cpu().numpy()


def _told(frames: Iterable[np.ndarray], planned: Plan, tell: Tell) -> Iterator[np.ndarray]:
    """Yield frames and tell of each."""
    for number, frame in enumerate(frames, start=1):
        yield frame
        tell(number, sum(planned.lengths), "frames", {})


def write_mp4(frames: Iterable[np.ndarray], planned: Plan, out: str) -> None:
    """Write frames as H.264 in 4:2:0 with BT.709 colours, which every player shows."""
    with tempfile.TemporaryDirectory() as folder:  # moving the index to the front reads the file again, by its name
        path = Path(folder) / "clip.mp4"
        with av.open(str(path), "w", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
            _encode(container, frames, planned)
        storage.write_bytes(out, path.read_bytes())


def _encode(container: Any, frames: Iterable[np.ndarray], planned: Plan) -> None:
    rate = Fraction(planned.fps).limit_denominator(1001)
    stream = container.add_stream("libx264", rate=rate, options={"crf": "18"})
    stream.width, stream.height, stream.pix_fmt = planned.width, planned.height, "yuv420p"
    stream.thread_count = 1  # equal frames give equal bytes
    tag(stream.codec_context)
    screen = Screen()
    for rgb in frames:
        container.mux(stream.encode(screen.frame(rgb)))
    container.mux(stream.encode())
