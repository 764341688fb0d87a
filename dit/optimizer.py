"""Muon for the matrices of the blocks and AdamW for all else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer

from rushes.dit.model import DiT

BETAS = (0.9, 0.99)


def adamw(net: DiT, lr: float, weight_decay: float) -> Optimizer:
    """Return AdamW for all parameters; only matrices decay."""
    return _adamw([*net.parameters()], lr, weight_decay)


class MuonAdamW(Optimizer):
    """Muon (Jordan et al., 2024) for the matrices of the blocks, whose momentum becomes orthogonal; AdamW for the rest.

    Updates of matrices have the root mean square of AdamW's (section 2.2 of arXiv 2502.16982), so that one learning
    rate serves both. Groups and state are of both, so schedules and checkpoints know of one optimizer.
    """

    def __init__(self, net: DiT, lr: float, weight_decay: float):
        matrices = [parameter for parameter in net.blocks.parameters() if parameter.ndim == 2]
        taken = set(map(id, matrices))
        rest = [parameter for parameter in net.parameters() if id(parameter) not in taken]
        self.parts = (
            Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            _adamw(rest, lr, weight_decay),
        )
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take a step, and return what the closure returns."""
        with torch.enable_grad():
            loss = closure() if closure else None
        first = 0
        for part in self.parts:  # a checkpoint that was loaded brought groups and state of its own
            last = first + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[first:last], self.state
            part.step()
            first = last
        return loss


def _adamw(parameters: list[torch.nn.Parameter], lr: float, weight_decay: float) -> AdamW:
    """Return AdamW in one kernel a parameter: op by op it is a fifth of a CPU's step, by the root alone a tenth."""
    return AdamW(_groups(parameters, weight_decay), lr=lr, betas=BETAS, fused=True)


def _groups(parameters: list[torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    return [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
