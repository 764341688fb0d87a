from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from rushes.pipelines.engine.encode_latents import variant_of
from rushes.pipelines.stages.latents.latents import encode_shard, unpack
from rushes.pipelines.store import shards
from rushes.tokenizer.config import Budget, TokenizerConfig, predicted
from rushes.tokenizer.data import begins_with_picture, marks, segments
from rushes.tokenizer.model import Latents, Tokenizer, fingerprint, load, save

KEYS = [f"{i:016x}-000001000" for i in range(3)]


def moving_square(frames: int, speed: float, pts: list[int] | None = None, still: int = 0) -> bytes:
    """A square that moves on noise after `still` frames, 25 a second or at given ticks of 1/100 s."""
    out = io.BytesIO()
    ground = np.random.default_rng(0).integers(0, 160, (40, 64, 3), dtype=np.uint8)
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 40, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for i in range(frames):
            picture = ground.copy()
            x = int(max(0, i - still) * speed) % 48
            picture[10:26, x : x + 16] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (pts or range(0, 4 * frames, 4))[i], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


@pytest.fixture
def model(tmp_path: Path) -> str:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    save(Tokenizer(TokenizerConfig(rates=(4, 8))), str(tmp_path / "model"))
    return str(tmp_path / "model")


def write(root: Path, clips: list[bytes]) -> tuple[str, str]:
    samples = [
        shards.Sample(key, [("mp4", clip), ("json", json.dumps({"camera": "pan"}).encode()), ("txt", b"a square")])
        for key, clip in zip(KEYS, clips, strict=False)
    ]
    info = shards.write_shard(str(root), "b", "clips", 4, samples)
    shards.write_manifest(str(root), [info], kind="clips", fingerprint="test")
    return str(root), info.path


def read(root: Path, path: str) -> list[tuple[Latents, dict]]:
    return [unpack(sample) for sample in shards.read_shard(f"{root}/{path}", ("npy", "json", "txt"))]


def test_a_latent_shard_has_the_name_and_keys_of_its_clip_shard_and_what_the_encoder_says(model, tmp_path):
    root, path = write(tmp_path / "clips", [moving_square(21, 3), moving_square(16, 0)])
    info, failed = encode_shard(root, path, str(tmp_path / "latents"), model)
    assert info.path == path == "b/clips-000004.tar" and info.samples == 2 and failed == []
    (latents, facts), (other, _) = read(tmp_path / "latents", path)
    assert latents.z.shape == (1, 6, 16, 5, 8) and other.z.shape == (1, 4, 16, 5, 8)
    tokenizer = load(model)
    assert (
        facts["fingerprint"] == fingerprint(tokenizer) and facts["camera"] == "pan" and facts["caption"] == "a square"
    )
    assert (facts["frames"], facts["height"], facts["width"], facts["rates"]) == (21, 40, 64, [4, 4])
    assert facts["fps"] == pytest.approx(25) and facts["key"] == KEYS[0]
    video = torch.cat([video for _, video in segments(moving_square(21, 3), 16)], dim=2)
    assert torch.equal(tokenizer.encode(video).z.half(), latents.z.half())
    stored = next(shards.read_shard(f"{tmp_path}/latents/{path}", ("npy",)))["npy"]
    assert np.load(io.BytesIO(stored)).dtype == np.float16


def test_of_a_share_of_the_clips_the_first_frame_is_coded_as_a_picture_is(model, tmp_path):
    clip = moving_square(21, 2)
    root, path = write(tmp_path / "clips", [clip])
    encode_shard(root, path, str(tmp_path / "latents"), model, Budget(share=0.5), pictures=1.0)
    ((latents, facts),) = read(tmp_path / "latents", path)
    assert facts["lengths"] == [1, 16, 4] and facts["rates"][0] == 4 and facts["times_s"][0] == 0
    video = torch.cat([video for _, video in segments(clip, 16)], dim=2)
    alone = load(model).encode(video[:, :, :1]).z
    assert torch.equal(alone.half(), latents.z[:, :1].half())


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_so_many_clips_begin_with_a_picture_and_held_out_ones_no_more(share):
    keys = [f"{number:016x}-000000000" for number in range(4000)]
    begin = np.array([begins_with_picture(key, share) for key in keys])
    assert begin.mean() == pytest.approx(share, abs=0.02)
    assert not begin[marks(key.encode() for key in keys) < 0.05 * 2**32].any() or share == 1


def test_stored_latents_decode_to_the_clip(model, tmp_path):
    root, path = write(tmp_path / "clips", [moving_square(21, 0)])
    encode_shard(root, path, str(tmp_path / "latents"), model)
    ((latents, _),) = read(tmp_path / "latents", path)
    assert load(model).decode(latents).shape == (1, 3, 21, 40, 64)


def test_what_is_no_latent_sample_is_named():
    with pytest.raises(ValueError, match=r"key-0 is no sample of a latent shard.*rushes latents"):
        unpack({"__key__": "key-0", "mp4": b""})


