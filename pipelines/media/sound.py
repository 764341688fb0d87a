"""The sound of one clip: cut sample by sample, without gap or overlap, read only as far as the pictures have come."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from fractions import Fraction
from typing import Any, cast

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from numpy.typing import NDArray

from rushes.pipelines.media import clocks, footage

WARM_S = 0.5  # audio decoders need a moment before a seek's result is exact
JITTER_S = 0.03  # timestamps of audio this near to where it should be are rounding
SILENCE_SAMPLES = 48_000  # silence is written in pieces of at most this
RATES = (48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
BIT_RATE = 128_000


class Sound:
    """The sound beside the pictures, sample by sample, read only as far as the pictures have come."""

    def __init__(self, uri: str, source: Mapping[str, Any], start_s: float, end_s: float):
        self.uri, self.pieces = uri, clocks.between(source, start_s, end_s)
        self.opened = ExitStack()
        rate = source["audio_rate_hz"]
        self.rate = rate if rate in RATES else RATES[0]
        self.layout = "mono" if source["audio_channels"] == 1 else "stereo"
        self.start_s = start_s
        self.samples = round((end_s - start_s) * self.rate) if math.isfinite(end_s) else None
        self.written = 0
        self.heard = False
        self.chunks = self._chunks()

    def close(self) -> None:
        """Close the source."""
        self.opened.close()

    def attach(self, out: OutputContainer) -> bool:
        """Add the stream if there is a sample to be heard; return whether."""
        chunk = next(self.chunks, None)
        if chunk is None:
            return False
        self.heard, self.next = True, cast("NDArray[np.float32] | None", chunk)
        coder = {"aac_coder": "fast"}  # half the time of the usual one, and no further from the sound
        stream = out.add_stream("aac", rate=self.rate, layout=self.layout, options=coder)
        self.stream: AudioStream = cast(AudioStream, stream)
        self.stream.codec_context.bit_rate = BIT_RATE
        self.stream.codec_context.thread_count = 1
        return True

    def write(self, out: OutputContainer, until_s: float) -> None:
        """Encode samples until the sound has come as far as the pictures."""
        while self.next is not None and self.written < until_s * self.rate:
            frame = av.AudioFrame.from_ndarray(self.next, format="fltp", layout=self.layout)
            frame.rate, frame.time_base, frame.pts = self.rate, Fraction(1, self.rate), self.written
            self.written += self.next.shape[1]
            out.mux(self.stream.encode(frame))
            self.next = next(self.chunks, None)

    def finish(self, out: OutputContainer) -> None:
        """Write what the encoder still holds."""
        out.mux(self.stream.encode(None))

    def _chunks(self) -> Iterator[NDArray[np.float32]]:
        """Yield samples without gap or overlap: missing ones are silence, and none lies outside the clip."""
        done = 0
        for offset, samples in self._decoded():
            if abs(offset - done) < JITTER_S * self.rate and done:
                offset = done
            while offset > done and (self.samples is None or done < self.samples):
                silence = min(offset - done, SILENCE_SAMPLES, *([] if self.samples is None else [self.samples - done]))
                yield np.zeros((samples.shape[0], silence), np.float32)
                done += silence
            kept = samples[:, max(0, done - offset) : None if self.samples is None else max(0, self.samples - offset)]
            if kept.shape[1]:
                yield np.ascontiguousarray(kept)
                done += kept.shape[1]
            if self.samples is not None and done >= self.samples:
                return

    def _decoded(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield decoded sound with its offset in samples from the clip's start."""
        for piece in self.pieces:
            self.opened.close()
            container = self.opened.enter_context(footage.open_container(self.uri, piece.within))
            ends = math.inf if piece.last else round((piece.end_s - self.start_s) * self.rate)
            for offset, samples in self._of_piece(container, piece):
                if offset >= ends:
                    break
                yield offset, samples[:, : None if piece.last else int(ends) - offset]

    def _of_piece(self, container: InputContainer, piece: clocks.Piece) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the same of one piece, from a moment before the clip on."""
        if not container.streams.audio:
            return
        stream = container.streams.audio[0]
        origin_s = piece.start_s - piece.offset_s + self.start_s  # where the clip begins on the clock of the piece
        resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        if (seek_s := origin_s - WARM_S) > piece.start_s:
            container.seek(round(seek_s / float(stream.time_base or 1)), stream=stream)
        offset: int | None = None
        for frame in self._frames(container, stream):
            if frame.time is not None:
                at = round((frame.time - origin_s) * self.rate)
                offset = at if offset is None or abs(at - offset) > JITTER_S * self.rate else offset
            if offset is not None:
                frame.pts = None
                for part in resampler.resample(frame):
                    samples = cast("NDArray[np.float32]", part.to_ndarray())
                    yield offset, samples
                    offset += samples.shape[1]

    def _frames(self, container: InputContainer, stream: AudioStream) -> Iterator[av.AudioFrame]:
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                yield from cast("list[av.AudioFrame]", packet.decode())
            except (av.error.InvalidDataError, av.error.EOFError):
                continue  # a broken packet of sound is a moment of silence
            except (av.error.FFmpegError, OSError):
                return
