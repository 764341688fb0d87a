"""Claims that minutes on a CPU can prove, on shapes whose movement is known: `rushes dit toy --claim conditions`.

A disc of one of four colours moves in one of four directions. A fixed linear code stands in for the tokenizer, the mean
of a latent's frames, so that no other training stands between a claim and its figure; rates, times, captions and facts
are those of real latents. Every clip is drawn anew: none is seen twice. One core takes 1 to 3 minutes for a claim.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rushes.dit import flow
from rushes.dit import known as known_tokens
from rushes.dit.cache import StepCache
from rushes.dit.config import DiTConfig, SampleConfig, ToyConfig, TrainConfig
from rushes.dit.data import LatentClip, Packed, pack
from rushes.dit.layout import Plan, windows
from rushes.dit.model import Condition, DiT, unpatchify
from rushes.dit.module import thinned
from rushes.dit.optimizer import adamw
from rushes.dit.plan import Ticket
from rushes.dit.sample import Guided, continued
from rushes.dit.text import TextEncoder
from rushes.tokenizer.config import Tell, silent
from rushes.tokenizer.plots import Line, chart
from rushes.tokenizer.rates import latent_times

FRAMES, SIDE, SEGMENTS = 16, 8, 2  # frames of a segment, pixels of a side, segments of a clip
COLOURS = {"red": (1.0, -0.5, -0.5), "green": (-0.5, 1.0, -0.5), "blue": (-0.5, -0.5, 1.0), "yellow": (1.0, 1.0, -0.5)}
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}  # x, y
GROUND, RADIUS, EDGE = -1.0, 1.6, 0.25  # brightness of the background; of the disc, in pixels
NETWORK = DiTConfig(size="pico", in_channels=3, facts=("fps", "pan", "tilt"))
MIXED = replace(NETWORK, in_channels=2)
BATCH, HELD = 16, 256  # clips of a step, and of what is measured
LR, SHIFT = 3e-3, 8.0  # the best denoiser of these clips needs conditions above t = 0.8 alone: where they are learned
PICTURE_RATE, NEAR = 2, 2.0  # rate that a picture is told with; pixels: half the way comes to 1.1
RATES, ASKED = (8, 16), (8, 16)  # rates that segments may have; those of the clips that are asked for


@dataclass(frozen=True)
class Figure:
    """One number of a claim."""

    name: str
    found: float
    expected: str
    met: bool


@dataclass(frozen=True)
class Shape:
    """A disc and its movement."""

    colour: str
    direction: str
    speed: float
    """Sides of the picture in a second, as the facts `pan` and `tilt` count."""
    middle: tuple[float, float]
    """Where it is half-way through the clip, x and y in pixels."""
    around: bool = False
    """Whether what leaves the picture on one side comes in on the other."""


def shape(dice: random.Random) -> Shape:
    """Return a random disc that crosses the middle of the picture, give or take a pixel, and stays in it for 2 s."""
    colour, direction = dice.choice(list(COLOURS)), dice.choice(list(DIRECTIONS))
    speed = dice.uniform(0.25, 0.3)
    room = speed * SIDE + RADIUS
    along, across = dice.uniform(room, SIDE - room), SIDE / 2 + dice.uniform(-1, 1)
    return Shape(colour, direction, speed, (along, across) if DIRECTIONS[direction][0] else (across, along))


def anywhere(dice: random.Random) -> Shape:
    """Return a random disc that may be anywhere and goes around the picture, by about a token in a latent at rate 8."""
    middle = dice.uniform(0, SIDE), dice.uniform(0, SIDE)
    return replace(shape(dice), speed=dice.uniform(0.45, 0.55), middle=middle, around=True)


def film(one: Shape, fps: float, frames_: int = SEGMENTS * FRAMES) -> Float[Tensor, "t 3 h w"]:
    """Return its frames, with colours from -1 to 1."""
    frames = torch.arange(frames_)
    way = one.speed * SIDE * (frames - frames[-1] / 2) / fps
    places = torch.tensor(one.middle) + way[:, None] * torch.tensor(DIRECTIONS[one.direction])  # t 2
    centres = torch.arange(SIDE) + 0.5
    x, y = centres - places[:, :1], centres - places[:, 1:]
    if one.around:
        x, y = _wrapped(x), _wrapped(y)
    cover = torch.sigmoid((RADIUS - torch.hypot(x[:, None, :], y[:, :, None])) / EDGE)[:, None]  # t 1 h w
    return GROUND + cover * (torch.tensor(COLOURS[one.colour])[:, None, None] - GROUND)


def encode(video: Float[Tensor, "t 3 h w"], rates: tuple[int, ...], lone: bool = False) -> Float[Tensor, "l 3 h w"]:
    """Return latents: means of the frames that each stands for; with `lone` the first is a frame by itself."""
    pairs = zip(video[lone:].split(FRAMES), rates[lone:], strict=True)
    return torch.cat([video[:lone], *(segment.unflatten(0, (-1, rate)).mean(dim=1) for segment, rate in pairs)])


def decode(latents: Float[Tensor, "l 3 h w"], rates: tuple[int, ...]) -> Float[Tensor, "t 3 h w"]:
    """Return frames that stand as long as their latent lasts."""
    return latents.repeat_interleave(torch.tensor([rate for rate in rates for _ in range(FRAMES // rate)]), dim=0)


def clip(one: Shape, rates: tuple[int, ...], fps: float = 16.0, lone: bool = False) -> LatentClip:
    """Return the latents of its film, its caption and its facts, as `rushes latents` would leave them.

    With `lone` the first segment is a frame by itself.
    """
    frames = [1] * lone + [FRAMES] * (len(rates) - lone)
    counts = tuple(-(-length // rate) for length, rate in zip(frames, rates, strict=True))
    x, y = (one.speed * step for step in DIRECTIONS[one.direction])
    return LatentClip(
        key=f"{one}",
        latents=encode(film(one, fps, sum(frames)), rates, lone),
        times_s=torch.tensor(latent_times([at / fps for at in range(sum(frames))], rates, frames)),
        rates=rates,
        counts=counts,
        caption=f"a {one.colour} ball moves {one.direction}",
        facts={"fps": fps, "pan": x, "tilt": y, "frames": sum(frames)},
    )


def seen(video: Float[Tensor, "t 3 h w"]) -> tuple[str, str]:
    """Return the colour and the direction of what moves in a film: of its centre in the first and last quarter."""
    mass = ((video - GROUND).abs().sum(dim=1) - 0.6).clamp(min=0)  # t h w
    mean = (video * mass[:, None]).sum(dim=(0, 2, 3)) / mass.sum().clamp(min=1e-6)
    colour = min(COLOURS, key=lambda name: float((torch.tensor(COLOURS[name]) - mean).square().sum()))
    places = torch.stack([_centre(part) for part in mass.split(len(mass) // 4)])
    way = _wrapped(places.diff(dim=0)).sum(dim=0)
    return colour, max(DIRECTIONS, key=lambda name: float((torch.tensor(DIRECTIONS[name]) * way).sum()))


def _centre(mass: Float[Tensor, "t h w"]) -> Float[Tensor, 2]:
    """Return x and y of the centre of a mass in a picture whose sides meet: the mean direction of angles."""
    turns = 2 * torch.pi * (torch.arange(SIDE) + 0.5) / SIDE
    sums = torch.stack([mass.sum(dim=(0, 1)), mass.sum(dim=(0, 2))])  # x and y
    return torch.atan2((sums * turns.sin()).sum(dim=1), (sums * turns.cos()).sum(dim=1)) * SIDE / (2 * torch.pi)


def _wrapped(apart: Tensor) -> Tensor:
    """Return distances in pixels as the shorter way around the picture."""
    return (apart + SIDE / 2) % SIDE - SIDE / 2


Batches = Callable[[random.Random, int], tuple[Packed, Condition]]


def fit(
    net: DiT,
    batches: Batches,
    steps: int,
    seed: int,
    tell: Tell,
    shift: float = SHIFT,
    clips: int = BATCH,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Train a network by the flow loss, by AdamW where no optimizer is given."""
    generator, dice = torch.Generator().manual_seed(seed), random.Random(seed)
    optimizer = optimizer or adamw(net, LR, weight_decay=0.01)
    peaks = [group["lr"] for group in optimizer.param_groups]
    for step in range(steps):
        batch, known = batches(dice, clips)
        t = flow.logit_normal_times(torch.randn(clips, generator=generator), shift)
        uniforms = torch.rand(clips, 5 + known.facts.shape[1], generator=generator)
        t = flow.with_uniform(t, uniforms[:, -1], TrainConfig.uniform)
        error = loss(net, batch, t, thinned(known, 0.1, uniforms[:, :-1]), generator)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * min(1.0, (step + 1) / 50, (steps - step) / (0.4 * steps))
        optimizer.zero_grad()
        error.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        tell(step + 1, steps, "steps", {"loss": float(error.detach())})


