from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rushes.dit.config import DiTConfig, TrainConfig
from rushes.dit.data import Batch, LatentClip, LatentError, Packs, durations, facts_of, loader, pack, parse
from rushes.dit.index import Index, read_index
from rushes.dit.model import patchify
from rushes.dit.plan import Ticket, windows
from rushes.dit.text import Embedded
from rushes.pipelines.store import shards, storage

FINGERPRINT = "abcdef012345"
TICKET = Ticket(seed=0, clip="k", epoch=0, window=0)


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


class Texts(Embedded):
    """Captions that say which one they are, and no more."""

    def __init__(self): ...

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((number, 384), 0.5), torch.full((384,), float(number))


def sample(root: str, number: int = 0) -> dict:
    return list(shards.pipeline(root, members=("npy", "json", "txt")))[number]


def test_a_packed_batch_keeps_the_times_and_rates_of_each_latent(latents):
    one, two = (parse(sample(latents, i), FINGERPRINT) for i in (0, 1))
    packed = pack([one, two], DiTConfig())
    assert packed.lengths == [one.tokens(2), two.tokens(2)] == [24, 4 * 4]  # (4 + 2) latents of 4 tokens; 4 of 4
    assert packed.rates.tolist()[:24] == [4.0] * 16 + [8.0] * 8
    assert packed.orders.tolist()[:24:4] == [0, 1, 2, 3, 0, 1], "a latent's place is that in its segment"
    assert packed.positions[:24:4, 0].tolist() == pytest.approx([i / 24 for i in (0, 4, 8, 12, 16, 24)])
    assert packed.seconds[:24].tolist() == pytest.approx([4 / 24] * 16 + [8 / 24] * 8)
    assert packed.facts[0, 0] == 24 and packed.facts[0].isnan().any()
    wanted = torch.cat([patchify(clip.latents.float(), 2) for clip in (one, two)])
    assert torch.equal(packed.tokens, wanted)


def test_the_last_latent_lasts_as_long_as_its_frames():
    assert durations(clip("k", 3)).tolist() == pytest.approx([4 / 24] * 3)
    assert durations(replace(clip("k", 3), facts={"frames": 9})).tolist() == pytest.approx([4 / 24, 4 / 24, 1 / 24])
    assert durations(replace(clip("k", 1), facts={"frames": 3, "fps": 10.0})).tolist() == pytest.approx([0.3])


def test_a_window_of_a_clip_holds_its_segments_alone(latents):
    one = parse(sample(latents))
    late = one.window(1, 2)
    assert late.rates == (8,) and late.counts == (2,) and torch.equal(late.latents, one.latents[4:])
    assert torch.equal(late.times_s, one.times_s[4:])
    assert one.window(0, 2).rates == (4, 8)


def test_a_crop_is_a_window_of_the_latents():
    one = replace(clip("k", 2), latents=torch.arange(2 * 25.0).reshape(2, 1, 5, 5))
    small = one.cropped(3, TICKET).latents
    assert small.shape == (2, 1, 3, 3) and small[0, 0, 1, 1] - small[0, 0, 0, 0] == 6
    assert one.cropped(0, TICKET) is one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "other"}, "was made by tokenizer other"),
        ({"rates": [4]}, "no latent sample"),
        ({"rates": [4, 4]}, "must agree"),
        ({"times_s": [0.0]}, "must agree"),
        ({"lengths": None}, "no latent sample"),
        ({"key": "another"}, "holds another in its place"),
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


TENSORS = ("values", "times_s", "rates", "orders")


def read(
    index: Index, config: TrainConfig, start: tuple[int, int] = (0, 0), rank: int = 0, world: int = 1
) -> list[Batch]:
    """Twelve steps, as one rank gets them."""
    count = 12 * config.packs // world
    return list(
        itertools.islice(loader(Packs(index, Texts(), config), windows(index, config)[0], start, rank, world), count)
    )


@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), (2, 0), (2, 2)])
def test_clips_packs_times_and_noise_are_the_same_for_any_ranks_and_workers_from_any_step(latents, ranks, workers):
    index, config = read_index(latents), TrainConfig(tokens=40, packs=2, max_cells=3)
    whole = read(index, config)
    for done in (0, 5):
        start = whole[2 * done - 1].position if done else (0, 0)
        for rank in range(ranks):
            own = read(index, replace(config, workers=workers), start, rank, ranks)
            wanted = [one for step in range(done, 12) for one in whole[2 * step : 2 * step + 2][rank::ranks]]
            for one, other in zip(own, wanted, strict=False):
                assert one.tickets == other.tickets and one.packed.lengths == other.packed.lengths
                assert all(torch.equal(getattr(one.packed, name), getattr(other.packed, name)) for name in TENSORS)
                assert torch.equal(one.condition.words, other.condition.words)
                assert torch.equal(one.normals, other.normals) and torch.equal(one.uniforms, other.uniforms)


