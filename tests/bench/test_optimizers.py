"""Muon beside AdamW on the toy's moving shapes: the same steps, clips, times and noise, three seeds."""

from __future__ import annotations

import random
import time
from itertools import product
from statistics import mean

import pytest
import torch

from rushes.dit import toy
from rushes.dit.optimizer import MuonAdamW, adamw
from rushes.tokenizer.config import silent

OPTIMIZERS = {"adamw": adamw, "muon": MuonAdamW}
RATES, SEEDS, STEPS = (3e-3, 6e-3), (0, 1, 2), 1000


@pytest.mark.bench
def test_muon_teaches_more_than_adamw_in_the_same_steps(show):
    torch.set_num_threads(1)
    shapes, raw = toy.Shapes(toy.RATES), []
    for lr, name, seed in product(RATES, OPTIMIZERS, SEEDS):
        torch.manual_seed(seed)
        net = toy.scaled(shapes(random.Random("scale"), toy.HELD)[0])
        begun = time.process_time()
        toy.fit(net, shapes, STEPS, seed, silent, optimizer=OPTIMIZERS[name](net, lr, 0.01))
        cpu_s = time.process_time() - begun
        raw.append({"optimizer": name, "lr": lr, "seed": seed, "held": toy._held(net, shapes), "cpu_s": cpu_s})
        print(raw[-1], flush=True)
    rows, means = [], {}
    for lr, name in product(RATES, OPTIMIZERS):
        own = [one for one in raw if (one["optimizer"], one["lr"]) == (name, lr)]
        means[name, lr] = mean(one["held"] for one in own)
        held = " / ".join(f"{one['held']:.3f}" for one in own)
        rows.append([f"{name}, lr {lr:g}", held, f"{means[name, lr]:.3f}", f"{mean(o['cpu_s'] for o in own):.0f}"])
    head = ["optimizer", "held-out loss, seeds 0 / 1 / 2", "mean", "CPU s"]
    show(f"Muon beside AdamW, moving shapes, {STEPS} steps", head, rows, raw)
    best = {name: min(means[name, lr] for lr in RATES) for name in OPTIMIZERS}
    assert best["muon"] < best["adamw"]
