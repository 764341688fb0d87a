"""What a student learns from its teacher: its paths from noise to data, then its distribution. No files.

paths       the teacher's differential equation, followed with guidance: noise, points on the way, data
straighten  reflow, arXiv 2209.03003: the flow loss on pairs of noise and data, so that paths become straight
regress     data from points of a path, segment by segment: how CausVid begins, arXiv 2412.07772
match       distribution matching, arXiv 2405.14867, of clips that the student rolls out with its own cache as in
            arXiv 2506.08009: it learns in the state in which it will be asked
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from rushes.dit import causal, flow
from rushes.dit.causal import Row
from rushes.dit.config import DistillConfig
from rushes.dit.model import DiT
from rushes.dit.module import WIDTH_OF_XL
from rushes.dit.optimizer import adamw
from rushes.dit.plan import generator
from rushes.tokenizer.module import DivergenceError

WARMUP = 50
NOISES = (0.02, 0.98)
"""Times, before they are shifted, at which distributions are compared: section 3.2 of arXiv 2311.18828."""
Path = Float[Tensor, "points n token"]
"""Points of a teacher's path at each level of the student, and its data: the first is noise."""


def dice(purpose: str, *key: int) -> torch.Generator:
    """Return the generator of a key: what is drawn does not depend on where a training was broken off."""
    return torch.Generator().manual_seed(int(generator(purpose, *key).integers(2**62)))


def levels(config: DistillConfig) -> list[float]:
    """Return the times at which a student looks at a segment, falling from 1."""
    assert config.shift  # see `distill`
    return flow.times(config.looks, config.shift)[:-1]


def clip_velocity(net: DiT, row: Row, x: Float[Tensor, "n token"], t: Float[Tensor, " clips"]) -> Tensor:
    """Return the velocity of a network whose tokens see the whole of their clip."""
    return net(x, row.positions, row.rates, row.orders, row.lengths, t, row.condition)


def guided(teacher: DiT, row: Row, x: Tensor, t: Float[Tensor, " clips"], scale: float) -> Float[Tensor, "n token"]:
    """Return the teacher's velocity under guidance; of a clip of which nothing is known it is the plain one."""
    if scale == 1:
        return clip_velocity(teacher, row, x, t)
    count = len(row.clips)
    both = replace(
        row.taken([*range(count)] * 2), condition=row.condition.joined(row.condition.dropped([True] * count))
    )
    wanted, free = clip_velocity(teacher, both, x.repeat(2, 1), t.repeat(2)).chunk(2)
    return flow.guided(wanted, free, scale)


@torch.no_grad()
def path(teacher: DiT, row: Row, config: DistillConfig, key: int) -> Path:
    """Return a path of the teacher for clips: Euler's steps, those at the student's levels among them."""
    x = _noise(row, teacher, dice("path", config.seed, key))
    kept, asked = levels(config), flow.times(config.teacher_steps, config.shift)
    times, points = sorted({*asked, *kept}, reverse=True), []
    for now, then in pairwise(times):
        if now in kept:
            points.append(x)
        t = torch.full((len(row.clips),), now, device=x.device)
        x = x + (then - now) * guided(teacher, row, x, t, config.guidance)
    return torch.stack([*points, x])


def straighten(net: DiT, row: Row, points: Path, random: torch.Generator, shift: float) -> Float[Tensor, ""]:
    """Return the flow loss between the ends of paths, algorithm 1 of arXiv 2209.03003."""
    noise, data = points[0], points[-1]
    t = flow.logit_normal_times(torch.randn(len(row.clips), generator=random), shift).to(data.device)
    x = flow.mix(data, noise, _spread(t, row.lengths))
    return flow.loss(clip_velocity(net, row, x, t), data, noise, row.seconds)


def regress(net: DiT, row: Row, points: Path, random: torch.Generator, at: Sequence[float]) -> Float[Tensor, ""]:
    """Return the error of data that a causal network sees in points of paths.

    Half of the segments, at random, are clean, as those that a roll-out keeps are; each of the others is at a level of
    its own, for a mistake must not be copied from a neighbour at the same level. Clean ones bear no loss.
    """
    segments = torch.tensor(row.segments)
    level = torch.randint(len(at), (len(segments),), generator=random)
    clean = torch.rand(len(segments), generator=random) < 0.5
    t = torch.tensor(at)[level].masked_fill(clean, 0.0).to(points.device)
    which = level.masked_fill(clean, len(at)).repeat_interleave(segments).to(points.device)
    x = points[which, torch.arange(len(which), device=points.device)]
    each = _spread(t, row.segments)
    data = x - each * causal.velocity(net, row, x, t)
    weight = row.seconds.masked_fill(each[:, 0] == 0, 0.0)
    return ((data - points[-1]).square().mean(dim=1) * weight).sum() / weight.sum().clamp(min=1e-6)


@torch.no_grad()
def apart(
    teacher: DiT, fake: DiT, row: Row, data: Float[Tensor, "n token"], random: torch.Generator, config: DistillConfig
) -> Float[Tensor, "n token"]:
    """Return where the student's distribution differs from the teacher's: eq. 7 and 8 of arXiv 2311.18828.

    Both networks are asked what clean clips they see in the student's with noise; the difference of their answers is
    scaled, for each clip, by how far the teacher's is from what the student made.
    """
    low, high = NOISES
    t = flow.shifted(low + (high - low) * torch.rand(len(row.clips), generator=random), config.shift).to(data.device)
    each = _spread(t, row.lengths)
    x = flow.mix(data, _noise(row, teacher, random), each)
    real = x - each * guided(teacher, row, x, t, config.guidance)
    false = x - each * clip_velocity(fake, row, x, t)
    scale = torch.stack([one.abs().mean() for one in (data - real).split(row.lengths)])
    return (false - real) / _spread(scale.clamp(min=1e-6), row.lengths)


