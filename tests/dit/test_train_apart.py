"""Trainings on another number of ranks and workers at each resume, and killed at any instant.

This file is also the script that they run: `python test_train_apart.py LATENTS OUT SETTINGS`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from rushes.dit.config import TrainConfig
from rushes.dit.data import Batch
from rushes.dit.model import load
from rushes.dit.module import FlowModule
from rushes.dit.train import train

pytestmark = pytest.mark.slow
SMALL = TrainConfig(steps=12, tokens=40, packs=2, log_every=1, save_every=2, warmup=2, device="cpu")


def spied(latents: str, out: Path, config: TrainConfig) -> None:
    """Train, and leave what each rank saw in each step in `seen.RANK`."""
    plain = FlowModule.training_step

    def step(module: FlowModule, batch: Batch, index: int) -> torch.Tensor:
        drawn = [
            module.noise(batch).double().sum().item(),
            batch.normals.tolist(),
            batch.uniforms.double().sum().item(),
        ]
        row = [module.global_step, [list(vars(one).values()) for one in batch.tickets], batch.packed.lengths, drawn]
        with (out / f"seen.{module.global_rank}").open("a") as file:
            file.write(json.dumps(row) + "\n")
        return plain(module, batch, index)

    FlowModule.training_step = step
    try:
        train(config, latents, str(out))
    finally:
        FlowModule.training_step = plain


def apart(latents: str, out: Path, config: TrainConfig) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    out.mkdir(exist_ok=True)
    settings = {name: value for name, value in asdict(config).items() if name != "model"}
    with (out / "log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, __file__, latents, str(out), json.dumps(settings)],
            env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def seen(out: Path, rank: int) -> dict[int, list]:
    """What a rank saw in each step; a step that was taken twice must have had the same."""
    found: dict[int, list] = {}
    path = out / f"seen.{rank}"
    for line in path.read_text().splitlines() if path.exists() else ():
        step, *told = json.loads(line)
        found.setdefault(step, [])
        if told not in found[step]:
            found[step].append(told)
    return found


def test_one_rank_then_two_then_one_see_the_same_packs_and_learn_the_same(latents, tmp_path):
    whole, turns = tmp_path / "whole", tmp_path / "turns"
    whole.mkdir()
    turns.mkdir()
    spied(latents, whole, SMALL)
    spied(latents, turns, replace(SMALL, steps=4))
    process = apart(latents, turns, replace(SMALL, steps=8, devices=2, workers=1))
    assert process.wait(900) == 0, (turns / "log").read_text()
    spied(latents, turns, replace(SMALL, workers=2))
    alone, first, second = seen(whole, 0), seen(turns, 0), seen(turns, 1)
    assert sorted(second) == [4, 5, 6, 7]
    assert {step: first[step] + second.get(step, []) for step in range(12)} == alone
    assert all(len(packs) == 2 for packs in alone.values())
    one, other = (load(str(out / "model"))[0].state_dict() for out in (whole, turns))
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-4, rtol=1e-3, msg=name)
    losses = [[json.loads(line)["loss"] for line in (out / "metrics.jsonl").open()] for out in (whole, turns)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_two_ranks_killed_at_any_instant_go_on_to_the_bit(latents, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = replace(SMALL, devices=2, workers=1)
    assert apart(latents, whole, config).wait(900) == 0, (whole / "log").read_text()
    process = apart(latents, killed, config)
    until = time.monotonic() + 600
    while not (killed / "checkpoint.ckpt").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(random.random())
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (killed / "log").read_text()
    assert apart(latents, killed, config).wait(900) == 0, (killed / "log").read_text()
    one, other = (load(str(out / "model"))[0].state_dict() for out in (whole, killed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    for rank in (0, 1):
        assert seen(killed, rank) == seen(whole, rank)


if __name__ == "__main__":
    torch.set_num_threads(1)
    spied(sys.argv[1], Path(sys.argv[2]), TrainConfig(**json.loads(sys.argv[3])))
