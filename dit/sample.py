"""Generate a clip: `rushes dit sample RUN/dit/model --tokenizer RUN/tokenizer/model --prompt TEXT --out clip.mp4`.

Noise becomes latents along the learned flow; the tokenizer's decoder, segment by segment, makes frames of them. A clip
longer than those of training is made in windows, each of which knows the last segments of the one before.
"""

from __future__ import annotations

import itertools
import logging
import math
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rushes.dit import causal, flow, known, words
from rushes.dit.cache import StepCache
from rushes.dit.config import SampleConfig
from rushes.dit.data import facts_of, latents_told, require_same
from rushes.dit.known import Piece
from rushes.dit.layout import Plan, Window, plan, windows
from rushes.dit.model import Condition, DiT, grid, load, patchify, unpatchify
from rushes.dit.sources import Given, encoded, given
from rushes.dit.text import TextEncoder
from rushes.pipelines.colour.picture import Screen, tag
from rushes.pipelines.store import storage
from rushes.tokenizer import codec as codecs
from rushes.tokenizer.codec import AnyTokenizer
from rushes.tokenizer.config import Tell, silent

log = logging.getLogger(__name__)
NOTHING = Given()


class Maker(Protocol):
    """What makes windows of a clip."""

    def generate(self, planned: Plan, pieces: Sequence[Piece | None]) -> Float[Tensor, "l c h w"]:
        """Return the latents of a window, of which those of some segments are known."""


def sample(config: SampleConfig, model: str, tokenizer: str, out: str, tell: Tell = silent) -> Plan:
    """Generate one clip, write it as an mp4 that plays, and return what was planned; see `Sampler`."""
    return Sampler(model, tokenizer, config.device).write(config, out, tell)


class Sampler:
    """A model with its tokenizer and text encoder, loaded once for any number of clips."""

    def __init__(self, model: str, tokenizer: str, device: str = "auto"):
        """Load what generates.

        Args:
            model: Folder of a trained model (`train` returns it).
            tokenizer: Name of the tokenizer whose latents it was trained on, see `tokenizer.codec`.
            device: auto, cpu or cuda.

        Raises:
            ValueError: the tokenizer is another one, or there is no GPU.
        """
        found = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
        if device == "cuda" and found.type != "cuda":
            raise ValueError("device='cuda', but torch sees no GPU; use device='auto'")
        dit, self.about = load(model)
        codec = codecs.load(tokenizer)
        trained = self.about.get("tokenizer_name", codecs.OURS), str(self.about["tokenizer"])
        require_same(model, trained, (codecs.name_of(codec), codecs.fingerprint(codec)), f"{tokenizer} is")
        self.dit, self.codec, self.text = dit.to(found), codec.to(found), TextEncoder(dit.config, found)

    def write(self, config: SampleConfig, out: str, tell: Tell = silent) -> Plan:
        """Generate one clip, write it as an mp4 that plays, and return what was planned.

        Args:
            config: What is asked for and what is given, size, sampler and seed.
            out: The mp4 to write, local or in an object store.
            tell: Told of each look of the network, then of each frame.

        Raises:
            ValueError: a rate or fact is unknown, the size is odd, a budget cannot be met, a prompt is too long, or
                what is given does not go together or with the model.
        """
        what = given(config)
        config = resolved(config, self.about, what)
        what.require(config)
        planned = plan(config, self.codec, self.dit.config.patch, what)
        wanted = condition(config, self.dit, self.text)
        taken = encoded(what, self.codec, planned.lengths, planned.rates, planned.known)
        free, maker = self._maker(planned, wanted, config, tell)
        pieces = continued(planned, free, taken, maker, what.box)
        write_mp4(_told(frames_of(self.codec, pieces, planned), planned, tell), planned, out)
        return planned

    def _maker(self, planned: Plan, wanted: Condition, config: SampleConfig, tell: Tell) -> tuple[list[Window], Maker]:
        """Return the windows of a clip, and what makes them: a causal student has a segment in each."""
        if causal.is_causal(self.about):
            free = causal.windows(planned, self._window_s(config))
            return free, causal.Stream(self.dit, wanted, config.seed, self.about["student"]["levels"], tell, len(free))
        free = windows(planned, self._window_s(config), config.overlap)
        return free, Guided(self.dit, wanted, config, tell, len(free))

    def _window_s(self, config: SampleConfig) -> float:
        """Return the seconds that are generated at once: all, by a model that cannot go on from what is known."""
        if config.window or not self.about.get("known"):
            return config.window or math.inf
        least = (config.overlap + 2) * self.codec.config.segment / config.fps  # where training saw single segments
        return max(self.about.get("longest_s", math.inf), least)


