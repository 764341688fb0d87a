"""One budget for all clips of a selection, through the command and the engine."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rushes.pipelines.cli.main import main
from rushes.pipelines.config import LatentsConfig, RayConfig
from rushes.pipelines.engine import encode_latents
from rushes.pipelines.progress import Reporter
from rushes.pipelines.stages.latents import latents, spend
from rushes.pipelines.stages.rates import stage as looking
from rushes.pipelines.store import shards
from rushes.pipelines.store.ledger import Ledger
from rushes.tokenizer.allocate import BudgetError, allocate, total
from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.model import Tokenizer, fingerprint, save
from tests.pipelines.small_run import content

RATES = (4, 8, 16)
HALF = LatentsConfig(side_px=32, share=0.6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained tokenizer: some segments lose more by more latents, and no budget may mind."""
    torch.manual_seed(0)
    folder = str(tmp_path_factory.mktemp("model"))
    save(Tokenizer(TokenizerConfig(rates=RATES)), folder)
    return folder


@pytest.fixture
def run(undisturbed: str, tmp_path: Path, one_process: None) -> Path:
    """A copy of the small run: clips of a street and of a car, in shards of two buckets."""
    shutil.copytree(undisturbed, tmp_path / "run", ignore=shutil.ignore_patterns("frames", "encoded"))
    return tmp_path / "run"


def encode(run: Path, model: str, config: LatentsConfig = HALF) -> shards.Manifest:
    return encode_latents.run(str(run), model, config, RayConfig(), Reporter(live=False))


def facts(run: Path) -> dict[str, dict[str, Any]]:
    samples = shards.pipeline(f"{run}/latents/default", members=("json",), nodes=False)
    return {sample["__key__"]: json.loads(sample["json"]) for sample in samples}


