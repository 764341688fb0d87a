"""A caption belongs to one clip: any exchange of keys, words or digests is seen, in ledger and shard, by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters.caption import FIELDS
from rushes.pipelines.config import PackConfig
from rushes.pipelines.stages.caption import caption
from rushes.pipelines.stages.pack import pack
from rushes.pipelines.stages.pack.verify import verify, verify_shards
from rushes.pipelines.store import binding, encoded, shards
from rushes.pipelines.store.clip import clip_key
from rushes.pipelines.store.encoded import PackError
from rushes.pipelines.store.ledger import Ledger

UNIT = "w0000-00000"
SOURCE = "0123456789abcdef"
WORDS = dict.fromkeys(FIELDS, "")


def clip(number: int, **changes: Any) -> dict[str, Any]:
    start_s = number / 3
    row = {"key": clip_key(SOURCE, start_s), "source_id": SOURCE, "uri": "a.mp4", "unit": UNIT, "start_s": start_s}
    row |= {"end_s": start_s + 0.3, "duration_s": 0.3, "phash": [number, 2**63 + number], "frame_s": [start_s + 0.1]}
    return row | changes


def captioned(number: int) -> dict[str, Any]:
    return caption.row_of(clip(number), "endpoint", "m", {"short": f"Short {number}.", "long": f"Clip {number}."})


def exchange(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Return the rows with some columns of the second and the fifth exchanged."""
    one, other = rows[1], rows[4]
    changed = {1: one | {name: other[name] for name in names}, 4: other | {name: one[name] for name in names}}
    return [changed.get(place, row) for place, row in enumerate(rows)]


SWAPS = [("key",), ("short", "long"), ("key", "pictures"), ("long",), ("bound",), ("key", "short", "long")]
WHOLE = SWAPS[:3]  # of a caption exchanged as a whole it can be told whose it is


@pytest.fixture
def run(tmp_path: Path) -> Ledger:
    """A run of six clips, encoded and captioned, not packed."""
    ledger = Ledger(str(tmp_path / "run"))
    ledger.create()
    about = {"width": 32, "height": 32, "fps": 24.0, "frames": 4, "duration_s": 0.3, "codec": "h264"}
    rows = encoded.write_encoded(ledger.run, UNIT, "eee", ((clip(n)["key"], b"mp4 %d" % n, about) for n in range(6)))
    ledger.write("encoded", UNIT, rows, "eee")
    ledger.write("clips", UNIT, [clip(n) for n in range(6)], "ccc")
    ledger.write("captions", UNIT, [captioned(n) for n in range(6)], "ppp")
    kept = [{"key": clip(n)["key"], "policy": "default", "kept": True} for n in range(6)]
    ledger.write("selection", "default", kept, "fff")
    return ledger


def packed(ledger: Ledger) -> None:
    [plan] = pack.shard_plan(ledger.read("encoded"), ledger.read("selection"), PackConfig())
    joined = pack.join(ledger, plan.keys)
    info = pack.assemble(ledger.run, plan, PackConfig(), "default", joined)
    ledger.write("packed", "all", pack.packed_rows(plan, info, joined, "default"), "kkk")
    shards.write_manifest(f"{ledger.run}/shards/default", [info], kind="clips", fingerprint="abc")


@pytest.mark.parametrize("names", SWAPS)
def test_packing_refuses_exchanged_captions_and_says_whose_they_are(run: Ledger, names: tuple[str, ...]) -> None:
    run.write("captions", UNIT, exchange([captioned(n) for n in range(6)], *names), "ppp")
    with pytest.raises(PackError) as refused:
        packed(run)
    named = [clip(n)["key"] in str(refused.value) for n in (1, 4)]
    assert all(named) if names in WHOLE else any(named), refused.value


@pytest.mark.parametrize("names", SWAPS)
def test_verify_finds_captions_that_were_exchanged_after_packing(run: Ledger, names: tuple[str, ...]) -> None:
    packed(run)
    assert not [problem for problem in verify(run.run) if "caption" in problem.reason]
    run.write("captions", UNIT, exchange([captioned(n) for n in range(6)], *names), "ppp")
    named = {problem.where for problem in verify(run.run) if "caption" in problem.reason}
    assert {clip(1)["key"], clip(4)["key"]} == named


