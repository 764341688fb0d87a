"""The map shows clips by their embeddings: by principal components, made once; what a lasso holds is exact."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters import policy as policies
from rushes.pipelines.engine import removal
from rushes.pipelines.explore import projection
from rushes.pipelines.explore.map import DOTS, Map
from rushes.pipelines.explore.workbench import Filter, Workbench
from rushes.pipelines.stages.pack import removed
from rushes.pipelines.store import takedowns
from rushes.pipelines.store.ledger import Ledger

EVERYTHING = policies.load({"name": "everything", "dedup": {"enabled": False}})


@pytest.fixture
def run(embedded: str, tmp_path: Path) -> str:
    """A run with embeddings that nobody else looks at."""
    shutil.copytree(embedded, tmp_path / "run")
    return str(tmp_path / "run")


def opened(run: str) -> Workbench:
    bench = Workbench(run)
    bench.map.start()
    assert bench.map.wait(60)
    return bench


@pytest.mark.parametrize("shape", [(200, 12), (5, 40), (2, 3), (1, 4)])
def test_axes_are_those_of_the_singular_values(shape: tuple[int, int]) -> None:
    dice = np.random.default_rng(sum(shape))
    vectors = (dice.normal(size=shape) * np.arange(1, shape[1] + 1) + 5).astype(np.float32)
    mean, axes, explained = projection.components(vectors)
    _, sizes, turned = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    known = min(2, shape[0] - 1)  # so many directions differ at all
    np.testing.assert_allclose(np.abs(axes[:known]), np.abs(turned[:known]), atol=2e-3)
    assert not axes[known:].any() and (axes.max(1) >= np.abs(axes.min(1))).all()
    assert explained == pytest.approx((sizes[:2] ** 2).sum() / (sizes**2).sum() if shape[0] > 1 else 1, abs=1e-4)
    np.testing.assert_allclose(mean, vectors.mean(0), rtol=1e-5)


def test_every_clip_lies_where_its_embedding_says_and_likeness_is_nearness(run: str) -> None:
    bench = opened(run)
    rows = Ledger(run).read("scores", ["key", "scorer", "vector"]).to_pylist()
    vectors = {row["key"]: np.array(row["vector"]) for row in rows if row["scorer"] == "embedding"}
    assert sorted(vectors) == [key.decode() for key in bench.keys]
    of = np.array([vectors[key.decode()] for key in bench.keys])
    centred = of - of.mean(0)
    _, _, turned = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(bench.map.at), np.abs(centred @ turned[:2].T), atol=1e-4)
    uris = bench.clips["uri"].to_pylist()
    is_car = np.array(["car" in uri.rsplit("/", 1)[-1] for uri in uris])
    cars, rest = bench.map.at[is_car], bench.map.at[~is_car]
    apart = np.linalg.norm(cars.mean(0) - rest.mean(0))
    assert np.linalg.norm(cars - cars.mean(0), axis=1).max() < apart, "a man in a car is unlike traffic"


def test_it_is_made_once_kept_and_made_again_when_scores_are_others(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="open the view Map"):
        _ = Workbench(run).map.at
    assert not Workbench(run).map.is_made
    first = opened(run).map.at
    (part,) = Ledger(run).parts("projection")
    with monkeypatch.context() as patch:
        patch.setattr(projection, "compute", None)
        again = opened(run)
        assert again.map.is_made and np.array_equal(again.map.at, first)
    ledger = Ledger(run)
    for scores in ledger.parts("scores"):
        rows = ledger.read_whole("scores", scores)
        ledger.write("scores", scores.unit, rows, "0" * 11 + "1")
    assert not Workbench(run).map.is_made
    opened(run)
    assert [other.fingerprint != part.fingerprint for other in Ledger(run).parts("projection")] == [True]


def test_it_tells_what_it_lacks(undisturbed: str, run: str) -> None:
    with pytest.raises(ValueError, match="no clip of this run has an embedding; `rushes score"):
        Workbench(undisturbed).map.start()
    ledger = Ledger(run)
    for part in ledger.parts("scores"):
        rows = ledger.read_whole("scores", part)
        models = pa.array([f"{name}{at}" for at, name in enumerate(rows["model"].to_pylist())])
        at = rows.schema.get_field_index("model")
        ledger.write("scores", part.unit, rows.set_column(at, rows.field(at), models), part.fingerprint)
    bench = Workbench(run)
    bench.map.start()
    with pytest.raises(ValueError, match="several kinds"):
        bench.map.wait(60)


def test_what_is_taken_down_leaves_the_map(run: str) -> None:
    bench, ledger = opened(run), Ledger(run)
    source = bench.keys[0].decode()[:16]
    down = takedowns.Down(sources=frozenset({source}), stretches={})
    assert [where for where, _, _ in removed._in_tables(ledger, down) if "projection" in where]
    removal.forget(ledger, down)
    assert not [where for where, _, _ in removed._in_tables(ledger, down) if "projection" in where]
    left = sorted(ledger.read("projection")["key"].to_pylist())
    assert left == [key.decode() for key in bench.keys if key.decode()[:16] != source] and left


class Drawn(Map):
    """A map of points that are given."""

    def __init__(self, at: np.ndarray):
        self._at = at
        order = np.argsort(at[:, 1], kind="stable")[: np.isfinite(at[:, 1]).sum()]
        self._by_height = order, at[order, 1]


corner = st.tuples(st.integers(-8, 8).map(float), st.integers(-8, 8).map(float))


@settings(max_examples=60, deadline=None)
@given(line=st.lists(corner, min_size=3, max_size=12), seed=st.integers(0, 99))
def test_a_lasso_holds_what_a_ray_counts_point_by_point(line: list[tuple[float, float]], seed: int) -> None:
    at = np.random.default_rng(seed).uniform(-9, 9, (60, 2))
    at[7] = np.nan
    at[8, 1] = line[0][1]  # at the height of a corner
    found = Drawn(at).inside(line)
    for (x, y), is_inside in zip(at, found, strict=True):
        crossed = False
        for (x0, y0), (x1, y1) in zip(line, [*line[1:], line[0]], strict=True):
            if min(y0, y1) <= y < max(y0, y1) and x < x0 + (y - y0) * ((x1 - x0) / (y1 - y0)):
                crossed = not crossed
        assert crossed == is_inside


def test_a_screen_shows_a_clip_for_each_place_and_all_of_them_when_near() -> None:
    at = np.random.default_rng(0).normal(size=(200_000, 2))
    meant = np.zeros(len(at), bool)
    meant[::1000] = True
    drawn, every = Drawn(at), np.ones(len(at), bool)
    tile = drawn.tile(None, 1400, 800, meant)
    assert len(tile.rows) <= DOTS and tile.stands_for.sum() == tile.clips == len(at)
    cells = {
        tuple(cell)
        for cell in np.floor((at[meant] - tile.view[:2]) / (tile.view[2] - tile.view[0]) * 1400 / tile.cell_px)
    }
    assert meant[tile.rows].sum() == len(cells), "a clip that is meant stands before others"
    near = drawn.tile((0.0, 0.0, 0.02, 0.02), 800, 800, every)
    inside = (at >= 0).all(1) & (at < 0.02).all(1)
    assert near.clips == inside.sum() > 0 and len(near.rows) > 0.9 * inside.sum()
    assert sorted(near.rows) == sorted(set(near.rows.tolist())) and inside[near.rows].all()


def test_colours_are_the_verdict_the_commonest_labels_or_numbers(run: str) -> None:
    bench = opened(run)
    fate = bench.hue(bench.policy, "fate")
    kept = {clip["key"] for clip in bench.listed(bench.policy, Filter(fate="kept"))["clips"]}
    assert {
        key.decode() for key, code in zip(bench.keys, fate.codes, strict=True) if fate.names[code] == "kept"
    } == kept
    source = bench.hue(bench.policy, "uri")
    assert [source.names[code] for code in source.codes] == bench.clips["uri"].to_pylist()
    np.testing.assert_array_equal(bench.hue(EVERYTHING, "motion").values, bench.numbers_of("motion"))
    tag = bench.hue(EVERYTHING, "tag")
    labels = {row["key"]: row["label"] for row in Ledger(run).read("scores").to_pylist() if row["scorer"] == "tags"}
    told = [tag.names[code] for code in tag.codes]
    assert all(labels[key.decode()].startswith(f"{name} 0.") for key, name in zip(bench.keys, told, strict=True))
    with pytest.raises(policies.PolicyError, match="is no measure"):
        bench.hue(EVERYTHING, "beauty")
