from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters import semantic


def clouds(groups: int, each: int, width: int = 64, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    """Vectors that gather round a few directions, one group after the other."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(groups, width)), each, axis=0)
    return (centres + noise * rng.normal(size=centres.shape)).astype(np.float32)


def test_near_finds_all_pairs_of_few_vectors() -> None:
    vectors = clouds(20, 3)
    pairs, cosine = semantic.near(vectors, 0.97)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = [(a, b) for a in range(60) for b in range(a + 1, 60) if units[a] @ units[b] >= 0.97]
    assert [tuple(pair) for pair in pairs.tolist()] == wanted and len(wanted) == 60
    assert cosine == pytest.approx([units[a] @ units[b] for a, b in wanted], abs=1e-5)


def test_inverted_lists_find_what_an_exact_search_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clouds(400, 4, seed=1)
    exact = semantic.near(vectors, 0.97)
    monkeypatch.setattr(semantic, "EXACT", 100)
    listed = semantic.near(vectors, 0.97)
    found, wanted = ({tuple(pair) for pair in pairs.tolist()} for pairs in (listed[0], exact[0]))
    assert found <= wanted and len(found) >= 0.95 * len(wanted)
    assert np.array_equal(listed[0], semantic.near(vectors, 0.97)[0])


def test_a_clip_without_a_vector_is_near_nothing_and_in_no_cluster() -> None:
    vectors = clouds(2, 2)
    vectors[1] = np.nan
    assert semantic.near(vectors, 0.9)[0].tolist() == [[2, 3]]
    cluster = semantic.clusters(vectors, 2)
    assert cluster[1] == -1 and semantic.weights(cluster)[1] == 1.0
    assert semantic.near(vectors[:0], 0.9)[0].shape == (0, 2)
    assert (semantic.clusters(np.full((3, 1), np.nan, np.float32)) == -1).all()


def test_clusters_follow_the_clouds_and_the_largest_comes_first() -> None:
    vectors = np.concatenate([clouds(1, 5, seed=2), clouds(1, 40, seed=3), clouds(1, 15, seed=4)])
    cluster = semantic.clusters(vectors, 3)
    assert cluster.tolist() == [2] * 5 + [0] * 40 + [1] * 15
    assert np.array_equal(cluster, semantic.clusters(vectors, 3))


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_weights_are_one_on_average_and_fall_with_the_root_of_the_size(clusters: list[int]) -> None:
    cluster = np.array(clusters)
    weight = semantic.weights(cluster)
    assert weight.mean() == pytest.approx(1.0) and (weight > 0).all()
    sizes = {c: (cluster == c).sum() for c in clusters if c >= 0}
    for c, size in sizes.items():
        for other, many in sizes.items():
            ratio = weight[cluster == c][0] / weight[cluster == other][0]
            assert ratio == pytest.approx((many / size) ** 0.5)