def looked_at(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Distortion and latents of all segments, as the ledger has them."""
    rows = Ledger(str(run)).read("rates")
    return tuple(rows[name].to_numpy().reshape(-1, len(RATES)).astype(float) for name in ("distortion", "latents"))


def spent(run: Path) -> int:
    return sum(len(one["times_s"]) for one in facts(run).values())


def test_a_share_is_one_of_the_whole_selection_and_is_spent_as_well_as_any_could_be(run: Path, model: str):
    made = encode(run, model)
    loss, cost = looked_at(run)
    budget = int(0.6 * cost.max(axis=1).sum())
    assert made.extra["budget"] == budget and budget - 3 <= spent(run) <= budget
    rows = Ledger(str(run)).read("rates").to_pylist()
    rates = {key: one["rates"] for key, one in facts(run).items()}
    losses = [row["distortion"] for row in rows if rates[row["key"]][row["segment"]] == row["rate"]]
    best = total(loss, allocate(loss, cost.astype(int), budget))
    assert best - 1e-6 <= sum(losses) <= best + made.extra["lam"] * 3
    own: dict[str, list[float]] = defaultdict(lambda: [0, 0])
    for row in rows:
        own[row["key"]][0] += row["latents"] * (row["rate"] == rates[row["key"]][row["segment"]])
        own[row["key"]][1] += row["latents"] * (row["rate"] == 4)
    assert len({round(used / all_, 2) for used, all_ in own.values()}) > 1, "clips have shares of their own"


def test_per_clip_each_clip_has_its_share_and_a_price_asks_no_other_clip(run: Path, model: str):
    encode(run, model, replace(HALF, per_clip=True))
    assert not Ledger(str(run)).parts("rates")
    finest = {key: sum(-(-n // 4) for n in one["lengths"]) for key, one in facts(run).items()}
    assert all(len(one["times_s"]) <= 0.6 * finest[key] for key, one in facts(run).items())
    together = encode(run, model)
    rates = {key: one["rates"] for key, one in facts(run).items()}
    priced = encode(run, model, LatentsConfig(side_px=32, lam=together.extra["lam"]))
    assert priced.extra["lam"] == together.extra["lam"] and "budget" not in priced.extra
    other = {key: one["rates"] for key, one in facts(run).items()}
    pairs = [pair for key in rates for pair in zip(rates[key], other[key], strict=True)]
    assert sum(a != b for a, b in pairs) <= 3, "but for what was left of the budget"


def test_latents_a_second_are_of_all_seconds_together(run: Path, model: str):
    made = encode(run, model, LatentsConfig(side_px=32, share=0, per_second=4.0))
    seconds = sum(one["frames"] / one["fps"] for one in facts(run).values())
    assert made.extra["budget"] == int(4.0 * seconds + 1e-6) and made.extra["budget"] - 3 <= spent(run)
    assert spent(run) <= made.extra["budget"]


def test_the_same_again_does_nothing_and_another_budget_looks_at_nothing_again(
    run: Path, model: str, monkeypatch: pytest.MonkeyPatch
):
    encode(run, model)
    before = content(run, "latents", "ledger/rates", "ledger/latents")
    with monkeypatch.context() as patch:
        patch.setattr(latents, "encode_clip", lambda *_: pytest.fail("encoded again"))
        patch.setattr(looking.Rates, "__call__", lambda *_: pytest.fail("looked at again"))
        encode(run, model)
    assert content(run, "latents", "ledger/rates", "ledger/latents") == before
    monkeypatch.setattr(looking.Rates, "__call__", lambda *_: pytest.fail("looked at again"))
    encode(run, model, replace(HALF, share=0.4))
    assert spent(run) <= int(0.4 * looked_at(run)[1].max(axis=1).sum())


def test_stopped_in_either_pass_the_same_command_gives_the_same_bytes(
    run: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(run, tmp_path / "other")
    encode(run, model)
    for part, of in (("_rows", looking.Rates), ("encode_clip", latents)):
        plain, left = getattr(of, part), [1]

        def stops(*given: Any, plain: Any = plain, left: list[int] = left, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return plain(*given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(of, part, stops)
            with pytest.raises(KeyboardInterrupt):
                encode(tmp_path / "other", model)
    encode(tmp_path / "other", model)
    parts = ("latents", "ledger/rates", "ledger/latents", "ledger/errors")
    assert content(run, *parts) == content(tmp_path / "other", *parts)


def test_where_the_shards_change_lambda_is_found_anew_and_only_what_changes_is_encoded_again(
    run: Path, model: str, monkeypatch: pytest.MonkeyPatch
):
    first = encode(run, model)
    root = f"{run}/shards/default"
    packed = shards.read_manifest(root)
    assert len(packed.shards) > 1
    before = {key: one["rates"] for key, one in facts(run).items()}
    shards.write_manifest(root, packed.shards[1:], kind="clips", fingerprint="less")
    again: list[str] = []
    plain = latents.encode_shard
    monkeypatch.setattr(latents, "encode_shard", lambda *given, **more: again.append(given[1]) or plain(*given, **more))
    monkeypatch.setattr(looking.Rates, "__call__", lambda *_: pytest.fail("looked at again"))
    second = encode(run, model)
    assert second.extra["bound"] != first.extra["bound"] and second.extra["budget"] < first.extra["budget"]
    assert spent(run) <= second.extra["budget"] == int(0.6 * looked_at(run)[1].max(axis=1).sum())
    after = {key: one["rates"] for key, one in facts(run).items()}
    stays = {
        info.path for info in packed.shards[1:]
        if all(after[key] == before[key] for key in shards.read_sidecar(root, info)["key"].to_pylist())
    }  # fmt: skip
    assert set(again) == {info.path for info in packed.shards[1:]} - stays


def test_shards_that_change_between_the_passes_are_told(run: Path, model: str, monkeypatch: pytest.MonkeyPatch):
    plain, root = looking.Rates.__call__, f"{run}/shards/default"
    packed = shards.read_manifest(root)

    def changes(*given: Any) -> Any:
        shards.write_manifest(root, packed.shards[1:], kind="clips", fingerprint="less")
        return plain(*given)

    monkeypatch.setattr(looking.Rates, "__call__", changes)
    with pytest.raises(RuntimeError, match="changed meanwhile; run the same command again"):
        encode(run, model)


def test_a_clip_that_cannot_be_read_takes_no_part_and_is_told(run: Path, model: str):
    root = Path(f"{run}/shards/default")
    info = shards.read_manifest(str(root)).shards[0]
    samples = list(shards.read_shard(f"{root}/{info.path}", ("mp4", "json", "txt")))
    bad = samples[0]["__key__"]
    broken = [
        shards.Sample(one["__key__"], [("mp4", b"text" if one["__key__"] == bad else one["mp4"]),
                                       ("json", one["json"]), ("txt", one["txt"])])
        for one in samples
    ]  # fmt: skip
    bucket, file = info.path.split("/")
    changed = shards.write_shard(str(root), bucket, file.rpartition("-")[0], int(file[-10:-4]), broken)
    others = shards.read_manifest(str(root)).shards[1:]
    shards.write_manifest(str(root), [changed, *others], kind="clips", fingerprint="test")
    encode(run, model)
    assert bad not in facts(run) and bad not in Ledger(str(run)).read("rates")["key"].to_pylist()
    assert [row["key"] for row in encode_latents.failures(str(run), "default")] == [bad]
    assert spent(run) <= int(0.6 * looked_at(run)[1].max(axis=1).sum())


def test_what_cannot_be_is_refused_with_the_remedy(run: Path, model: str, tmp_path: Path):
    with pytest.raises(
        BudgetError, match=r"share=0\.1 is a budget of \d+ latents, below the minimum of \d+ .*give share=0"
    ):
        encode(run, model, replace(HALF, share=0.1))
    with pytest.raises(BudgetError, match=r"per_second=0\.5 is a budget"):
        encode(run, model, LatentsConfig(side_px=32, share=0, per_second=0.5))
    for config, words in (
        (LatentsConfig(lam=-1.0), "lam=-1.0 must be"), (LatentsConfig(lam=1.0, per_clip=True), "or per_clip"),
        (LatentsConfig(rate=4, lam=1.0), "is no budget"), (LatentsConfig(rate=4, per_clip=True), "one of them or"),
        (LatentsConfig(rate=2), r"rate=2 is unknown to this tokenizer; it has \[4, 8, 16\]"),
        (LatentsConfig(lam=1.0, per_second=2.0), "is no budget"), (LatentsConfig(per_second=2.0), "is no budget"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            encode(run, model, config)
    save(Tokenizer(TokenizerConfig(variant="fixed-4x8x8")), str(tmp_path / "odd"))
    with pytest.raises(ValueError, match=r"fixed-4x8x8 cannot tell .* --allocation measured"):
        encode(run, str(tmp_path / "odd"), replace(HALF, allocation="predicted"))


def test_the_command_line_takes_all_of_it(run: Path, model: str, capsys: pytest.CaptureFixture[str]):
    small = ["latents", str(run), "--tokenizer", model, "--side_px", "32"]
    assert main([*small, "--share", "0.6"]) == 0 and main([*small, "--share", "0.6", "--per_clip"]) == 0
    assert main([*small, "--lam", "0.01"]) == 0
    capsys.readouterr()
    assert main([*small, "--lam", "-1"]) == 2
    assert "lam=-1" in capsys.readouterr().err
    assert main([*small, "--share", "0.1"]) == 2
    assert "below the minimum of" in capsys.readouterr().err


def test_rates_survive_the_way_to_a_worker_and_a_large_shard_stays_a_small_task():
    rates = np.random.default_rng(0).choice([2, 4, 8, 16], 3 * 10_000)
    keys = [f"{i:05d}" for i in range(10_000) for _ in range(3 * 4)]
    import pyarrow as pa

    text = spend.packed(rates)
    found = spend.of_clips(pa.table({"key": keys}), text)
    assert [rate for own in found.values() for rate in own] == rates.tolist() and list(found) == sorted(set(keys))
    assert len(text) < 15_000 and spend.of_clips(pa.table({"key": []}), "") == {}


def test_what_is_lost_is_foreseen_or_measured_of_the_segments_that_are_coded(run: Path, model: str):
    from rushes.tokenizer.model import load

    for allocation, foreseen, pictures in (("auto", True, 1.0), ("measured", False, 0.0)):
        encode(run, model, replace(HALF, allocation=allocation, pictures=pictures))
        assert {one["lengths"][0] == 1 for one in facts(run).values()} == {pictures == 1}
        rows = Ledger(str(run)).read("rates")
        assert set(rows["predicted"].to_pylist()) == {foreseen}
        assert set(rows["tokenizer"].to_pylist()) == {fingerprint(load(model))}


def test_one_rate_for_all_is_coded_without_looking_ahead(run: Path, model: str):
    encode(run, model, LatentsConfig(side_px=32, rate=8, pictures=0))
    found = {pair for one in facts(run).values() for pair in zip(one["lengths"], one["rates"], strict=True)}
    assert {rate for length, rate in found if length > 4} == {8}
    assert {rate for length, rate in found if length <= 4} == {4}, "short segments are told by the lowest rate alike"
    assert not Ledger(str(run)).parts("rates")
