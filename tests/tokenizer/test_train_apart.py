"""Trainings in processes of their own: killed at any instant, and several that train one model together.

This file is also the script that they run: `python test_train_apart.py SHARDS OUT SETTINGS RATES`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map

from rushes.tokenizer.config import TokenizerConfig, TrainConfig
from rushes.tokenizer.model import fingerprint, load
from rushes.tokenizer.module import TokenizerModule
from rushes.tokenizer.sharding import whole
from rushes.tokenizer.train import Trained, train

pytestmark = pytest.mark.slow
MODEL = TokenizerConfig(rates=(4, 8))
SMALL = TrainConfig(batch=1, frames=17, side=32, feature=0, save_every=2, log_every=1, shuffle=4, warmup=2)


def spied(root: str, out: Path, settings: TrainConfig, model: TokenizerConfig = MODEL) -> Trained:
    """Train; leave what each process saw and ended with in `keys.RANK` and `weights.RANK`, and the first checkpoint."""
    plain = TokenizerModule.training_step

    def step(module: TokenizerModule, batch: dict, index: int) -> None:
        out.mkdir(exist_ok=True)
        with (out / f"keys.{module.global_rank}").open("a") as file:
            file.write(json.dumps([module.steps_done, batch["keys"]]) + "\n")
        if (out / "last.ckpt").exists() and not (out / "first.ckpt").exists() and module.global_rank == 0:
            shutil.copy(out / "last.ckpt", out / "first.ckpt")
        plain(module, batch, index)
        (out / f"weights.{module.global_rank}").write_text(fingerprint(whole(module.tokenizer)))
        (out / f"held.{module.global_rank}").write_text(json.dumps(held(module)))

    TokenizerModule.training_step = step
    try:
        return train(root, str(out), model, settings)
    finally:
        TokenizerModule.training_step = plain


def held(module: TokenizerModule) -> dict[str, int]:
    """How many numbers this process holds of what is trained and of what trains it."""
    states = [state for optimizer in module.trainer.optimizers for state in optimizer.state.values()]
    tensors = {
        "tokenizer": module.tokenizer.parameters(),
        "average": module.average.parameters(),
        "discriminator": module.discriminator.parameters() if module.discriminator else (),
        "gradients": [p.grad for p in module.tokenizer.parameters() if p.grad is not None],
        "optimizers": [value for state in states for value in state.values() if value.ndim],
    }
    return {name: sum(local(one).numel() for one in some) for name, some in tensors.items()}


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def apart(root: str, out: Path, settings: TrainConfig, model: TokenizerConfig = MODEL) -> subprocess.Popen:
    here = Path(__file__)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    out.mkdir(exist_ok=True)
    command = [sys.executable, str(here), root, str(out), json.dumps(asdict(settings)), json.dumps(model.rates)]
    with (out / "log").open("a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def together(root: str, out: Path, settings: TrainConfig, model: TokenizerConfig = MODEL) -> None:
    """Train in several processes, the first of which starts the others, to the end."""
    process = apart(root, out, settings, model)
    try:
        assert process.wait(900) == 0, (out / "log").read_text()
    finally:
        process.terminate()


def keys(out: Path, rank: int = 0) -> dict[int, list[str]]:
    """The keys of each step's batch; a step that was taken twice must have had the same."""
    found: dict[int, list[str]] = {}
    for line in (out / f"keys.{rank}").read_text().splitlines():
        step, seen = json.loads(line)
        assert found.setdefault(step, seen) == seen
    return found


def metrics(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "elapsed_s"} for line in lines]


def test_a_training_killed_at_any_instant_goes_on_as_if_it_had_not_been(clip_shards, tmp_path):
    settings = replace(SMALL, stages="image:2,4:6,8:6,decoder:4@48", gan=0.5, gan_from=4, holdout=0.22, workers=2)
    whole = spied(clip_shards, tmp_path / "whole", settings)
    out = tmp_path / "killed"
    process = apart(clip_shards, out, settings)
    until = time.monotonic() + 60
    while not (out / "last.ckpt").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(random.random())  # any instant: within a step, a save, or a strip
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (out / "log").read_text()
    again = spied(clip_shards, out, settings)
    assert again.fingerprint == whole.fingerprint and again.steps == 18
    assert metrics(out) == metrics(tmp_path / "whole")
    assert keys(out) == keys(tmp_path / "whole") and sorted(keys(out)) == list(range(18))


SHARED = replace(SMALL, stages="4:2,8:1,decoder:1@48", devices=2, gan=0.5, gan_from=1, holdout=0.22)
"""A rate is added, the encoder freezes, a judge joins: what a sharded training must do as DDP does it."""
FSDP = replace(SHARED, strategy="fsdp")


