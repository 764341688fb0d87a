"""Pictures that no other one refers to, whose loop filter may be spared where only small pictures are looked at.

H.264 and HEVC smooth the edges of blocks as the last step of decoding, which takes a tenth of it. A picture that others
are predicted from needs it, or the error would grow; any other may do without, and nothing but itself changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import av
from av.container import InputContainer
from av.video.stream import VideoStream

FORMATS = frozenset({"mov", "mp4", "matroska"})
"""Containers that give every picture its time, by which packets and pictures are matched."""
OPTIONS = {"skip_loop_filter": "noref"}
"""What tells the decoder to spare them."""
HELD = 256
"""Spared pictures that a decoder may hold back; more were lost in a broken stream."""


class Spared:
    """Tells which decoded pictures came without their loop filter."""

    def __init__(self, whole: Callable[[memoryview], bool | None], length_bytes: int):
        self._whole, self._length_bytes = whole, length_bytes
        self._times: dict[int | None, None] = {}

    def note(self, packet: av.Packet) -> None:
        """Look at a packet before it is decoded."""
        if packet.size and not self._is_whole(memoryview(packet)):
            self._times[packet.pts] = None
            if len(self._times) > HELD:
                del self._times[next(iter(self._times))]

    def is_whole(self, frame: av.VideoFrame) -> bool:
        """Whether a decoded picture is what it would be otherwise, to the bit; asked once of each."""
        found = frame.pts not in self._times
        self._times.pop(frame.pts, None)
        return found

    def _is_whole(self, data: memoryview) -> bool:
        """Whether all slices of a packet are whole; what cannot be read as units of a stream is not."""
        at, slices = 0, 0
        while at + self._length_bytes < len(data):
            unit = at + self._length_bytes
            said = self._whole(data[unit : unit + 2])
            if said is False:
                return False
            slices += said is True
            at = unit + int.from_bytes(data[at:unit], "big")
        return at == len(data) and slices > 0


def spared(container: InputContainer, stream: VideoStream) -> Spared | None:
    """Return what tells spared pictures of a stream from others; None where nothing should be spared.

    That is where the codec has no such pictures, or where they could not be told.
    """
    header = bytes(stream.codec_context.extradata or b"")
    kind = _KINDS.get(stream.codec_context.name)
    named = FORMATS & set(container.format.name.split(","))
    # Both headers begin with their version, 1, where units come with their length; else with a start code.
    if kind is None or not named or len(header) <= kind.length_at or header[0] != 1:
        return None
    return Spared(kind.whole, (header[kind.length_at] & 3) + 1)


def _h264(unit: memoryview) -> bool | None:
    """Whether a unit is a slice that others refer to; None where it is no slice (ITU-T H.264, 7.3.1)."""
    return bool(unit[0] & 0x60) if 1 <= unit[0] & 0x1F <= 5 else None


def _hevc(unit: memoryview) -> bool | None:
    """Whether a unit is a slice of the lowest temporal layer that others refer to; None where it is no slice.

    Pictures of higher layers may refer to those that no picture of their own layer refers to (ITU-T H.265, 7.4.2.2).
    """
    kind, layer = unit[0] >> 1 & 0x3F, unit[1] & 0x07
    if kind >= 32:
        return None
    return layer == 1 and not (kind < 16 and kind % 2 == 0)


class _Kind(NamedTuple):
    whole: Callable[[memoryview], bool | None]
    length_at: int
    """Byte of the stream's header that says how many bytes the length of a unit has, less 1, in its last two bits."""


_KINDS = {"h264": _Kind(_h264, 4), "hevc": _Kind(_hevc, 21)}
