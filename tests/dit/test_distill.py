from __future__ import annotations

import copy
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rushes.dit import matching, toy
from rushes.dit.causal import Row, row_of
from rushes.dit.config import DistillConfig, DiTConfig, TrainConfig
from rushes.dit.distill import distill
from rushes.dit.model import DiT, load, save
from rushes.dit.train import train

FAST = DistillConfig(
    steps=3, path_steps=1, paths=1, teacher_steps=2, looks=2, fake_steps=1, log_every=1, save_every=2, device="cpu"
)


@pytest.fixture
def teacher(latents, tmp_path) -> str:
    config = TrainConfig(model=DiTConfig(size="pico"), steps=2, tokens=80, warmup=0, lr=1e-2, device="cpu")
    train(config, latents, str(tmp_path / "dit"))
    return str(tmp_path / "dit")


def test_a_resumed_distillation_ends_with_the_student_of_an_uninterrupted_one(latents, teacher, tmp_path):
    whole, resumed = str(tmp_path / "whole"), str(tmp_path / "resumed")
    distill(FAST, teacher, latents, whole)
    distill(replace(FAST, steps=2), teacher, latents, resumed)
    model = distill(FAST, teacher, latents, resumed)
    (one, about), (two, _) = load(f"{whole}/model"), load(str(model))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    lines = [(Path(folder) / "metrics.jsonl").read_text() for folder in (whole, resumed)]
    phases = [json.loads(line)["phase"] for line in lines[0].splitlines()]
    assert lines[0] == lines[1] and phases == ["paths", "matching", "matching"]
    before, told = load(f"{teacher}/model")
    assert not torch.equal(one.tokens_in.weight, before.tokens_in.weight) and about["known"]
    assert about["student"] == {
        "method": "causal", "levels": [1.0, 0.75], "shift": 3.0, "guidance": 3.0, "teacher": told["fingerprint"],
    }  # fmt: skip


def test_a_student_of_another_teacher_or_other_settings_is_refused(latents, teacher, tmp_path):
    out = str(tmp_path / "student")
    reflow = replace(FAST, method="reflow", steps=2)
    model = distill(reflow, teacher, latents, out)
    assert '"phase": "matching"' not in (tmp_path / "student" / "metrics.jsonl").read_text()
    assert load(str(model))[1]["known"] == 0  # it was given no latents, and is not asked to go on from any
    with pytest.raises(ValueError, match=r"holds a student of other settings \(looks, guidance\); use those again"):
        distill(replace(reflow, looks=3, guidance=1.0), teacher, latents, out)
    about = json.loads((tmp_path / "student" / "distill.json").read_text())
    (tmp_path / "student" / "distill.json").write_text(json.dumps({**about, "teacher": "0" * 12}))
    with pytest.raises(ValueError, match=r"holds a student of another teacher \(000000000000, not"):
        distill(reflow, teacher, latents, out)
    with pytest.raises(ValueError, match=r"holds a training; give another --out, such as .*/student"):
        distill(reflow, teacher, latents, teacher)
    with pytest.raises(ValueError, match="holds a student; give another --out"):
        train(TrainConfig(device="cpu"), latents, out)
    save(DiT(DiTConfig(size="pico", streams="dual-to-single")), f"{teacher}/model", {})
    with pytest.raises(ValueError, match="has attention=joint and streams=dual-to-single; a causal student has joint"):
        distill(DistillConfig(device="cpu"), teacher, latents, str(tmp_path / "dual"))
    shutil.rmtree(f"{teacher}/model")
    shutil.copytree(model, f"{teacher}/model")
    with pytest.raises(ValueError, match="is a student itself; give the folder of the training"):
        distill(FAST, teacher, latents, str(tmp_path / "again"))


@pytest.fixture
def row() -> Row:
    """What is told of two clips of two segments."""
    clips = [toy.clip(toy.shape(random.Random(number)), (8, 16)) for number in range(2)]
    return row_of(toy.pack(clips, toy.NETWORK), toy.Given.nothing(2))


def test_a_path_of_a_gaussian_widens_and_narrows_as_its_variance_does(row):
    """A fresh network knows the velocity of a unit Gaussian, whose points at t are those at 1 by their spread."""
    config = DistillConfig(teacher_steps=80, guidance=1.0, shift=3.0)
    points, at = matching.path(DiT(toy.NETWORK), row, config, 0), [*matching.levels(config), 0.0]
    assert at == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])
    for point, t in zip(points, at, strict=True):
        torch.testing.assert_close(point, points[0] * ((1 - t) ** 2 + t**2) ** 0.5, atol=0.1, rtol=0)


def test_a_student_is_pushed_from_its_own_distribution_to_the_teachers_and_nowhere_where_they_are_one(row):
    torch.manual_seed(0)
    teacher, config = DiT(toy.NETWORK), DistillConfig(guidance=1.0, shift=3.0)
    fake, data = copy.deepcopy(teacher), torch.randn(len(row.rates), 12)
    assert not matching.apart(teacher, fake, row, data, torch.Generator().manual_seed(0), config).any()
    fake.tokens_out.bias.data[0] = 1.0  # sees less in a channel: the student has too little of it
    push = matching.apart(teacher, fake, row, data, torch.Generator().manual_seed(0), config)
    assert (push[:, 0] < -0.01).all() and not push[:, 1:].any()
    larger = matching.apart(teacher, fake, row, 10 * data, torch.Generator().manual_seed(0), config)
    assert (larger[:, 0] > push[:, 0] / 4).all()  # by how far the teacher's answer is from what was made


def test_clean_segments_bear_no_loss(row):
    points = torch.randn(5, len(row.rates), 12)
    net, at = DiT(toy.NETWORK), [1.0, 0.9, 0.75, 0.5]
    losses = [matching.regress(net, row, points, torch.Generator().manual_seed(seed), at) for seed in range(24)]
    assert min(losses) == 0 and max(losses) > 0.5  # in one of sixteen draws all four segments are clean
