"""Claims about colour: a chart looks as the standards say, whatever it is tagged as, to all who make RGB of frames."""

from __future__ import annotations

from typing import cast

import av
import numpy as np
import pytest

from rushes.pipelines.colour import light, space, tags
from rushes.pipelines.colour.picture import Screen
from tests.pipelines import colour_chart
from tests.pipelines.colour_chart import Tagging

HD = (1280, 720)
LIMIT = 1.5
"""Levels of 255 that a patch may be off."""


def sdr() -> list[Tagging]:
    deep = {"yuv420p": "yuv420p10le"}
    found = [
        Tagging(space=matrix, full=full, pixel_format=kind)
        for matrix in ("bt470bg", "smpte170m", "bt709", "bt2020nc", "smpte240m", "ycgco")
        for full in (False, True)
        for kind in (*deep, *deep.values(), "yuv444p12le")
    ]
    found += [Tagging(space=matrix, full=True, pixel_format="yuvj420p") for matrix in ("smpte170m", "bt709")]
    return found


def wide() -> list[Tagging]:
    return [
        Tagging(space=matrix, full=full, pixel_format=kind, gamut=gamut, curve=curve)
        for matrix, gamut, curve in (
            ("bt709", "smpte432", "srgb"), ("bt709", "smpte432", "bt709"), ("bt2020nc", "bt2020", "bt2020-10"),
            ("smpte170m", "smpte170m", "smpte170m"), ("bt470bg", "bt470bg", "smpte170m"),
        )
        for full in (False, True)
        for kind in ("yuv420p", "yuv420p10le")
    ]  # fmt: skip


def hdr() -> list[Tagging]:
    return [
        Tagging(space="bt2020nc", full=full, pixel_format=kind, gamut="bt2020", curve=curve)
        for curve in ("smpte2084", "arib-std-b67")
        for full in (False, True)
        for kind in ("yuv420p", "yuv420p10le", "yuv444p12le")
    ] + [Tagging(space="bt709", pixel_format="yuv420p10le", gamut="smpte432", curve="smpte2084")]


def untagged() -> list[Tagging]:
    return [
        Tagging(space="smpte170m", untagged=True),
        Tagging(space="smpte170m", untagged=True, size=(1024, 576)),
        Tagging(space="bt709", untagged=True, size=HD),
        Tagging(space="bt709", untagged=True, size=HD[::-1]),
        Tagging(space="bt709", untagged=True, size=(960, 720), pixel_format="yuv420p10le"),
    ]


@pytest.mark.parametrize("tagging", [*sdr(), *wide(), *hdr(), *untagged()], ids=str)
def test_a_chart_looks_the_same_whatever_it_is_tagged_as(tagging: Tagging) -> None:
    frame = colour_chart.frame(tagging)
    rgb = Screen().rgb(frame, frame.width, frame.height)
    assert np.abs(colour_chart.seen(rgb) - colour_chart.wanted(tagging)).max() <= LIMIT


def ffmpeg(frame: av.VideoFrame, *steps: tuple[str, str]) -> np.ndarray:
    """Return what filters of FFmpeg's make of a frame, as R, G, B in the middle of each patch, from 0 to 255."""
    graph = av.filter.Graph()
    nodes = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=None)]
    nodes += [graph.add(name, value) for name, value in (*steps, ("format", "gbrp16le"))]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    graph.push(frame)
    whole = cast(av.VideoFrame, graph.pull()).to_ndarray()
    return colour_chart.seen(whole) / 257


EXACT = "flags=accurate_rnd+full_chroma_int+bitexact"


@pytest.mark.parametrize("full", [False, True], ids=["tv", "pc"])
@pytest.mark.parametrize(("matrix", "name"), [("smpte170m", "bt601"), ("bt709", "bt709"), ("bt2020nc", "bt2020")])
def test_matrices_and_ranges_are_those_of_ffmpeg(matrix: str, name: str, full: bool) -> None:
    frame = colour_chart.frame(Tagging(space=matrix, full=full, pixel_format="yuv444p10le"))
    scale = ("scale", f"in_color_matrix={name}:in_range={'pc' if full else 'tv'}:{EXACT}")
    rgb = colour_chart.seen(Screen().rgb(frame, frame.width, frame.height))
    assert np.abs(rgb - ffmpeg(frame, scale)).max() <= LIMIT