def _noise(row: Row, net: DiT, random: torch.Generator) -> Float[Tensor, "n token"]:
    return torch.randn(len(row.rates), net.config.token_width, generator=random).to(net.device)


def _spread(values: Float[Tensor, " parts"], lengths: Sequence[int]) -> Float[Tensor, "n 1"]:
    return values.repeat_interleave(torch.tensor(lengths, device=values.device))[:, None]


class Distillation:
    """A student and what it is taught with, step by step; each step follows from its number and the state alone."""

    def __init__(
        self,
        teacher: DiT,
        config: DistillConfig,
        lesson: Callable[[int], Row],
        paths: Callable[[int], tuple[Row, Path]],
    ):
        """Begin with the teacher's weights.

        Args:
            teacher: a network of whole clips.
            config: how to distil.
            lesson: what is told of the clips of a step.
            paths: what is told of the clips of one of `config.paths` sets, and the teacher's paths for them.
        """
        self.teacher, self.config, self.lesson, self.paths = teacher.eval().requires_grad_(False), config, lesson, paths
        self.student, self.fake = (copy.deepcopy(teacher).requires_grad_() for _ in range(2))
        self.average = copy.deepcopy(teacher)
        peak = config.lr or 5e-5 * WIDTH_OF_XL / teacher.config.width
        self.rates = {"student": peak, "fake": peak * config.match_lr}
        self.optimizers = {"student": adamw(self.student, peak, 0.01), "fake": adamw(self.fake, peak, 0.01)}
        self.step = 0

    @property
    def pairing(self) -> bool:
        """Whether the next step learns from paths."""
        return self.config.method == "reflow" or self.step < self.config.path_steps

    def advance(self) -> dict[str, float]:
        """Take a step and return its losses. Raises DivergenceError where one is no number, before it is taken."""
        found = self._pair() if self.pairing else self._match()
        with torch.no_grad():
            for average, now in zip(self.average.parameters(), self.student.parameters(), strict=True):
                average.lerp_(now, 1 - self.config.ema)
        self.step += 1
        return found

    def _pair(self) -> dict[str, float]:
        row, points = self.paths(self.step % self.config.paths)
        random = dice("pairs", self.config.seed, self.step)
        if self.config.method == "reflow":
            loss = straighten(self.student, row, points, random, self.config.shift)
        else:
            loss = regress(self.student, row, points, random, levels(self.config))
        self._update("student", self.student, loss, self.rates["student"])
        return {"loss": float(loss.detach())}

    def _match(self) -> dict[str, float]:
        """One step of the student, and some of the fake teacher on what the student made, with new noise."""
        config, whole = self.config, self.lesson(self.step)
        random, losses, made = dice("match", config.seed, self.step), [], []
        for clips in whole.alike():
            row = whole.taken(clips)
            looks = torch.randint(1, config.looks + 1, (len(row.clips[0]),), generator=random).tolist()
            data = causal.roll_out(self.student, row, levels(config), random, looks)
            push = apart(self.teacher, self.fake, row, data.detach(), random, config)
            losses.append(((data * push).mean(dim=1) * row.seconds).sum() / whole.seconds.sum())
            made.append((row, data.detach()))
        self._update("student", self.student, torch.stack(losses).sum(), self.rates["student"] * config.match_lr)
        for _ in range(config.fake_steps):
            error = self._fake_loss(made, random)
            self._update("fake", self.fake, error, self.rates["fake"])
        return {"fake_loss": float(error.detach())}

    def _fake_loss(self, made: list[tuple[Row, Tensor]], random: torch.Generator) -> Float[Tensor, ""]:
        losses, seconds = [], sum(row.seconds.sum() for row, _ in made)
        for row, data in made:
            t = flow.logit_normal_times(torch.randn(len(row.clips), generator=random), self.config.shift)
            noise, t = _noise(row, self.fake, random), t.to(data.device)
            found = clip_velocity(self.fake, row, flow.mix(data, noise, _spread(t, row.lengths)), t)
            losses.append(flow.loss(found, data, noise, row.seconds) * row.seconds.sum() / seconds)
        return torch.stack(losses).sum()

    def _update(self, name: str, net: DiT, loss: Tensor, peak: float) -> None:
        optimizer = self.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, (self.step + 1) / WARMUP)
        optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(net.parameters(), 1.0)
        if not bool(loss.isfinite() & norm.isfinite()):
            raise DivergenceError(
                f"loss or gradient of the {name} is no number at step {self.step + 1}, which was not taken: the last "
                "checkpoint stands; distil anew in another --out with a lower lr"
            )
        optimizer.step()

    def state(self) -> dict[str, Any]:
        """Return all that a resume needs."""
        nets = {name: getattr(self, name).state_dict() for name in ("student", "average", "fake")}
        return {"step": self.step, **nets, **{f"{k} optimizer": v.state_dict() for k, v in self.optimizers.items()}}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken."""
        self.step = state["step"]
        for name in ("student", "average", "fake"):
            getattr(self, name).load_state_dict(state[name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[f"{name} optimizer"])
