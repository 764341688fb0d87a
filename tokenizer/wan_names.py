"""What the tensors of `Wan2.1_VAE.pth` and `Wan2.2_VAE.pth` are called in diffusers."""

from __future__ import annotations

import re

_SAME = [
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"coder\.conv1\.", "coder.conv_in."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
]


def renamed(name: str, blocks: int) -> str:
    """Return the name in diffusers of a tensor that an original file calls `name`.

    The original counts residual blocks and the step after them through: Wan 2.2 within each size, Wan 2.1 over all of
    them, which diffusers keeps on the way in.

    Args:
        name: in the original file.
        blocks: residual blocks of each size in the encoder; the decoder has one more.
    """

    def nested(found: re.Match[str]) -> str:
        way, size, layer = found[1], int(found[2]), int(found[3])
        return _layer(way, size, layer, blocks + (way == "up"), f"{way}sampler.")

    def flat(found: re.Match[str]) -> str:
        return _layer("up", *divmod(int(found[1]), blocks + 2), blocks + 1, "upsamplers.0.")

    for pattern, replacement in _SAME:
        name = re.sub(pattern, replacement, name)
    name = re.sub(r"\.(up|down)samples\.(\d+)\.\1samples\.(\d+)\.", nested, name)
    return re.sub(r"\.upsamples\.(\d+)\.", flat, name).replace(".downsamples.", ".down_blocks.")


def _layer(way: str, size: int, layer: int, blocks: int, step: str) -> str:
    return f".{way}_blocks.{size}." + (step if layer == blocks else f"resnets.{layer}.")
