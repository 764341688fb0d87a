"""A diffusion transformer whose parts lie on several processes: FSDP2, as the tokenizer has it."""

from __future__ import annotations

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from rushes.dit.model import DiT
from rushes.tokenizer.sharding import gathered


def shard(net: DiT, mesh: DeviceMesh) -> None:
    """Spread the parameters of a network, the same on all processes, over a mesh of one dimension.

    Each block is gathered while it computes, what stands before and behind them for the whole of a pass.
    """
    for block in net.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)


def whole(net: DiT) -> DiT:
    """Return the network itself, or where it is sharded a copy that is not; all processes have to ask.

    The copy takes the memory of the full weights in fp32 on each process, 2.9 GB for an XL.
    """
    weights = gathered(net)
    if weights is None:
        return net
    with torch.random.fork_rng(devices=[]):  # what it begins with is drawn, and thrown away
        copy = DiT(net.config)
    copy.load_state_dict(weights)
    return copy.to(net.device).eval().requires_grad_(False)