def scaled(batch: Packed) -> DiT:
    """Return a fresh network with the scale of a batch's latents and facts."""
    net = DiT(NETWORK)
    values = rearrange(batch.tokens, "n (c k) -> c (n k)", c=net.config.in_channels)
    net.latent_mean.copy_(values.mean(dim=1))
    net.latent_std.copy_(values.std(dim=1).clamp(min=1e-3))
    spread = batch.facts.std(dim=0)
    net.fact_mean.copy_(batch.facts.mean(dim=0))
    net.fact_std.copy_(torch.where(spread > 1e-6, spread, 1.0))
    return net


def loss(net: DiT, batch: Packed, t: Tensor, known: Condition, generator: torch.Generator) -> Float[Tensor, ""]:
    """Return the flow loss of a batch at given times."""
    data = net.normalise(batch.tokens)
    noise = torch.randn(data.shape, generator=generator)
    each = known.where_unknown(torch.repeat_interleave(t, torch.tensor(batch.lengths)))[:, None]
    told = (batch.positions, batch.rates, batch.orders, batch.lengths)
    velocity = net(flow.mix(data, noise, each), *told, t, known)
    return flow.loss(velocity, data, noise, known.where_unknown(batch.seconds))


@torch.no_grad()
def draw(
    net: DiT,
    like: Packed,
    known: Condition,
    guidance: float,
    seed: int,
    steps: int = 20,
    cache: StepCache | None = None,
) -> list[Tensor]:
    """Return the tokens of clips generated under conditions, as long and as placed as those of a batch."""
    clips, noise = len(like.lengths), torch.randn(like.tokens.shape, generator=torch.Generator().manual_seed(seed))
    both = known.joined(known.dropped([True] * clips))
    told = (like.positions.repeat(2, 1), like.rates.repeat(2), like.orders.repeat(2), like.lengths * 2)

    def velocity(x: Tensor, t: float) -> Tensor:
        wanted, free = net(x.repeat(2, 1), *told, torch.full((2 * clips,), t), both, cache).chunk(2)
        return flow.guided(wanted, free, guidance)

    return list(net.denormalise(flow.euler(velocity, noise, steps, SHIFT)).split(like.lengths))


