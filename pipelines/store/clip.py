"""The identity of footage and of a clip: what a source *is*, whatever it is called.

A leaf: imports nothing of ours and no Ray.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import BinaryIO

BLOCK_BYTES = 64 * 1024
SAMPLED_BLOCKS = (
    6  # first, last and four spread between: ten million objects cost ten million small reads, not their bytes
)
_KEY = re.compile(r"[0-9a-f]{16}-[0-9]{9}")


@dataclass(frozen=True, kw_only=True)
class Digest:
    """What identifies the content of a file."""

    source_id: str
    """16 hex digits of the sampled digest; the first half of every clip key."""
    sampled: str
    """SHA-256 over the size and the sampled blocks, 64 hex digits."""
    size_bytes: int
    """Size of the file."""
    full: str | None
    """SHA-256 of all bytes where the sampled blocks already cover the file, else None."""


NO_FRAME = (
    "raise --scan.candidate_hz or --shots.min_clip_s if it is shorter than the time between candidate frames; if its "
    "source was damaged and is mended, use --retry-failed"
)
"""What to do about a clip without a representative frame."""


def digest(file: BinaryIO, size_bytes: int) -> Digest:
    """Return the content digest of a seekable file, reading at most `SAMPLED_BLOCKS` blocks of it.

    The sample is the first block, the last, and blocks spread evenly between them. Files that fit into the sample are
    read whole, so the digest of a small file is exact.
    """
    sampled = hashlib.sha256(size_bytes.to_bytes(8, "big"))
    if size_bytes <= BLOCK_BYTES * SAMPLED_BLOCKS:
        file.seek(0)
        data = file.read(size_bytes)
        sampled.update(data)
        name = sampled.hexdigest()
        return Digest(source_id=name[:16], sampled=name, size_bytes=size_bytes, full=hashlib.sha256(data).hexdigest())
    for block in range(SAMPLED_BLOCKS):
        file.seek((size_bytes - BLOCK_BYTES) * block // (SAMPLED_BLOCKS - 1))
        sampled.update(file.read(BLOCK_BYTES))
    name = sampled.hexdigest()
    return Digest(source_id=name[:16], sampled=name, size_bytes=size_bytes, full=None)


def clip_key(source_id: str, start_s: float) -> str:
    """Return the key of the clip that starts `start_s` seconds into a source: `<16 hex>-<milliseconds, 9 digits>`.

    The key holds no dot, which would split a WebDataset key. Raises ValueError outside 0 … 277 hours.
    """
    milliseconds = round(start_s * 1000)
    if not 0 <= milliseconds < 10**9:
        raise ValueError(f"start_s={start_s} is outside 0 … 999999.999 s; split the source into shorter files")
    return f"{source_id}-{milliseconds:09d}"


def is_key(key: str) -> bool:
    """Whether a string is a clip key; shards are untrusted, so readers check before they use one as a name."""
    return _KEY.fullmatch(key) is not None
