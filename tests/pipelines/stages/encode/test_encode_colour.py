"""Claims about the colour of clips: whoever reads one from a shard sees what a screen shows of its source."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
import pytest

from rushes.pipelines.colour import tags
from rushes.pipelines.config import CurateConfig, PackConfig, ScanConfig, check
from rushes.pipelines.media import decode
from rushes.pipelines.media import footage as room
from rushes.pipelines.stages.encode import encode
from rushes.tokenizer.data import video_frames
from tests.pipelines import colour_chart
from tests.pipelines.colour_chart import Tagging

WHOLE = (0.0, 0.0, 0.0, 0.0)
LIMIT = 5
"""Levels of 255: a chart is rounded twice to Y, Cb, Cr of 8 bits in the studio's range, and coded with loss."""
SIZE = (256, 160)
PQ = Tagging(space="bt2020nc", gamut="bt2020", curve="smpte2084", pixel_format="yuv420p10le", size=SIZE)
HLG = Tagging(space="bt2020nc", gamut="bt2020", curve="arib-std-b67", pixel_format="yuv420p10le", size=SIZE)
P3 = Tagging(gamut="smpte432", curve="srgb", size=SIZE)
WIDE = Tagging(space="bt2020nc", gamut="bt2020", curve="bt2020-10", pixel_format="yuv420p10le", size=SIZE)
OLD = Tagging(space="smpte170m", gamut="smpte170m", curve="smpte170m", size=SIZE)