class Shapes:
    """Batches of clips with one pair of rates, captioned and measured."""

    def __init__(self, rates: tuple[int, ...], fps: tuple[float, ...] = (16.0,)):
        self.rates, self.fps, self.text = rates, fps, TextEncoder(NETWORK)

    def __call__(self, dice: random.Random, count: int) -> tuple[Packed, Condition]:
        """Return clips and all that is known of them."""
        rates, fps = tuple(dice.choices(self.rates, k=SEGMENTS)), dice.choice(self.fps)
        return self.known([clip(shape(dice), rates, fps) for _ in range(count)])

    def known(self, clips: list[LatentClip]) -> tuple[Packed, Condition]:
        """Return these clips and all that is known of them."""
        batch = pack(clips, NETWORK)
        words, lengths, pooled = self.text(batch.captions)
        return batch, Condition(words=words, word_lengths=lengths, pooled=pooled, facts=batch.facts)


def conditions(config: ToyConfig, tell: Tell) -> tuple[list[Figure], bytes]:
    """Colour and direction come as the prompt asks, direction by camera facts alone, and wrong facts cost."""
    torch.manual_seed(config.seed)
    batches = Shapes(RATES)
    net = scaled(batches(random.Random("scale"), HELD)[0])
    fit(net, batches, config.steps or 1000, config.seed, tell)
    films, right = answered(net, batches, config.seed)
    figures = [
        _at_least("colour as the prompt asks", float(right["prompt"][0]), 0.95),
        _at_least("direction as the prompt asks", float(right["prompt"][1]), 0.95),
        _at_least("direction by pan and tilt alone", float(right["facts"][1]), 0.95),
        _at_least("loss with others' facts by loss with one's own, t = 0.9", _cost(net, batches, config.seed), 1.1),
    ]
    return figures, strips([*films["prompt"][:16], *films["facts"][:4]])


