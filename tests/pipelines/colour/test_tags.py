"""Claims about what the numbers of a picture mean: tags are believed, and without them a rule holds for all."""

from __future__ import annotations

import pytest

from rushes.pipelines.colour import tags
from rushes.pipelines.colour.tags import Colour

SD, HD = (640, 480), (1920, 1080)
Told = tuple[str | None, str | None, str | None, str | None]


@pytest.mark.parametrize(
    ("form", "told", "size", "meant"),
    [
        ("yuv420p", (None, None, None, None), SD, Colour("bt601", False, "bt709", "sdr")),
        ("yuv420p", (None, None, None, None), HD, Colour("bt709", False, "bt709", "sdr")),
        ("yuv420p", (None, None, None, None), (360, 640), Colour("bt601", False, "bt709", "sdr")),
        ("yuv420p", (None, None, None, None), (720, 576), Colour("bt601", False, "bt709", "sdr")),
        ("yuv420p", (None, None, None, None), (720, 578), Colour("bt709", False, "bt709", "sdr")),
        ("yuv420p", (None, "smpte170m", None, None), HD, Colour("bt601", False, "bt709", "sdr")),
        ("yuv420p", ("pc", "bt709", "bt709", "bt709"), SD, Colour("bt709", True, "bt709", "sdr")),
        ("yuvj420p", (None, "bt470bg", None, None), HD, Colour("bt601", True, "bt709", "sdr")),
        ("yuv420p10le", (None, None, None, "smpte2084"), HD, Colour("bt2020", False, "bt2020", "pq")),
        ("yuv420p10le", ("tv", "bt2020nc", None, "arib-std-b67"), SD, Colour("bt2020", False, "bt2020", "hlg")),
        ("yuv420p10le", (None, None, "bt2020", "bt2020-10"), SD, Colour("bt2020", False, "bt2020", "sdr")),
        ("yuv420p", ("tv", "bt709", "smpte432", "srgb"), HD, Colour("bt709", False, "smpte432", "srgb")),
        ("yuv420p", ("tv", "rgb", None, None), HD, Colour("bt709", False, "bt709", "sdr")),
        ("gbrp", (None, "rgb", None, None), HD, Colour("rgb", True, "bt709", "sdr")),
        ("pal8", (None, None, None, None), SD, Colour("rgb", True, "bt709", "sdr")),
        ("gray", (None, None, None, None), SD, Colour("grey", False, "bt709", "sdr")),
    ],
)
def test_tags_are_believed_and_what_is_not_tagged_follows_the_rule(
    form: str, told: Told, size: tuple[int, int], meant: Colour
) -> None:
    assert tags.told(form, *told[:2], told[2], told[3], *size) == meant


@pytest.mark.parametrize(
    ("colour", "plain", "hdr"),
    [
        (Colour("bt601", True, "bt709", "sdr"), True, False),
        (Colour("bt709", False, "bt709", "srgb"), True, False),
        (Colour("bt709", False, "smpte432", "srgb"), False, False),
        (Colour("bt2020", False, "bt2020", "sdr"), False, False),
        (Colour("bt2020", False, "bt2020", "hlg"), False, True),
        (Colour("grey", False, "bt709", "sdr"), False, False),
    ],
)
def test_only_sdr_in_the_primaries_of_bt709_needs_nothing_but_a_matrix(colour: Colour, plain: bool, hdr: bool) -> None:
    assert (colour.plain, colour.hdr) == (plain, hdr)


def test_what_an_untagged_source_is_taken_for_can_be_told_in_numbers() -> None:
    row = {"pixel_format": "yuv420p", "coded_width": 1280, "coded_height": 720}
    row |= dict.fromkeys(("color_range", "color_space", "color_primaries", "color_transfer"))
    assert tags.numbers(row) == {"matrix": 1, "primaries": 1, "transfer": 1}
    assert tags.numbers({**row, "coded_width": 640, "coded_height": 360})["matrix"] == 6
    assert tags.numbers({**row, "color_transfer": "smpte2084"}) == {"matrix": 9, "primaries": 9, "transfer": 16}
