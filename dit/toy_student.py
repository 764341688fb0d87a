"""The claim that four looks do: `rushes dit toy --claim student`, on discs that are asked for by a prompt.

A teacher is trained as for the claim `conditions`. A causal student learns its paths, then its distribution; another is
reflowed. All are asked for the same clips. Colour and direction must be those of the prompt; the Fréchet distance of
latents from those of true clips sees what is blurred, noisy, or too much alike; and where segments meet nothing may
jump.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rushes.dit import causal, flow, matching, toy
from rushes.dit.causal import Row, row_of
from rushes.dit.config import DistillConfig, ToyConfig
from rushes.dit.data import LatentClip
from rushes.dit.frechet import frechet
from rushes.dit.matching import Distillation
from rushes.dit.model import DiT, unpatchify
from rushes.dit.module import thinned
from rushes.dit.toy import BATCH, COLOURS, DIRECTIONS, SHIFT, SIDE, Figure, Shapes
from rushes.tokenizer.config import Tell

RATES, EACH, SHOWN = (8, 8), 16, 6  # rates of clips that are asked for, clips of each prompt, rows of each way
DISTILL = DistillConfig(
    steps=600, path_steps=400, paths=32, teacher_steps=30, shift=SHIFT, guidance=1.0, lr=1e-3, device="cpu"
)
Draw = Callable[[Row], Float[Tensor, "n token"]]
Latents = Float[Tensor, "clips l 3 h w"]


class Lessons:
    """What is told of clips in distillation: captions and facts, some of them hidden, as the teacher was trained."""

    def __init__(self, batches: Shapes, seed: int):
        self.batches, self.seed = batches, seed

    def __call__(self, number: int) -> Row:
        """Return what is told of the clips of a step."""
        batch, known = self.batches(random.Random(f"student {self.seed} {number}"), BATCH)
        uniforms = torch.rand(BATCH, 4 + known.facts.shape[1], generator=matching.dice("hide", self.seed, number))
        return row_of(batch, thinned(known, 0.1, uniforms))


def distilled(teacher: DiT, lessons: Lessons, config: DistillConfig, tell: Tell) -> dict[str, DiT]:
    """Return the student after the teacher's paths alone, the one that is done, and the reflowed one."""
    paths, found = [], {}
    for number in range(config.paths):
        row = lessons(-1 - number)  # of none that matching sees
        paths.append((row, matching.path(teacher, row, config, number)))
        tell(number + 1, config.paths, "paths", {})
    straight = replace(config, method="reflow", steps=config.path_steps)
    for name, own in {"student": config, "reflow": straight}.items():
        work = Distillation(teacher, own, lessons, paths.__getitem__)
        while work.step < own.steps:
            if name == "student" and work.step == own.path_steps:
                found["paths alone"] = copy.deepcopy(work.average)
            tell(work.step + 1, own.steps, "steps", work.advance())
        found[name] = work.average
    return found


def follow(net: DiT, seed: int, steps: int) -> Draw:
    """Return what follows the flow of a network in so many steps."""

    @torch.no_grad()
    def draw(row: Row) -> Tensor:
        def velocity(x: Tensor, t: float) -> Tensor:
            return matching.clip_velocity(net, row, x, torch.full((len(row.clips),), t))

        noise = torch.randn(len(row.rates), net.config.token_width, generator=torch.Generator().manual_seed(seed))
        return flow.euler(velocity, noise, steps, SHIFT)

    return draw


def stream(net: DiT, seed: int, levels: list[float]) -> Draw:
    """Return what rolls clips out, segment by segment."""
    return torch.no_grad()(lambda row: causal.roll_out(net, row, levels, torch.Generator().manual_seed(seed)))


def true(seed: str) -> tuple[list[tuple[str, str]], list[LatentClip]]:
    """Return what each true clip shows, and the clips: of each colour and direction as many."""
    dice = random.Random(seed)
    asked = [(colour, direction) for colour in COLOURS for direction in DIRECTIONS] * EACH
    return asked, [toy.clip(_shown(dice, *one), RATES) for one in asked]


def _shown(dice: random.Random, colour: str, direction: str) -> toy.Shape:
    one = toy.shape(dice)
    while one.direction != direction:
        one = toy.shape(dice)
    return replace(one, colour=colour)


def student(config: ToyConfig, tell: Tell) -> tuple[list[Figure], bytes]:
    """Four looks at each segment give the colour and the direction that the prompt asks, and no seam."""
    torch.manual_seed(config.seed)
    batches, levels = Shapes(toy.RATES), matching.levels(DISTILL)
    teacher = toy.scaled(batches(random.Random("scale"), toy.HELD)[0])
    toy.fit(teacher, batches, config.steps or 1000, config.seed, tell)
    nets = distilled(teacher, Lessons(batches, config.seed), replace(DISTILL, seed=config.seed), tell)
    ways = {
        **{f"teacher, {steps} steps": follow(teacher, config.seed, steps) for steps in (50, 4, 2)},
        "student, paths alone": stream(nets["paths alone"], config.seed, levels),
        "student": stream(nets["student"], config.seed, levels),
        **{f"reflowed, {steps} steps": follow(nets["reflow"], config.seed, steps) for steps in (4, 2)},
    }
    asked, clips = true(f"true {config.seed}")
    batch, known = batches.known(clips)
    row = row_of(batch, known.without_facts(torch.tensor([[False, True, True]]).expand_as(known.facts)))
    real, figures, films = torch.stack([clip.latents for clip in clips]), [], []
    _, others = true(f"others {config.seed}")
    floor = apart(real, torch.stack([clip.latents for clip in others]))
    figures.append(Figure("Fréchet distance of true clips from others", floor, "no figure", True))
    for name, draw in ways.items():
        begun = time.process_time()
        tokens = teacher.denormalise(draw(row)).split(row.lengths)
        cpu_ms = (time.process_time() - begun) / len(clips) * 1000
        made = torch.stack([unpatchify(one, toy.NETWORK.patch, SIDE, SIDE) for one in tokens])
        films += [toy.decode(one, RATES) for one in made[:SHOWN]]
        figures += _figures(name, made, real, asked, cpu_ms, own=name == "student")
    return figures, toy.strips(films)


def _figures(
    name: str, made: Latents, real: Latents, asked: list[tuple[str, str]], cpu_ms: float, own: bool
) -> list[Figure]:
    """Return what is found of one way; only the student's own figures are expected to be anything."""
    seen = [toy.seen(toy.decode(one, RATES)) for one in made]
    right = np.mean([np.equal(found, wanted) for found, wanted in zip(seen, asked, strict=True)], axis=0)
    change = made.diff(dim=1).abs().mean(dim=(0, 2, 3, 4))  # of three steps, the second of which is a seam
    seam = float(change[1] / change.mean())
    values = {
        "colour as the prompt asks": (float(right[0]), "at least 0.95", right[0] >= 0.95),
        "direction as the prompt asks": (float(right[1]), "at least 0.95", right[1] >= 0.95),
        "change at the seam by the mean change": (seam, "at most 1.1", seam <= 1.1),
        "Fréchet distance from true clips": (apart(real, made), "no figure", True),
        "CPU milliseconds a clip": (cpu_ms, "no figure", True),
    }
    return [
        Figure(f"{name}: {what}", found, expected if own else "no figure", bool(met) or not own)
        for what, (found, expected, met) in values.items()
    ]


def apart(one: Latents, other: Latents) -> float:
    """Return the Fréchet distance of latents, taken as they are."""
    return frechet(*(latents.flatten(1).double().numpy() for latents in (one, other)))
