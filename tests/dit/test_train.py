from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dit.config import TrainConfig
from dit.model import load
from dit.train import train

FAST = TrainConfig(steps=6, tokens=40, log_every=1, save_every=3, shuffle=4, warmup=2, device="cpu")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder / "model")[0].state_dict()


def test_a_resumed_run_ends_with_the_weights_and_metrics_of_an_uninterrupted_one(latents, tmp_path):
    train(FAST, latents, str(tmp_path / "whole"))
    train(replace(FAST, steps=4, save_every=100), latents, str(tmp_path / "resumed"))
    train(FAST, latents, str(tmp_path / "resumed"))
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)

    def lines(run: str) -> list[tuple[int, float]]:
        found = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        return [(line["step"], line["loss"]) for line in found]

    assert lines("whole") == lines("resumed")
    assert [step for step, _ in lines("whole")] == [1, 2, 3, 4, 5, 6]
