"""Which tokenizer a name means, and what every command does with it, whichever it is.

    load("RUN/tokenizer/model")    # a trained one of ours, by its folder
    load("shipped")                # the one that comes with the package
    load("wan:Wan2.2_VAE.pth")     # others' frozen VAEs, with an adaptive frame rate without training:
    load("hunyuan:FOLDER")         # a file, a folder as diffusers writes it, or a hub's name

No command asks whether a tokenizer is ours or a frozen VAE.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jaxtyping import Float
from torch import Tensor

from rushes.tokenizer import data, hunyuan, model, wan
from rushes.tokenizer.config import Allocation, predicted
from rushes.tokenizer.frozen import Coded, FrozenTokenizer, Shown
from rushes.tokenizer.model import Tokenizer
from rushes.tokenizer.shipped import frozen_kind

AnyTokenizer = Tokenizer | FrozenTokenizer
OURS = "rushes"
"""What our own tokenizers are called in latent shards."""


def load(name: str) -> AnyTokenizer:
    """Return the tokenizer that a name means, in evaluation mode on the CPU.

    Raises ValueError where there is none or its weights do not fit; the message says which file is missing and how it
    is got.
    """
    kind, path = frozen_kind(name)
    if not kind:
        return model.load(name)
    return FrozenTokenizer(wan.load(path) if kind == "wan" else hunyuan.load(path))


def name_of(tokenizer: AnyTokenizer) -> str:
    """Return what latent shards call a tokenizer: rushes, wan-2.1, wan-2.2 or hunyuan-video."""
    return tokenizer.name if isinstance(tokenizer, FrozenTokenizer) else OURS


def fingerprint(tokenizer: AnyTokenizer) -> str:
    """Return 12 hex digits that change with any weight or setting; every latent shard carries them."""
    return tokenizer.fingerprint() if isinstance(tokenizer, FrozenTokenizer) else model.fingerprint(tokenizer)


def predicts(tokenizer: AnyTokenizer, allocation: Allocation) -> bool:
    """Whether what a segment loses at each rate is foreseen. Raises ValueError where it is to be and cannot."""
    return predicted("" if isinstance(tokenizer, FrozenTokenizer) else tokenizer.config.variant, allocation)


def lengths_of(tokenizer: AnyTokenizer, frames: int, lone: bool = False) -> tuple[int, ...]:
    """Return the frames of each segment of a clip of one shot; with `lone` the first frame is one by itself.

    Others' VAEs always code it so.
    """
    if isinstance(tokenizer, FrozenTokenizer):
        return tokenizer.lengths(frames)
    return model.segment_lengths(frames, tokenizer.config.segment, (1,) if lone else ())


def segments(
    tokenizer: AnyTokenizer, clip: bytes | str, side_px: int = 0, lone: bool = False
) -> Iterator[tuple[list[float], Float[Tensor, "1 3 t h w"]]]:
    """Yield times and video of each segment of a clip, as the tokenizer takes them; see `data.segments`.

    With `lone` the first frame is a segment of its own, as others' VAEs have it in any case.
    """
    if isinstance(tokenizer, FrozenTokenizer):
        return data.segments(clip, tokenizer.ahead(), side_px)
    return data.segments(clip, tokenizer.config.segment, side_px, lone)


def stream_encode(tokenizer: AnyTokenizer, pairs: Iterable[Shown]) -> Iterator[Float[Tensor, "b n c h w"]]:
    """Yield the latents of each segment and rate as it arrives, in memory that does not grow with the video."""
    if isinstance(tokenizer, FrozenTokenizer):
        return tokenizer.stream_encode(pairs)
    return model.stream_encode(tokenizer, pairs)


def stream_decode(tokenizer: AnyTokenizer, pairs: Iterable[Coded]) -> Iterator[Float[Tensor, "b 3 t h w"]]:
    """Yield the frames of each segment's latents and rate as they arrive, padded to whole cells and latents."""
    if isinstance(tokenizer, FrozenTokenizer):
        return tokenizer.stream_decode(pairs)
    return model.stream_decode(tokenizer, pairs)


def stream_again(tokenizer: AnyTokenizer, pairs: Iterable[Shown]) -> Iterator[Float[Tensor, "b 3 t h w"]]:
    """Yield the reconstruction of each segment and rate as it arrives, with its frames and size, in [-1, 1]."""
    if isinstance(tokenizer, FrozenTokenizer):
        return tokenizer.stream_again(pairs)
    return model.stream_again(tokenizer, pairs)
