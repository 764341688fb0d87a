"""The face of diffusers' VAEs over our tokenizer and over the frozen ones."""

from __future__ import annotations

import pytest
import torch

from rushes.tokenizer.codec import load
from rushes.tokenizer.frozen import FrozenTokenizer
from rushes.tokenizer.model import save
from rushes.tokenizer.vae import Posterior, VideoVAE


def noise(frames: int, side: int = 32) -> torch.Tensor:
    return torch.rand(1, 3, frames, side, side, generator=torch.Generator().manual_seed(frames)) * 2 - 1


@pytest.fixture
def ours(stirred) -> VideoVAE:
    return VideoVAE(stirred(), 8)


@pytest.fixture(params=["ours", "wan", "wan_22", "hunyuan"])
def vae(request, ours) -> VideoVAE:
    if request.param == "ours":
        return ours
    return VideoVAE(FrozenTokenizer(request.getfixturevalue(f"small_{request.param}")))


@pytest.mark.parametrize("latents", [1, 2, 7])
def test_as_many_latents_and_frames_as_generators_expect(vae, latents):
    video = noise(1 + vae.config.scale_factor_temporal * (latents - 1))
    z = vae.encode(video).latent_dist.mode()
    side = 32 // vae.config.scale_factor_spatial
    assert z.shape == (1, vae.config.z_dim, latents, side, side)
    (again,) = vae.decode(z, return_dict=False)
    assert again.shape == video.shape and again.abs().max() <= 1


def test_the_statistics_norm_the_latents_to_those_of_the_tokenizer(vae):
    video = noise(9)
    z = vae.encode(video).latent_dist.mode()
    mean, std = (torch.tensor(x)[:, None, None, None] for x in (vae.config.latents_mean, vae.config.latents_std))
    cuts = {} if isinstance(vae.tokenizer, FrozenTokenizer) else {"cuts": [1]}
    latents = vae.tokenizer.encode(video, vae.rate, **cuts)
    torch.testing.assert_close((z - mean) / std, latents.z.transpose(1, 2))
    torch.testing.assert_close(vae.decode(z).sample, vae.tokenizer.decode(latents).clamp(-1, 1), rtol=0, atol=2e-5)


def test_a_sample_is_drawn_from_the_posterior_and_the_seed_decides_it():
    posterior = Posterior(mean=torch.full((1, 2, 50, 8, 8), 3.0), logvar=torch.full((1, 2, 50, 8, 8), -2.0))
    one, two = (posterior.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1))
    assert torch.equal(one, two) and not torch.equal(one, posterior.sample(torch.Generator().manual_seed(2)))
    assert float(one.mean()) == pytest.approx(3, abs=0.02) and float(one.std()) == pytest.approx(0.3679, abs=0.01)
    torch.testing.assert_close(posterior.std.square(), posterior.var)


def test_it_is_loaded_by_name(stirred, tmp_path, wan_folder):
    save(stirred(), str(tmp_path / "model"))
    ours = VideoVAE.from_pretrained(str(tmp_path), "model", rate=4)
    theirs = VideoVAE.from_pretrained(f"wan:{wan_folder}", torch_dtype=torch.bfloat16)
    assert (ours.config.scale_factor_spatial, ours.dtype) == (8, torch.float32)
    assert (theirs.config.scale_factor_spatial, theirs.dtype) == (16, torch.bfloat16)
    assert ours.temporal_compression_ratio == theirs.temporal_compression_ratio == 4


@pytest.mark.parametrize(("frames", "side"), [(8, 32), (9, 20)])
def test_what_generators_would_not_expect_is_refused(ours, frames, side):
    with pytest.raises(ValueError, match=r"1 \+ 8·n frames and sides in multiples of 8"):
        ours.encode(noise(frames, side))


def test_a_rate_that_the_tokenizer_does_not_have_is_refused(wan_folder):
    with pytest.raises(ValueError, match=r"rate=8 .* has \[4\]"):
        VideoVAE.from_pretrained(f"wan:{wan_folder}", rate=8)


def test_a_pipeline_of_diffusers_takes_ours_as_it_is():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16, text_dim=32, freq_dim=32,
        ffn_dim=32, num_layers=1, rope_max_seq_len=32,
    )  # fmt: skip
    scheduler = diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    pipe = diffusers.WanPipeline(
        vae=VideoVAE(load("shipped")), transformer=transformer, scheduler=scheduler, text_encoder=None, tokenizer=None
    )
    pipe.set_progress_bar_config(disable=True)
    words = torch.randn(1, 8, 32)
    made = pipe(
        prompt_embeds=words, negative_prompt_embeds=-words, num_frames=17, height=32, width=48, num_inference_steps=2,
        output_type="np",
    )  # fmt: skip
    assert made.frames.shape == (1, 17, 32, 48, 3)
