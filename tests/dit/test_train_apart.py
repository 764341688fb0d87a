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
from rushes.dit.index import read_index
from rushes.dit.model import load
from rushes.dit.module import FlowModule
from rushes.dit.train import train
from rushes.tokenizer.sharding import full_tensor

pytestmark = pytest.mark.slow
SMALL = TrainConfig(steps=12, tokens=40, packs=2, log_every=1, save_every=2, warmup=2, device="cpu")


def spied(latents: str, out: Path, config: TrainConfig) -> None:
    """Train, and leave what each rank saw in each step in `seen.RANK`, and its gradients in `gradients.RANK`."""
    plain, clip = FlowModule.training_step, FlowModule.configure_gradient_clipping

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

    def clipped(module: FlowModule, *rest, **named) -> None:
        norms = [float(full_tensor(p.grad.norm())) for p in module.net.parameters()]
        with (out / f"gradients.{module.global_rank}").open("a") as file:
            file.write(json.dumps(norms) + "\n")
        clip(module, *rest, **named)

    FlowModule.training_step, FlowModule.configure_gradient_clipping = step, clipped
    try:
        train(config, latents, str(out))
    finally:
        FlowModule.training_step, FlowModule.configure_gradient_clipping = plain, clip


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


@pytest.mark.parametrize(("strategy", "optimizer"), [("ddp", "adamw"), ("fsdp", "adamw")])
def test_one_rank_then_two_then_one_see_the_same_packs_and_learn_the_same(latents, tmp_path, strategy, optimizer):
    small = replace(SMALL, optimizer=optimizer)
    whole, turns = tmp_path / "whole", tmp_path / "turns"
    whole.mkdir()
    turns.mkdir()
    spied(latents, whole, small)
    spied(latents, turns, replace(small, steps=4))
    process = apart(latents, turns, replace(small, steps=8, devices=2, workers=1, strategy=strategy))
    assert process.wait(900) == 0, (turns / "log").read_text()
    spied(latents, turns, replace(small, workers=2))
    gradients = [[json.loads(line) for line in (out / "gradients.0").open()] for out in (whole, turns)]
    assert len(gradients[0]) == len(gradients[1]) == 12
    for step, (one, other) in enumerate(zip(*gradients, strict=True)):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-5 * max(one)), step
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


def command(latents: str, *settings: str) -> subprocess.Popen:
    """The command itself on two ranks; it finds the latents in their run."""
    return subprocess.Popen(
        [sys.executable, "-m", "rushes.pipelines.cli.main", "dit", "train", str(Path(latents).parent), "--devices=2",
         "--device=cpu", "--tokens=40", "--steps=400", "--save_every=5", *settings],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def errors(process: subprocess.Popen) -> list[str]:
    told = process.communicate(timeout=300)[1].splitlines()
    return [line for line in told if "rror" in line or "killed" in line or "Traceback" in line]


def until(there: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 300
    while not there.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)


def child(process: subprocess.Popen) -> int:
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_gives_one_error_and_ends_the_other(latents, rank):
    process = command(latents)
    until(Path(latents).parent / "dit" / "checkpoint.ckpt", process)
    other = child(process)
    os.kill([process.pid, other][rank], signal.SIGKILL)
    told = errors(process)
    who = ["the first process of the training was killed", "process 1 of the training was killed by SIGKILL"][rank]
    assert len(told) == 1 and who in told[0] and "goes on from the last checkpoint" in told[0], told
    end = time.monotonic() + 60
    while Path(f"/proc/{other}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert process.returncode and not Path(f"/proc/{other}").exists()


def test_what_one_rank_alone_cannot_read_is_the_one_error_of_all(latents):
    index = read_index(latents)
    tar = Path(latents) / "b" / "part-000000.tar"
    data = bytearray(tar.read_bytes())
    at = index.places[0, 0, 0]
    data[at : at + 6] = b"broken"
    tar.write_bytes(data)
    told = errors(command(latents))
    assert len(told) == 1 and f"{index.key(0)} is no latent sample" in told[0], told


if __name__ == "__main__":
    torch.set_num_threads(1)
    spied(sys.argv[1], Path(sys.argv[2]), TrainConfig(**json.loads(sys.argv[3])))
