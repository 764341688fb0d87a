"""Forms of attention and of text on moving shapes, and schedules of a sampler: the same steps, clips and noise."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from itertools import product
from statistics import mean

import pytest
import torch

from rushes.dit import flow, toy
from rushes.dit.model import DiT
from rushes.tokenizer.config import silent

FORMS = {
    "joint, cross": {},
    "factorised": {"attention": "factorised"},
    "factorised-encoder": {"attention": "factorised-encoder"},
    "dual-to-single": {"streams": "dual-to-single"},
}
SEEDS, STEPS = (0, 1, 2), 1000
LOOKS, EXACT = (10, 20, 50), 400
SCHEDULES = {"even": (1.0, "shifted"), f"shifted by {toy.SHIFT:g}": (toy.SHIFT, "shifted"),
             "linear-quadratic": (1.0, "linear-quadratic")}  # fmt: skip


@pytest.mark.bench
def test_the_default_form_teaches_no_less_than_the_others_and_schedules_err_by_their_steps(show):
    torch.set_num_threads(1)
    shapes, raw, nets = toy.Shapes(toy.RATES), [], {}
    for seed, name in product(SEEDS, FORMS):
        net = nets[name, seed] = fresh(name, seed, shapes)
        begun = time.process_time()
        toy.fit(net, shapes, STEPS, seed, silent)
        cpu_s = time.process_time() - begun
        weights = sum(parameter.numel() for parameter in net.parameters())
        raw.append({"form": name, "seed": seed, "held": toy._held(net, shapes), "cpu_s": cpu_s, "weights": weights})
        print(raw[-1], flush=True)
    rows, means = [], {}
    for name in FORMS:
        own = [one for one in raw if one["form"] == name]
        means[name] = mean(one["held"] for one in own)
        held = " / ".join(f"{one['held']:.3f}" for one in own)
        cost = f"{own[0]['weights'] / 1e6:.2f} M", f"{mean(one['cpu_s'] for one in own):.0f}"
        rows.append([name, held, f"{means[name]:.3f}", *cost])
    head = ["form", "held-out loss, seeds 0 / 1 / 2", "mean", "parameters", "CPU s"]
    show(f"Forms of the network, moving shapes, {STEPS} steps", head, rows, raw)
    errors = schedules(nets["joint, cross", 0].eval(), shapes)
    rows = [[name, *(f"{errors[name, steps]:.3f}" for steps in LOOKS)] for name in SCHEDULES]
    head = ["schedule", *(f"{steps} steps" for steps in LOOKS)]
    show(f"Error of Euler's latents against {EXACT} steps, of their spread", head, rows, [str(errors)])
    assert means["joint, cross"] <= 1.05 * min(means.values())


def fresh(name: str, seed: int, shapes: toy.Shapes) -> DiT:
    """Return a network of a form that knows the scale of the clips."""
    scale = toy.scaled(shapes(random.Random("scale"), toy.HELD)[0])
    torch.manual_seed(seed)
    net = DiT(replace(toy.NETWORK, **FORMS[name]))
    net.load_state_dict({**net.state_dict(), **dict(scale.named_buffers())}, strict=False)
    return net


@torch.no_grad()
def schedules(net: DiT, shapes: toy.Shapes) -> dict[tuple[str, int], float]:
    """Return how far a schedule's latents are from those of many steps, for captioned clips without guidance."""
    batch, known = shapes(random.Random("drawn"), 2 * toy.BATCH)
    noise = torch.randn(batch.tokens.shape, generator=torch.Generator().manual_seed(0))
    told = (batch.positions, batch.rates, batch.orders, batch.lengths)

    def drawn(steps: int, shift: float, schedule: flow.Schedule) -> torch.Tensor:
        when = torch.ones(len(batch.lengths))
        return flow.euler(lambda x, t: net(x, *told, t * when, known), noise, steps, shift, schedule)

    exact, found = drawn(EXACT, toy.SHIFT, "shifted"), {}
    for (name, how), steps in product(SCHEDULES.items(), LOOKS):
        found[name, steps] = float((drawn(steps, *how) - exact).square().mean().sqrt() / exact.std())
        print(name, steps, found[name, steps], flush=True)
    return found