def continued(
    planned: Plan,
    free: list[Window],
    taken: Iterator[Float[Tensor, "n c h w"] | None],
    maker: Maker,
    box: known.Box | None = None,
) -> Iterator[Float[Tensor, "n c h w"]]:
    """Yield the latents of each segment, those that are given and those that are generated, window by window.

    Args:
        planned: The clip.
        free: Its windows, see `layout.windows` and `causal.windows`.
        taken: Latents of each segment that is given; None for others.
        maker: What generates.
        box: The part of the picture in which even of a given segment nothing is known.
    """
    whole = torch.ones(planned.grid, dtype=torch.bool)
    mask = known.around(box, *planned.grid) if box else whole
    done: deque[Piece] = deque(maxlen=max(last - first for first, _, last in free))
    for z in islice(taken, free[0][1]):  # given at the beginning
        assert z is not None
        done.append(Piece(z=z, mask=whole))
        yield z
    for first, new, last in free:
        ahead = [Piece(z=z, mask=mask) if z is not None else None for z in islice(taken, last - new)]
        behind = list(done)[len(done) - (new - first) :]
        part = planned.part(first, last)
        found = maker.generate(part, [*behind, *ahead]).split(list(part.counts))
        for z in found[new - first :]:
            done.append(Piece(z=z, mask=whole))
            yield z


def resolved(config: SampleConfig, about: dict[str, Any], what: Given = NOTHING) -> SampleConfig:
    """Return the config with what was commonest in training where it asks for nothing; a clip brings its frame rate.

    Raises ValueError where training told nothing, or where something is given to a model that was never given any.
    """
    typical, fps = about["typical"], config.fps or what.fps
    student = about.get("student")
    if student:
        causal.require(config, student)
    asked = {"fps": fps, "height": config.height, "width": config.width}
    missing = [name for name, value in asked.items() if not value and name not in typical]
    if missing:
        raise ValueError(f"the training latents did not tell their {', '.join(missing)}; set what you want")
    if what.sources and student and not about.get("known"):
        raise ValueError(f"{what} is given, but a reflowed student takes none; sample its teacher, or a causal student")
    if what.sources and not about.get("known"):
        raise ValueError(
            f"{what} is given, but the model was trained without known latents; train one with --known above 0"
        )
    if what.head and what.head.is_picture and not about.get("pictures"):
        log.warning(
            "the model has seen no clip that begins with a picture; make latents with --pictures 0.1 and train on them"
        )
    if config.prompt and not about["captioned"]:
        log.warning("the model was trained without captions; the prompt will do nothing")
    return replace(
        config,
        steps=config.steps or (len(student["levels"]) if student else 30),
        guidance=(1.0 if student else 3.0) if config.guidance is None else config.guidance,
        shift=max(config.shift, student["shift"]) if student else config.shift,
        facts=_facts(config),
        rate=config.rate if config.rate or config.rates or config.budget else int(typical["rate"]),
        fps=fps or typical["fps"],
        height=config.height or 2 * round(typical["height"] / 2),
        width=config.width or 2 * round(typical["width"] / 2),
    )


def _facts(config: SampleConfig) -> dict[str, float]:
    """Return the facts that are asked for by number and by words. Raises ValueError where both tell of the same."""
    said = words.camera(config.camera)
    twice = sorted(set(said) & set(config.facts))
    if twice:
        raise ValueError(f"camera={config.camera!r} and facts both ask for {', '.join(twice)}; give one of them")
    return config.facts | said


def condition(config: SampleConfig, dit: DiT, text: TextEncoder) -> Condition:
    """Return the prompt and the facts as the network takes them.

    Raises ValueError for facts that it never saw, a prompt that is too long, and a guide by what is not asked for.
    """
    known_facts = dit.config.facts
    unknown = sorted(set(config.facts) - set(known_facts))
    if unknown:
        raise ValueError(f"facts {', '.join(unknown)} are unknown to this model; it knows {', '.join(known_facts)}")
    asked = {*({"fps"} & set(known_facts)), *config.facts, *(["prompt"] if config.prompt else [])}
    vain = sorted(set(config.guide) - asked)
    if vain:
        raise ValueError(f"guide {', '.join(vain)}: not asked for; this clip is asked for {', '.join(sorted(asked))}")
    text.require_room(config.prompt)
    tokens, lengths, pooled = text([config.prompt])
    facts = facts_of([{"fps": config.fps, **config.facts}], known_facts)
    return Condition(words=tokens, word_lengths=lengths, pooled=pooled, facts=facts.to(dit.device))


