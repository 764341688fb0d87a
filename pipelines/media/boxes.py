"""What stands behind the end of an MP4 or QuickTime file: films that were joined to it byte by byte."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

from rushes.pipelines.media import footage

_HEAD = 16
_FRAGMENTS = frozenset({b"moof", b"styp", b"sidx", b"mfra"})  # thousands of boxes, whose reader knows of no end


def second_film(file: BinaryIO, size_bytes: int) -> int | None:
    """Return the byte at which another film begins, None where there is none, or the file is in fragments.

    Source: ISO/IEC 14496-12, 4.2: a file is boxes one after another, each with its size in front.
    """
    at, had = 0, set[bytes]()
    after: int | None = None  # where the first film has all that it needs
    while at + 8 <= size_bytes:
        file.seek(at)
        head = file.read(_HEAD)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:  # a long box
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or kind in _FRAGMENTS or not (kind.isascii() and kind.replace(b" ", b"x").isalnum()):
            return None
        if kind == b"ftyp" and at:
            return at
        if kind == b"moov" and kind in had:  # of a time before `ftyp`
            return after if after is not None else at
        had.add(kind)
        at += length
        if after is None and {b"moov", b"mdat"} <= had:
            after = at
    return None


def check_alone(source: Mapping[str, Any]) -> None:
    """Raise FootageError where another film stands behind the end of a source, since no player gets there."""
    if source.get("container") != "mov":
        return
    uri = source["uri"]
    with footage.open_small(uri) as (file, size_bytes):
        begins = second_film(file, size_bytes)
    if begins is not None:
        reason = f"another film of {size_bytes - begins} bytes is joined to it at byte {begins}, and cannot be reached"
        remedy = f"cut it off (tail -c +{begins + 1} FILE > SECOND.mp4) and curate that as well"
        raise footage.FootageError(uri, "joined", reason, remedy)