def test_a_ledger_that_was_captioned_anew_does_not_pass_for_what_the_shards_hold(run: Ledger) -> None:
    packed(run)
    anew = [caption.row_of(clip(n), "endpoint", "m", {"long": f"Another {n}."}) for n in range(6)]
    run.write("captions", UNIT, anew, "ppp")
    told = [problem for problem in verify(run.run) if "another caption than the ledger" in problem.reason]
    assert len(told) == 6


def _shard(root: Path, change: Any) -> str:
    """Write a shard of two samples whose members were changed between them."""
    about = {"size_bytes": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "frames": 4}
    samples = [pack.sample_of(clip(n), captioned(n), about | {"key": clip(n)["key"]}, b"abc") for n in range(2)]
    texts = [dict(sample.members) for sample in samples]
    change(*texts)
    made = [shards.Sample(sample.key, list(text.items())) for sample, text in zip(samples, texts, strict=True)]
    info = shards.write_shard(str(root), "b", "clips", 0, made)
    shards.write_manifest(str(root), [info], kind="clips", fingerprint="abc")
    return str(root)


def _swap_texts(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    one["txt"], other["txt"] = other["txt"], one["txt"]


def _swap_facts(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    one["json"], other["json"], one["txt"], other["txt"] = other["json"], one["json"], other["txt"], one["txt"]


def _swap_within_facts(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    one["json"], other["json"] = (
        one["json"].replace(b"Clip 0.", b"Clip 1."),
        other["json"].replace(b"Clip 1.", b"Clip 0."),
    )
    _swap_texts(one, other)


@pytest.mark.parametrize("change", [_swap_texts, _swap_facts, _swap_within_facts])
def test_an_exchange_inside_a_shard_is_seen_without_the_ledger(tmp_path: Path, change: Any) -> None:
    told = [problem for problem in verify_shards(_shard(tmp_path, change)) if "caption" in problem.reason]
    assert len(told) == 2
    assert all(clip(n)["key"] in str(told) for n in range(2))


def test_a_sound_shard_needs_no_ledger(tmp_path: Path) -> None:
    told = verify_shards(_shard(tmp_path, lambda one, other: None))
    assert not [problem for problem in told if "caption" in problem.reason]


texts = st.text(st.characters(codec="utf-8"), max_size=20)
rows = st.fixed_dictionaries(dict.fromkeys(FIELDS, texts))


@settings(max_examples=150, deadline=None)
@given(rows, st.integers(0, 50), st.integers(0, 50), rows)
def test_a_caption_is_bound_to_its_own_clip_alone(parts: dict[str, str], one: int, other: int, more: Any) -> None:
    made = caption.row_of(clip(one), "endpoint", "m", parts)
    assert binding.holds(clip(one), made)
    assert binding.holds(clip(other), made) == (one == other)
    changed = made | more
    assert binding.holds(clip(one), changed) == (said(changed) == said(made))


def said(row: Any) -> list[str]:
    """What is bound: the parts, and as the text that stands in the shard the long one or, without one, the short."""
    return [row[name] or "" for name in FIELDS if name != "long"] + [row["long"] or row["short"] or ""]


@pytest.mark.parametrize("name", [*binding.CLIP_COLUMNS])
def test_the_binding_follows_all_that_a_clip_is(name: str) -> None:
    other = {"key": "x", "source_id": "y", "start_s": 9.0, "end_s": 10.0, "phash": [5], "frame_s": [0.0]}
    assert not binding.holds(clip(1, **{name: other[name]}), captioned(1))


def test_the_binding_follows_nothing_that_may_rightly_change() -> None:
    later = clip(1, uri="moved.mp4", unit="w0001-00003", wave=3, motion=0.5, licence="CC0", phash=(1, 2**63 + 1))
    assert binding.holds(later, captioned(1) | {"made_by": "another", "checks": "camera: …", "model": "n"})


def test_the_facts_of_a_sample_carry_the_binding_through_rounding() -> None:
    odd = clip(1, start_s=1 / 3 * 10**5, end_s=2 / 3 * 10**5)
    made = caption.row_of(odd, "endpoint", "m", {"long": "Ünïcödé 🙂."})
    facts = pack.facts_of(odd, {}, made)
    assert binding.holds_in_shard(facts, "Ünïcödé 🙂.") and not binding.holds_in_shard(facts, "Unicode.")
