"""Claims about cutting: the pictures asked for and no others, at their own times, upright, equal bytes every time."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rushes.pipelines.config import PackConfig, ScanConfig
from rushes.pipelines.media import decode
from rushes.pipelines.media import footage as room
from rushes.pipelines.stages.encode import encode
from rushes.pipelines.stages.pack import samples

PACK, WHOLE = PackConfig(), (0.0, 0.0, 0.0, 0.0)


def film(path: Path, times: list[int], sound: bool = False) -> dict[str, Any]:
    """Write pictures whose grey is their number, with a tone beside them; return the source's row."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "10", "bf": "0"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        tone = out.add_stream("aac", rate=48000, layout="mono") if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame(96, 64, "yuv420p")
            for index, plane in enumerate(frame.planes):
                plane.update(np.full(plane.buffer_size, 128 if index else 30 + 2 * number, np.uint8).tobytes())
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if tone is not None:
            rise = np.linspace(0, 1, 48 * (times[-1] + 40), dtype=np.float32)  # as loud as it is late
            wave = (rise * np.sin(np.arange(len(rise)) * 0.1)).astype(np.float32)[None]
            samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            samples.rate, samples.pts, samples.time_base = 48000, 0, Fraction(1, 48000)
            out.mux(tone.encode(samples))
            out.mux(tone.encode(None))
    return room.probe(str(path), ScanConfig())


def played(data: bytes) -> list[tuple[float, float]]:
    """Return time and mean luma of the pictures of an mp4."""
    with av.open(io.BytesIO(data)) as clip:
        return [(f.time or 0.0, float(f.to_ndarray()[: f.height].mean())) for f in clip.decode(video=0)]


def test_a_cut_holds_exactly_the_pictures_of_its_range(tmp_path: Path) -> None:
    row = film(tmp_path / "a.mp4", list(range(0, 2000, 40)))
    data, info = encode.cut(row["uri"], row, 0.4, 1.2, PACK, WHOLE)
    assert [round(t, 3) for t, _ in played(data)] == [round(0.04 * i, 3) for i in range(20)]
    greys = [grey for _, grey in played(data)]
    assert greys == pytest.approx([30 + 2 * n for n in range(10, 30)], abs=1.5)
    assert (info["frames"], info["codec"], info["copied"], info["has_audio"]) == (20, "h264", False, False)
    assert info["duration_s"] == pytest.approx(0.8) and info["fps"] == 25


def test_a_variable_frame_rate_stays_what_it_was(tmp_path: Path) -> None:
    times = [0, 40, 80, 300, 310, 400, 900, 1500, 1510, 1600, 1900]
    row = film(tmp_path / "a.mp4", times)
    data, info = encode.cut(row["uri"], row, 0.3, 1.6, PACK, WHOLE)
    assert [round(t * 1000) for t, _ in played(data)] == [t - 300 for t in times if 300 <= t < 1600]
    with av.open(io.BytesIO(data)) as clip:
        stream = clip.streams.video[0]
        assert stream.duration is not None and stream.time_base is not None
        assert float(stream.duration * stream.time_base) == pytest.approx(info["duration_s"]) == pytest.approx(1.3)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_equal_input_gives_equal_bytes_in_every_codec(bikes: Path, codec: str) -> None:
    row, pack = room.probe(str(bikes), ScanConfig()), PackConfig(codec=codec, max_side_px=96)  # type: ignore[arg-type]
    first, info = encode.cut(str(bikes), row, 2.0, 2.8, pack, WHOLE)
    assert first == encode.cut(str(bikes), row, 2.0, 2.8, pack, WHOLE)[0]
    assert info["codec"] == codec and len(played(first)) == info["frames"]


def test_the_index_stands_in_front_and_no_clock_is_in_the_file(tmp_path: Path) -> None:
    row = film(tmp_path / "a.mp4", list(range(0, 400, 40)))
    data, _ = encode.cut(row["uri"], row, 0.0, math.inf, PACK, WHOLE)
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(io.BytesIO(data)) as clip:
        assert not {"creation_time", "encoder"} & (set(clip.metadata) | set(clip.streams.video[0].metadata))


def test_sound_goes_along_sample_by_sample(tmp_path: Path) -> None:
    row = film(tmp_path / "a.mp4", list(range(0, 2000, 40)), sound=True)
    data, info = encode.cut(row["uri"], row, 1.0, 1.8, PACK, WHOLE)
    assert info["has_audio"]
    with av.open(io.BytesIO(data)) as clip:
        wave = np.concatenate([f.to_ndarray()[0] for f in clip.decode(audio=0)])
    assert len(wave) / 48000 == pytest.approx(0.8, abs=0.03)
    early, late = np.abs(wave[2400:7200]).max(), np.abs(wave[-7200:-2400]).max()
    assert early == pytest.approx((1.0 + 0.15) / 2, abs=0.03) and late == pytest.approx((1.0 + 0.75) / 2, abs=0.04)
    quiet, info = encode.cut(row["uri"], row, 1.0, 1.8, PackConfig(audio=False), WHOLE)
    with av.open(io.BytesIO(quiet)) as clip:
        assert not info["has_audio"] and not clip.streams.audio


