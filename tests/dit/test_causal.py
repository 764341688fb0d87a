from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from rushes.dit import causal, toy
from rushes.dit.causal import Row, Stream
from rushes.dit.config import SampleConfig
from rushes.dit.known import Piece
from rushes.dit.layout import Plan
from rushes.dit.model import DiT, patchify
from rushes.tokenizer.config import silent

RATES = [(8, 16, 8), (8, 8), (16, 16, 8), (16,)]


@pytest.fixture(scope="module")
def net() -> DiT:
    """A network with random weights."""
    torch.manual_seed(0)
    net = DiT(toy.NETWORK)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    for block in net.blocks:  # attention that is not uniform
        block.attention.q_norm.weight.data.fill_(2.0)
        block.attention.k_norm.weight.data.fill_(2.0)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def row() -> Row:
    """Clips of one to three segments of one or two latents."""
    clips = [toy.clip(toy.anywhere(random.Random(number)), rates) for number, rates in enumerate(RATES)]
    return causal.row_of(*toy.Shapes(toy.RATES).known(clips))


def seen(net: DiT, row: Row, **change) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(len(row.rates), net.config.token_width, generator=torch.Generator().manual_seed(1))
    t = torch.linspace(0.1, 0.9, len(row.segments))
    return x, t, causal.velocity(net, replace(row, **change), x, t)


def test_segments_begin_where_the_order_of_latents_begins_again(row):
    assert row.clips == ((32, 16, 32), (32, 32), (16, 16, 32), (16,)) and row.alike() == [[0], [1], [2], [3]]


def test_a_cached_roll_out_is_the_recomputation_under_the_block_causal_mask(net, row):
    x, t, whole = seen(net, row)
    for number, clip in enumerate(row.clips):
        one, own, when = row.taken([number]), x.split(row.lengths)[number], t.split(list(map(len, row.clips)))[number]
        past: causal.Past = {}
        parts = zip(own.split(list(clip)), when.split(1), strict=True)
        found = [causal.velocity(net, one.segment(j), z, s, past, keep=True) for j, (z, s) in enumerate(parts)]
        torch.testing.assert_close(torch.cat(found), whole.split(row.lengths)[number], atol=1e-5, rtol=0)
    pair = row.taken([1, 1])
    both = causal.velocity(net, pair, torch.cat([x.split(row.lengths)[1]] * 2), t[3:5].repeat(2))
    torch.testing.assert_close(both[:64], whole.split(row.lengths)[1], atol=1e-5, rtol=0)


def test_a_later_segment_changes_nothing_of_an_earlier_one_and_an_earlier_one_changes_later_ones(net, row):
    x, t, before = seen(net, row)
    for begin, end in ((32, 48), (48, 80)):  # the second and the third segment of the first clip
        changed = torch.cat([x[:begin], x[begin:end] + 1, x[end:]])
        apart = (causal.velocity(net, row, changed, t) - before).abs().amax(dim=1)
        assert not apart[:begin].any() and not apart[80:].any() and apart[begin:80].min() > 1e-4


def test_a_segment_knows_its_distance_from_others_and_not_its_place_in_the_clip(net, row):
    *_, before = seen(net, row)
    shift = torch.tensor([3.0, 0.0, 0.0])
    torch.testing.assert_close(seen(net, row, positions=row.positions + shift)[2], before, atol=1e-4, rtol=0)
    ahead = torch.where(torch.arange(len(before))[:, None] < 32, 0.0, 3.0) * shift.sign()
    apart = (seen(net, row, positions=row.positions + ahead)[2] - before).abs().amax(dim=1)
    assert not apart[:32].any() and apart[32:80].max() > 1e-4


def planned(segments: int) -> Plan:
    return Plan(
        lengths=(16,) * segments, height=8, width=8, fps=16.0, rates=(8,) * segments, counts=(2,) * segments,
        cells=(8, 8), grid=(4, 4), known=(False,) * segments,
    )  # fmt: skip


def test_a_stream_makes_what_a_roll_out_makes_and_keeps_no_more_than_its_window(net):
    clip = planned(5)
    nothing = toy.Given.nothing(1)
    free = causal.windows(clip, 3.0)
    assert free == [(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 3, 4), (2, 4, 5)]
    stream, pieces, kept = Stream(net, nothing, 0, (1.0, 0.5), silent, len(free)), [], []
    for first, new, last in free:
        known = [Piece(z=z, mask=torch.ones(4, 4, dtype=torch.bool)) for z in pieces[first:new]]
        pieces.append(stream.generate(clip.part(first, last), [*known, None])[-2:])
        kept.append(sum(k.shape[2] for k, _ in stream.past.values()) // len(net.blocks))
    assert kept == [0, 32, 64, 64, 64]
    tokens = toy.pack([toy.clip(toy.anywhere(random.Random(0)), (8,) * 3)], toy.NETWORK)
    made = causal.roll_out(net, causal.row_of(tokens, nothing), (1.0, 0.5), torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.cat([patchify(z, 2) for z in pieces[:3]]), net.denormalise(made))
    again = Stream(net, nothing, 0, (1.0, 0.5), silent, 1)  # a window that begins anew is a clip of its own
    again.dice = torch.Generator().set_state(stream.dice.get_state())
    known = [Piece(z=z, mask=torch.ones(4, 4, dtype=torch.bool)) for z in pieces[2:4]]
    one, other = (each.generate(clip.part(2, 5), [*known[-2:], None]) for each in (stream, again))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("causal", {"sampler": "heun"}, "sampler=heun: a causal student looks at 4 levels"),
        ("causal", {"schedule": "linear-quadratic"}, "schedule=linear-quadratic: a causal student looks at 4 levels"),
        ("causal", {"steps": 30}, "steps=30: a causal student"),
        ("causal", {"guidance": 3.0}, "guidance=3: the model is a student, which has a guidance of 2 built in"),
        ("reflow", {"guide": {"pan": 2.0}}, "guide: the model is a student"),
        ("causal", {"last": "a.png"}, "last=a.png: .* sees none that comes later; give first or extend"),
    ],
)
def test_a_student_is_not_asked_for_what_it_cannot_do(method, change, message):
    student = {"method": method, "levels": [1.0, 0.9, 0.75, 0.5], "guidance": 2.0}
    with pytest.raises(ValueError, match=message):
        causal.require(SampleConfig(**change), student)
    causal.require(SampleConfig(steps=4, guidance=1.0), student)
