"""The board: the DiT with each of its parts taken out alone, and with what others add, on the toy's moving shapes.

The same steps, clips, times and noise, three seeds. A part is taken out here, by a patch, so that the product has no
switch for it. Rows that are done are kept in `board.jsonl` beside the results, so that a killed board goes on.
"""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import product
from statistics import mean
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rushes.dit import flow, toy
from rushes.dit.model import Condition, DiT
from rushes.dit.module import ema_exponent
from rushes.dit.optimizer import MuonAdamW, adamw
from rushes.tokenizer.config import silent
from tests.bench.conftest import RESULTS

SEEDS, STEPS = (0, 1, 2), 1000
ROUTED = 0.5
"""Share of tokens that skips the blocks in the middle, as TREAD's authors have it (arXiv 2501.04765)."""
ALIGNED, CLEANER = 0.5, 0.2
"""Weight of the alignment, and by how much of its time the teacher's input is cleaner at most."""
Patches = Callable[[DiT], Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A way to train: what is another about the network, its training and what is told of it."""

    without: tuple[str, ...] = ()
    """Layers of the network that say nothing."""
    network: type[DiT] = DiT
    always: Callable[[], Any] = nullcontext
    """Patches in training and after it."""
    training: Patches = nullcontext
    """Patches in training alone, of a network."""
    shift: float = toy.SHIFT
    optimizer: Callable[[DiT, float, float], torch.optim.Optimizer] = adamw
    judged: Callable[[DiT], DiT] = field(default=lambda net: net)
    """What is measured in the end."""


class Nothing(nn.Module):
    """A layer that says nothing of each of its inputs."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, values: Tensor, *told: Any) -> Tensor:
        return torch.zeros(len(values), self.width)


class Routed(DiT):
    """TREAD: in training some tokens, others each time, go from the first block to the last (arXiv 2501.04765)."""

    def _mixed(self, x: Tensor, *given: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return super()._mixed(x, *given)
        state, angles, words, lengths, word_lengths = given
        first, *middle, last = self.blocks
        x = first(x, *given)
        kept, begin, counts = [], 0, [math.ceil(length * (1 - ROUTED)) for length in lengths]
        for length, count in zip(lengths, counts, strict=True):
            kept.append(begin + torch.randperm(length)[:count].sort().values)
            begin += length
        where = torch.cat(kept)
        some = x[where]
        for block in middle:
            some = block(some, state, angles[where], words, counts, word_lengths)
        return last(x.index_copy(0, where, some), *given)


class Aligned(DiT):
    """A network whose first block's tokens are led, by a layer that is dropped later, to what its average knows."""

    def __init__(self, config: Any):
        super().__init__(config)
        d = config.width
        self.head = nn.Sequential(nn.Linear(d, 2 * d), nn.SiLU(), nn.Linear(2 * d, d))


class Average:
    """The average of past weights, as training has it, taken up whenever a loss is asked for."""

    def __init__(self, net: DiT):
        self.net, self.ema, self.steps = net, copy.deepcopy(net).requires_grad_(False), 0
        net.__dict__["average"] = self.ema  # no part of the network

    def update(self) -> None:
        self.steps += 1
        decay = (1 - 1 / self.steps) ** ema_exponent(0.1)
        with torch.no_grad():
            for average, now in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                average.lerp_(now, 1 - decay)


def averaged(net: DiT) -> Any:
    """Return the patch that keeps the average of a network's weights."""
    average, plain = Average(net), toy.loss

    def loss(*told: Any) -> Tensor:
        average.update()
        return plain(*told)

    return patch.object(toy, "loss", loss)


@contextmanager
def aligned(net: Aligned) -> Iterator[None]:
    """Lead tokens behind the first block to those behind the teacher's last, which sees the same clips in less noise.

    SRA (arXiv 2505.02831), with the cosine of Self-Flow (arXiv 2603.06507), whose tokens have times of their own within
    a clip, which a modulation by clip does not allow. The teacher is the average of the weights.
    """
    average, plain, seen = Average(net), toy.loss, {}
    net.blocks[0].register_forward_hook(lambda block, told, found: seen.__setitem__("student", found))
    average.ema.blocks[-1].register_forward_hook(lambda block, told, found: seen.__setitem__("teacher", found))

    def loss(net: DiT, batch: Any, t: Tensor, known: Condition, generator: torch.Generator) -> Tensor:
        average.update()
        state = generator.get_state()
        error = plain(net, batch, t, known, generator)
        again = torch.Generator()
        again.set_state(state)  # the same noise
        with torch.no_grad():
            plain(average.ema, batch, t * (1 - CLEANER * torch.rand(len(t))), known, again)
        led = net.head(seen["student"])
        return error - ALIGNED * F.cosine_similarity(led, seen["teacher"], dim=-1).mean()

    with patch.object(toy, "loss", loss):
        yield
    net.blocks[0]._forward_hooks.clear()


def alone(net: DiT) -> Any:
    """Return the patch by which a tenth of the clips loses its condition and no other a part of it."""
    return patch.object(toy, "thinned", lambda known, share, uniforms: known.dropped((uniforms[:, 0] < share).tolist()))


def by_tokens(net: DiT) -> Any:
    """Return the patch by which each token weighs the same."""
    plain = flow.loss
    return patch.object(flow, "loss", lambda velocity, data, noise, seconds: plain(velocity, data, noise))


def unconditioned() -> Any:
    """Return the patch by which the network answers the velocity itself."""
    return patch.object(
        flow, "preconditioning", lambda t: (torch.zeros_like(t), torch.ones_like(t), torch.ones_like(t))
    )


ROWS = {
    "all together": Row(),
    "with token routing (TREAD)": Row(network=Routed),
    "with alignment to the average (SRA, Self-Flow)": Row(network=Aligned, training=aligned),
    "without preconditioning": Row(always=unconditioned),
    "without the shift of times": Row(shift=1.0),
    "without conditions that stand alone": Row(training=alone),
    "without the moment": Row(without=("moment_in",)),
    "without the words, the pooled caption left": Row(without=tuple(f"blocks.{i}.cross" for i in range(3))),
    "without the pooled caption, the words left": Row(without=("pooled_in",)),
    "without rates and orders": Row(without=("rate_in", "order_in")),
    "without weights by seconds": Row(training=by_tokens),
    "without the place in the picture": Row(without=("place_in",)),
    "without rotary positions": Row(without=("rotary",)),
    "with Muon": Row(optimizer=MuonAdamW),
    "the average of the weights": Row(training=averaged, judged=lambda net: net.__dict__["average"]),
}


def trained(row: Row, seed: int, shapes: toy.Shapes) -> dict[str, float]:
    """Train one network; return what it came to and the CPU time that its training took."""
    torch.manual_seed(seed)
    with ExitStack() as stack:
        stack.enter_context(patch.object(toy, "DiT", row.network))
        stack.enter_context(row.always())
        net = toy.scaled(shapes(random.Random("scale"), toy.HELD)[0])
        for name in row.without:
            width = net.config.width // net.config.heads // 2 if name == "rotary" else net.config.width
            net.set_submodule(name, Nothing(width))
        begun = time.process_time()
        with row.training(net):
            optimizer = row.optimizer(net, toy.LR, 0.01)
            toy.fit(net, shapes, STEPS, seed, silent, shift=row.shift, optimizer=optimizer)
        cpu_s, net = time.process_time() - begun, row.judged(net)
        _, right = toy.answered(net, shapes, seed)
        facts = toy._cost(net, shapes, seed)
        found = {"held": toy._held(net, shapes), "facts": facts, "colour": right["prompt"][0]}
        found |= {"direction": right["prompt"][1], "by facts": right["facts"][1], "cpu_s": cpu_s}
    return {name: float(value) for name, value in found.items()}


@pytest.mark.bench
def test_each_part_of_the_network_taken_out_and_what_others_add(show: Any) -> None:
    torch.set_num_threads(1)
    path, shapes = RESULTS / "board.jsonl", toy.Shapes(toy.RATES)
    raw = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(one["row"], one["seed"]) for one in raw}
    for name, seed in product(ROWS, SEEDS):
        if (name, seed) not in done:
            raw.append({"row": name, "seed": seed, **trained(ROWS[name], seed, shapes)})
            with path.open("a") as file:
                file.write(json.dumps(raw[-1]) + "\n")
    rows = []
    for name in sorted({one["row"] for one in raw}, key=[*ROWS].index):
        own = [one for one in raw if one["row"] == name]
        held = " / ".join(f"{one['held']:.3f}" for one in own)
        means = [f"{mean(one[what] for one in own):.2f}" for what in ("facts", "colour", "direction", "by facts")]
        rows.append([name, held, *means, f"{mean(one['cpu_s'] for one in own):.0f}"])
    head = ["network", f"held-out loss, seeds {' / '.join(map(str, SEEDS))}", "others' facts cost", "colour",
            "direction", "direction by facts", "CPU s"]  # fmt: skip
    show(f"The board: moving shapes, {STEPS} steps, {len(SEEDS)} seeds", head, rows, raw)
    path.unlink()
    whole = [one for one in raw if one["row"] == "all together"]
    assert min(one[what] for one in whole for what in ("colour", "direction", "by facts")) >= 0.95
    for added in ("with token routing (TREAD)", "with alignment to the average (SRA, Self-Flow)"):
        assert mean(one["held"] for one in whole) < mean(one["held"] for one in raw if one["row"] == added), added
