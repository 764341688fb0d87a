"""A piece holds exactly the frames that were planned, whoever counts them, and they are the right ones."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import imageio.v3
import numpy as np
import pytest

from rushes.pipelines.export import clips
from rushes.pipelines.export.rules import Frames, Piece, Rules, plan
from rushes.pipelines.media.decode import Picture
from rushes.pipelines.store.shards import Sample
from tests.tokenizer.conftest import excerpt


def counter(times: list[float], size: tuple[int, int] = (64, 48), sound: bool = False) -> bytes:
    """A video whose pictures have their number in bars, eight bits, shown at the given times; maybe with a tone."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "5"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.codec_context.time_base = Fraction(1, 90_000)
        audio = container.add_stream("aac", rate=48_000, layout="mono") if sound else None
        for number, time_s in enumerate(times):
            bits = np.repeat([255 * (number >> bit & 1) for bit in range(8)], size[0] // 8).astype(np.uint8)
            bars = np.ascontiguousarray(np.broadcast_to(bits[None, :, None], (size[1], size[0], 3)))
            frame = av.VideoFrame.from_ndarray(bars, format="rgb24")
            frame.pts, frame.time_base = round(time_s * 90_000), Fraction(1, 90_000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            tone = np.sin(np.arange(int(48_000 * times[-1])) * 0.05).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.rate, frame.pts = 48_000, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return out.getvalue()


def numbers(video: bytes) -> list[int]:
    """Which picture each frame of a counter shows."""
    with av.open(io.BytesIO(video)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    bars = [frame.reshape(frame.shape[0], 8, -1).mean(axis=(0, 2)) > 128 for frame in frames]
    return [int(sum(1 << bit for bit in range(8) if one[bit])) for one in bars]


def counts(video: bytes, path: Path) -> set[int]:
    """How many frames PyAV, OpenCV (decoded, and by the header) and imageio find, and rate × seconds."""
    path.write_bytes(video)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        by_time = round(float(stream.average_rate) * container.duration / 1e6) if not container.streams.audio else None
        found = {sum(1 for _ in container.decode(video=0)), stream.frames}
    capture = cv2.VideoCapture(str(path))
    found.add(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    decoded = 0
    while capture.read()[0]:
        decoded += 1
    found |= {decoded, sum(1 for _ in imageio.v3.imiter(path, plugin="pyav"))}
    return found | ({by_time} if by_time is not None else set())


def made(video: bytes, rules: Rules, **facts) -> list[tuple[Piece, bytes, str]]:
    planned = plan(facts, rules)
    assert isinstance(planned, list)
    return list(clips.pieces(video, planned, rules, crf=16))


@pytest.mark.parametrize("fps", [16, 24, 25, 30, Fraction(24000, 1001), Fraction(30000, 1001)])
@pytest.mark.parametrize("frames", [65, 81])
def test_every_reader_counts_the_frames_that_were_planned(bikes: Path, tmp_path: Path, fps, frames: int) -> None:
    video = excerpt(bikes, 0, 180, 96, 64)
    rules = Rules(fps=Fraction(fps), frames=Frames(4, 1), max_frames=frames)
    ((piece, data, _),) = made(video, rules, frames=180, fps=25.0, duration_s=7.2, width=96, height=64)
    assert piece.frames == frames
    assert counts(data, tmp_path / "clip.mp4") == {frames}
    assert clips.film_of(io.BytesIO(data)).rate == fps


def test_a_clip_that_obeys_already_is_its_very_bytes(samples: dict[str, Sample], tmp_path: Path) -> None:
    video = dict(samples["exact"].members)["mp4"]
    rules = Rules(fps=Fraction(25), frames=Frames(4, 1), multiple=16)
    ((_, data, how),) = made(video, rules, frames=65, fps=25.0, duration_s=2.6, width=96, height=64)
    assert (data, how) == (video, "as it is") and counts(data, tmp_path / "clip.mp4") == {65}


def test_frames_are_those_whose_times_are_nearest() -> None:
    times = [number / 30 for number in range(60)]
    rules = Rules(fps=Fraction(16), frames=Frames(4, 1))
    ((piece, data, how),) = made(counter(times), rules, frames=60, fps=30.0, duration_s=2.0, width=64, height=48)
    nearest = [min(range(60), key=lambda n, k=k: (round(abs(n / 30 - k / 16), 9), n)) for k in range(29)]
    assert numbers(data) == nearest and how == "encoded" and piece.frames == 29


def test_an_uneven_rate_becomes_even_by_time_and_not_by_number() -> None:
    times = [0.0, 0.04, 0.08, 0.5, 0.54, 0.58, 1.0, 1.04, 1.5, 1.54]
    rules = Rules(fps=Fraction(10))
    ((_, data, _),) = made(counter(times), rules, frames=10, fps=6.33, duration_s=1.58, width=64, height=48)
    assert numbers(data) == [0, 2, 2, 3, 3, 3, 5, 5, 6, 6, 6, 7, 7, 8, 8, 8]


def test_pieces_of_a_split_clip_follow_one_another_without_gap_or_overlap() -> None:
    times = [number / 25 for number in range(100)]
    rules = Rules(fps=Fraction(25), frames=Frames(4, 1), max_frames=41, split=True)
    found = made(counter(times), rules, frames=100, fps=25.0, duration_s=4.0, width=64, height=48)
    assert [numbers(data) for _, data, _ in found] == [list(range(41)), list(range(41, 82)), list(range(82, 99))]
    at_half = Rules(fps=Fraction(25, 2), frames=Frames(4, 1), max_frames=21, split=True)
    found = made(counter(times), at_half, frames=100, fps=25.0, duration_s=4.0, width=64, height=48)
    assert [numbers(data) for _, data, _ in found] == [
        list(range(0, 42, 2)),
        list(range(42, 84, 2)),
        list(range(84, 94, 2)),
    ]


def test_sides_are_cropped_from_the_middle_and_not_scaled(bikes: Path) -> None:
    video = excerpt(bikes, 0, 10, 100, 60)
    rules = Rules(multiple=16)
    ((piece, data, _),) = made(video, rules, frames=10, fps=25.0, duration_s=0.4, width=100, height=60)
    assert (piece.width, piece.height, piece.crop) == (96, 48, (2, 6))
    with av.open(io.BytesIO(video)) as before, av.open(io.BytesIO(data)) as after:
        for source, frame in zip(before.decode(video=0), after.decode(video=0), strict=True):
            middle = source.to_ndarray(format="rgb24")[6:54, 2:98].astype(int)
            assert np.abs(middle - frame.to_ndarray(format="rgb24")).mean() < 3


@pytest.mark.parametrize("fps", [25, 16])
def test_sound_is_kept_where_it_is_read_and_dropped_where_not(fps: int) -> None:
    video = counter([number / 25 for number in range(60)], sound=True)
    facts = {"frames": 60, "fps": 25.0, "duration_s": 2.4, "width": 64, "height": 48}
    for audio in (True, False):
        rules = Rules(fps=Fraction(fps), frames=Frames(8, 1), audio=audio)
        ((piece, data, _),) = made(video, rules, **facts)
        assert clips.film_of(io.BytesIO(data)).has_audio is audio
        if audio:
            with av.open(io.BytesIO(data)) as container:
                heard = sum(frame.samples for frame in container.decode(audio=0)) / 48_000
            assert abs(heard - piece.seconds) < 0.05


def test_the_same_clip_gives_the_same_bytes() -> None:
    video = counter([number / 25 for number in range(60)], sound=True)
    facts = {"frames": 60, "fps": 25.0, "duration_s": 2.4, "width": 64, "height": 48}
    rules = Rules(fps=Fraction(16), frames=Frames(4, 1), audio=True)
    assert made(video, rules, **facts) == made(video, rules, **facts)


def test_a_clip_that_does_not_hold_what_its_facts_say_is_an_error_and_not_a_file() -> None:
    video = counter([number / 25 for number in range(20)])
    rules = Rules(frames=Frames(4, 1))
    with pytest.raises((clips.PieceError, ValueError), match=r"frames were planned|shows no picture"):
        made(video, rules, frames=60, fps=25.0, duration_s=2.4, width=64, height=48)


def test_the_last_picture_is_shown_to_its_end_and_no_longer() -> None:
    def pictures() -> Iterator[Picture]:
        for number in range(3):
            yield Picture(number / 10, 0.1, SimpleNamespace(number=number, time_base=None))  # type: ignore[arg-type]

    shown = list(clips.at_rate(pictures(), 0.0, Fraction(20), 99))
    assert [one.frame.number for one in shown] == [0, 0, 1, 1, 2, 2, 2]  # type: ignore[attr-defined]
    assert [round(one.time_s * 20) for one in shown] == list(range(7))
