from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.dit.config import DiTConfig, TrainConfig
from rushes.dit.data import LatentClip, LatentError, Round, durations, facts_of, first_fit, pack, parse
from rushes.pipelines.store import shards

FINGERPRINT = "abcdef012345"


def clip(key: str, latents: int, side: int = 2) -> LatentClip:
    return LatentClip(
        key=key,
        latents=torch.zeros(latents, 1, side, side),
        times_s=torch.arange(latents) / 6,
        rates=(4,) * latents,
        counts=(1,) * latents,
        caption="",
        facts={},
    )


def sample(root: str, number: int = 0) -> dict:
    return list(shards.pipeline(root, members=("npy", "json", "txt")))[number]


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 10), max_size=60))
def test_first_fit_puts_every_clip_in_one_batch_and_keeps_the_budget(sizes):
    clips = [clip(str(i), size) for i, size in enumerate(sizes)]
    batches = list(first_fit(clips, 10, 2))
    assert sorted(int(one.key) for batch in batches for one in batch) == list(range(len(sizes)))
    assert all(0 < sum(one.tokens(2) for one in batch) <= 10 for batch in batches)


def test_first_fit_fills_batches_well():
    dice = random.Random(0)
    clips = [clip(str(i), dice.randint(1, 30)) for i in range(500)]
    batches = list(first_fit(clips, 100, 2))
    assert sum(len(one.latents) for one in clips) / (100 * len(batches)) > 0.9


def test_an_epoch_holds_each_clip_once_and_depends_on_seed_and_epoch_alone(latents):
    config = TrainConfig(tokens=40, shuffle=10)

    def keys(epoch: int, seed: int = 0) -> list[list[str]]:
        return [b.keys for b in Round(latents, replace(config, seed=seed), range(epoch, epoch + 1), FINGERPRINT)]

    flat = [key for batch in keys(0) for key in batch]
    assert len(flat) == len(set(flat)) == 7
    assert keys(0) == keys(0)
    assert len({str(keys(epoch)) for epoch in range(4)} | {str(keys(0, seed=9))}) > 2


def test_a_packed_batch_keeps_the_times_and_rates_of_each_latent(latents):
    one, two = (parse(sample(latents, i), FINGERPRINT) for i in (0, 1))
    packed = pack([one, two], DiTConfig())
    assert packed.lengths == [one.tokens(2), two.tokens(2)] == [24, 4 * 4]  # (4 + 2) latents of 4 tokens; 4 of 4
    assert packed.rates.tolist()[:24] == [4.0] * 16 + [8.0] * 8
    assert packed.orders.tolist()[:24:4] == [0, 1, 2, 3, 0, 1], "a latent's place is that in its segment"
    assert packed.positions[:24:4, 0].tolist() == pytest.approx([i / 24 for i in (0, 4, 8, 12, 16, 24)])
    assert packed.seconds[:24].tolist() == pytest.approx([4 / 24] * 16 + [8 / 24] * 8)
    assert packed.facts[0, 0] == 24 and packed.facts[0].isnan().any()


def test_the_last_latent_lasts_as_long_as_its_frames():
    assert durations(clip("k", 3)).tolist() == pytest.approx([4 / 24] * 3)
    assert durations(replace(clip("k", 3), facts={"frames": 9})).tolist() == pytest.approx([4 / 24, 4 / 24, 1 / 24])
    assert durations(replace(clip("k", 1), facts={"frames": 3, "fps": 10.0})).tolist() == pytest.approx([0.3])


def test_a_clip_over_the_budget_keeps_its_leading_segments(latents):
    one = parse(sample(latents))
    short = one.leading(20, 2)
    assert short.rates == (4,) and len(short.latents) == 4 and torch.equal(short.latents, one.latents[:4])
    assert one.leading(24, 2).rates == (4, 8)
    with pytest.raises(LatentError, match="raise tokens"):
        one.leading(15, 2)


def test_a_crop_is_a_window_of_the_latents():
    one = replace(clip("k", 2), latents=torch.arange(2 * 25.0).reshape(2, 1, 5, 5))
    small = one.cropped(3, random.Random(0)).latents
    assert small.shape == (2, 1, 3, 3) and small[0, 0, 1, 1] - small[0, 0, 0, 0] == 6
    assert one.cropped(0, random.Random(0)) is one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "other"}, "was made by tokenizer other"),
        ({"rates": [4]}, "no latent sample"),
        ({"rates": [4, 4]}, "must agree"),
        ({"times_s": [0.0]}, "must agree"),
        ({"lengths": None}, "no latent sample"),
    ],
)
def test_a_sample_that_contradicts_itself_is_refused_by_name(latents, change, message):
    good = sample(latents)
    bad = {**good, "json": json.dumps({**json.loads(good["json"]), **change}).encode()}
    with pytest.raises(LatentError, match=message):
        parse(bad, FINGERPRINT)


def test_pickled_arrays_are_never_opened(latents, tmp_path):
    np.save(tmp_path / "evil.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(LatentError, match="no latent sample"):
        parse({**sample(latents), "npy": (tmp_path / "evil.npy").read_bytes()})


def test_what_is_no_number_is_an_unknown_fact():
    facts = facts_of([{"a": 1, "b": None}, {"a": "x", "b": float("inf")}], ["a", "b", "c"])
    assert facts[0, 0] == 1 and int(facts.isnan().sum()) == 5
