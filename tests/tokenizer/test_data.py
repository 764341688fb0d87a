from __future__ import annotations

import itertools
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.pipelines.store import shards
from rushes.tokenizer import data
from rushes.tokenizer.config import TrainConfig
from rushes.tokenizer.data import (
    ClipBatches,
    ClipError,
    Cuts,
    fixed_batches,
    held_share,
    is_held,
    loader,
    read_video,
    segments,
    to_pictures,
    to_video,
    video_frames,
)

SMALL = TrainConfig(batch=2, frames=12, side=32, shuffle=4)
SEVERAL = TrainConfig(batch=3, frames=12, side=32, shuffle=4, crops=2)


def test_pictures_survive_the_way_to_video_and_back(clip_bytes):
    times, video = next(segments(clip_bytes, 16))
    assert video.shape == (1, 3, 16, 56, 128) and video.min() >= -1 and video.max() <= 1
    assert times[0] == 0 and times[1] == pytest.approx(0.04)
    assert torch.equal(to_video(to_pictures(video)), video)


def test_segments_cover_every_frame_and_only_the_last_is_short(clip_bytes):
    chunks = list(segments(clip_bytes, 16))
    assert [video.shape[2] for _, video in chunks] == [16, 16, 5]
    assert [t for times, _ in chunks for t in times] == pytest.approx([i / 25 for i in range(37)])


def test_a_whole_clip_is_its_segments_one_after_another(clip_bytes):
    times_s, video = read_video(clip_bytes, 28)
    chunks = list(segments(clip_bytes, 16, 28))
    assert torch.equal(video, torch.cat([chunk for _, chunk in chunks], dim=2)) and video.shape == (1, 3, 37, 28, 64)
    assert times_s == [t for times, _ in chunks for t in times]


def test_a_cut_begins_a_segment_and_motion_does_not(clip_bytes):
    pictures = [picture for _, picture in video_frames(clip_bytes)]
    other = [255 - picture[::-1] for picture in pictures[:20]]
    cuts = Cuts()
    assert [i for i, picture in enumerate(pictures + other) if cuts.before(picture)] == [37]


def test_segments_of_a_film_end_at_its_cuts(clip_bytes, tmp_path):
    film = tmp_path / "film.mp4"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 128, 56, "yuv420p"
        pictures = [picture for _, picture in video_frames(clip_bytes)][:20]
        for picture in pictures + [255 - picture[::-1] for picture in pictures]:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert [video.shape[2] for _, video in segments(str(film), 16)] == [16, 4, 16, 4]


def test_pictures_are_shrunk_but_never_enlarged(clip_bytes):
    assert next(video_frames(clip_bytes, 28))[1].shape == (28, 64, 3)
    assert next(video_frames(clip_bytes, 500))[1].shape == (56, 128, 3)


@pytest.mark.parametrize("junk", [b"", b"no video at all", "/nowhere/film.mp4"])
def test_what_cannot_be_decoded_is_named(junk):
    with pytest.raises(ClipError, match="cannot be decoded"):
        next(video_frames(junk))


@pytest.mark.parametrize("config", [SMALL, SEVERAL, replace(SMALL, crops=1)], ids=["four", "two", "one"])
def test_a_reader_that_starts_at_a_position_gives_the_batches_that_follow_it(clip_shards, config):
    through = list(itertools.islice(ClipBatches(clip_shards, config), 12))  # one crop a clip: more than four passes
    for i in range(11):
        rest = ClipBatches(clip_shards, config, {0: through[i]["position"]})
        for expected, found in zip(through[i + 1 :], rest, strict=False):
            assert expected["keys"] == found["keys"] and torch.equal(expected["video"], found["video"])


def test_every_pass_gives_every_clip_once(clip_shards):
    config = TrainConfig(batch=5, frames=4, side=32, shuffle=4, crops=1)
    for batch in itertools.islice(ClipBatches(clip_shards, config), 3):
        assert len(set(batch["keys"])) == 5


def test_a_clip_is_decoded_once_for_its_crops_which_differ_and_stand_in_different_batches(clip_shards, monkeypatch):
    decoded, whole = [], data.crops
    monkeypatch.setattr(data, "crops", lambda *given: decoded.append(1) or whole(*given))
    config = TrainConfig(batch=2, frames=4, side=32, shuffle=4, crops=3)
    batches = list(itertools.islice(ClipBatches(clip_shards, config), 16))
    assert len(decoded) == 12  # 32 crops, and the first two decodes gave one and two
    assert all(len(set(batch["keys"])) == 2 for batch in batches)
    crops = [one.numpy().tobytes() for batch in batches for one in batch["video"]]
    assert len(set(crops)) == len(crops)


