"""Adaptive latents in planned packs against one rate in padded batches: clip-seconds trained in a CPU second.

Real latents of the shipped tokenizer. The fixed rate is 4; the adaptive ones have the share of latents at which they
decode as well as those, in PSNR of all pixels. Padded is what ordinary trainers do: clips in random order, as many of
them in a batch as fit the same tokens, all padded to the longest, keys of padding masked; but for that both are our
trainer, network, clips held out, seed. Words are not padded, in favour of the padded. CPU time without validation.
RUSHES_RUN names a run that is curated already and whose latents may be made anew; else the footage is curated.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
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
from rushes.pipelines.cli.main import main
from rushes.tokenizer.model import load
from tests.bench import test_budget
from tests.pipelines.one_process import in_one_process

RATE, SIDE_PX, TOKENS, STEPS = 4, 64, 4096, 300
CONFIG = TrainConfig(
    model=DiTConfig(size="pico"), tokens=TOKENS, steps=STEPS, save_every=20, log_every=20, holdout=0.15, shift=10,
    warmup=20, device="cpu",
)  # fmt: skip
Point = tuple[float, float, float]
"""CPU seconds, clip-seconds trained so far, held-out loss."""


def padded_plan(found: Windows, config: TrainConfig, number: int) -> Round:
    """Clips in random order, in a batch as many as fit the budget when all are padded to the longest."""
    window, epoch = plan._row(found, config, number)
    begin, longest = [0], 0
    for place, tokens in enumerate(found.tokens[window].tolist()):
        longest = max(longest, tokens)
        if (place - begin[-1] + 1) * longest > config.tokens:
            begin.append(place)
            longest = tokens
    steps = plan.generator("steps", config.seed, number).permutation(len(begin))[:, None]
    return Round(window=window, epoch=epoch, begin=np.array([*begin, len(window)]), steps=steps)


class Padded(model.DiT):
    """The network on clips that are padded to the longest: all of it works on padding, too, but for the last answer."""

    def forward(self, tokens: Tensor, positions: Tensor, rates: Tensor, orders: Tensor, lengths: Sequence[int],
                t: Tensor, condition: Any, cache: Any = None) -> Tensor:  # fmt: skip
        longest = max(lengths)
        real = torch.arange(longest) < torch.tensor(lengths)[:, None]  # clips l

        def rows(values: Tensor, fill: float = 0.0) -> Tensor:
            out = values.new_full((*real.shape, *values.shape[1:]), fill)
            out[real] = values
            return out.flatten(0, 1)

        known = None if condition.known is None else rows(condition.known, False)
        told = (rows(tokens), rows(positions), rows(rates, 1.0), rows(orders), [longest] * len(lengths))
        with patch.object(layers, "packed_attention", masked(real, layers.packed_attention)):
            found = super().forward(*told, t, module.replace(condition, known=known), cache)
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
        self.tokens = self.seconds = self.begun = 0.0

    @contextmanager
    def running(self) -> Any:
        step, validated = module.FlowModule.training_step, train.Keeper._validated

        def training_step(net: Any, batch: Any, number: int) -> Tensor:
            self.begun = self.begun or time.process_time()
            self.seconds += batch.duration_s * batch.weight
            self.tokens += sum(batch.packed.lengths)
            return step(net, batch, number)

        def timed(keeper: Any, net: Any, average: Any) -> dict[str, float]:
            now = time.process_time()
            found = validated(keeper, net, average)
            self.points.append((now - self.begun, self.seconds, found["held_loss"]))
            self.begun += time.process_time() - now
            print(self.points[-1], flush=True)
            return found

        step_of, save_of = (module.FlowModule, "training_step"), (train.Keeper, "_validated")
        with patch.object(*step_of, training_step), patch.object(*save_of, timed):
            yield


def trained(latents: Path, out: Path, padded: bool) -> Clock:
    clock = Clock()
    with ExitStack() as stack:
        stack.enter_context(clock.running())
        if padded:
            stack.enter_context(patch.object(plan, "plan", padded_plan))
            stack.enter_context(patch.object(module, "DiT", Padded))
        train.train(CONFIG, str(latents), str(out))
    return clock


def until(points: Sequence[Point], loss: float) -> float:
    """Return the CPU seconds until a held-out loss was reached for good, linear between saves."""
    for (cpu_s, _, before), (then, _, after) in zip(reversed(points[:-1]), reversed(points[1:]), strict=True):
        if before >= loss >= after:
            return cpu_s + (then - cpu_s) * (before - loss) / max(before - after, 1e-9)
    return float("nan")


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


@pytest.mark.bench
def test_adaptive_and_packed_against_one_rate_and_padded(
    curated: Path, tmp_path: Path, show: Callable[..., None]
) -> None:
    torch.set_num_threads(1)
    latents = both(curated, tmp_path)
    clocks = {
        name: trained(tmp_path / which, tmp_path / f"dit {name}", padded) for name, (which, padded) in WAYS.items()
    }
    goal = max(min(point[2] for point in clock.points) for clock in clocks.values())  # which all reach
    speeds = {name: clock.points[-1][1] / clock.points[-1][0] for name, clock in clocks.items()}
    waits = {name: until(clock.points, goal) for name, clock in clocks.items()}
    first, rows, raw = next(iter(WAYS)), [], {}
    for name, clock in clocks.items():
        told = latents[WAYS[name][0]]
        rows.append([
            name, told["latents"], f"{told['psnr']:.2f}", f"{clock.tokens / STEPS / TOKENS:.0%}", f"{speeds[name]:.1f}",
            f"{speeds[name] / speeds[first]:.2f} ×", f"{waits[name]:.0f}", f"{waits[first] / waits[name]:.2f} ×",
        ])  # fmt: skip
        raw[name] = {**told, "points": clock.points, "tokens": clock.tokens}
    head = ["latents, batches", "latents", "PSNR, dB", "full", "clip-seconds a CPU second", "against the first",
            f"CPU s until the held-out loss is {goal:.3f}", "against the first"]  # fmt: skip
    show(f"Clip-seconds trained in a CPU second, {SIDE_PX} px, pico", head, rows, raw)
    assert speeds["adaptive, packed"] > speeds["rate 4, packed"] > speeds["rate 4, padded"]
