from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from rushes.dit.config import DiTConfig
from rushes.dit.model import Condition, DiT
from rushes.dit.module import compiled
from rushes.dit.optimizer import MuonAdamW
from rushes.dit.sharding import shard, whole
from rushes.tokenizer.sharding import full_tensor


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    """A mesh of this process alone: it has every part, but each is gathered and let go as on a mesh of many."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


FORMS = [{}, {"attention": "factorised"}, {"streams": "dual-to-single"}]


@pytest.fixture(params=FORMS, ids=["cross", "factorised", "dual"])
def net(request) -> DiT:
    torch.manual_seed(0)
    net = DiT(DiTConfig(size="pico", in_channels=3, **request.param))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return net


def gradients(net: DiT, lengths: tuple[int, ...] = (12, 8)) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    net.zero_grad()
    n, clips, width = sum(lengths), len(lengths), net.config.text_width
    known = Condition(
        words=torch.randn(2 * clips, width), word_lengths=(2,) * clips, pooled=torch.randn(clips, width),
        facts=torch.randn(clips, len(net.config.facts)), known=torch.rand(n) < 0.3,
    )  # fmt: skip
    seconds = torch.cat([torch.arange(length) // (4 if length % 4 == 0 else 1) for length in lengths])  # of grids
    where = torch.cat([seconds[:, None] / 6, torch.rand(n, 2)], dim=1)
    told = (where, torch.full((n,), 4.0), torch.zeros(n), lengths, torch.rand(clips), known)
    net(torch.randn(n, 12), *told).square().sum().backward()
    return {name: full_tensor(p.grad) for name, p in net.named_parameters()}


def test_the_gradients_of_blocks_that_are_computed_again_are_the_same_to_the_bit(net):
    other, calls = copy.deepcopy(net), []
    other.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    other.checkpointing = True
    expected, found = gradients(net), gradients(other)
    assert all(torch.equal(found[name], expected[name]) for name in expected) and len(calls) == 2


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_the_gradients_of_a_sharded_network_are_those_of_a_whole_one(mesh, net, checkpointing):
    other = copy.deepcopy(net)
    shard(other, mesh)
    other.checkpointing = checkpointing
    torch.testing.assert_close(gradients(other), gradients(net))
    assert all(isinstance(p, DTensor) for p in other.parameters())


def test_a_sharded_network_made_whole_is_the_one_that_it_was_and_no_random_number_is_drawn(mesh, net):
    other = copy.deepcopy(net)
    shard(other, mesh)
    before = torch.get_rng_state()
    again = whole(other)
    assert torch.equal(torch.get_rng_state(), before) and whole(net) is net
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.state_dict().items())
    assert not any(p.requires_grad or isinstance(p, DTensor) for p in again.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # Dynamo looks at it
def test_a_compiled_network_has_the_gradients_of_a_plain_one_in_packs_of_all_lengths(net):
    other = copy.deepcopy(net)
    compiled(other)
    torch._dynamo.reset()  # else the graphs of the form before are taken
    torch._dynamo.utils.counters.clear()
    for lengths in ((12, 8), (4, 4), (30,), (2, 3, 5, 7), (9, 1)):
        torch.testing.assert_close(gradients(other, lengths), gradients(net, lengths), rtol=1e-3, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2, "one for the feed-forward, one for projections"


def test_one_optimizer_of_two_kinds_goes_on_from_its_state_and_steps_whole_and_sharded_networks_alike(mesh, net):
    other, again = copy.deepcopy(net), copy.deepcopy(net)
    shard(other, mesh)
    made = [MuonAdamW(one, 1e-2, 0.1) for one in (net, other)]
    for one, optimizer in zip((net, other), made, strict=True):
        gradients(one)
        optimizer.step()
    for name, value in other.state_dict().items():
        torch.testing.assert_close(full_tensor(value), net.state_dict()[name])
    resumed = MuonAdamW(again, 1e-2, 0.1)
    again.load_state_dict(net.state_dict())
    resumed.load_state_dict(copy.deepcopy(made[0].state_dict()))
    for one, optimizer in ((net, made[0]), (again, resumed)):
        gradients(one)
        optimizer.step()
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in again.state_dict().items())
    moments = [sorted(state) for state in made[0].state.values()]
    assert ["momentum_buffer"] in moments and ["exp_avg", "exp_avg_sq", "step"] in moments


def test_an_update_of_a_matrix_by_muon_is_as_large_as_adamws_and_has_no_direction_that_outweighs(net):
    before, matrix = copy.deepcopy(net), net.blocks[-1].mlp.gate_up.weight
    gradients(net)
    MuonAdamW(net, 1e-2, 0.0).step()
    change = (matrix - before.blocks[-1].mlp.gate_up.weight).detach()
    updated, asked = (torch.linalg.svdvals(one)[:10] for one in (change, matrix.grad))
    assert float(updated[0] / updated[-1]) < 2 < float(asked[0] / asked[-1])