def test_a_clip_that_cannot_be_decoded_is_passed_over(clip_bytes, write_clips, caplog):
    root = write_clips({"broken": clip_bytes[:300], "junk": b"text", "good": clip_bytes})
    batch = next(iter(ClipBatches(root, SMALL)))
    assert len(set(batch["keys"])) == 1 and "passed over" in caplog.text


def test_shards_without_video_are_refused(write_clips):
    root = write_clips({"one": b"text", "two": b"more text"})
    with pytest.raises(ValueError, match="no clip that can be decoded"):
        next(iter(ClipBatches(root, SMALL)))
    with pytest.raises(ValueError, match="no clip that can be decoded"):
        fixed_batches(root, SMALL)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_gives_the_batches_that_follow_across_stages(clip_shards, workers):
    config = replace(SMALL, stages="image:2,4:2,8:1@48", workers=workers)
    stages = config.plan((4, 8))
    through = list(itertools.islice(loader(ClipBatches(clip_shards, config, stages=stages)), 8))
    assert [batch["step"] for batch in through] == list(range(8))
    assert [tuple(batch["video"].shape[2:]) for batch in through] == [(1, 32, 32)] * 2 + [(12, 32, 32)] * 2 + [
        (12, 48, 48)
    ] * 4
    for done in (2, 4):
        places = {batch["worker"]: batch["position"] for batch in through[:done]}
        rest = loader(ClipBatches(clip_shards, config, places, stages=stages, first=done))
        for expected, found in zip(through[done:], rest, strict=False):
            assert expected["step"] == found["step"] and expected["keys"] == found["keys"]
            assert torch.equal(expected["video"], found["video"])


@settings(max_examples=50, deadline=None)
@given(key=st.text(max_size=20), small=st.floats(0, 1), large=st.floats(0, 1))
def test_a_larger_share_holds_out_what_a_smaller_one_does(key, small, large):
    small, large = sorted((small, large))
    assert is_held(key, large) or not is_held(key, small)
    assert not is_held(key, 0) and is_held(key, 1)


def test_the_held_out_share_is_about_what_was_asked_for():
    assert 450 < sum(is_held(f"clip {i}", 0.1) for i in range(5000)) < 550


def test_held_out_clips_come_in_no_batch_and_fixed_batches_are_theirs(clip_shards):
    config = replace(SMALL, holdout=0.3)
    keys = {key for batch in itertools.islice(ClipBatches(clip_shards, config), 8) for key in batch["keys"]}
    assert keys and not any(is_held(key, 0.3) for key in keys)
    (batches, held), (others, trained_on) = fixed_batches(clip_shards, config), fixed_batches(clip_shards, SMALL)
    assert held and not trained_on
    assert sum(map(len, batches)) + len(keys) == sum(map(len, others)) == 5
    assert all(torch.equal(a, b) for a, b in zip(batches, fixed_batches(clip_shards, config)[0], strict=True))


def test_one_clip_at_least_is_held_out_where_there_are_two(clip_shards, clip_bytes, write_clips):
    share = held_share(clip_shards, replace(SMALL, holdout=1e-9))
    every = {sample["__key__"] for sample in shards.pipeline(clip_shards, members=("json",))}
    held = {key for key in every if is_held(key, share)}
    assert len(held) == 1 and all(is_held(key, 0.5) >= (key in held) for key in every)
    assert held_share(clip_shards, replace(SMALL, holdout=0.9)) == 0.9
    assert held_share(clip_shards, replace(SMALL, holdout=0)) == 0
    assert held_share(write_clips({"alone": clip_bytes}), SMALL) == 0


def test_a_reader_left_without_clips_says_so(clip_shards):
    with pytest.raises(ValueError, match=r"no clip to train on; use fewer workers or devices, a smaller holdout"):
        next(iter(ClipBatches(clip_shards, replace(SMALL, holdout=0.999999))))


def test_pictures_of_what_lies_outside_the_range_are_white_or_black_and_need_no_detaching():
    video = torch.tensor([-float("inf"), -3e7, -1.1, 1.1, 3e7, float("inf")], requires_grad=True)
    assert to_pictures(video.expand(1, 3, 1, 1, 6))[0, 0, :, 0].tolist() == [0, 0, 0, 255, 255, 255]
