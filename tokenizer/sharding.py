"""A tokenizer in training whose parts lie on several processes: FSDP2, `torch.distributed.fsdp.fully_shard`.

Each stage of blocks is a unit of its own, gathered while it computes; what lies between the stages is gathered once for
all passes of a step. Checkpoints are those of one process: one file, whole weights, the optimizer's state by number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from rushes.tokenizer.model import Tokenizer
from rushes.tokenizer.trunk import Blocks


def shard(tokenizer: Tokenizer, mesh: DeviceMesh) -> None:
    """Spread the parameters of a tokenizer, the same on all processes, over a mesh of one dimension."""
    for part in tokenizer.modules():
        if isinstance(part, Blocks):
            fully_shard(part, mesh=mesh)
    fully_shard(tokenizer, mesh=mesh)
    for name in ("encode_chunk", "decode_chunk"):  # a tokenizer has two ways through it, and no `forward`
        register_fsdp_forward_method(tokenizer, name)


def whole(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer itself, or where it is sharded a copy that is not; all processes have to ask.

    The copy takes the memory of the full weights in fp32 on each process, half a gigabyte for a base.
    """
    weights = gathered(tokenizer)
    if weights is None:
        return tokenizer
    with torch.device("meta"):
        copy = Tokenizer(tokenizer.config)
    copy.load_state_dict(weights, assign=True)
    return copy.eval().requires_grad_(False)


def gathered(module: nn.Module) -> dict[str, Tensor] | None:
    """Return copies of all weights of a sharded module, None for one that is not; all processes have to ask."""
    weights = module.state_dict()
    if not any(isinstance(weight, DTensor) for weight in weights.values()):
        return None
    return {name: full_tensor(weight).clone() for name, weight in weights.items()}


@contextmanager
def rewritten(tokenizer: Tokenizer) -> Iterator[Tokenizer]:
    """Give `whole(tokenizer)`, and let the tokenizer have what was changed in it."""
    copy = whole(tokenizer)
    yield copy
    if copy is not tokenizer:
        tokenizer.load_state_dict(_like(copy.state_dict(), tokenizer.state_dict()))


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor with all of its parts; all processes have to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2 with the checkpoints of its other strategies.

    Its own number the optimizer's state by the order of parameters in the module instead of that in the optimizer, and
    pass by the plugin that writes them. The first process gathers a checkpoint in its CPU memory; at a resume each
    process reads all of it there, and keeps its parts.
    """

    def __init__(self, devices: int):
        super().__init__(data_parallel_size=devices, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Let the trainer ask for the optimizers' states."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the whole state of the module, on the first process."""
        assert self.lightning_module is not None
        return self._gathered(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state of an optimizer, on the first process."""
        plain = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return self._gathered(plain.state_dict())

    def _gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state of whole tensors; where nothing is written they are let go one by one."""
        return tree_map_only(DTensor, self._kept, state)

    def _kept(self, part: DTensor) -> Tensor | None:
        full = full_tensor(part)  # on all processes, for each has parts of it
        return full.cpu() if self.is_global_zero else None

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Return a checkpoint; Lightning forgets to ask for nothing but weights where it loads after the set-up."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's parts of the module's state."""
        assert self.lightning_module is not None
        module = self.lightning_module
        module.load_state_dict(_like(checkpoint["state_dict"], module.state_dict()), strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's parts of the optimizers' states."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            parts = {
                number: {name: _part(value, parameters[number]) for name, value in state.items()}
                for number, state in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": parts})


def _like(state: Mapping[str, Tensor], sharded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of whole tensors in the parts in which another one lies."""
    return {name: _part(value, sharded.get(name, value)) for name, value in state.items()}


def _part(value: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a tensor that all of them have; a count of steps is no tensor of parts."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