def answered(net: DiT, batches: Shapes, seed: int) -> tuple[dict[str, list[Tensor]], dict[str, np.ndarray]]:
    """Return 96 films asked for by prompt, 96 by facts alone, and of each which colours and directions are right."""
    asked = [(colour, direction) for colour in COLOURS for direction in DIRECTIONS] * 6
    like = [clip(Shape(*one, 0.25, (SIDE / 2, SIDE / 2)), ASKED, 16.0) for one in asked]
    (batch, known), wordless = batches.known(like), [True] * len(like)
    only_fps = torch.tensor([[False, True, True]]).expand_as(known.facts)
    ways = {"prompt": known.without_facts(only_fps), "facts": known.without_captions(wordless)}
    films, right = {}, {}
    for name, way in ways.items():
        tokens = draw(net, batch, way, guidance=2.0, seed=seed)
        films[name] = [decode(unpatchify(one, NETWORK.patch, SIDE, SIDE), ASKED) for one in tokens]
        answers = zip([seen(video) for video in films[name]], asked, strict=True)
        right[name] = np.mean([np.equal(found, wanted) for found, wanted in answers], axis=0)
    return films, right


def _at_least(name: str, found: float, limit: float) -> Figure:
    return Figure(name, found, f"at least {limit:g}", found >= limit)


@torch.no_grad()
def _cost(net: DiT, batches: Shapes, seed: int) -> float:
    batch, known = batches(random.Random(f"held {seed}"), HELD)
    own = known.without_captions([True] * HELD)
    others = replace(own, facts=own.facts.roll(1, dims=0))
    t = torch.full((HELD,), 0.9)
    wrong, right = (float(loss(net, batch, t, one, torch.Generator().manual_seed(seed))) for one in (others, own))
    return wrong / right


