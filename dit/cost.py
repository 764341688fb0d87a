"""What tokens cost in a block, by the form of attention: FLOPs of a forward pass, as torch counts them.

A backward pass costs twice as much, of matrices and of attention alike. Modulation and captions are left out: they cost
the same for every clip, up to the length of its caption, which a plan does not know.
"""

from __future__ import annotations

import numpy as np

from rushes.dit.config import DiTConfig
from rushes.dit.layers import hidden_width


def token_flops(config: DiTConfig) -> int:
    """Return what the matrices of a block take for a token."""
    d = config.width
    cross = 2 * d if config.streams == "cross" else 0  # queries and what comes out
    axes = 2 if config.attention == "factorised" else 1
    return 2 * d * (4 * d * axes + cross + 3 * hidden_width(d))


def pairs(config: DiTConfig, latents: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return the pairs of tokens that see each other in clips of some latents of some cells, on the average of blocks.

    A pair costs `pair_flops`.
    """
    tokens = latents * cells
    if config.attention == "factorised":
        return tokens * (latents + cells)
    if config.attention == "factorised-encoder":
        spatial = config.spatial_blocks / config.blocks
        return tokens * (cells * spatial + latents * (1 - spatial))
    return tokens * tokens


def pair_flops(config: DiTConfig) -> int:
    """Return what a pair of tokens takes: the product of query and key, and a value that is added, of all heads."""
    return 4 * config.width