def film(path: Path, tagging: Tagging, codec: str = "ffv1", **options: str) -> dict[str, Any]:
    """Write a chart that stands still for a fifth of a second; return the source's row."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *tagging.size, tagging.pixel_format
        context = stream.codec_context
        context.time_base = Fraction(1, 25)
        frame = colour_chart.frame(tagging)
        for name in ("colorspace", "color_primaries", "color_trc", "color_range"):
            setattr(context, name, int(getattr(frame, name)))
        for number in range(5):
            frame = colour_chart.frame(tagging)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return room.probe(str(path), ScanConfig())


def first(data: bytes) -> av.VideoFrame:
    with av.open(io.BytesIO(data)) as clip:
        return next(clip.decode(video=0))


def off(rgb: np.ndarray, tagging: Tagging) -> float:
    return float(np.abs(colour_chart.seen(rgb) - colour_chart.wanted(tagging)).max())


SDR = [
    Tagging(size=SIZE),
    Tagging(space="smpte170m", size=SIZE),
    Tagging(space="smpte170m", untagged=True, size=SIZE),
    Tagging(untagged=True, size=(1280, 160)),
    Tagging(space="bt709", full=True, pixel_format="yuv420p10le", size=SIZE),
    Tagging(space="smpte170m", full=True, size=SIZE),
    Tagging(space="smpte240m", size=SIZE),
]


@pytest.mark.parametrize("tagging", [*SDR, PQ, HLG, P3, WIDE, OLD], ids=str)
def test_a_clip_shows_what_its_source_shows_and_is_tagged_so(tmp_path: Path, tagging: Tagging) -> None:
    row = film(tmp_path / "a.mkv", tagging)
    data, info = encode.cut(row["uri"], row, 0.0, math.inf, PackConfig(crf=1), WHOLE)
    got = first(data)
    if tagging != OLD:  # most readers leave its primaries, which differ little, as they are
        assert off(got.to_ndarray(format="rgb24"), tagging) <= LIMIT, "PyAV"
    assert off(next(iter(video_frames(data)))[1], tagging) <= LIMIT, "our own reader"
    kept = tagging.space in ("bt709", "smpte170m") and tagging != P3
    told = tagging.space if kept else "bt709", tagging.gamut if kept else "bt709", "pc" if tagging.full else "tv", False
    assert tuple(tags.columns(got)[name] for name in ("color_space", "color_primaries", "color_range", "hdr")) == told
    assert (info["color_space"], info["color_range"], info["hdr"], info["copied"]) == (told[0], told[2], False, False)


def test_opencv_reads_full_range_bt601_right(tmp_path: Path) -> None:
    tagging = Tagging(space="smpte170m", full=True, size=SIZE)
    row = film(tmp_path / "a.mkv", tagging)
    data, _ = encode.cut(row["uri"], row, 0.0, math.inf, PackConfig(crf=1), WHOLE)
    (tmp_path / "a.mp4").write_bytes(data)
    found, bgr = cv2.VideoCapture(str(tmp_path / "a.mp4")).read()
    assert found and off(bgr[..., ::-1], tagging) <= LIMIT


@pytest.mark.parametrize("tagging", [PQ, HLG, P3, WIDE], ids=str)
def test_models_see_what_the_clip_shows(tmp_path: Path, tagging: Tagging) -> None:
    row = film(tmp_path / "a.mkv", tagging)
    frame = next(decode.pictures(row["uri"], row)).frame
    seen = decode.rgb(frame, row, max(tagging.size))
    assert off(seen, tagging) <= 1.5
    data, _ = encode.cut(row["uri"], row, 0.0, math.inf, PackConfig(crf=1), WHOLE)
    clip = first(data).to_ndarray(format="rgb24")
    assert np.abs(colour_chart.seen(seen) - colour_chart.seen(clip)).max() <= LIMIT


@pytest.mark.parametrize("codec", ["hevc", "av1"])
@pytest.mark.parametrize("tagging", [PQ, HLG], ids=str)
def test_hdr_that_is_kept_stays_ten_bit_and_tagged(
    tmp_path: Path, tagging: Tagging, codec: Literal["hevc", "av1"]
) -> None:
    row = film(tmp_path / "a.mkv", tagging)
    data, info = encode.cut(row["uri"], row, 0.0, math.inf, PackConfig(codec=codec, hdr="keep", crf=4), WHOLE)
    got = first(data)
    assert got.format.name == "yuv420p10le" and info["hdr"] and info["color_space"] == "bt2020nc"
    assert tags.columns(got) == tags.columns(colour_chart.frame(tagging))
    assert off(next(iter(video_frames(data)))[1], tagging) <= 3 * LIMIT, "tone-mapped when it is read"


def test_h264_with_hdr_kept_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"pack\.codec hevc or av1"):
        check(CurateConfig(pack=PackConfig(hdr="keep")))
    for pack in (PackConfig(hdr="keep", codec="av1"), PackConfig(hdr="drop")):
        check(CurateConfig(pack=pack))


@pytest.mark.parametrize(
    ("tagging", "hdr", "copies"),
    [
        (Tagging(size=SIZE), "tonemap", True),
        (Tagging(untagged=True, size=(1280, 160)), "tonemap", True),
        (Tagging(space="smpte170m", untagged=True, size=SIZE), "tonemap", True),
        (P3, "tonemap", False),
        (PQ, "tonemap", False),
        (PQ, "keep", True),
    ],
    ids=str,
)
def test_only_what_shows_right_as_it_is_is_copied_and_what_is_copied_is_tagged(
    tmp_path: Path, tagging: Tagging, hdr: Literal["tonemap", "keep"], copies: bool
) -> None:
    lossless = (
        {"codec": "libx265", "x265-params": "lossless=1:log-level=error"}
        if tagging == PQ
        else {"codec": "libx264", "qp": "0"}
    )
    row = film(tmp_path / "a.mp4", tagging, **lossless)
    pack = PackConfig(codec="hevc" if tagging == PQ else "h264", hdr=hdr, crf=1)
    data, info = encode.cut(row["uri"], row, 0.0, math.inf, pack, WHOLE)
    assert info["copied"] == copies
    got = first(data)
    assert got.colorspace != 2 and got.color_primaries != 2 and got.color_trc != 2, "nobody has to guess"
    assert off(next(iter(video_frames(data)))[1], tagging) <= LIMIT


@pytest.mark.parametrize("full", [False, True], ids=["tv", "pc"])
@pytest.mark.parametrize("space", ["bt709", "smpte170m"])
def test_samples_in_the_usual_colours_stay_what_they_are(tmp_path: Path, space: str, full: bool) -> None:
    tagging = Tagging(space=space, full=full, size=SIZE)
    row = film(tmp_path / "a.mkv", tagging)
    data, _ = encode.cut(row["uri"], row, 0.0, math.inf, PackConfig(crf=1), WHOLE)
    wanted = colour_chart.frame(tagging).to_ndarray().astype(int)
    assert np.abs(first(data).to_ndarray().astype(int) - wanted).max() <= 2


UNTAGGED_HD = Tagging(untagged=True, size=(1280, 160))
OPTIONS = {
    "hevc": ("libx265", {"x265-params": "log-level=error"}),
    "av1": ("libsvtav1", {"preset": "8"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
}


@pytest.mark.parametrize("codec", sorted(OPTIONS))
def test_copies_of_untagged_streams_of_every_codec_are_tagged_and_show_the_same_pictures(
    tmp_path: Path, codec: Literal["hevc", "av1", "vp9"]
) -> None:
    encoder, options = OPTIONS[codec]
    row = film(tmp_path / "a.mp4", UNTAGGED_HD, encoder, **options)
    assert row["color_space"] is None
    data, info = encode.cut(row["uri"], row, 0.0, math.inf, PackConfig(copy_codecs=[codec]), WHOLE)
    got, source = first(data), next(decode.pictures(row["uri"], row)).frame
    assert info["copied"] and tags.SPACES[int(got.colorspace)] == "bt709"
    assert (got.to_ndarray() == source.to_ndarray()).all()