@pytest.mark.parametrize(
    ("matrix", "gamut", "names"),
    [
        ("bt709", "smpte432", "ispace=bt709:iprimaries=smpte432"),
        ("bt2020nc", "bt2020", "ispace=bt2020ncl:iprimaries=bt2020"),
        ("smpte170m", "smpte170m", "ispace=smpte170m:iprimaries=smpte170m"),
    ],
)
def test_gamuts_are_those_of_ffmpeg(matrix: str, gamut: str, names: str) -> None:
    frame = colour_chart.frame(Tagging(space=matrix, gamut=gamut, curve="srgb", pixel_format="yuv444p12le"))
    space_ = f"{names}:itrc=srgb:irange=tv:space=bt709:primaries=bt709:trc=srgb:range=tv:format=yuv444p12"
    steps = ("colorspace", space_), ("scale", f"in_color_matrix=bt709:in_range=tv:{EXACT}")
    rgb = colour_chart.seen(Screen().rgb(frame, frame.width, frame.height))
    light_ = light._to_light(colour_chart.PATCHES, "srgb") @ colour_chart.gamut_matrix(gamut).T
    inside = ((light_ >= 0) & (light_ <= 1)).all(axis=1)  # elsewhere FFmpeg cuts off Y, Cb, Cr rather than R, G, B
    assert inside.sum() >= 50
    assert np.abs(rgb - ffmpeg(frame, *steps))[inside].max() <= LIMIT


def test_published_matrices_come_out_of_the_chromaticities() -> None:
    bt2087 = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]  # ITU-R BT.2087-0
    assert space.to_bt709("bt2020") == pytest.approx(np.array(bt2087), abs=1e-4)
    for gamut in space.CHROMATICITIES:
        assert space.to_bt709(gamut).sum(axis=1) == pytest.approx(np.ones(3)), "white stays white"


def test_light_of_hdr_lies_where_the_standards_say() -> None:
    assert light.pq_to_nits(np.array([0.508, 0.581, 0.752])) == pytest.approx([100, 203, 1000], rel=0.01)  # BT.2408
    values = np.linspace(0.01, 1, 50)
    assert light.nits_to_pq(light.pq_to_nits(values)) == pytest.approx(values, abs=1e-9)
    nits = np.array([0.0, 1.0, 50.0, 203.0, 1000.0, 4000.0])
    shown = light.rolled_off(nits)
    assert shown[:3] == pytest.approx(nits[:3]), "below the knee light is what it is"
    assert shown[3] == pytest.approx(159, abs=1) and shown[4:] == pytest.approx([203, 203])


@pytest.mark.parametrize("curve", ["smpte2084", "arib-std-b67"])
def test_greys_stay_grey_and_rise(curve: str) -> None:
    table = light.greys({"smpte2084": "pq", "arib-std-b67": "hlg"}[curve]).astype(int)
    assert table[0] == 0 and table[-1] == 255 and (np.diff(table) >= 0).all()
    codes = np.repeat((np.arange(256, dtype=np.uint16) * 257)[None, :, None], 3, axis=2)
    shown = light.on_screen(codes, "bt2020", {"smpte2084": "pq", "arib-std-b67": "hlg"}[curve])[0].astype(int)
    assert np.abs(shown - table[:, None]).max() <= 1


def test_a_picture_is_the_same_whatever_block_it_lies_in() -> None:
    codes = np.random.default_rng(0).integers(0, 65_536, (300, 400, 3), dtype=np.uint16)
    whole = light.on_screen(codes, "bt2020", "hlg")
    assert (whole[123:170] == light.on_screen(codes[123:170].copy(), "bt2020", "hlg")).all()


@pytest.mark.parametrize("full", [False, True], ids=["tv", "pc"])
def test_grey_formats_take_their_range_from_the_tag(full: bool) -> None:
    frame = av.VideoFrame(64, 32, "gray")
    frame.planes[0].update(np.full((32, frame.planes[0].line_size), 126, np.uint8).tobytes())
    frame.color_range = 2 if full else 1
    assert np.unique(Screen().rgb(frame, 64, 32)).tolist() == [126 if full else 128]


def test_rgb_becomes_bt709_and_comes_back() -> None:
    rgb = np.zeros((16, 16 * len(colour_chart.PATCHES), 3), np.uint8)
    for place, patch in enumerate(colour_chart.PATCHES):
        rgb[:, 16 * place : 16 * place + 16] = np.rint(patch * 255)
    frame = Screen().frame(rgb)
    assert tags.of(frame) == tags.Colour("bt709", False, "bt709", "sdr")
    again = Screen().rgb(frame, frame.width, frame.height)
    middle = np.s_[8, 8::16]
    assert np.abs(again[middle].astype(int) - rgb[middle]).max() <= 3, "8 bits of Y, Cb, Cr hold no more"
