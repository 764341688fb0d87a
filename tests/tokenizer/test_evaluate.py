from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from rushes.tokenizer.config import EvalConfig, TokenizerConfig
from rushes.tokenizer.evaluate import evaluate, lines_of
from rushes.tokenizer.model import Tokenizer, save
from rushes.tokenizer.plots import Line, chart

SMALL = EvalConfig(clips=3, side_px=24, max_seconds=1.2)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    torch.manual_seed(0)
    folder = str(tmp_path_factory.mktemp("model"))
    save(Tokenizer(TokenizerConfig()), folder)
    return folder


@pytest.fixture(scope="module")
def found(model, clip_shards, clip_bytes, tmp_path_factory) -> tuple[dict, Path]:
    root = tmp_path_factory.mktemp("eval")
    (root / "film.mp4").write_bytes(clip_bytes)
    told: list[tuple] = []
    sources = [str(root / "film.mp4"), clip_shards]
    record = evaluate(model, sources, str(root / "out"), SMALL, lambda *words: told.append(words[:3]))
    assert told == [(n, 3, what) for what in ("clips studied", "clips coded again") for n in range(4)]
    return record, root / "out"


def test_an_evaluation_has_every_clip_and_rate_and_is_written(found):
    record, out = found
    assert record["clips"] == 3 and record["frames"] == 32 + 24 + 24  # 1.2 s of the film end within a segment
    assert set(record["by_rate"]) == {"2", "4", "8", "16"} and all(f["psnr"] > 15 for f in record["by_rate"].values())
    assert json.loads((out / "metrics.json").read_text()) == record
    assert len(lines_of(record)) > 10
    names = {text.text for text in ElementTree.parse(out / "rate-distortion.svg").iter() if text.tag.endswith("text")}
    assert {"adaptive", "fixed", "tuned ssim", "latents per frame"} <= names


def test_no_curve_spends_more_than_its_budget_and_more_budget_buys_more(found):
    record, _ = found
    most = sum(one["by_rate"]["2"]["latents"] for one in record["each"])
    for points in record["curves"].values():
        assert all(point["latents"] <= math.ceil(point["share"] * most) + record["clips"] for point in points)
    adaptive = [point["psnr"] for point in record["curves"]["adaptive"]]
    assert adaptive[-1] > adaptive[0]


def test_fixed_rates_are_points_of_the_curves(found):
    record, _ = found
    fixed = record["curves"]["fixed"]
    assert [point["latents"] for point in fixed] == sorted(
        sum(one["by_rate"][rate]["latents"] for one in record["each"]) for rate in ("2", "4", "8", "16")
    )
    shares = [point["share"] for point in record["curves"]["adaptive"]]
    assert all(point["share"] in shares for point in fixed), "what it is compared with has the same budget"


def test_it_tells_the_lambda_of_shares_and_a_smaller_share_has_a_higher_one(found):
    record, _ = found
    assert set(record["lam"]) == {"measured", "predicted"}
    points = record["lam"]["measured"]
    assert [point["share"] for point in points][::6] == [1 / 8, 1.0] and points[-1]["lam"] == 0
    assert all(a["lam"] >= b["lam"] >= 0 for a, b in itertools.pairwise(points)) and points[0]["lam"] > 0
    assert [line.split()[:5] for line in lines_of(record)[-2:]] == [
        ["λ", "of", "a", "share,", name] for name in ("measured", "predicted")
    ]


def test_what_holds_no_clip_is_refused(model, tmp_path):
    (tmp_path / "junk.mp4").write_bytes(b"text")
    with pytest.raises(ValueError, match="not one clip that can be decoded"):
        evaluate(model, [str(tmp_path / "junk.mp4")], str(tmp_path / "out"), SMALL)


def test_a_chart_leaves_out_what_is_no_number_and_escapes_names():
    svg = chart([Line("a <b>", [(1, 2), (2, math.nan), (4, 3)], marks=True), Line("none", [])], "t & u", "x", "y", True)
    root = ElementTree.fromstring(svg)
    assert len([one for one in root.iter() if one.tag.endswith("circle")]) == 2
    assert "a <b>" in {text.text for text in root.iter()}
    with pytest.raises(ValueError, match="no point"):
        chart([Line("none", [])], "t", "x", "y")
