from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.dit.config import DiTConfig, TrainConfig
from rushes.dit.index import Index, LatentError
from rushes.dit.plan import (
    Round,
    Ticket,
    Windows,
    asked,
    best_fit,
    costs,
    drawn,
    fixed,
    generator,
    noise,
    pair_cost,
    plan,
    windows,
)

CONFIG = TrainConfig(tokens=40, holdout=0.0, model=DiTConfig(patch=1))


def index_of(clips: list[list[int]], cells: list[tuple[int, int]] | None = None) -> Index:
    """An index of clips by the latents of their segments, of one cell each."""
    counts = np.array([count for clip in clips for count in clip], np.int64)
    return Index(
        root="latents", paths=("b/part-000000.tar",), tokenizer="rushes", fingerprint="f" * 12, channels=16,
        keys=np.array([f"{number:016x}-000000000" for number in range(len(clips))], "S26"),
        shard=np.zeros(len(clips), np.int64), places=np.zeros((len(clips), 3, 2), np.int64),
        cells=np.array(cells or [(1, 1)] * len(clips), np.int64),
        first=np.cumsum([0, *map(len, clips)]), counts=counts, rates=np.full(len(counts), 4),
        pictures=False, seconds=np.ones(len(counts)), captions=pa.array([""]), caption=np.zeros(len(clips), np.int64),
    )  # fmt: skip


SIDES = [(16, 28), (24, 43), (32, 56), (32, 43), (56, 32), (32, 76), (45, 80), (60, 104)]
"""Latent cells of clips of 128 to 480 lines, most of them of the 256 that `rushes latents` makes."""


def realistic(clips: int, seed: int = 0) -> Index:
    """Clips of 1 s to a minute, of mixed sizes, each segment at a rate of its own."""
    dice = np.random.default_rng(seed)
    seconds = np.minimum(np.exp(dice.normal(1.6, 0.7, clips)) + 1, 60)
    cells = np.array(SIDES)[dice.choice(len(SIDES), clips, p=[0.1, 0.1, 0.3, 0.15, 0.1, 0.05, 0.1, 0.1])]
    segments = np.maximum(1, (seconds * 24 / 16).astype(int))
    counts = 16 // dice.choice([2, 4, 8, 16], segments.sum(), p=[0.1, 0.3, 0.35, 0.25])
    return replace(
        index_of([[1]] * clips, cells.tolist()), first=np.concatenate([[0], np.cumsum(segments)]), counts=counts,
        rates=16 // counts, pictures=False, seconds=np.full(len(counts), 2 / 3),
    )  # fmt: skip


def packs(found: Windows, planned: Round) -> list[list[int]]:
    return [planned.window[planned.pack(i)].tolist() for i in range(len(planned.begin) - 1)]


@settings(max_examples=100, deadline=None)
@given(
    clips=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=30),
    seed=st.integers(0, 9),
)
def test_every_segment_of_an_epoch_is_in_one_pack_and_no_pack_is_over_the_budget(clips, seed):
    index, config = index_of(clips), replace(CONFIG, seed=seed)
    found, _ = windows(index, config)
    assert sorted((c, s) for c, a, b in zip(found.clip, found.first, found.last, strict=True) for s in range(a, b)) == [
        (c, s) for c, clip in enumerate(clips) for s in range(len(clip))
    ]
    planned = plan(found, config, 0)
    epochs = Counter(zip(planned.epoch.tolist(), planned.window.tolist(), strict=True))
    assert set(epochs.values()) == {1} and len(epochs) == len(found) * (planned.epoch.max() + 1)
    assert all(0 < found.tokens[one].sum() <= 40 for one in packs(found, planned))
    assert sorted(planned.steps.ravel().tolist()) == list(range(len(planned.begin) - 1))


def test_windows_are_whole_segments_as_many_as_fit():
    found, _ = windows(index_of([[16, 16, 16, 16, 16], [8]]), CONFIG)
    assert found.clip.tolist() == [0, 0, 0, 1] and found.number.tolist() == [0, 1, 2, 0]
    assert list(zip(found.first, found.last, strict=True)) == [(0, 2), (2, 4), (4, 5), (0, 1)]
    assert found.tokens.tolist() == [32, 32, 16, 8] and found.seconds.tolist() == [2, 2, 1, 1]


def test_best_fit_takes_the_pack_with_least_room():
    assert best_fit([6, 5, 4, 3, 2], 10).tolist() == [0, 1, 0, 1, 1]


def test_a_plan_depends_on_seed_and_round_alone():
    found, _ = windows(index_of([[i % 7 + 1] for i in range(300)]), CONFIG)

    def of(number: int, seed: int = 0) -> str:
        planned = plan(found, replace(CONFIG, seed=seed), number)
        return str([planned.window.tolist(), planned.epoch.tolist(), planned.steps.tolist()])

    assert of(3) == of(3)
    assert len({of(0), of(1), of(0, seed=1)}) == 3