def test_under_a_budget_the_moving_segment_gets_the_latents(model, tmp_path):
    root, path = write(tmp_path / "clips", [moving_square(32, 2.5, still=15)])
    encode_shard(root, path, str(tmp_path / "latents"), model, Budget(latents=6))
    ((latents, facts),) = read(tmp_path / "latents", path)
    assert facts["rates"] == [8, 4] and latents.z.shape[1] == len(facts["times_s"]) == 6


def test_times_of_latents_are_seconds_of_the_clip_at_a_variable_frame_rate(model, tmp_path):
    root, path = write(tmp_path / "clips", [moving_square(8, 1, pts=[0, 4, 8, 12, 50, 54, 58, 62])])
    encode_shard(root, path, str(tmp_path / "latents"), model)
    ((_, facts),) = read(tmp_path / "latents", path)
    assert facts["times_s"] == pytest.approx([0.06, 0.56], abs=0.011)


def test_a_clip_that_cannot_be_decoded_is_recorded_and_the_others_are_encoded(model, tmp_path):
    root, path = write(tmp_path / "clips", [b"text", moving_square(5, 1)])
    info, failed = encode_shard(root, path, str(tmp_path / "latents"), model)
    assert (
        info.samples == 1 and [one["key"] for one in failed] == KEYS[:1] and "cannot be decoded" in failed[0]["reason"]
    )


def test_equal_clips_give_equal_bytes(model, tmp_path):
    root, path = write(tmp_path / "clips", [moving_square(9, 2)])
    one, _ = encode_shard(root, path, str(tmp_path / "one"), model, side_px=24)
    two, _ = encode_shard(root, path, str(tmp_path / "two"), model, side_px=24)
    assert one.sha256 == two.sha256


def test_a_shard_of_which_no_clip_can_be_decoded_gives_no_shard_but_the_reasons(model, tmp_path):
    root, path = write(tmp_path / "clips", [b"text", b"more text"])
    info, failed = encode_shard(root, path, str(tmp_path / "latents"), model)
    assert info is None and [one["key"] for one in failed] == KEYS[:2] and all(one["remedy"] for one in failed)


def test_rates_are_foreseen_unless_told_to_measure(model, tmp_path, monkeypatch):
    root, path = write(tmp_path / "clips", [moving_square(32, 2.5, still=15)])
    asked = []
    monkeypatch.setattr(Tokenizer, "foreseen", lambda *_: asked.append(1) or [[1.0, 9.0], [1.0, 1.0]][len(asked) - 1])
    for allocation, rates, times in (("auto", [4, 8], 2), ("predicted", [4, 8], 2), ("measured", [8, 4], 0)):
        asked.clear()
        out = tmp_path / f"latents-{allocation}"
        encode_shard(root, path, str(out), model, Budget(latents=6), allocation=allocation)
        ((latents, facts),) = read(out, path)
        assert facts["rates"] == rates and latents.z.shape[1] == 6 and len(asked) == times


def test_a_clip_has_the_rates_that_are_given_and_fails_where_they_are_not_as_many_as_its_segments(model, tmp_path):
    root, path = write(tmp_path / "clips", [moving_square(21, 3), moving_square(21, 2), moving_square(21, 1)])
    rates = {KEYS[0]: [8, 4], KEYS[1]: [8]}
    info, failed = encode_shard(root, path, str(tmp_path / "latents"), model, rates=rates)
    ((latents, facts),) = read(tmp_path / "latents", path)
    assert info.samples == 1 and facts["rates"] == [8, 4] and latents.z.shape[1] == 2 + 2
    assert [(one["key"], one["reason"].split("not ")[1]) for one in failed] == [
        (key, f"the {count} segments for which rates were chosen") for key, count in ((KEYS[1], 1), (KEYS[2], 0))
    ]
    _, failed = encode_shard(root, path, str(tmp_path / "more"), model, rates={key: [8, 4, 4] for key in KEYS})
    assert len(failed) == 3


def test_what_cannot_be_foreseen_is_refused_with_the_remedy(tmp_path):
    root, path = write(tmp_path / "clips", [moving_square(5, 3)])
    save(Tokenizer(TokenizerConfig(variant="grown-16x")), str(tmp_path / "grown"))
    with pytest.raises(ValueError, match="grown-16x cannot tell what it will lose"):
        encode_shard(
            root, path, str(tmp_path / "l"), str(tmp_path / "grown"), Budget(share=0.5), allocation="predicted"
        )
    assert variant_of(str(tmp_path / "grown")) == "grown-16x" and variant_of("wan:any.pth") == ""
    for variant, allocation, expected in (
        ("adaptive", "auto", True), ("adaptive", "measured", False), ("grown-16x", "auto", False), ("", "auto", False),
    ):  # fmt: skip
        assert predicted(variant, allocation) == expected