def strips(films: list[Float[Tensor, "t 3 h w"]]) -> bytes:
    """Return a PNG: a film a row, every fourth frame, each pixel as eight by eight, with lines between."""
    rows = [rearrange(F.pad(video[::4], (0, 1, 0, 1)), "t k h w -> h (t w) k") for video in films]
    pixels = ((torch.cat(rows).clamp(-1, 1) + 1) * 127.5).byte().numpy().repeat(8, axis=0).repeat(8, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def positions(config: ToyConfig, tell: Tell) -> tuple[list[Figure], bytes]:
    """Positions in seconds and rates teach more than the indices of latents do, where frame rates and rates vary."""
    shapes = Shapes(RATES, (16.0, 32.0, 64.0))
    lines: dict[str, list[tuple[float, float]]] = {"seconds and rates": [], "indices": []}
    for seed in range(config.seed, config.seed + 5):
        for name, points in lines.items():
            told = shapes if name != "indices" else _Indexed(shapes)
            torch.manual_seed(seed)
            net = scaled(told(random.Random("scale"), HELD)[0])
            fit(net, told, config.steps or 250, seed, tell)
            points.append((float(seed), _held(net, told)))
    gains = [one[1] < two[1] for one, two in zip(*lines.values(), strict=True)]
    drawn = [Line(name, points, marks=True) for name, points in lines.items()]
    picture = chart(drawn, "Held-out loss", "seed", "flow loss")
    return [_at_least("seeds in which seconds and rates have the lower held-out loss", sum(gains), 5)], picture.encode()


@torch.no_grad()
def _held(net: DiT, batches: Batches) -> float:
    """Return the loss on clips never seen, of sixteen pairs of rates and frame rates, the same for every network."""
    dice, generator, found = random.Random("held"), torch.Generator().manual_seed(0), []
    for _ in range(16):
        batch, known = batches(dice, BATCH)
        found.append(float(loss(net, batch, torch.linspace(0.1, 0.9, BATCH), known, generator)))
    return sum(found) / len(found)


class _Indexed:
    """Batches whose latents are told by their number alone."""

    def __init__(self, batches: Shapes):
        self.batches = batches

    def __call__(self, dice: random.Random, count: int) -> tuple[Packed, Condition]:
        batch, known = self.batches(dice, count)
        numbers, same = batch.times_s.unique(return_inverse=True)[1], torch.ones_like(batch.rates)
        return replace(batch, times_s=numbers / 4, rates=same, orders=same), known  # 4 latents a second


class Mixture:
    """Clips of two tokens, drawn from three Gaussians over both together, and their best velocity in closed form."""

    def __init__(self, seed: int, spread: float = 0.3):
        self.means = torch.randn(3, 16, generator=torch.Generator().manual_seed(seed))  # k d
        self.spread = spread
        still = torch.zeros(2, MIXED.in_channels, 2, 2)
        times_s = torch.tensor([0.0, 0.5])
        one = LatentClip(key="", latents=still, times_s=times_s, rates=(8,), counts=(2,), caption="", facts={})
        self.one = pack([one], MIXED)

    def __call__(self, dice: random.Random, count: int) -> tuple[Packed, Condition]:
        """Return clips of which nothing is known."""
        generator = torch.Generator().manual_seed(dice.getrandbits(32))
        whose = torch.randint(3, (count,), generator=generator)
        data = self.means[whose] + self.spread * torch.randn(count, 16, generator=generator)
        told = self.one
        batch = Packed(
            values=data.flatten(),
            shapes=told.shapes * count,
            patch=told.patch,
            times_s=told.times_s.repeat(count),
            rates=told.rates.repeat(count),
            orders=told.orders.repeat(count),
            seconds=told.seconds.repeat(count),
            lengths=told.lengths * count,
            captions=told.captions * count,
            facts=told.facts.repeat(count, 1),
        )
        nothing = torch.zeros(count, MIXED.text_width)
        return batch, Condition(words=nothing[:0], word_lengths=(0,) * count, pooled=nothing, facts=batch.facts)

    def velocity(self, x: Float[Tensor, "b d"], t: float) -> Float[Tensor, "b d"]:
        """Return E[noise - data | x]: of each Gaussian, weighed by how likely x is its."""
        variance = (1 - t) ** 2 * self.spread**2 + t**2
        apart = x[:, None] - (1 - t) * self.means  # b k d
        whose = (-apart.square().sum(dim=-1) / (2 * variance)).softmax(dim=-1)[..., None]
        data = self.means + (1 - t) * self.spread**2 / variance * apart
        return (whose * (t / variance * apart - data)).sum(dim=1)


def mixture(config: ToyConfig, tell: Tell) -> tuple[list[Figure], bytes]:
    """The learned velocity is the best one, where it is known: of a mixture of Gaussians."""
    torch.manual_seed(config.seed)
    net, batches = DiT(MIXED), Mixture(config.seed)
    fit(net, batches, config.steps or 2500, config.seed, tell, shift=1.0, clips=16 * BATCH)
    points, errors, sizes = [], 0.0, 0.0
    for number in range(1, 20):
        error, size = _apart(net, batches, number / 20)
        points.append((number / 20, (error / size) ** 0.5))
        errors, sizes = errors + error, sizes + size
    far = (errors / sizes) ** 0.5
    picture = chart([Line("error", points, marks=True)], "Learned against exact velocity", "t", "relative error")
    return [Figure("relative error of the velocity", far, "below 0.05", far < 0.05)], picture.encode()


@torch.no_grad()
def _apart(net: DiT, batches: Mixture, t: float) -> tuple[float, float]:
    """Return mean squares of how far learned velocities are from the exact ones, and of these."""
    batch, known = batches(random.Random("held"), 4 * HELD)
    noise = torch.randn(batch.tokens.shape, generator=torch.Generator().manual_seed(1))
    x = flow.mix(batch.tokens, noise, torch.tensor(t))
    when = torch.full((len(batch.lengths),), t)
    found = net(x, batch.positions, batch.rates, batch.orders, batch.lengths, when, known)
    exact = batches.velocity(rearrange(x, "(b l) d -> b (l d)", l=2), t)
    error = rearrange(found, "(b l) d -> b (l d)", l=2) - exact
    return float(error.square().mean()), float(exact.square().mean())


class Given:
    """Batches of discs that go around, of which nothing is told but latents that are given, drawn as in training."""

    def __init__(self, pictures: float = 0.0):
        """Take the share of batches whose clips begin with a picture."""
        self.pictures = pictures

    def __call__(self, dice: random.Random, count: int) -> tuple[Packed, Condition]:
        """Return clips, and which of their tokens are given; of four in five some are, so that minutes do."""
        lone = dice.random() < self.pictures
        rates = (PICTURE_RATE,) * lone + (8,) * SEGMENTS
        clips = [clip(anywhere(dice), rates, lone=lone) for _ in range(count)]
        tickets = [Ticket(seed=dice.getrandbits(32), clip=one.key, epoch=0, window=0) for one in clips]
        sides = clips[0].sides(NETWORK.patch)
        masks = [known_tokens.drawn(ticket, clips[0].counts, *sides, share=0.8) for ticket in tickets]
        batch = pack(clips, NETWORK)
        return batch, replace(self.nothing(count), known=torch.cat(masks))

    @staticmethod
    def nothing(count: int) -> Condition:
        """Return the condition of clips of which nothing is known."""
        pooled, facts = torch.zeros(count, NETWORK.text_width), torch.full((count, len(NETWORK.facts)), torch.nan)
        return Condition(words=pooled[:0], word_lengths=(0,) * count, pooled=pooled, facts=facts)


def made(
    net: DiT, taken: Sequence[Tensor | None], window_s: float, seed: int, box: known_tokens.Box | None = None
) -> Float[Tensor, "l 3 h w"]:
    """Return the latents of a clip of segments at rate 8 that `rushes dit sample` makes where some are given.

    A single latent that is given first is a picture.
    """
    lone, cells = taken[0] is not None and len(taken[0]) == 1, (SIDE, SIDE)
    rates = (PICTURE_RATE,) * lone + (8,) * (len(taken) - lone)
    planned = Plan(
        lengths=(1,) * lone + (FRAMES,) * (len(taken) - lone), height=SIDE, width=SIDE, fps=16.0, rates=rates,
        counts=(1,) * lone + (2,) * (len(taken) - lone),
        cells=cells, grid=(SIDE // NETWORK.patch,) * 2, known=tuple(one is not None for one in taken),
    )  # fmt: skip
    free = windows(planned, window_s, overlap=1)
    config = SampleConfig(steps=20, guidance=1.0, shift=SHIFT, seed=seed)
    guided = Guided(net, Given.nothing(1), config, silent, len(free))
    return torch.cat(list(continued(planned, free, iter(taken), guided, box)))


def first(config: ToyConfig, tell: Tell) -> tuple[list[Figure], bytes]:
    """A clip goes on as its first segment began: in colour and direction, at once and in the end, and without seams."""
    net = _given_net(config, tell)
    dice, films, right, steps = random.Random(f"held {config.seed}"), [], [], []
    for number in range(96):
        one = anywhere(dice)
        begin = clip(one, (8,)).latents
        latents = made(net, [begin, *[None] * 7], SEGMENTS * FRAMES / 16, config.seed + number)
        video = decode(latents, (8,) * 8)
        films.append(video)
        wanted = one.colour, one.direction
        right.append([np.equal(seen(video[at : at + FRAMES]), wanted) for at in (FRAMES, 7 * FRAMES)])
        steps.append(latents.diff(dim=0).abs().mean(dim=(1, 2, 3)))
    (colour, way), (late_colour, late_way) = np.mean(right, axis=0)
    change = torch.stack(steps)[:, 2:]  # steps behind what was given, of which every second is a seam
    seam = float(change[:, 1::2].mean() / change.mean())
    figures = [
        _at_least("colour as in the first segment", float(colour), 0.95),
        _at_least("direction as in the first segment", float(way), 0.95),
        _at_least("colour and direction after 7 s, in 7 windows", float(min(late_colour, late_way)), 0.95),
        Figure("change at the seams by the mean change", seam, "at most 1.1", seam <= 1.1),
    ]
    return figures, strips(films[:12])


def mask(config: ToyConfig, tell: Tell) -> tuple[list[Figure], bytes]:
    """A box is filled in with what crosses it, by what is seen around it."""
    net = _given_net(config, tell)
    dice, films, errors = random.Random(f"held {config.seed}"), [], []
    box, middle = (0.25, 0.25, 0.75, 0.75), slice(SIDE // 4, 3 * SIDE // 4)
    for number in range(96):
        true = clip(anywhere(dice), (8, 8)).latents
        filled = made(net, list(true.split(2)), torch.inf, config.seed + number, box)
        blind = made(net, [None, None], torch.inf, config.seed + number)
        inside = [(one - true)[..., middle, middle].square().mean() for one in (filled, blind)]
        errors.append(torch.stack(inside))
        hidden = true.clone()
        hidden[..., middle, middle] = 0.0
        films += [decode(torch.cat([hidden, filled, true]), (8,) * 6)]
    seeing, blind_error = torch.stack(errors).mean(dim=0).tolist()
    share = seeing / blind_error
    return [Figure("error inside by that of what sees nothing", share, "at most 0.1", share <= 0.1)], strips(films[:12])


def picture(config: ToyConfig, tell: Tell) -> tuple[list[Figure], bytes]:
    """A picture goes on: with its disc in its colour, from its place, into a direction that no picture tells."""
    net = _given_net(config, tell, Given(pictures=0.5))
    dice, films, right = random.Random(f"held {config.seed}"), [], []
    for number in range(96):
        one = anywhere(dice)
        still = clip(one, (PICTURE_RATE, 8), lone=True).latents[:1]
        latents = made(net, [still, None, None], 1 / 16 + SEGMENTS * FRAMES / 16, config.seed + number)
        video = decode(latents[1:], (8,) * SEGMENTS)
        begin, given = (_centre((frames - GROUND).abs().sum(dim=1)) for frames in (video[:1], still))
        right.append([seen(video)[0] == one.colour, bool(_wrapped(begin - given).norm() < NEAR)])
        films.append(torch.cat([still.expand(4, -1, -1, -1), video]))
    colour, near = np.mean(right, axis=0)
    figures = [
        _at_least("colour as in the picture", float(colour), 0.95),
        _at_least("first latent within 2 pixels of the picture's disc", float(near), 0.95),
    ]
    return figures, strips(films[:12])


def _given_net(config: ToyConfig, tell: Tell, batches: Given | None = None) -> DiT:
    """Return a network that was trained with latents that are given."""
    torch.manual_seed(config.seed)
    batches = batches or Given()
    net = scaled(batches(random.Random("scale"), HELD)[0])
    fit(net, batches, config.steps or 3000, config.seed, tell)
    return net.eval().requires_grad_(False)
