"""Adaptive latents in planned packs against one rate in padded batches: clip-seconds trained in a CPU second.

Real latents of the shipped tokenizer. The fixed rate is 4; the adaptive ones have the share of latents at which they
decode as well as those, in PSNR of all pixels. Padded is what ordinary trainers do: clips in random order, as many of
them in a batch as fit the tokens, all padded to the longest, keys of padding masked; but for that all is our trainer,
network, clips held out, seed. Words are not padded, in favour of the padded. A step has about as many clip-seconds in
each way, so that steps are worth the same: two padded batches, or a pack, or of adaptive latents a pack of fewer
tokens. CPU time is without validation. As latents differ, so does what of them can be known: losses are told by that of
the unit Gaussian on the same latents.

RUSHES_RUN names a run that is curated already and whose latents may be made anew; else the footage is curated.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from rushes.dit import layers, model, module, plan, train
from rushes.dit.config import DiTConfig, TrainConfig
from rushes.dit.plan import Round, Windows
from rushes.dit.predictors import Gaussian
from rushes.pipelines.cli.main import main
from rushes.tokenizer.model import load
from tests.bench import test_budget
from tests.pipelines.one_process import in_one_process

RATE, SIDE_PX, TOKENS, STEPS = 4, 64, 4096, 100
CONFIG = TrainConfig(
    model=DiTConfig(size="pico"), steps=STEPS, save_every=20, log_every=20, holdout=0.15, shift=10,
    warmup=20, device="cpu",
)  # fmt: skip
Point = tuple[float, float, float]
"""CPU seconds, clip-seconds trained so far, held-out loss by that of the unit Gaussian."""


def padded_plan(found: Windows, config: TrainConfig, number: int) -> Round:
    """Clips in random order, in a batch as many as fit the budget when all are padded to the longest."""
    window, epoch = plan._row(found, config, number)
    begin, longest = [0], 0
    for place, tokens in enumerate(found.tokens[window].tolist()):
        longest = max(longest, tokens)
        if (place - begin[-1] + 1) * longest > config.tokens:
            begin.append(place)
            longest = tokens
    batches = plan.generator("steps", config.seed, number).permutation(len(begin))
    steps = np.concatenate([batches, np.full(-len(batches) % config.packs, -1)]).reshape(-1, config.packs)
    return Round(window=window, epoch=epoch, begin=np.array([*begin, len(window)]), steps=steps)


class Padded(model.DiT):
    """The network on clips that are padded to the longest: all of it works on padding, too, but for the last answer."""

    def forward(self, tokens: Tensor, positions: Tensor, rates: Tensor, orders: Tensor, lengths: Sequence[int],
                t: Tensor, condition: Any, cache: Any = None) -> Tensor:  # fmt: skip
        longest, counts = max(lengths), torch.tensor(lengths)
        real = torch.arange(longest) < counts[:, None]  # clips l
        each = torch.minimum(torch.arange(longest), counts[:, None] - 1)  # padding is the last token again
        where = (each + counts.cumsum(0)[:, None] - counts[:, None]).flatten()
        known = None if condition.known is None else condition.known[where]
        told = (tokens[where], positions[where], rates[where], orders[where], [longest] * len(lengths))
        with patch.object(layers, "packed_attention", masked(real, layers.packed_attention)):
            found = super().forward(*told, t, replace(condition, known=known), cache)
        return found[real.flatten()]


def masked(real: Tensor, plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return attention among the tokens of padded clips, padding masked as keys; that to words is as it was."""

    def attention(q: Tensor, k: Tensor, v: Tensor, q_lengths: Sequence[int], k_lengths: Sequence[int]) -> Tensor:
        if len(k) != real.numel() or list(k_lengths) != list(q_lengths):
            return plain(q, k, v, q_lengths, k_lengths)
        q, k, v = (rearrange(x, "(b l) h d -> b h l d", b=len(real)) for x in (q, k, v))
        mask = real[:, None, None, :] if not real.all() else None
        return rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), "b h l d -> (b l) h d")

    return attention


