from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from rushes.tokenizer.config import OWN_RATES
from rushes.tokenizer.growth import inherit
from rushes.tokenizer.model import Tokenizer, fingerprint
from rushes.tokenizer.sharding import full_tensor, rewritten, shard, whole

pytestmark = pytest.mark.filterwarnings("ignore:.*returned a view tensor")


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    """A mesh of this process alone: it has every part, but each is gathered and let go as on a mesh of many."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def pair(tokenizer: Tokenizer, mesh: DeviceMesh) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizer, and a sharded copy."""
    other = copy.deepcopy(tokenizer)
    shard(other, mesh)
    return tokenizer, other


def gradients(tokenizer: Tokenizer, video: torch.Tensor, rates: tuple[int, ...]) -> dict[str, torch.Tensor]:
    tokenizer.train().requires_grad_(True)
    losses = []
    for _ in range(2):  # two passes, one backward
        encoding, decoding = {}, {}
        for start, rate in zip((0, 16), rates, strict=True):
            z, encoding = tokenizer.encode_chunk(video[:, :, start : start + 16], rate, encoding)
            again, decoding = tokenizer.decode_chunk(z.chunk(2, dim=2)[0], rate, decoding)
            losses += [z.square().mean(), again.square().mean()]
    torch.stack(losses).sum().backward()
    return {name: full_tensor(p.grad) for name, p in tokenizer.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("variant", [*OWN_RATES, "structure-dynamics"])
def test_the_gradients_of_a_sharded_tokenizer_are_those_of_a_whole_one(mesh, stirred, variant, checkpointing):
    one, other = pair(stirred(variant=variant), mesh)
    one.checkpointing = other.checkpointing = checkpointing
    video = torch.rand(1, 3, 32, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    rates = (one.config.rates[0], one.config.rates[-1])
    expected, found = gradients(one, video, rates), gradients(other, video, rates)
    assert len(found) > 20
    torch.testing.assert_close(found, expected)


def test_a_sharded_tokenizer_made_whole_is_the_one_that_it_was_and_no_random_number_is_drawn(mesh, stirred):
    one, other = pair(stirred(rates=(4, 8)), mesh)
    assert whole(one) is one
    before = torch.get_rng_state()
    again = whole(other)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(isinstance(weight, DTensor) for weight in again.state_dict().values())
    assert fingerprint(again) == fingerprint(one)


def test_what_is_rewritten_of_a_sharded_tokenizer_reaches_its_parts(mesh, stirred):
    one, other = pair(stirred(rates=(4, 8)), mesh)
    before = fingerprint(one)
    for tokenizer in (one, other):
        with rewritten(tokenizer) as changed:
            inherit(changed, [8], 4)
            changed.latent_mean.fill_(0.5)
    assert fingerprint(whole(other)) == fingerprint(one) != before
    assert all(isinstance(p, DTensor) for p in other.parameters())
