"""The judge of the late adversarial loss: how real each patch of a video looks, in space and in time."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

WIDTH = 32
_SLOPE = 0.2


class Discriminator(nn.Module):
    """A patch discriminator (arXiv 1611.07004, §3.2.2) of 3D convolutions, so that it also sees flicker.

    Every layer but the last has spectral norm one (arXiv 1802.05957), which needs no second backward pass and no batch
    statistics. The last may grow: a good reconstruction lies so close to the original that a judge of norm one
    throughout is slow to tell them apart. A patch is 1/8 of the sides and 1/4 of the frames; any number of frames goes
    in, one too.
    """

    def __init__(self, width: int = WIDTH):
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv3d(inside, outside, (3, 4, 4), stride=(stride, 2, 2), padding=1))
            for inside, outside, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
        )
        self.leave = nn.Conv3d(widths[-1], 1, 3, padding=1)

    def forward(self, video: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 1 t2 h2 w2"]:
        """Return a number for each patch of a video in [-1, 1], in full precision: above zero for real ones."""
        for layer in self.layers:
            video = F.leaky_relu(layer(video), _SLOPE)
        return self.leave(video).float()