class Clock:
    """Notes CPU time, what was trained on and the held-out loss at each save."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.tokens = self.slots = self.seconds = self.begun = self.gaussian = 0.0

    @contextmanager
    def running(self) -> Any:
        step, validated = module.FlowModule.training_step, train.Keeper._validated

        def training_step(net: Any, batch: Any, number: int) -> Tensor:
            self.begun = self.begun or time.process_time()
            self.seconds += batch.duration_s * batch.weight
            lengths = batch.packed.lengths
            self.tokens += sum(lengths)
            self.slots += len(lengths) * max(lengths) if isinstance(net.net, Padded) else net.config.tokens
            return step(net, batch, number)

        def timed(keeper: Any, net: Any, average: Any) -> dict[str, float]:
            now = time.process_time()
            found = validated(keeper, net, average)
            self.gaussian = self.gaussian or mean(net.validate(Gaussian(average), keeper.fixed).values())
            self.points.append((now - self.begun, self.seconds, found["held_loss"] / self.gaussian))
            self.begun += time.process_time() - now
            return found

        step_of, save_of = (module.FlowModule, "training_step"), (train.Keeper, "_validated")
        with patch.object(*step_of, training_step), patch.object(*save_of, timed):
            yield


def trained(latents: Path, out: Path, padded: bool, tokens: int) -> Clock:
    clock = Clock()
    with ExitStack() as stack:
        stack.enter_context(clock.running())
        if padded:
            stack.enter_context(patch.object(plan, "plan", padded_plan))
            stack.enter_context(patch.object(module, "DiT", Padded))
        train.train(replace(CONFIG, packs=1 + padded, tokens=tokens), str(latents), str(out))
    return clock


@pytest.fixture
def curated(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if "RUSHES_RUN" in os.environ:
        return Path(os.environ["RUSHES_RUN"])
    with in_one_process():
        footage = str(request.getfixturevalue("footage"))
        assert main(["curate", footage, "--out", str(tmp_path / "run"), "--pack.max_side_px", "128"]) in (0, 3)
    return tmp_path / "run"


def made(run: Path, kept: Path, *options: str) -> dict[str, float]:
    """Make latents and keep them; return how many there are, and how well they decode."""
    test_budget.command(str(run), "default", *options)
    spent, errors, _ = test_budget.outcome(load("shipped"), str(run), "default")
    shutil.copytree(run / "latents" / "default", kept, dirs_exist_ok=True)
    found = {"latents": spent, "psnr": test_budget.quality(errors)[0]}
    print(options, found, flush=True)
    return found


def both(run: Path, kept: Path) -> dict[str, dict[str, float]]:
    """Make latents at the fixed rate, and adaptive ones that decode within 0.1 dB as well."""
    with patch.object(test_budget, "SIDE_PX", SIDE_PX):
        found, share = {"fixed": made(run, kept / "fixed", "--rate", str(RATE))}, 0.4
        for _ in range(3):
            shutil.rmtree(kept / "adaptive", ignore_errors=True)
            found["adaptive"] = made(run, kept / "adaptive", "--share", repr(share)) | {"share": share}
            less = found["fixed"]["psnr"] - found["adaptive"]["psnr"]
            if abs(less) < 0.1:
                break
            share *= 2 ** (less / 2.8)  # what twice the latents bring on such films, in dB
    return found


WAYS = {"rate 4, padded": ("fixed", True), "rate 4, packed": ("fixed", False), "adaptive, packed": ("adaptive", False)}


def until(points: Sequence[Point], loss: float) -> float:
    """Return the CPU seconds until a held-out loss was first reached, linear between saves."""
    for (cpu_s, _, before), (then, _, after) in pairwise(points):
        if before > loss >= after:
            return cpu_s + (then - cpu_s) * (before - loss) / (before - after)
    return points[0][0]


def compared(latents: dict[str, dict[str, float]], clocks: dict[str, Clock]) -> list[list[str]]:
    """Return a row for each way."""
    speeds = {name: clock.points[-1][1] / clock.points[-1][0] for name, clock in clocks.items()}
    rows, first = [], next(iter(WAYS))
    goal = max(min(point[2] for point in clock.points) for clock in clocks.values())  # which all reach
    waits = {name: until(clock.points, goal) for name, clock in clocks.items()}
    for name, clock in clocks.items():
        told, (cpu_s, seconds, loss) = latents[WAYS[name][0]], clock.points[-1]
        rows.append([
            name, f"{told['latents']:.0f}", f"{told['psnr']:.2f}", f"{clock.tokens / clock.slots:.0%}",
            f"{cpu_s:.0f}", f"{seconds:.0f}", f"{loss:.4f}", f"{seconds / cpu_s:.1f}",
            f"{speeds[name] / speeds[first]:.2f} ×", f"{waits[name]:.0f}", f"{waits[first] / waits[name]:.2f} ×",
        ])  # fmt: skip
    return rows


@pytest.mark.bench
def test_adaptive_and_packed_against_one_rate_and_padded(
    curated: Path, tmp_path: Path, show: Callable[..., None]
) -> None:
    torch.set_num_threads(1)
    latents, clocks = both(curated, tmp_path), {}
    fewer = latents["adaptive"]["latents"] / latents["fixed"]["latents"]
    for name, (which, padded) in WAYS.items():
        tokens = round(TOKENS * fewer) if which == "adaptive" else TOKENS
        clocks[name] = trained(tmp_path / which, tmp_path / f"dit {name}", padded, tokens)
    head = ["latents, batches", "latents", "PSNR, dB", "full", "CPU s", "clip-seconds", "held-out loss by Gaussian's",
            "clip-seconds a CPU second", "against the first", "CPU s until the loss that all reach",
            "against the first"]  # fmt: skip
    raw = {name: {**latents[WAYS[name][0]], **vars(clock)} for name, clock in clocks.items()}
    show(
        f"Clip-seconds trained in a CPU second, {SIDE_PX} px, pico, {STEPS} steps", head, compared(latents, clocks), raw
    )
    speeds = [clock.points[-1][1] / clock.points[-1][0] for clock in clocks.values()]
    assert speeds == sorted(speeds)