def test_packs_from_an_object_store_are_those_from_disk(latents, s3):
    for path in Path(latents).rglob("*"):
        if path.is_file():
            storage.write_bytes(f"{s3}/latents/{path.relative_to(latents)}", path.read_bytes())
    config = TrainConfig(tokens=40, packs=2)
    here, there = read(read_index(latents), config), read(read_index(f"{s3}/latents"), config)
    for one, other in zip(here, there, strict=True):
        assert one.tickets == other.tickets and torch.equal(one.packed.values, other.packed.values)


def test_what_a_clip_is_given_does_not_depend_on_its_pack(latents):
    index = read_index(latents)
    found = []
    for tokens in (24, 200):
        batches = read(index, TrainConfig(tokens=tokens, packs=6))
        parts = [(b.tickets, b.packed.tokens.split(b.packed.lengths), b.normals) for b in batches]
        found.append({ticket: own for part in parts for ticket, *own in zip(*part, strict=True)})
    both = found[0].keys() & found[1].keys()
    assert len(both) > 10
    for ticket in both:
        assert all(torch.equal(one, other) for one, other in zip(found[0][ticket], found[1][ticket], strict=True))


def test_the_index_knows_what_lies_in_the_shards(latents):
    index = read_index(latents)
    clips = {one["__key__"]: one for one in shards.pipeline(latents, members=("npy", "json", "txt"))}
    assert len(index) == len(clips) == 7 and index.fingerprint == FINGERPRINT and index.channels == 16
    for row in range(7):
        own, clip = index.read(row), parse(clips[index.key(row)])
        assert all(own[name] == clips[own["__key__"]][name] for name in ("npy", "json"))
        segments = slice(*index.first[row : row + 2])
        assert tuple(index.counts[segments]) == clip.counts and tuple(index.rates[segments]) == clip.rates
        assert index.seconds[segments].sum() == pytest.approx(clip.facts["frames"] / 24)
        assert index.captions[int(index.caption[row])].as_py() == clips[index.key(row)]["txt"].decode()


def test_latents_of_two_tokenizers_are_not_mixed(make_latents, latent_sample):
    root = make_latents([latent_sample(0), latent_sample(1, fingerprint="999999999999")])
    with pytest.raises(LatentError, match="mixes latents of 2 tokenizers"):
        read_index(root)


def test_clip_shards_are_not_taken_for_latents(make_latents, latent_sample):
    with pytest.raises(LatentError, match="holds clips, not latents"):
        read_index(make_latents([latent_sample(0)], kind="clips"))


@pytest.mark.parametrize("missing", ["latent_shape", "caption", "rates"])
def test_latents_of_an_earlier_format_are_refused_by_what_they_do_not_tell(make_latents, latent_sample, missing):
    old = latent_sample(0)
    facts = {k: v for k, v in json.loads(dict(old.members)["json"]).items() if k != missing}
    members = [(name, json.dumps(facts).encode() if name == "json" else data) for name, data in old.members]
    with pytest.raises(LatentError, match=f"does not tell {missing}"):
        read_index(make_latents([shards.Sample(old.key, members)]))


@pytest.mark.parametrize("change", ["cut", "gone", "other"])
def test_a_shard_that_was_changed_is_refused_by_name(latents, make_latents, latent_sample, change):
    tar = Path(latents) / "b" / "part-000001.tar"
    if change == "gone":
        tar.unlink()
    elif change == "cut":
        tar.write_bytes(tar.read_bytes()[:-512])
    else:
        other = Path(make_latents([latent_sample(8), latent_sample(9)], name="other")) / "b" / "part-000001.parquet"
        tar.with_suffix(".parquet").write_bytes(other.read_bytes())
    with pytest.raises(LatentError, match=r"part-000001\.tar .*run `rushes latents` again"):
        read_index(latents)


def test_a_member_that_is_another_clip_s_is_refused_as_it_is_read(latents):
    index, tar = read_index(latents), Path(latents) / "b" / "part-000000.tar"
    data = bytearray(tar.read_bytes())
    one, other = (index.places[row, 1].tolist() for row in (0, 1))
    data[one[0] : one[0] + 60], data[other[0] : other[0] + 60] = data[other[0] :][:60], data[one[0] :][:60]
    tar.write_bytes(data)
    with pytest.raises(LatentError, match=r"holds .* in its place"):
        read(read_index(latents), TrainConfig(tokens=400, packs=1))
