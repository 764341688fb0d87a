from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from rushes.pipelines.colour.picture import Screen
from rushes.tokenizer import crops as module
from rushes.tokenizer.config import TrainConfig
from rushes.tokenizer.crops import ClipError, crops

FRAMES, SIDE = 60, 48
ONE = TrainConfig(frames=6, side=SIDE, crops=1, shrink=1)
CODINGS = {
    "short groups": ("libx264", {"g": "12", "bf": "0"}),
    "re-ordered": ("libx264", {"g": "12", "bf": "3", "x264-params": "b-pyramid=normal"}),
    "open groups": ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}),
    "hevc, open groups": ("libx265", {"x265-params": "keyint=12:open-gop=1:log-level=error:pools=1:frame-threads=1"}),
    "av1": ("libsvtav1", {"g": "12", "preset": "12", "svtav1-params": "lp=1"}),
    "one key frame": ("libx264", {"g": "1000", "sc_threshold": "0", "bf": "2"}),
    "no key frames but refreshed pictures": ("libx264", {"g": "12", "x264-params": "intra-refresh=1", "bf": "0"}),
}


def coded(film: Path, codec: str, options: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with av.open(str(film)) as source, av.open(out, "w", format="mp4") as target:
        stream = target.add_stream(codec, rate=25, options={"crf": "30", **options})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i, frame in enumerate(source.decode(video=0)):
            if i == FRAMES:
                break
            small = frame.reformat(96, 64, "yuv420p")
            small.pts, small.time_base, small.pict_type = i, Fraction(1, 25), 0
            target.mux(stream.encode(small))
        target.mux(stream.encode(None))
    return out.getvalue()


def all_key(clip: bytes) -> bytes:
    """The same clip without the list of its key frames, which says that all of them are."""
    assert clip.count(b"stss") == 1
    return clip.replace(b"stss", b"free")


class Dice(random.Random):
    """Asks for a certain first frame, and for the upper left corner."""

    def __init__(self, start: int):
        super().__init__(0)
        self.left = [(start + 0.5) / (FRAMES - ONE.frames), 0.0, 0.0, 0.0, 0.9]

    def random(self) -> float:
        return self.left.pop(0)


def from_the_first_frame(clip: bytes, start: int) -> np.ndarray:
    """The crop that Dice asks for, of a clip that is decoded whole."""
    screen = Screen()
    with av.open(io.BytesIO(clip)) as container:
        run = list(container.decode(video=0))[start : start + ONE.frames]
        return np.stack([screen.rgb(frame, 72, 48)[:SIDE, :SIDE] for frame in run])


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many packets went into the decoder at each attempt."""
    counts: list[int] = []
    plain = module._shown

    def counted(context, packets):
        counts.append(len(packets))
        return plain(context, packets)

    monkeypatch.setattr(module, "_shown", counted)
    return counts


@pytest.mark.parametrize("name", CODINGS)
def test_seeking_gives_the_pictures_that_decoding_from_the_first_frame_gives(bikes, name, fed):
    clip = coded(bikes, *CODINGS[name])
    for start in (0, 11, 12, 13, 30, 47, 53):
        assert np.array_equal(crops(clip, ONE, Dice(start))[0], from_the_first_frame(clip, start)), start
    assert (FRAMES in fed[3:]) == (name in ("one key frame", "no key frames but refreshed pictures"))


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx265", {"x265-params": "keyint=1000:scenecut=0:log-level=error:pools=1:frame-threads=1"}),
        ("mpeg4", {"g": "600", "sc_threshold": "1000000000"}),
    ],
)
def test_key_frames_that_are_none_are_found_out_and_the_clip_is_decoded_from_its_first(bikes, codec, options, fed):
    clip = all_key(coded(bikes, codec, options))
    for start in (1, 17, 40):
        assert np.array_equal(crops(clip, ONE, Dice(start))[0], from_the_first_frame(clip, start))
        assert fed[-1] == FRAMES > fed[-2]


def test_the_crops_of_a_clip_share_frames_and_scale_and_lie_at_places_of_their_own(clip_bytes):
    config = TrainConfig(frames=9, side=40, crops=6)
    one, same = (crops(clip_bytes, config, random.Random("7")) for _ in range(2))
    assert len(one) == 6 and all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert len({crop.tobytes() for crop in one}) == 6 and {crop.shape for crop in one} == {(9, 40, 40, 3)}
    other = crops(clip_bytes, config, random.Random("8"))
    assert not np.array_equal(one[0], other[0])


def test_short_clips_are_filled_by_their_last_frame_and_small_ones_enlarged(clip_bytes):
    found = crops(clip_bytes, TrainConfig(frames=50, side=100), random.Random(0))[0]
    assert found.shape == (50, 100, 100, 3)
    assert (found[36] == found[49]).all() and (found[35] != found[36]).any()


def test_a_clip_that_is_too_short_is_refused(clip_bytes):
    with pytest.raises(ClipError, match="37 frames, fewer than min_frames=38"):
        crops(clip_bytes, TrainConfig(min_frames=38), random.Random(0))
    assert crops(clip_bytes, TrainConfig(min_frames=37, frames=4, side=32), random.Random(0))[0].shape[0] == 4


@pytest.mark.parametrize("spoil", [lambda clip: b"", lambda clip: b"no video at all", lambda clip: clip[:300]])
def test_what_cannot_be_decoded_is_refused_with_the_remedy(clip_bytes, spoil: Callable[[bytes], bytes]):
    with pytest.raises(ClipError, match=r"cannot be decoded: .*run `rushes verify --full`"):
        crops(spoil(clip_bytes), ONE, random.Random(0))


def indexed_first(clip: bytes, path: Path) -> bytes:
    """The same clip with its index before its pictures, so that it can be read where its end is gone."""
    with av.open(io.BytesIO(clip)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return path.read_bytes()


def test_of_a_clip_that_was_cut_off_come_the_frames_that_are_there(bikes, tmp_path):
    clip = indexed_first(coded(bikes, *CODINGS["short groups"]), tmp_path / "clip.mp4")
    clip = clip[: int(len(clip) * 0.6)]
    found = []
    for seed in range(5):
        with contextlib.suppress(ClipError):  # its last frame is there in part
            found.append(crops(clip, ONE, random.Random(seed))[0])
    assert found and all(len({picture.tobytes() for picture in one}) == ONE.frames for one in found)