@pytest.fixture(scope="module")
def shared(clip_shards: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One training with each strategy, of two processes."""
    outs = {settings.strategy: tmp_path_factory.mktemp(settings.strategy) for settings in (SHARED, FSDP)}
    for settings in (SHARED, FSDP):
        together(clip_shards, outs[settings.strategy], settings)
    return outs


def test_two_processes_train_one_model_on_clips_of_their_own_and_resume_exactly(clip_shards, shared, tmp_path):
    out, resumed = shared["ddp"], tmp_path / "resumed"
    seen = [{key for batch in keys(out, rank).values() for key in batch} for rank in (0, 1)]
    assert seen[0] and seen[1] and not seen[0] & seen[1]
    assert (out / "weights.0").read_text() == (out / "weights.1").read_text()
    resumed.mkdir()
    shutil.copy(out / "first.ckpt", resumed / "last.ckpt")
    together(clip_shards, resumed, SHARED)
    for rank in (0, 1):
        assert keys(resumed, rank) == {step: seen for step, seen in keys(out, rank).items() if step >= 2}
    assert (resumed / "weights.1").read_text() == (out / "weights.0").read_text()
    assert (resumed / "trained.json").read_text() == (out / "trained.json").read_text()
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(out / "first.ckpt", alone / "last.ckpt")
    with pytest.raises(ValueError, match="of 2 processes, not 1; give devices=2"):
        train(clip_shards, str(alone), MODEL, replace(SHARED, devices=1))


def saved(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


def layout(checkpoint: dict) -> object:
    """What a checkpoint is, without its numbers."""
    return tree_map(lambda x: (x.shape, x.dtype) if isinstance(x, torch.Tensor) else type(x), checkpoint)


@pytest.mark.parametrize("name", ["first.ckpt", "last.ckpt"])
def test_a_checkpoint_of_a_sharded_training_is_laid_out_as_one_of_ddp_and_holds_the_same_weights(shared, name):
    ddp, fsdp = saved(shared["ddp"] / name), saved(shared["fsdp"] / name)
    assert layout(fsdp) == layout(ddp)
    for weight, value in ddp["state_dict"].items():
        torch.testing.assert_close(fsdp["state_dict"][weight], value, rtol=0, atol=1e-5, msg=weight)
    for one, other in zip(fsdp["optimizer_states"], ddp["optimizer_states"], strict=True):
        for number, state in other["state"].items():
            torch.testing.assert_close(one["state"][number], state, rtol=1e-2, atol=1e-5)


def test_each_process_of_a_sharded_training_holds_a_part_of_all_that_is_trained(shared):
    one, other = (json.loads((shared["fsdp"] / f"held.{rank}").read_text()) for rank in (0, 1))
    every = json.loads((shared["ddp"] / "held.0").read_text())
    for name, numbers in every.items():
        assert one[name] + other[name] == numbers
        assert 0.4 * numbers < one[name] < 0.6 * numbers


def test_a_sharded_training_leaves_a_model_strips_and_what_held_out_clips_lose(shared):
    one, other = (json.loads((shared[name] / "trained.json").read_text()) for name in ("fsdp", "ddp"))
    tokenizer = load(str(shared["fsdp"] / "model"), expect=one["fingerprint"])
    final = saved(shared["fsdp"] / "last.ckpt")["state_dict"]
    for name, weight in tokenizer.state_dict().items():
        assert torch.equal(weight, final[f"average.{name}"])
    assert one["psnr"] == pytest.approx(other["psnr"], abs=1e-3)
    lines = [{k: v for k, v in line.items() if "held" in k} for line in metrics(shared["fsdp"])]
    assert [len(line) for line in lines] == [0, 3, 0, 3]
    assert {path.name for path in (shared["fsdp"] / "strips").iterdir()} == {"000002.png", "000004.png", "final.png"}


def test_a_sharded_training_resumes_exactly_also_where_activations_are_recomputed(clip_shards, shared, tmp_path):
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    shutil.copy(shared["fsdp"] / "first.ckpt", resumed / "last.ckpt")
    together(clip_shards, resumed, replace(FSDP, checkpointing=True))
    assert (resumed / "trained.json").read_text() == (shared["fsdp"] / "trained.json").read_text()
    one, other = (saved(out / "last.ckpt") for out in (resumed, shared["fsdp"]))
    torch.testing.assert_close(one["state_dict"], other["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(one["optimizer_states"], other["optimizer_states"], rtol=0, atol=0)


@pytest.mark.parametrize("compile", [False, True], ids=["plain", "compiled"])
def test_two_processes_with_a_logger_are_killed_and_go_on_to_the_bit(clip_shards, tmp_path, compile):
    settings = replace(
        SMALL, steps=6, frames=16, passes=1, devices=2, workers=1, holdout=0.22, logger="csv", compile=compile
    )
    model = TokenizerConfig(rates=(4,))  # one shape to compile
    whole, out = tmp_path / "whole", tmp_path / "killed"
    together(clip_shards, whole, settings, model)
    process = apart(clip_shards, out, settings, model)
    until = time.monotonic() + 600
    while not (out / "last.ckpt").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (out / "log").read_text()
    together(clip_shards, out, settings, model)
    assert (out / "trained.json").read_text() == (whole / "trained.json").read_text()
    assert (out / "weights.0").read_text() == (out / "weights.1").read_text() == (whole / "weights.0").read_text()
    assert metrics(out) == metrics(whole)
    assert [line["step"] for line in metrics(whole) if "held_psnr_rate_4" in line] == [2, 4, 6]
    assert "held-out clips" in (whole / "curves.svg").read_text()
    logged = [path.read_text().splitlines() for path in sorted(out.glob("logs/*/metrics.csv"))]
    assert len(logged) == 2 and all("held_psnr_rate_4" in lines[0] for lines in logged)


if __name__ == "__main__":
    torch.set_num_threads(1)
    wanted = TokenizerConfig(rates=tuple(json.loads(sys.argv[4])))
    spied(sys.argv[1], Path(sys.argv[2]), TrainConfig(**json.loads(sys.argv[3])), wanted)
