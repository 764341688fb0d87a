"""How good a reconstruction is: PSNR, SSIM and temporal flicker. Nothing here is trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

WINDOW = 11
"""Side of SSIM's window in pixels."""
LEVELS = 127.5
"""Levels of 8 bits for one unit of the range [-1, 1]."""


def psnr(error: Float[Tensor, ""] | float) -> float:
    """Return the peak signal-to-noise ratio in dB of a mean squared error in the range [-1, 1]."""
    return float(10 * torch.log10(4 / torch.as_tensor(error).clamp_min(1e-12)))


def ssim(x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Return the structural similarity of pairs of pictures in [-1, 1], the mean over colours and positions; at most 1.

    As in Wang et al., *Image quality assessment: from error visibility to structural similarity*, IEEE TIP 13(4), 2004,
    §III-B: an 11×11 Gaussian window of σ = 1.5, K₁ = 0.01, K₂ = 0.03, on windows that lie wholly in the picture. They
    use grey pictures; here the three colours count alike. The luminance term needs values that start at zero, so
    pictures are taken to [0, 1] first.

    Raises:
        ValueError: The shapes differ, or a side is shorter than the window.
    """
    if x.shape != y.shape or min(x.shape[-2:]) < WINDOW:
        raise ValueError(
            f"SSIM compares pictures of one shape with sides of at least {WINDOW} pixels, not {list(x.shape)} with "
            f"{list(y.shape)}; use larger pictures"
        )
    x, y = (x.float() + 1) / 2, (y.float() + 1) / 2
    mean_x, mean_y, square_x, square_y, product = _windowed(torch.stack([x, y, x * x, y * y, x * y]))
    var_x, var_y, covariance = square_x - mean_x**2, square_y - mean_y**2, product - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * (2 * covariance + c2) / (var_x + var_y + c2)).mean(dim=(1, 2, 3))  # Eq. 13


def _windowed(maps: Float[Tensor, "k n c h w"]) -> Float[Tensor, "k n c h2 w2"]:
    """Return the Gaussian-weighted mean over every window that lies wholly in the picture."""
    offsets = torch.arange(WINDOW, device=maps.device) - WINDOW // 2
    taps = torch.exp(-(offsets**2) / (2 * 1.5**2))
    taps = taps / taps.sum()
    flat = maps.flatten(0, 2)[:, None]
    flat = F.conv2d(F.conv2d(flat, taps[None, None, :, None]), taps[None, None, None, :])
    return flat.squeeze(1).unflatten(0, maps.shape[:3])


def flicker(x: Float[Tensor, "b 3 t h w"], y: Float[Tensor, "b 3 t h w"]) -> float:
    """Return how much the error of a reconstruction `y` of `x` changes from frame to frame.

    It is the mean absolute difference of successive errors, in levels of 8 bits per frame: 0 for a reconstruction that
    is off by a still picture, and 1 where every value jumps about by one level of 255 between neighbouring frames.

    Raises:
        ValueError: There are not two frames, or the shapes differ.
    """
    if x.shape != y.shape or x.shape[2] < 2:
        raise ValueError(f"flicker needs two videos of one shape and two frames, not {list(x.shape)}, {list(y.shape)}")
    return float((y - x).float().diff(dim=2).abs().mean() * LEVELS)
