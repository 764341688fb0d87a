"""What makes each variant itself, and the laws that all of them keep."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rushes.pipelines.cli.main import build
from rushes.pipelines.stages.latents.latents import encode_shard, unpack
from rushes.pipelines.store import shards
from rushes.tokenizer.config import TokenizerConfig, TrainConfig
from rushes.tokenizer.model import Tokenizer, fingerprint, grow, load, save, segment_lengths
from rushes.tokenizer.module import TokenizerModule
from rushes.tokenizer.train import train
from rushes.tokenizer.variants import GroupConv, HalvedBlock, TimeQuery, Twin
from tests.tokenizer import test_laws as laws

VARIANTS = ["fixed-4x8x8", "dual-branch", "grown-16x", "structure-dynamics"]
SHORT = TrainConfig(steps=2, batch=1, frames=17, side=32, feature=0, save_every=2, log_every=1, shuffle=4, warmup=1)
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def noise(frames: int, height: int = 24, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, frames, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def with_changed(video: torch.Tensor, *frames: int) -> torch.Tensor:
    other = video.clone()
    other[:, :, list(frames)] *= -0.5
    return other


# What all variants share.


def test_the_fingerprint_of_an_adaptive_tokenizer_is_what_it_was_before_there_were_variants(stirred):
    tokenizer = stirred()
    known = {name: value for name, value in asdict(tokenizer.config).items() if name != "variant"}
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    assert fingerprint(tokenizer) == digest.hexdigest()[:12]


@pytest.mark.parametrize(
    "law",
    [
        laws.test_streamed_coding_equals_whole_coding_bit_for_bit,
        laws.test_segments_computed_together_equal_segments_computed_in_turn,
        laws.test_a_changed_future_frame_moves_no_past_latent,
        laws.test_a_changed_future_latent_moves_no_past_frame,
    ],
)
@pytest.mark.parametrize("variant", VARIANTS[1:])  # the first is the adaptive one at one rate
def test_every_variant_keeps_the_laws(stirred, variant, law):
    few = settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
    few(given(data=st.data())(law.hypothesis.inner_test))(partial(stirred, variant=variant))


@every_variant
def test_frames_out_are_frames_in_for_any_length_and_size(stirred, variant):
    tokenizer = stirred(variant=variant)
    for frames in (1, 3, 4, 5, 16, 17, 23, 33):
        video = noise(frames, 1 + frames % 13, 1 + frames % 9) - 1e-3
        for rate in tokenizer.config.rates:
            assert tokenizer.decode(tokenizer.encode(video, rate, scale="-1..1")).shape == video.shape


@every_variant
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_the_state_of_a_stream_does_not_grow_with_the_video(stirred, variant, way):
    tokenizer = stirred(variant=variant)
    rate, chunk = tokenizer.config.rates[-1], noise(16)
    if way == "decode":
        chunk = tokenizer.encode(chunk, rate).z
    code = tokenizer.encode_chunk if way == "encode" else tokenizer.decode_chunk
    caches: dict = {}
    sizes = []
    for _ in range(4):
        _, caches = code(chunk, rate, caches)
        sizes.append({name: cache.untyped_storage().nbytes() for name, cache in caches.items()})
    assert sizes[0] and all(size == sizes[0] for size in sizes)


@every_variant
def test_the_loss_has_a_gradient_for_every_parameter(stirred, variant):
    module = TokenizerModule(TokenizerConfig(), SHORT, stirred(variant=variant))
    video, dice = noise(32), torch.Generator().manual_seed(0)
    for rate in module.tokenizer.config.rates:
        loss, *_ = module.loss(video, (rate, rate), dice)
        loss.backward()
    still = [n for n, p in module.tokenizer.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not still


@every_variant
def test_a_variant_trains_saves_and_loads(clip_shards, tmp_path: Path, variant):
    done = train(clip_shards, str(tmp_path), TokenizerConfig(variant=variant), SHORT)
    again = load(done.model, expect=done.fingerprint)
    assert again.config.variant == variant
    assert again.decoder.leave.weight.any(), "what starts at zero has learned"
    assert all(quality > 8 for quality in done.psnr.values())


@every_variant
def test_the_command_line_takes_the_variant_and_its_own_rates(variant):
    parser = build()[1]["tokenizer train"]
    options = parser.instantiate(parser.parse_args(["RUN", "--model.variant", variant]))
    assert options.model == TokenizerConfig(variant=variant) and options.model.rates


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"variant": "fixed"}, "variant='fixed' is not one of adaptive"),
        ({"variant": "fixed-4x8x8", "rates": (2, 4)}, r"needs rates=\(4,\), not \(2, 4\), or use variant='adaptive'"),
        ({"variant": "fixed-4x8x8", "channels": 8}, "channels=16, not 8"),
        ({"variant": "fixed-4x8x8", "space": 16}, "space=8, not 16"),
        ({"variant": "dual-branch", "channels": 15}, "even number of channels ≥ 6, not 15"),
        ({"variant": "grown-16x", "rates": (8, 16)}, "4 and more among its rates"),
        ({"variant": "grown-16x", "rates": (4,)}, "4 and more among its rates"),
        ({"variant": "structure-dynamics", "rates": (4,)}, r"rates=\(16,\), one grid for each segment"),
        ({"variant": "structure-dynamics", "segment": 4}, "segment of more than 4 frames, not 4"),
    ],
)
def test_what_a_variant_cannot_be_is_refused_with_what_it_needs(wrong, words):
    with pytest.raises(ValueError, match=words):
        TokenizerConfig(**wrong)


# fixed-4x8x8: HunyuanVideo.


def test_fixed_has_sixteen_channels_of_a_quarter_of_the_frames_and_one_rate():
    tokenizer = Tokenizer(TokenizerConfig(variant="fixed-4x8x8")).requires_grad_(False)
    latents = tokenizer.encode(noise(17, 32, 24))
    assert latents.z.shape == (1, 5, 16, 4, 3) and latents.rates == (4, 4)
    gains = [p for name, p in tokenizer.named_parameters() if name.endswith("by_rate")]
    assert gains and all(len(gain) == 1 for gain in gains)


def test_fixed_can_code_the_first_frame_by_itself(stirred):
    tokenizer, video = stirred(variant="fixed-4x8x8"), noise(17)
    alone = tokenizer.encode(video[:, :, :1]).z
    latents = tokenizer.encode(video, cuts=[1])
    assert latents.lengths == (1, 16) and latents.z.shape[1] == 5
    assert torch.equal(latents.z[:, :1], alone)


# dual-branch: IV-VAE.


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frame=st.integers(0, 15), rate=st.sampled_from([2, 4, 8]))
def test_no_frame_but_the_key_frame_moves_the_key_half_of_its_latent(stirred, frame, rate):
    tokenizer, video = stirred(variant="dual-branch", rates=(2, 4, 8)), noise(16)
    key, motion = tokenizer.encode(video, rate).z.chunk(2, dim=2)
    other_key, other_motion = tokenizer.encode(with_changed(video, frame), rate).z.chunk(2, dim=2)
    at = frame // rate
    same = [torch.equal(key[:, i], other_key[:, i]) for i in range(16 // rate)]
    assert same == [i != at or frame % rate != 0 for i in range(16 // rate)]
    assert not torch.equal(motion[:, at], other_motion[:, at])
    assert torch.equal(motion[:, :at], other_motion[:, :at])


def test_the_key_half_is_an_image_codec(stirred):
    tokenizer, video = stirred(variant="dual-branch"), noise(12)
    key = tokenizer.encode(video).z.chunk(2, dim=2)[0]
    pictures = [tokenizer.encode(video[:, :, i : i + 1]).z.chunk(2, dim=2)[0] for i in (0, 4, 8)]
    torch.testing.assert_close(key, torch.cat(pictures, dim=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", ["convolution", "block"])
def test_frames_of_a_group_see_each_other_in_both_directions_and_no_later_group(layer):
    torch.manual_seed(0)
    block, conv = HalvedBlock(8, (4,), "b"), GroupConv(8, 8, "c")
    x = torch.randn(1, 12, 8, 3, 3)

    def moved(frame: int) -> list[int]:
        y = x.clone()
        y[:, frame] += 1
        before, after = (block(v, 0, {}, {}) if layer == "block" else conv(v, 4, {}, {}) for v in (x, y))
        return [i for i in range(12) if not torch.equal(before[:, i, 4:], after[:, i, 4:])]

    assert moved(6) == [5, 6, 7]
    assert moved(4) == [4, 5], "the first of a group moves none of the group before"
    assert moved(7) == [6, 7, 8], "the last of a group moves the first of the next"


def test_a_group_convolution_goes_on_from_its_cache():
    conv = GroupConv(8, 8, "c").requires_grad_(False)
    x, caches, parts = torch.randn(1, 12, 8, 3, 3), {}, []
    for start in (0, 4, 8):
        after: dict = {}
        parts.append(conv(x[:, start : start + 4], 4, caches, after))
        caches = after
    torch.testing.assert_close(torch.cat(parts, dim=1), conv(x, 4, {}, {}), rtol=0, atol=1e-6)


def test_a_fresh_dual_branch_codes_a_still_clip_by_its_key_half_alone():
    tokenizer = Tokenizer(TokenizerConfig(variant="dual-branch")).requires_grad_(False)
    key, motion = tokenizer.encode(noise(1).expand(-1, -1, 16, -1, -1)).z.chunk(2, dim=2)
    assert key.abs().max() > 0.1 and motion.abs().max() < 1e-6


# grown-16x: ProMAG.


@pytest.mark.parametrize("rate", [8, 16])
def test_a_freshly_grown_tokenizer_codes_and_holds_every_second_or_fourth_frame(stirred, rate):
    base = stirred(variant="fixed-4x8x8")
    base.latent_mean.normal_()
    grown, every, video = grow(base), rate // 4, noise(48)
    keys = base.encode(video[:, :, ::every], 4, cuts=range(0, 48, 16 // every))
    latents = grown.encode(video, rate)
    torch.testing.assert_close(latents.z, keys.z, rtol=0, atol=1e-6)
    held = base.decode(keys).repeat_interleave(every, dim=2)
    torch.testing.assert_close(grown.decode(latents), held, rtol=0, atol=1e-5)


def test_a_grown_tokenizer_is_at_the_old_rates_what_it_grew_from(stirred):
    base, video = stirred(variant="fixed-4x8x8"), noise(37)
    grown = grow(base)
    before, after = base.encode(video, 4), grown.encode(video, 4)
    assert torch.equal(before.z, after.z) and torch.equal(base.decode(before), grown.decode(after))


def test_the_new_parts_alone_learn_while_the_trunk_stays(stirred):
    base, video = stirred(variant="fixed-4x8x8"), noise(32)
    grown = grow(base)
    module = TokenizerModule(grown.config, replace(SHORT, only_new=True), grown)
    kept = {name: weight.clone() for name, weight in base.state_dict().items()}
    (optimizer,), losses = module.configure_optimizers(), []
    for _ in range(4):
        loss, _, figures = module.loss(video, (16, 16), torch.Generator().manual_seed(0))
        losses.append(figures["loss"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = module.tokenizer.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in kept.items())
    new = set(after) - set(kept)
    assert set(module.tokenizer.new_parameters()) == new
    assert losses[-1] < losses[0]


def test_the_frames_between_reach_the_latent_once_the_new_parts_have_learned(stirred):
    tokenizer, video = stirred(variant="grown-16x"), noise(16)
    z, other = (tokenizer.encode(v, 16).z for v in (video, with_changed(video, 1)))
    fresh, other_fresh = (grow(stirred(variant="fixed-4x8x8")).encode(v, 16).z for v in (video, with_changed(video, 1)))
    assert not torch.equal(z, other) and torch.equal(fresh, other_fresh)


def test_what_cannot_be_grown_is_refused_with_the_remedy(stirred):
    with pytest.raises(ValueError, match=r"'adaptive' cannot be grown; train one of --model.variant fixed-4x8x8"):
        grow(stirred(rates=(4,)))
    with pytest.raises(ValueError, match="variant 'dual-branch'"):
        grow(stirred(variant="dual-branch"))


def test_training_grows_what_it_starts_from_and_refuses_another_configuration(stirred, clip_shards, tmp_path: Path):
    start = str(tmp_path / "start")
    save(stirred(variant="fixed-4x8x8"), start)
    settings_ = replace(SHORT, only_new=True, steps=3, passes=1)
    done = train(clip_shards, str(tmp_path / "a"), TokenizerConfig(variant="grown-16x"), settings_, start)
    old, new = load(start).state_dict(), load(done.model).state_dict()
    assert all(torch.equal(new[name], weight) for name, weight in old.items() if not name.startswith("latent_"))
    with pytest.raises(ValueError, match="cannot start one of"):
        train(clip_shards, str(tmp_path / "b"), TokenizerConfig(variant="dual-branch"), SHORT, start)
    with pytest.raises(ValueError, match="a dual-branch tokenizer has nothing new"):
        train(clip_shards, str(tmp_path / "c"), TokenizerConfig(variant="dual-branch"), settings_)


# structure-dynamics: VidTwin.


def twin_of(tokenizer: Tokenizer, video: torch.Tensor) -> Twin:
    return Twin.of(tokenizer.encode(video, scale="-1..1").z, tokenizer.config.margin)


def test_a_segment_has_one_structure_and_a_row_and_a_column_for_every_four_frames(stirred):
    tokenizer = stirred(variant="structure-dynamics")
    structure, rows, columns = twin_of(tokenizer, noise(40, 128, 96))
    assert structure.shape == (1, 3, 16, 16, 12)
    assert rows.shape == (1, 3, 16, 16, 4) and columns.shape == (1, 3, 16, 4, 12)
    cells = sum(part[0, 0, 0].numel() for part in (structure, rows, columns))
    assert cells == 16 * 12 + 4 * (16 + 12) < 0.4 * 4 * 16 * 12, "four latents of four frames each would take"


def test_the_corner_of_the_grid_carries_nothing(stirred):
    tokenizer, n = stirred(variant="structure-dynamics"), 4
    latents = tokenizer.encode(noise(16))
    assert not latents.z[..., -n:, -n:].any()
    filled = latents.z.clone()
    filled[..., -n:, -n:] = 7
    assert torch.equal(tokenizer.decode(latents), tokenizer.decode(replace(latents, z=filled)))


def test_dynamics_of_another_clip_change_what_is_seen_and_leave_the_structure(stirred):
    tokenizer = stirred(variant="structure-dynamics")
    one, other = (tokenizer.encode(noise(16, seed=seed)) for seed in (1, 2))
    a, b = (Twin.of(latents.z, 4) for latents in (one, other))
    swapped = replace(one, z=Twin(a.structure, b.rows, b.columns).grid())
    mixed = Twin.of(swapped.z, 4)
    assert torch.equal(mixed.structure, a.structure) and torch.equal(mixed.columns, b.columns)
    assert torch.equal(Twin(*a).grid(), one.z)
    seen = tokenizer.decode(swapped)
    assert not torch.equal(seen, tokenizer.decode(one)) and not torch.equal(seen, tokenizer.decode(other))


def test_a_still_clip_has_equal_dynamics_at_all_times_and_a_moving_one_has_not(stirred):
    tokenizer = stirred(variant="structure-dynamics")
    _, rows, columns = twin_of(tokenizer, noise(1).expand(-1, -1, 32, -1, -1))
    torch.testing.assert_close(rows, rows[:, :1, :, :, :1].expand_as(rows), rtol=0, atol=1e-5)
    torch.testing.assert_close(columns, columns[:, :1, :, :1].expand_as(columns), rtol=0, atol=1e-5)
    _, rows, columns = twin_of(tokenizer, noise(32))
    assert (rows[..., 1:] - rows[..., :-1]).abs().max() > 1e-2


def test_the_query_starts_as_the_mean_of_a_segment_and_learns_to_choose():
    query, x = TimeQuery(8).requires_grad_(False), torch.randn(1, 8, 8, 2, 2)
    torch.testing.assert_close(query(x, 4), x.unflatten(1, (2, 4)).mean(dim=2))
    query.query.normal_(std=30)
    query.value.weight.normal_()
    y = query.norm(x, 0)
    score = torch.einsum("c,bkncij->bknij", query.query, query.key(y[0])[None].unflatten(1, (2, 4)))
    chosen = (
        query.value(y[0])[None]
        .unflatten(1, (2, 4))
        .gather(2, score.argmax(2, keepdim=True).unsqueeze(3).expand(-1, -1, -1, 8, -1, -1))[:, :, 0]
    )
    sharp = TimeQuery(8).requires_grad_(False)
    sharp.load_state_dict({**query.state_dict(), "query": query.query * 1e4})
    torch.testing.assert_close(sharp(x, 4) - x.unflatten(1, (2, 4)).mean(dim=2), chosen)


def test_structure_and_dynamics_survive_the_latent_shards(stirred, clip_shards, tmp_path: Path):
    tokenizer = stirred(variant="structure-dynamics")
    save(tokenizer, str(tmp_path / "model"))
    shard = shards.read_manifest(clip_shards).shards[0].path
    info, failed = encode_shard(clip_shards, shard, str(tmp_path / "latents"), str(tmp_path / "model"))
    latents, facts = unpack(next(iter(shards.read_shard(f"{tmp_path}/latents/{shard}", ("npy", "json", "txt")))))
    assert info.samples == 5 and failed == []
    assert latents.z.shape == (1, len(facts["times_s"]), 16, *tokenizer.config.cells(facts["height"], facts["width"]))
    assert latents.lengths == segment_lengths(24, 16) and latents.z.shape[1] == 2
    assert tokenizer.decode(latents).shape == (1, 3, 24, facts["height"], facts["width"])
