from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import varlen

from rushes.dit import layers
from rushes.dit.layers import Block, Rotary, SelfAttention, axis_widths, modulate, packed_attention, spread

TIME_S, SPACE = (0.5, 64.0), (4.0, 256.0)


def positions(n: int) -> torch.Tensor:
    return torch.cat([torch.rand(n, 1) * 4, torch.randint(0, 9, (n, 2)).float()], dim=1)


@pytest.mark.parametrize("head", [32, 64, 72])
def test_a_head_is_shared_out_to_time_and_both_sides(head):
    t, y, x = axis_widths(head)
    assert t + y + x == head and y == x and min(t, y) >= 8 and t % 2 == 0


@pytest.mark.parametrize("shift", [(7.3, 0, 0), (0, 5, 0), (3600.0, -2, 11)])
def test_a_shift_in_time_or_space_changes_no_attention_logit(shift):
    torch.manual_seed(0)
    attention, rotary = SelfAttention(128, 4), Rotary(32, TIME_S, SPACE)
    x, where = torch.randn(20, 128), positions(20)
    before = attention.logits(x, rotary(where))
    after = attention.logits(x, rotary(where + torch.tensor(shift)))
    moved = attention.logits(x, rotary(where * torch.tensor([2.0, 1, 1])))
    # float32 holds an angle of an hour's time, 3600 s × 4π, to about 5e-3 rad
    torch.testing.assert_close(after, before, atol=1e-3 if shift[0] < 60 else 5e-1, rtol=0)
    assert (moved - before).abs().max() > 1


def test_a_fresh_block_is_the_identity():
    torch.manual_seed(0)
    block, x = Block(128, 4), torch.randn(10, 128)
    angles = Rotary(32, TIME_S, SPACE)(positions(10))
    out = block(x, torch.randn(2, 128), angles, torch.randn(5, 128), [4, 6], [2, 3])
    assert torch.equal(out, x)


@pytest.mark.parametrize("lengths", [[4, 4, 4], [1, 7, 4]])
def test_modulation_is_that_of_rows_written_out_for_every_token(lengths):
    torch.manual_seed(0)
    x, shift, scale = torch.randn(12, 16), torch.randn(3, 16), torch.randn(3, 16)
    plain = F.layer_norm(x, (16,), eps=1e-6) * (1 + spread(scale, lengths)) + spread(shift, lengths)
    torch.testing.assert_close(modulate(x, lengths, shift, scale), plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize("lengths", [[4, 4, 4], [1, 7, 4], [5, 5, 2]])
def test_packed_attention_is_attention_under_a_block_diagonal_mask(lengths):
    torch.manual_seed(0)
    q, k, v = (torch.randn(12, 2, 8) for _ in range(3))
    owner = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))
    mask = owner[:, None] == owner
    dense = F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in (q, k, v)), attn_mask=mask).transpose(0, 1)
    torch.testing.assert_close(packed_attention(q, k, v, lengths, lengths), dense)


def test_the_kernel_for_packed_sequences_is_for_gpus_in_half_precision():
    kinds, types = ("cpu", "mps", "cuda"), (torch.float32, torch.float16, torch.bfloat16)
    found = {(kind, dtype) for kind in kinds for dtype in types if layers.has_kernel(kind, dtype)}
    assert found == {("cuda", torch.float16), ("cuda", torch.bfloat16)}


def test_the_kernel_is_told_where_each_clip_begins_and_ends(monkeypatch):
    """Without a GPU: by a kernel of plain code, and by torch's own on tensors that have shapes and nothing else."""
    torch.manual_seed(0)
    q, (k, v), lengths = torch.randn(12, 2, 8), torch.randn(2, 9, 2, 8), ([1, 7, 4], [3, 2, 4])
    loop = packed_attention(q, k, v, *lengths)

    def plain(q, k, v, q_ends, k_ends, most_q, most_k):
        assert (most_q, most_k, q_ends.dtype) == (7, 4, torch.int32)
        clips = (
            [slice(*ends) for ends in pairwise(q_ends.tolist())],
            [slice(*ends) for ends in pairwise(k_ends.tolist())],
        )
        each = ((q[one], k[two], v[two]) for one, two in zip(*clips, strict=True))
        return torch.cat(
            [F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in x3)).transpose(0, 1) for x3 in each]
        )

    monkeypatch.setattr(layers, "has_kernel", lambda *_: True)
    assert packed_attention(q.to("meta"), k.to("meta"), v.to("meta"), *lengths).shape == q.shape
    monkeypatch.setattr(varlen, "varlen_attn", plain)
    torch.testing.assert_close(packed_attention(q, k, v, *lengths), loop)