def test_a_large_epoch_is_packed_in_parts_and_each_clip_is_in_one(monkeypatch):
    monkeypatch.setattr("rushes.dit.plan.MOST_WINDOWS", 500)
    monkeypatch.setattr("rushes.dit.plan.STEPS_OF_ROUND", 20)
    found, _ = windows(index_of([[i % 7 + 1] for i in range(2000)]), CONFIG)
    rounds = [plan(found, CONFIG, number) for number in range(8)]
    assert [set(one.epoch.tolist()) for one in rounds] == [{0}] * 4 + [{1}] * 4
    for epoch in (rounds[:4], rounds[4:]):
        assert sorted(i for one in epoch for i in one.window.tolist()) == list(range(2000))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_packs_and_their_order_are_the_same_for_any_number_of_ranks_from_any_step(ranks):
    index = index_of([[i % 9 + 1, 3] for i in range(100)])
    config = replace(CONFIG, packs=4)
    found, _ = windows(index, config)

    def told(start: tuple[int, int], rank: int, world: int, count: int) -> list:
        rows = itertools.islice(asked(found, config, start, rank, world), count)
        return [
            (one.clips.tolist(), one.numbers.tolist(), one.epochs.tolist(), one.weight, one.position) for one in rows
        ]

    alone = told((0, 0), 0, 1, 4 * 400)
    steps = [alone[i : i + 4] for i in range(0, len(alone), 4)]
    assert {one[4] for step in steps for one in step[:-1]} == {None}
    for done in (0, 1, 57, 129, 200):
        start = steps[done - 1][-1][4] if done else (0, 0)
        for rank in range(ranks):
            own = told(start, rank, ranks, 4 // ranks * 30)
            wanted = [one for step in steps[done : done + 30] for one in step[rank::ranks]]
            assert [one[:4] for one in own] == [one[:4] for one in wanted]


def test_a_step_without_enough_packs_is_filled_by_one_that_does_not_count():
    (found, _), config = windows(index_of([[40]] * 514), CONFIG), replace(CONFIG, packs=4)
    planned = plan(found, config, 0)
    rows = list(itertools.islice(asked(found, config, (0, 0), 0, 1), planned.steps.size))
    assert [one.weight for one in rows].count(0) == 2 == -514 % 4
    assert sorted(int(c) for one in rows if one.weight for c in one.clips) == list(range(514))


def test_what_a_clip_draws_is_its_own_and_another_is_drawn_each_epoch_and_window():
    one = Ticket(seed=0, clip="a", epoch=0, window=0)
    others = [replace(one, seed=1), replace(one, clip="b"), replace(one, epoch=1), replace(one, window=1)]
    alone = noise([one], [5], 8)
    assert (noise([others[0], one], [3, 5], 8)[3:] == alone).all()
    assert len({float(t) for t in drawn([one, *others], 3)[0]}) == 5
    found = np.stack([noise([ticket], [4000], 8).ravel().numpy() for ticket in [one, *others]])
    assert np.abs(np.corrcoef(found) - np.eye(5)).max() < 0.03 and found.std() == pytest.approx(1, abs=0.01)
    assert generator("x", 1).random() != generator("x", "1", "").random()


def test_held_out_clips_are_not_trained_on_and_are_the_same_at_any_time():
    index = index_of([[3]] * 200)
    config = replace(CONFIG, holdout=0.1)
    trained, held = windows(index, config)
    assert not set(trained.clip) & set(held.clip) and len(trained) + len(held) == 200 and 5 < len(held) < 40
    first, again = (fixed(held, config, 2) for _ in range(2))
    assert [one.clips.tolist() for one in first] == [one.clips.tolist() for one in again] and len(first) == 2
    assert len(windows(index_of([[3]] * 2), config)[1]) == 1, "one at least"


def test_clips_that_no_pack_can_hold_are_named_and_none_at_all_is_an_error(caplog):
    assert len(windows(index_of([[41, 2], [5]]), CONFIG)[0]) == 1
    assert "left out: 1 of 2 clips, such as 0000000000000000-000000000" in caplog.text and "max_cells" in caplog.text
    with pytest.raises(LatentError, match="no clip that fits; raise tokens"):
        windows(index_of([[41]]), CONFIG)


def test_packs_of_32k_tokens_are_full_balanced_over_8_ranks_and_leave_nothing_out():
    config = TrainConfig(tokens=32_768, packs=8, holdout=0.0, model=DiTConfig(size="B"))
    index = realistic(20_000)
    found, _ = windows(index, config)
    planned = plan(found, config, 0)
    pack = np.repeat(np.arange(len(planned.begin) - 1), np.diff(planned.begin))
    cost = costs(found, planned.window, pack, pair_cost(config))
    sides = -(-index.cells // 2)
    assert found.tokens.sum() == (index.counts * np.repeat(sides.prod(axis=1), np.diff(index.first))).sum()
    assert 1 - found.tokens[planned.window].sum() / config.tokens / planned.steps.size <= 0.01
    ranks = np.where(planned.steps >= 0, cost[planned.steps], 0.0)
    assert ranks.max(axis=1).sum() / ranks.mean(axis=1).sum() <= 1.05


@pytest.mark.parametrize(
    ("attention", "seen"), [("joint", [36, 24]), ("factorised", [6 + 6, 4 + 6]), ("factorised-encoder", [6, 5])]
)
def test_a_plan_counts_the_tokens_that_a_token_sees_by_the_form_of_attention(attention, seen):
    """Of six latents of six cells, and of six of four, in a network of four blocks."""
    model = DiTConfig(patch=1, attention=attention)
    found, _ = windows(index_of([[2, 4], [6]], [(2, 3), (2, 2)]), replace(CONFIG, model=model))
    assert (found.pairs / found.tokens).tolist() == seen
    alone = costs(found, np.arange(2), np.arange(2), 0.5)
    assert alone.tolist() == [36 * (1 + seen[0] / 2), 24 * (1 + seen[1] / 2)]