class Guided:
    """Latents drawn from the model under one condition; equal seeds give equal latents, whatever the device."""

    def __init__(self, dit: DiT, wanted: Condition, config: SampleConfig, tell: Tell, times: int):
        """Take what is asked for; `tell` is told of looks of the network, of all that `times` windows take."""
        assert config.guidance is not None and config.steps  # see `resolved`
        self.dit, self.config, self.tell, self.guidance = dit, config, tell, config.guidance
        self.dice = torch.Generator().manual_seed(config.seed)
        self.looks, self.total = itertools.count(1), times * flow.looks(config.sampler, config.steps)
        self.guiding = self.guidance != 1 and bool(config.prompt or config.facts)
        self.conditions = [wanted, *([wanted.dropped([True])] if self.guiding else [])]
        self.guides = [(name, scale) for name, scale in config.guide.items() if scale != 1]
        self.conditions += [self._without(wanted, name) for name, _ in self.guides]

    def _without(self, wanted: Condition, name: str) -> Condition:
        if name == "prompt":
            return wanted.without_captions([True])
        return wanted.without_facts(
            torch.tensor([[name == one for one in self.dit.config.facts]], device=self.dit.device)
        )

    @torch.no_grad()
    def generate(self, planned: Plan, pieces: Sequence[Piece | None]) -> Float[Tensor, "l c h w"]:
        """Return the latents of one window; tokens that are known of its segments come back as they were."""
        (h, w), p, dit = planned.cells, self.dit.config.patch, self.dit
        positions = grid(planned.times_s, p, h, w).to(dit.device)
        told = latents_told(planned.rates, planned.counts)
        rates, orders = told.repeat_interleave(len(positions) // len(told), dim=0).to(dit.device).unbind(dim=1)
        noise = torch.randn(len(positions), dit.config.token_width, generator=self.dice).to(dit.device)
        clean, mask = self._known(planned, pieces)
        clips = len(self.conditions)
        each = [replace(one, known=mask) for one in self.conditions]
        wanted = reduce(Condition.joined, each)
        lengths, cache = [len(noise)] * clips, StepCache(self.config.cache) if self.config.cache else None
        where = (positions.repeat(clips, 1), rates.repeat(clips), orders.repeat(clips), lengths)

        def velocity(x: Tensor, t: float) -> Tensor:
            when = torch.full((clips,), t, device=x.device)
            found = self._pushed(dit(x.repeat(clips, 1), *where, when, wanted, cache).chunk(clips))
            self.tell(next(self.looks), self.total, "looks of the network", {})
            return found if mask is None else found.masked_fill(mask[:, None], 0.0)

        shift = float(flow.shifts([len(noise)], dit.config.shift_tokens, self.config.shift))
        schedule = self.config.schedule
        start = noise if mask is None else torch.where(mask[:, None], dit.normalise(clean), noise)
        data = dit.denormalise(flow.SAMPLERS[self.config.sampler](velocity, start, self.config.steps, shift, schedule))
        if cache:
            log.info("cache     the blocks were asked in %d of %d steps", cache.computed, cache.asked)
        return unpatchify(data if mask is None else torch.where(mask[:, None], clean, data), p, h, w)

    def _known(
        self, planned: Plan, pieces: Sequence[Piece | None]
    ) -> tuple[Float[Tensor, "n token"], Bool[Tensor, " n"] | None]:
        """Return the tokens of the segments that are known, zeros elsewhere, and which they are; None for none."""
        shape = self.dit.config.in_channels, *planned.cells
        nothing = torch.zeros(planned.grid, dtype=torch.bool)
        found = [
            one or Piece(z=torch.zeros(n, *shape), mask=nothing) for one, n in zip(pieces, planned.counts, strict=True)
        ]
        mask = torch.cat([one.mask.expand(len(one.z), -1, -1) for one in found]).flatten() if any(pieces) else None
        device, p = self.dit.device, self.dit.config.patch
        clean = torch.cat([patchify(one.z.to(device), p) for one in found])
        return clean, None if mask is None else mask.to(device)

    def _pushed(self, found: Sequence[Tensor]) -> Tensor:
        """Return the velocity guided by all conditions together, then by single ones. arXiv 2207.12598, 2211.09800."""
        full = found[0]
        velocity = flow.guided(full, found[1], self.guidance) if self.guiding else full
        for (_, scale), without in zip(self.guides, found[1 + self.guiding :], strict=True):
            velocity = velocity + flow.guided(full, without, scale) - full
        return velocity


@torch.no_grad()
def frames_of(codec: AnyTokenizer, pieces: Iterable[Float[Tensor, "n c h w"]], planned: Plan) -> Iterator[np.ndarray]:
    """Yield RGB frames as uint8 [h, w, 3], a segment at a time, so that memory does not grow with the clip."""
    videos = codecs.stream_decode(codec, zip((z[None] for z in pieces), planned.rates, strict=True))
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
    # Equal frames give equal bytes: where 16 does not divide a side, x264's macroblock tree looks at what nobody wrote.
    settings = {"crf": "18", "x264-params": "mbtree=0"}
    stream = container.add_stream("libx264", rate=rate, options=settings)
    stream.width, stream.height, stream.pix_fmt = planned.width, planned.height, "yuv420p"
    stream.thread_count = 1
    tag(stream.codec_context)
    screen = Screen()
    for rgb in frames:
        container.mux(stream.encode(screen.frame(rgb)))
    container.mux(stream.encode())
