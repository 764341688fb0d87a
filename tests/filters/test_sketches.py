from __future__ import annotations

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters.sketches import (
    BANDS,
    CROWD,
    HOP,
    PERMUTATIONS,
    WINDOW,
    Sketches,
    bands,
    candidates,
    informative,
    shingles,
    signatures,
    windows,
)
from tests.filters.conftest import encoded, shot


def sketched(clips: list[np.ndarray]) -> Sketches:
    hashes = [clip[informative(clip)] for clip in clips]
    flat, counts = np.concatenate(hashes), np.array([len(h) for h in hashes])
    return Sketches(hashes=flat, counts=counts, bands=bands(flat, counts))


def proposed(clips: list[np.ndarray]) -> set[tuple[int, int]]:
    return {(a, b) for a, b in candidates(sketched(clips)).tolist()}


def test_black_and_flat_pictures_prove_nothing() -> None:
    assert not informative(np.zeros(3, np.uint64)).any() and informative(shot(1, 5)).all()


@given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), max_size=3))
def test_hashes_that_differ_in_three_bits_share_a_shingle(value: int, flipped: set[int]) -> None:
    other = value ^ sum(1 << bit for bit in flipped)
    a, b = (set(shingles(np.array([v], np.uint64)).ravel().tolist()) for v in (value, other))
    assert a & b and len(a) == 4


@given(st.lists(st.integers(0, 80), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_windows_cover_every_hash_of_every_clip(counts: list[int]) -> None:
    owners, starts, lengths = windows(np.array(counts))
    for clip, count in enumerate(counts):
        own = owners == clip
        ticks = [np.arange(start, start + length) for start, length in zip(starts[own], lengths[own], strict=True)]
        assert {tick for some in ticks for tick in some.tolist()} == set(range(count))
        assert (np.diff(starts[own]) <= HOP).all() and (lengths[own] <= WINDOW).all()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_signatures_equal_datasketchs_digests(counts: list[int], seed: int) -> None:
    hashes = np.random.default_rng(seed).integers(0, 2**64, sum(counts), dtype=np.uint64)
    owners, starts, lengths = windows(np.array(counts))
    starts = starts + (np.cumsum(counts) - counts)[owners]
    found = signatures(hashes, starts, lengths)
    for row, start, length in zip(found, starts, lengths, strict=True):
        peer = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
        peer.update_batch(shingles(hashes[start : start + length]).ravel().tolist())
        assert (peer.digest() == row).all()


@given(st.lists(st.integers(0, 40), min_size=2, max_size=6))
@settings(max_examples=30, deadline=None)
def test_a_sketch_depends_on_its_clip_alone(counts: list[int]) -> None:
    clips = [shot(seed, count) for seed, count in enumerate(counts)]
    alone = [sketched([clip]).bands for clip in clips]
    assert (sketched(clips).bands == np.concatenate([np.empty((0, BANDS), np.uint32), *alone])).all()


def test_copies_and_excerpts_are_proposed_and_little_else() -> None:
    films = [shot(seed, 30) for seed in range(60)]
    clips = [*films, *(encoded(f, seed) for seed, f in enumerate(films)), *(encoded(f[9:21], 99) for f in films)]
    found = proposed(clips)
    copies, excerpts = ({(n, n + more) for n in range(60)} for more in (60, 120))
    assert copies <= found
    assert len(excerpts & found) >= 54  # two seconds, between the windows, with new noise on each tick
    assert all(a % 60 == b % 60 for a, b in found)


@given(st.permutations(range(12)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_clips_changes_nothing(order: list[int]) -> None:
    clips = [encoded(shot(seed % 4, 20), seed) for seed in range(12)]
    back = {(min(order[a], order[b]), max(order[a], order[b])) for a, b in proposed([clips[n] for n in order])}
    assert back == proposed(clips) and back


@pytest.mark.parametrize("ticks", [12, 60])
def test_a_crowd_of_equal_clips_costs_a_star_and_a_chain(ticks: int) -> None:
    count = CROWD * 10
    pairs = candidates(sketched([np.repeat(shot(8, 1), ticks)] * count))
    assert len(pairs) == 2 * count - 3
    assert set(pairs.ravel().tolist()) == set(range(count))


def test_nothing_proposes_nothing() -> None:
    assert candidates(sketched([np.zeros(10, np.uint64)])).shape == (0, 2)
