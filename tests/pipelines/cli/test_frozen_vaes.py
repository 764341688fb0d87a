"""Others' frozen VAEs through the command line, on the small run: latents, a DiT, reconstruction, evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import pytest
import torch

from rushes.pipelines.cli.main import main
from rushes.pipelines.stages.latents.latents import unpack
from rushes.pipelines.store import shards
from rushes.tokenizer.codec import load
from tests.tokenizer.conftest import STATISTICS, wan_22, write_wan

pytestmark = pytest.mark.usefixtures("one_process")
FAST = ["--steps", "1", "--tokens", "512", "--warmup", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def wan(tmp_path_factory) -> str:
    return f"wan:{write_wan(wan_22(), tmp_path_factory.mktemp('wan'))}"


@pytest.fixture(scope="module")
def run(undisturbed, tmp_path_factory) -> str:
    """A copy of the small run."""
    root = tmp_path_factory.mktemp("frozen") / "run"
    shutil.copytree(undisturbed, root)
    return str(root)


def clips_of(run: str) -> list:
    return [unpack(sample) for sample in shards.pipeline(f"{run}/latents/default", members=("npy", "json"))]


def test_latents_of_a_wan_vae_name_it_and_a_dit_takes_them_or_ours_but_not_both(run, wan, tmp_path, capsys):
    theirs, ours = str(tmp_path / "theirs"), str(tmp_path / "ours")
    assert main(["latents", run, "--tokenizer", "shipped", "--side_px", "32", "--share", "0"]) == 0
    assert {facts["tokenizer"] for _, facts in clips_of(run)} == {"rushes"}
    assert main(["dit", "train", run, "--out", ours, *FAST]) == 0
    measured = ["--side_px", "32", "--share", "0.5", "--allocation", "measured"]
    assert main(["latents", run, "--tokenizer", wan, *measured]) == 0
    capsys.readouterr()
    assert main(["dit", "train", run, "--out", ours, *FAST]) == 2
    told = capsys.readouterr().err
    assert "knows the latents of the tokenizer rushes" in told and "are those of wan-2.2" in told
    found, tokenizer = clips_of(run), load(wan)
    assert found
    for latents, facts in found:
        assert facts["tokenizer"] == "wan-2.2" and facts["fingerprint"] == tokenizer.fingerprint()
        assert facts["latents_mean"] == pytest.approx(STATISTICS["latent_mean"])
        assert facts["latents_std"] == pytest.approx(STATISTICS["latent_std"])
        frames, height, width = facts["frames"], facts["height"], facts["width"]
        assert latents.lengths == tokenizer.lengths(frames) and set(latents.rates) <= {4, 8, 16}
        most = len(tokenizer.encode(torch.zeros(1, 3, frames, 16, 16) - 1).z[0])
        assert latents.z.shape[1:] == (len(facts["times_s"]), 4, -(-height // 16), -(-width // 16))
        assert latents.z.shape[1] <= most * 0.5 or set(latents.rates[1:]) == {16}
        assert facts["times_s"][0] == 0 and facts["times_s"] == sorted(facts["times_s"])
        assert tokenizer.decode(latents).shape == (1, 3, frames, height, width)

    assert main(["dit", "train", run, "--out", theirs, *FAST]) == 0
    film = str(tmp_path / "clip.mp4")
    sampled = ["dit", "sample", run, "--dit", f"{theirs}/model", "--seconds", "0.5", "--steps", "1", "--out", film]
    assert main([*sampled, "--tokenizer", wan]) == 0
    with av.open(film) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 5
    capsys.readouterr()
    assert main([*sampled, "--tokenizer", "shipped"]) == 2
    assert "knows the latents of the tokenizer wan-2.2" in capsys.readouterr().err


def test_a_video_is_reconstructed_and_judged_through_a_wan_vae(run, wan, tmp_path, capsys, monkeypatch):
    out = str(tmp_path / "side-by-side.mp4")
    common = ["tokenizer", "reconstruct", run, "--tokenizer", wan, "--side_px", "48", "--out", out]
    for budget, rates in (([], {4}), (["--share", "0.5"], {4, 8, 16})):
        assert main([*common, *budget]) == 0
        done = json.loads(capsys.readouterr().out)
        assert set(done["rates"]) <= rates and done["psnr"] > 3
        with av.open(out) as container:
            assert sum(1 for _ in container.decode(video=0)) == done["frames"]
    monkeypatch.chdir(tmp_path)
    assert main(["tokenizer", "eval", wan, run, "--clips", "1", "--side_px", "32", "--max_seconds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["by_rate"]) == {"4", "8", "16"} and Path("eval/rate-distortion.svg").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["latents", "RUN", "--tokenizer", "wan:absent.pth"], "wan:absent.pth: there is no file absent.pth; get "),
        (["latents", "RUN", "--tokenizer", "hunyuan:EMPTY"], "holds none of diffusion_pytorch_model.safetensors"),
        (["tokenizer", "eval", "wan:EMPTY", "RUN"], "`hf download Wan-AI/Wan2.2-TI2V-5B Wan2.2_VAE.pth"),
        (["latents", "RUN", "--tokenizer", "WAN", "--allocation", "predicted"], "a frozen VAE cannot tell"),
        (["tokenizer", "train", "RUN", "--start", "WAN"], "is a frozen VAE"),
    ],
)
def test_what_is_missing_or_cannot_be_is_told_with_the_remedy(run, wan, tmp_path, capsys, command, said):
    names = {"RUN": run, "WAN": wan, "EMPTY": str(tmp_path)}
    words = []
    for word in command:
        for name, meant in names.items():
            word = word.replace(name, meant) if word.endswith(name) else word
        words.append(word)
    assert main(words) == 2
    assert said in capsys.readouterr().err
