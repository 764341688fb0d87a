"""Packing: stable buckets and order, additions that leave shards alone, captions that cannot slip to another clip."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.pipelines.config import PackConfig
from rushes.pipelines.stages.pack import pack
from rushes.pipelines.store import binding, encoded, shards, storage
from rushes.pipelines.store.clip import clip_key
from rushes.pipelines.store.encoded import PackError
from rushes.pipelines.store.ledger import Ledger, to_table
from rushes.pipelines.store.tables import TABLES

SMALL = PackConfig(shard_mb=0.2)


def key(number: int) -> str:
    return clip_key("0123456789abcdef", number)


def info(**changes: Any) -> dict[str, Any]:
    given_ = {"width": 640, "height": 360, "fps": 25.0, "frames": 50, "duration_s": 2.0, "codec": "h264"}
    return given_ | {"copied": False, "has_audio": True} | changes


def mp4(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest() * (500 + number)


def clip(number: int, **changes: Any) -> dict[str, Any]:
    row = {"key": key(number), "source_id": "0123456789abcdef", "uri": "a.mp4", "motion": 0.1, "camera": "pan"}
    row |= {"start_s": number / 1000, "end_s": number / 1000 + 2, "hdr": False, "wave": 0, "unit": "w0-u0"}
    return row | {"phash": [1, 2], "licence": None} | changes


def caption(number: int, of: dict[str, Any] | None = None) -> dict[str, Any]:
    row = {"key": key(number), "source": "tags", "subject": "a bicycle", "long": f"Clip {number}.", "short": "Clip."}
    seen = of or clip(number)
    return row | {"pictures": binding.pictures(seen), "bound": binding.bind(seen, row)}


def encoded_row(number: int, **changes: Any) -> dict[str, Any]:
    digest = hashlib.sha256(mp4(number)).hexdigest()
    return (
        info()
        | {"unit": "w0-u0", "key": key(number), "size_bytes": len(mp4(number)), "sha256": digest, "bucket": "b"}
        | changes
    )


def table(*rows: dict[str, Any]) -> pa.Table:
    return to_table("encoded", rows)


def selection(numbers: Any) -> pa.Table:
    return to_table("selection", [{"key": key(n), "policy": "default", "kept": True} for n in numbers])


@pytest.mark.parametrize(
    ("clip_", "bucket"),
    [
        ((1280, 720, 23.976, 4.0), "16x9-720p-24fps-04s"),
        ((640, 272, 25.0, 3.99), "21x9-240p-25fps-02s"),
        ((720, 1280, 29.97, 17.0), "9x16-720p-30fps-16s"),
        ((352, 288, 30.0, 0.5), "4x3-240p-30fps-00s"),
        ((3840, 2160, 59.94, 100.0), "16x9-2160p-60fps-64s"),
        ((8, 8, 0.2, 2.0), "1x1-016p-01fps-02s"),
    ],
)
def test_a_bucket_is_named_after_shape_lines_rate_and_length(clip_: tuple[int, int, float, float], bucket: str) -> None:
    assert encoded.bucket_of(*clip_) == bucket


@given(st.integers(1, 9000), st.integers(1, 9000), st.floats(0.01, 1000), st.floats(0.001, 1e5))
@settings(max_examples=200, deadline=None)
def test_every_clip_has_a_bucket_that_can_be_a_folder(width: int, height: int, fps: float, duration_s: float) -> None:
    bucket = encoded.bucket_of(width, height, fps, duration_s)
    assert shards._NAME.fullmatch(bucket)
    assert int(bucket.split("-")[1][:-1]) <= max(min(width, height), 16)


@pytest.mark.parametrize("clip_", [(0, 720, 24.0, 4.0), (1280, 720, 0.0, 4.0), (1280, 720, float("nan"), 4.0)])
def test_a_clip_without_size_rate_or_length_is_an_error(clip_: tuple[int, int, float, float]) -> None:
    with pytest.raises(PackError, match="is no clip"):
        encoded.bucket_of(*clip_)


@given(st.permutations([key(n) for n in range(20)]), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_the_order_does_not_depend_on_the_order_given(keys: list[str], seed: int) -> None:
    assert pack.order(keys, seed) == pack.order(sorted(keys), seed)
    assert sorted(pack.order(keys, seed)) == sorted(keys) and pack.order(keys, seed) != sorted(keys)


def test_a_new_wave_leaves_the_shards_before_alone() -> None:
    first = [encoded_row(n, wave=0, bucket="ab"[n % 2]) for n in range(30)]
    second = [encoded_row(n, wave=1, bucket="ab"[n % 2]) for n in range(30, 50)]
    before = pack.shard_plan(table(*first), selection(range(50)), SMALL)
    after = pack.shard_plan(table(*second, *first), selection(range(50)), SMALL)
    assert len(before) > 4 and all(plan in after for plan in before)
    for bucket in "ab":
        plans = [plan for plan in after if plan.bucket == bucket]
        assert [plan.index for plan in plans] == list(range(len(plans)))
    assert sorted(one for plan in after for one in plan.keys) == [key(n) for n in range(50)]


def test_a_plan_does_not_depend_on_the_order_of_rows_and_holds_kept_clips_only() -> None:
    rows = [encoded_row(n, wave=0) for n in range(20)]
    plan = pack.shard_plan(table(*rows), selection(range(0, 20, 2)), SMALL)
    assert plan == pack.shard_plan(table(*reversed(rows)), selection(range(18, -1, -2)), SMALL)
    assert sorted(one for shard in plan for one in shard.keys) == [key(n) for n in range(0, 20, 2)]


def test_facts_are_flat_typed_and_never_null() -> None:
    scores = [
        {"key": key(1), "scorer": "quality", "value": 20, "label": None},
        {"key": key(1), "scorer": "tags", "value": 0.5, "label": "bicycle"},
        {"key": key(1), "scorer": "embedding", "value": None, "label": None},
    ]
    odd = clip(1, motion=1, zoom=float("nan"), tilt=None, sharpness=0.1 + 1e-12, width=1, camera=None)
    facts = pack.facts_of(odd, encoded_row(1), caption(1), scores)
    assert (facts["motion"], facts["quality"], facts["tags_label"]) == (1.0, 20.0, "bicycle")
    assert isinstance(facts["motion"], float) and isinstance(facts["quality"], float)
    assert {"zoom", "tilt", "embedding", "quality_label", "phash", "offset", "unit"}.isdisjoint(facts)
    assert (facts["licence"], facts["camera"], facts["caption_source"]) == ("", "", "tags")
    assert (facts["width"], facts["hdr"], facts["sharpness"]) == (640, False, 0.1)
    assert all(isinstance(value, str | float | int) for value in facts.values())


def test_a_password_in_the_uri_of_a_source_stays_out_of_shards() -> None:
    odd = clip(1, uri="https://me:pass@host/a.mp4?token=abc")
    assert pack.facts_of(odd, encoded_row(1), caption(1))["uri"] == "https://…@host/a.mp4?token=…"


def test_the_largest_number_is_still_a_number() -> None:
    most = clip(1, start_s=sys.float_info.max)
    assert math.isfinite(pack.facts_of(most, encoded_row(1), caption(1))["start_s"])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_field_has_one_type_whatever_the_rows_hold(data: st.DataObject) -> None:
    numbers = st.one_of(st.none(), st.integers(-5, 5), st.floats())
    row = {f.name: data.draw(numbers) for f in TABLES["clips"] if pa.types.is_floating(f.type)} | {"key": key(1)}
    sample = pack.sample_of(row, caption(1, row), encoded_row(1), mp4(1))
    facts = json.loads(dict(sample.members)["json"], parse_constant=pytest.fail)
    assert all(isinstance(facts[name], float) for name in row if name in facts and name != "key")


def test_a_sample_is_mp4_json_txt_in_this_order() -> None:
    sample = pack.sample_of(clip(7), caption(7), encoded_row(7), mp4(7))
    assert [extension for extension, _ in sample.members] == ["mp4", "json", "txt"]
    assert (sample.key, dict(sample.members)["txt"], dict(sample.members)["mp4"]) == (key(7), b"Clip 7.", mp4(7))


def test_a_caption_of_another_clip_is_refused() -> None:
    with pytest.raises(PackError, match=f"{key(1)}, caption {key(2)}"):
        pack.sample_of(clip(1), caption(2), encoded_row(1), mp4(1))
    with pytest.raises(PackError, match=f"a score of {key(2)}"):
        pack.sample_of(clip(1), caption(1), encoded_row(1), mp4(1), [{"key": key(2), "scorer": "x"}])


def test_bytes_that_are_not_the_ledgers_are_refused() -> None:
    with pytest.raises(PackError, match="is gone or not the one that the ledger describes"):
        pack.sample_of(clip(1), caption(1), encoded_row(1), mp4(2))


@pytest.fixture(params=["local", "s3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "local" else f"{request.getfixturevalue('s3')}/run"


def fill(run: str, units: int = 3, per_unit: int = 4) -> Ledger:
    ledger = Ledger(run)
    ledger.create()
    for unit in range(units):
        numbers, name = range(unit * per_unit, (unit + 1) * per_unit), f"w0-u{unit}"
        rows = encoded.write_encoded(run, name, "eee", ((key(n), mp4(n), info()) for n in numbers))
        ledger.write("encoded", name, rows, "eee")
        ledger.write("clips", name, [clip(n, unit=name) for n in numbers], "ccc")
        ledger.write("captions", name, [caption(n) for n in numbers], "ppp")
        ledger.write("scores", name, [{"key": key(n), "scorer": "quality", "value": n} for n in numbers], "sss")
    ledger.write("selection", "default", selection(range(units * per_unit)), "fff")
    return ledger


def test_shards_are_assembled_from_the_encoded_tars_of_all_units(run: str) -> None:
    ledger = fill(run)
    plans = pack.shard_plan(ledger.read("encoded"), ledger.read("selection"), SMALL)
    assert len(plans) > 1 and {plan.bucket for plan in plans} == {"16x9-360p-25fps-02s"}
    joined = pack.join(ledger, [one for plan in plans for one in plan.keys])
    infos = [pack.assemble(run, plan, SMALL, "p", joined) for plan in plans]
    assert all(info.size_bytes <= SMALL.shard_mb * 10**6 for info in infos)
    shards.write_manifest(f"{run}/shards/p", infos, kind="clips", fingerprint="abc")
    found = {one["__key__"]: one for one in shards.pipeline(f"{run}/shards")}
    assert sorted(found) == [key(n) for n in range(12)]
    for number in range(12):
        one = found[key(number)]
        facts = json.loads(one["json"])
        assert (one["mp4"], one["txt"].decode()) == (mp4(number), f"Clip {number}.")
        assert (facts["key"], facts["caption"], facts["quality"]) == (key(number), f"Clip {number}.", float(number))
    rows = [row for plan, one in zip(plans, infos, strict=True) for row in pack.packed_rows(plan, one, joined, "p")]
    assert to_table("packed", rows).num_rows == 12 and rows[0]["index"] == 0
    assert pack.assemble(run, plans[0], SMALL, "p") == infos[0], "alone or together, a shard is the same"


def test_an_encoded_tar_that_is_gone_or_damaged_is_named_with_what_cuts_it_anew(run: str) -> None:
    ledger = fill(run, units=1)
    (plan, *_) = pack.shard_plan(ledger.read("encoded"), ledger.read("selection"), SMALL)
    tar = encoded.encoded_uri(run, "w0-u0", "eee")
    for harm in (lambda: storage.write_bytes(tar, bytes(len(storage.read_bytes(tar)))), lambda: storage.remove(tar)):
        harm()
        with pytest.raises(PackError, match=r"gone or .* ledger/encoded/part-w0-u0\.\*\.parquet .* cuts anew"):
            pack.assemble(run, plan, SMALL, "p")


def test_a_clip_that_lacks_its_caption_is_named(run: str) -> None:
    ledger = fill(run)
    ledger.remove("captions", "w0-u1")
    with pytest.raises(PackError, match=f"{key(4)} is in no row of table captions"):
        pack.join(ledger, [key(1), key(4)])


def test_equal_clips_give_equal_encoded_tars_and_an_empty_unit_is_done_too(run: str) -> None:
    clips = [(key(n), mp4(n), info()) for n in range(3)]
    rows = encoded.write_encoded(run, "u0", "eee", clips)
    first = storage.read_bytes(encoded.encoded_uri(run, "u0", "eee"))
    assert encoded.write_encoded(run, "u0", "eee", iter(clips)) == rows
    assert storage.read_bytes(encoded.encoded_uri(run, "u0", "eee")) == first
    for row, (_, data, _) in zip(rows, clips, strict=True):
        assert storage.read_range(encoded.encoded_uri(run, "u0", "eee"), row["offset"], row["size_bytes"]) == data
    assert encoded.write_encoded(run, "u1", "eee", []) == []
    assert storage.exists(encoded.encoded_uri(run, "u1", "eee"))


def test_encoded_tars_of_older_configurations_are_pruned_once_the_ledger_has_the_new_ones(run: str) -> None:
    ledger = fill(run, units=2)
    rows = encoded.write_encoded(run, "w0-u0", "new", [(key(0), mp4(0), info())])
    assert encoded.prune_encoded(run) == [encoded.encoded_uri(run, "w0-u0", "new")], "not in the ledger yet"
    encoded.write_encoded(run, "w0-u0", "new", [(key(0), mp4(0), info())])
    ledger.write("encoded", "w0-u0", rows, "new")
    assert encoded.prune_encoded(run) == [encoded.encoded_uri(run, "w0-u0", "eee")]