SHAPE = {"coded_width": 640, "coded_height": 480, "width": 640, "height": 480, "rotation_deg": 0}


@pytest.mark.parametrize(
    ("change", "pack", "crop", "size"),
    [
        ({}, PACK, WHOLE, (640, 480)),
        ({}, PACK, (0.0, 0.125, 0.0, 0.125), (640, 360)),
        ({}, PackConfig(crop_bars=False), (0.0, 0.125, 0.0, 0.125), (640, 480)),
        ({}, PackConfig(max_side_px=240), (0.0, 0.125, 0.0, 0.125), (426, 240)),
        ({"width": 480, "height": 640, "rotation_deg": 90}, PACK, (0.25, 0.0, 0.25, 0.0), (240, 640)),
        ({"width": 853}, PACK, WHOLE, (852, 480)),
        ({"coded_width": 1, "coded_height": 1, "width": 1, "height": 1}, PACK, WHOLE, (2, 2)),
        ({}, PACK, (0.6, 0.0, 0.6, 0.0), (640, 480)),
    ],
)
def test_sides_are_even_square_pixelled_and_within_limits(
    change: dict[str, int], pack: PackConfig, crop: encode.Crop, size: tuple[int, int]
) -> None:
    shape = encode.shape_of(SHAPE | change, pack, crop)
    assert (shape.width, shape.height) == size


def test_turned_footage_comes_out_upright(footage: Path) -> None:
    for turn in (90, 180, 270):
        path = str(footage / f"decord__video_{turn}.mov")
        row = room.probe(path, ScanConfig())
        data, info = encode.cut(path, row, 0.0, math.inf, PACK, WHOLE)
        wanted = decode.rgb(next(decode.pictures(path, row)).frame, row, 160).astype(int)
        with av.open(io.BytesIO(data)) as clip:
            got = next(clip.decode(video=0))
        assert got.rotation == 0 and (got.width, got.height) == (info["width"], info["height"])
        small = got.reformat(width=wanted.shape[1], height=wanted.shape[0], format="rgb24").to_ndarray().astype(int)
        assert np.abs(small - wanted).mean() < 8, turn


@pytest.mark.parametrize(
    ("name", "told"), [("sample-videos__help.mkv", (6, 1, 1)), ("mediabunny__video-h265.mp4", (5, 1, 1))]
)
def test_values_and_tags_stay_and_what_is_not_tagged_is(footage: Path, name: str, told: tuple[int, int, int]) -> None:
    path = str(footage / name)
    row = room.probe(path, ScanConfig())
    data, _ = encode.cut(path, row, 0.2, 0.3, PACK, WHOLE)
    with av.open(io.BytesIO(data)) as clip:
        got = next(clip.decode(video=0))
    source = next(p.frame for p in decode.pictures(path, row, 0.2, 0.3, warm_s=0.0))
    assert (got.colorspace, got.color_trc, got.color_primaries) == told
    wanted = decode.small(source, 64, row)[0].astype(int)
    assert np.abs(decode.small(got, 64, row | {"rotation_deg": 0})[0].astype(int) - wanted).mean() < 2


def test_an_empty_range_and_a_broken_picture_are_errors(tmp_path: Path, footage: Path) -> None:
    row = film(tmp_path / "a.mp4", list(range(0, 400, 40)))
    with pytest.raises(encode.EncodeError, match="shows no picture"):
        encode.cut(row["uri"], row, 5.0, 6.0, PACK, WHOLE)
    path = str(footage / "decord__corrupted.mp4")
    with pytest.raises(decode.DecodeError):
        encode.cut(path, room.probe(path, ScanConfig()), 2.0, 4.0, PACK, WHOLE)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_turned_and_odd_sizes_decode_as_their_facts_say_in_every_codec(footage: Path, codec: str) -> None:
    path = str(footage / "decord__video_90.mov")
    row = room.probe(path, ScanConfig())
    data, info = encode.cut(path, row, 0.0, 0.2, PackConfig(codec=codec, max_side_px=75), (0.013, 0, 0, 0.027))  # type: ignore[arg-type]
    film = samples.decoded(data)
    assert list(samples.faults(film, info)) == [] and film.width % 2 == film.height % 2 == 0
    with av.open(io.BytesIO(data)) as clip:
        assert next(clip.decode(video=0)).rotation == 0
