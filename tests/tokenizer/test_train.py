from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from rushes.pipelines.store import shards, storage
from rushes.tokenizer import journal, loggers
from rushes.tokenizer import train as training
from rushes.tokenizer.config import TokenizerConfig, TrainConfig
from rushes.tokenizer.data import is_held, segments
from rushes.tokenizer.discriminator import Discriminator
from rushes.tokenizer.losses import FeatureDistance
from rushes.tokenizer.model import Tokenizer, load
from rushes.tokenizer.module import DivergenceError, TokenizerModule, judge_learning_rate, learning_rate
from rushes.tokenizer.train import ResumeError, Trained
from tests.tokenizer.conftest import excerpt

QUICK = TrainConfig(steps=6, batch=1, frames=17, side=32, feature=0, save_every=2, log_every=1, shuffle=4, warmup=2)
RICH = replace(QUICK, stages="image:1,4:2,8:2,decoder:1@48", gan=0.5, gan_from=2, holdout=0.22)
"""Every stage, a judge that joins late, clips held out: all that a resume must take up."""
MODEL = TokenizerConfig(rates=(4, 8))
"""What all of it is tried on: two rates are enough, and quicker."""


def train(root: str, out: str, model: TokenizerConfig = MODEL, *rest, **named) -> Trained:
    return training.train(root, out, model, *rest, **named)


class Killed(BaseException):
    """What a kill is to the training."""


def metrics(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "elapsed_s"} for line in lines]


def kill_at(step: int):
    def tell(done: int, total: int, of: str, figures: Mapping[str, float]) -> None:
        if (done, of) == (step, "steps"):
            raise Killed

    return tell


@pytest.mark.parametrize("settings", [QUICK, replace(RICH, workers=2)], ids=["plain", "rich, two workers"])
def test_a_killed_training_ends_with_the_same_weights_and_losses_as_an_uninterrupted_one(
    clip_shards, tmp_path, settings
):
    whole = train(clip_shards, str(tmp_path / "whole"), settings=settings)
    for step in (1, 3, 5):
        with pytest.raises(Killed):
            train(clip_shards, str(tmp_path / "killed"), settings=settings, tell=kill_at(step))
    again = train(clip_shards, str(tmp_path / "killed"), settings=settings)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    assert again.fingerprint == whole.fingerprint and again.steps == 6


def test_a_short_training_learns_a_clip_by_heart_at_the_loss_it_is_trained_for(bunny, write_clips, tmp_path):
    root = write_clips({"bunny": excerpt(bunny, 40, 16, 48, 48)})
    settings = replace(QUICK, steps=80, frames=16, side=48, feature=0.1, lr=2e-3, warmup=10, ema=0.9, save_every=80)
    done = train(root, str(tmp_path), settings=settings)
    clips = shards.pipeline(root, members=("mp4",))
    videos = [next(segments(sample["mp4"], 16))[1] for sample in clips]
    feature = FeatureDistance()

    def loss(tokenizer: Tokenizer, rate: int) -> float:
        pairs = [(tokenizer.decode(tokenizer.encode(video, rate)), video) for video in videos]
        frames = [[x[0].transpose(0, 1)[::5].contiguous() for x in pair] for pair in pairs]
        return float(sum((a - b).abs().mean() for a, b in pairs) + 0.1 * sum(feature(a, b) for a, b in frames))

    trained, fresh = load(done.model, expect=done.fingerprint), Tokenizer(MODEL).requires_grad_(False)
    for rate in (4, 8):
        before, after = loss(fresh, rate), loss(trained, rate)
        assert after < 0.9 * before, (rate, before, after)


def test_a_training_leaves_a_curve_and_strips(clip_shards, tmp_path):
    done = train(clip_shards, str(tmp_path), settings=replace(QUICK, steps=2, batch=2, side=48, feature=0.1, passes=3))
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["feature"] > 0 and line["psnr_rate_4"] > 10 and line["psnr_rate_8"] > 10 for line in lines)
    assert Image.open(tmp_path / "strips" / "final.png").size == (6 * 48, 3 * 48)
    assert set(done.psnr) == {"4", "8"}


def test_a_finished_training_is_not_repeated_and_another_one_is_refused_its_folder(clip_shards, tmp_path):
    settings = replace(QUICK, steps=2)
    done = train(clip_shards, str(tmp_path), settings=settings)
    weights = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    assert train(clip_shards, str(tmp_path), settings=settings).fingerprint == done.fingerprint
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == weights
    with pytest.raises(ResumeError, match=r"other settings \(model.channels 16, not 8\)"):
        train(clip_shards, str(tmp_path), replace(MODEL, channels=8), settings)


def test_training_goes_on_from_a_saved_model(clip_shards, tmp_path):
    first = train(clip_shards, str(tmp_path / "first"), settings=QUICK)
    still = replace(QUICK, steps=1, lr=0.0)
    second = train(clip_shards, str(tmp_path / "second"), settings=still, start=first.model)
    a, b = load(first.model).state_dict(), load(second.model).state_dict()
    assert all((a[name] == b[name]).all() for name in a if not name.startswith("latent_"))


def test_training_into_an_object_store_is_refused_with_the_remedy(clip_shards):
    with pytest.raises(ValueError, match="local folder"):
        train(clip_shards, "s3://bucket/run")


# ---------------------------------------------------------------------------------------------------- stages and growth


def test_a_stage_reads_its_own_clips_and_trains_its_own_rates(clip_shards, tmp_path, monkeypatch):
    seen = []
    step = TokenizerModule.training_step

    def spy(module, batch, index):
        before = {name: weight.clone() for name, weight in module.tokenizer.state_dict().items()}
        gains = "encoder.norm.by_rate"
        step(module, batch, index)
        moved = {
            name for name, weight in module.tokenizer.state_dict().items() if not torch.equal(weight, before[name])
        }
        higher = not torch.equal(module.tokenizer.state_dict()[gains][1], before[gains][1])
        seen.append((tuple(batch["video"].shape[2:]), {name.split(".")[0] for name in moved}, higher))

    monkeypatch.setattr(TokenizerModule, "training_step", spy)
    train(clip_shards, str(tmp_path), settings=replace(RICH, gan=0, passes=3))
    assert [shape for shape, _, _ in seen] == [(1, 32, 32), *[(17, 32, 32)] * 4, (17, 48, 48)]
    assert [higher for _, _, higher in seen] == [False, False, False, True, True, False]  # rate 8, the encoder's
    assert "encoder" in seen[4][1] and seen[5][1] == {"decoder"}


@pytest.mark.parametrize(
    ("stages", "words"),
    [("4:2,16:2", r"names rate 16, but the tokenizer has \[4, 8\]"), ("image:1,4:2", r"never trains rates \[8\]")],
)
def test_a_stage_with_a_rate_that_the_model_lacks_or_none_for_one_that_it_has_is_refused(
    clip_shards, tmp_path, stages, words
):
    with pytest.raises(ValueError, match=words):
        train(clip_shards, str(tmp_path / "out"), settings=replace(QUICK, stages=stages))
    assert not (tmp_path / "out").exists()


def test_a_decoder_only_stage_moves_no_latent_and_sharpens_the_decoder(clip_shards, tmp_path, clip_bytes):
    first = train(clip_shards, str(tmp_path / "first"), settings=QUICK)
    frozen = replace(QUICK, stages="decoder:2@48,decoder:1@64")
    second = train(clip_shards, str(tmp_path / "second"), settings=frozen, start=first.model)
    before, after = load(first.model), load(second.model)
    _, video = next(segments(clip_bytes, 37))
    for rate in (4, 8):
        latents = before.encode(video, rate)
        assert torch.equal(latents.z, after.encode(video, rate).z)
        assert not torch.equal(before.decode(latents), after.decode(latents))
    assert torch.equal(before.latent_mean, after.latent_mean) and torch.equal(before.latent_std, after.latent_std)


def test_the_latents_of_a_decoder_only_stage_are_those_of_the_model_that_is_saved(clip_shards, tmp_path, clip_bytes):
    settings = replace(QUICK, steps=1, stages="8:2,decoder:2@48", save_every=3)
    with pytest.raises(Killed):
        train(clip_shards, str(tmp_path), settings=settings, tell=kill_at(4))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    done = train(clip_shards, str(tmp_path), settings=settings)
    final = load(done.model).state_dict()
    kept = [name for name in final if name.startswith(("encoder.", "coarse_in.", "latent_"))]
    for name in kept:
        assert torch.equal(saved[f"average.{name}"], final[name]) and torch.equal(
            saved[f"tokenizer.{name}"], final[name]
        )
    assert not torch.equal(final["latent_std"], torch.ones(16))


def test_a_model_with_one_more_rate_goes_on_from_one_with_fewer(clip_shards, tmp_path, clip_bytes):
    small = train(clip_shards, str(tmp_path / "small"), TokenizerConfig(rates=(4,)), QUICK)
    still = replace(QUICK, stages="4:1,8:1", lr=0.0)
    large = train(clip_shards, str(tmp_path / "large"), MODEL, still, start=small.model)
    _, video = next(segments(clip_bytes, 37))
    a, b = (load(done.model).posterior(video, (4, 4, 4))[0] for done in (small, large))
    assert torch.equal(a, b)
    with pytest.raises(ValueError, match="only higher rates may be added"):
        train(clip_shards, str(tmp_path / "other"), TokenizerConfig(rates=(4, 8), channels=8), still, start=small.model)


# ----------------------------------------------------------------------------------------------- the judge, the average


def test_the_discriminator_does_not_run_before_its_start_and_is_in_the_checkpoint(clip_shards, tmp_path, monkeypatch):
    passes = []
    forward = Discriminator.forward
    monkeypatch.setattr(Discriminator, "forward", lambda self, x: passes.append(len(x)) or forward(self, x))
    settings = replace(QUICK, steps=3, gan=0.5, gan_from=2, save_every=1)
    train(clip_shards, str(tmp_path), settings=settings, tell=lambda done, *_: passes.append(-done))
    assert passes[:3] == [0, -1, -2] and passes[3:] == [1] * 5 + [
        -3
    ]  # two rates: each judged, then again with the real one
    lines = metrics(tmp_path)
    assert "gan" not in lines[1] and lines[2]["gan_weight"] > 0 and 0 < lines[2]["discriminator"] < 2
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert any(name.startswith("discriminator.") for name in saved["state_dict"])
    assert len(saved["optimizer_states"]) == 2 and saved["optimizer_states"][1]["state"][0]["step"] == 1


def test_the_average_is_saved_exactly_and_trained_by_nothing(clip_shards, tmp_path):
    with pytest.raises(Killed):
        train(clip_shards, str(tmp_path), settings=QUICK, tell=kill_at(3))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    module = TokenizerModule(MODEL, QUICK)
    module.load_state_dict(saved["state_dict"])
    for name, weight in module.average.state_dict().items():
        assert torch.equal(weight, saved["state_dict"][f"average.{name}"])
    assert not any(p.requires_grad for p in module.average.parameters())
    trained = {
        id(p) for optimizer in module.configure_optimizers() for g in optimizer.param_groups for p in g["params"]
    }
    assert trained == {id(p) for p in module.tokenizer.parameters()}
    lagging = (
        saved["state_dict"]["average.encoder.leave.weight"],
        saved["state_dict"]["tokenizer.encoder.leave.weight"],
    )
    assert not torch.equal(*lagging) and float(lagging[0].abs().sum()) > 0


# --------------------------------------------------------------------------------------------- what is held out, curves


def test_held_out_clips_are_never_trained_on_and_are_measured_at_each_save(clip_shards, tmp_path, monkeypatch):
    keys = set()
    step = TokenizerModule.training_step
    monkeypatch.setattr(
        TokenizerModule, "training_step", lambda module, batch, i: keys.update(batch["keys"]) or step(module, batch, i)
    )
    done = train(clip_shards, str(tmp_path), settings=replace(QUICK, holdout=0.3, feature=0.1))
    every = {sample["__key__"] for sample in shards.pipeline(clip_shards, members=("json",))}
    held = {key for key in every if is_held(key, 0.3)}
    assert held and keys == every - held and done.held_out
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines if "held_psnr_rate_8" in line] == [2, 4, 6]
    assert all(line["held_l1"] > 0 and "held_feature" in line for line in lines if "held_psnr_rate_8" in line)
    assert done.psnr["4"] == pytest.approx(lines[-1]["held_psnr_rate_4"], abs=0.05)  # but for the norm of the latents
    text = (tmp_path / "curves.svg").read_text()
    assert text.count("held-out clips") >= 3 and "Curve of held_l1" not in text and "held out" in text


def test_the_curves_are_drawn_as_the_training_goes_on(clip_shards, tmp_path):
    drawn = []

    def look(done: int, *_) -> None:
        path = tmp_path / "curves.svg"
        drawn.append(path.read_text().count("Curve of ") if path.exists() else 0)

    train(clip_shards, str(tmp_path), settings=QUICK, tell=look)
    _, *drawn = drawn  # told before the first step, too
    assert drawn[0] == 0 and drawn[1] == drawn[2] > 0 and drawn[5] >= drawn[1]
    text = (tmp_path / "curves.svg").read_text()
    assert text.startswith("<svg") and "Curve of psnr_rate_4" in text and "step 6" in text


# --------------------------------------------------------------------------------------------- loggers, the optimizer


def test_a_csv_logger_gets_the_lines_of_the_metrics_also_after_a_kill(clip_shards, tmp_path):
    settings = replace(QUICK, steps=4, logger="csv")
    with pytest.raises(Killed):
        train(clip_shards, str(tmp_path), settings=settings, tell=kill_at(3))
    train(clip_shards, str(tmp_path), settings=replace(settings, logger="csv"))
    versions = [
        list(csv.DictReader(path.read_text().splitlines())) for path in sorted(tmp_path.glob("logs/*/metrics.csv"))
    ]
    assert [[int(row["step"]) for row in rows] for rows in versions] == [[1, 2, 3], [3, 4]]
    logged = {int(row["step"]): row for row in itertools.chain(*versions)}
    for line in metrics(tmp_path):
        shown = {name: float(value) for name, value in logged[line["step"]].items() if value and name != "epoch"}
        assert shown == pytest.approx(line)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_is_refused_before_anything_is_written(clip_shards, tmp_path, monkeypatch, name):
    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=rf"logger={name} needs the package {name}, .*`pip install {name}`"):
        train(clip_shards, str(tmp_path / "out"), settings=replace(QUICK, logger=name))
    assert not (tmp_path / "out").exists()


def test_a_tensorboard_logger_writes_its_events_and_goes_on_in_the_same_folder(clip_shards, tmp_path):
    if not any(map(find_spec, loggers.PACKAGES["tensorboard"])):
        pytest.skip("neither tensorboard nor tensorboardX is installed")
    settings = replace(QUICK, steps=4, logger="tensorboard")
    with pytest.raises(Killed):
        train(clip_shards, str(tmp_path), settings=settings, tell=kill_at(3))
    train(clip_shards, str(tmp_path), settings=settings)
    events = [path.read_bytes() for path in (tmp_path / "logs").glob("events.*")]
    assert len(events) == 2 and all(b"psnr_rate_4" in content for content in events)


def test_a_run_of_wandb_is_over_when_the_training_is_even_if_it_was_killed(clip_shards, tmp_path, monkeypatch):
    if not any(map(find_spec, loggers.PACKAGES["wandb"])):
        pytest.skip("wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = replace(QUICK, steps=4, logger="wandb")
    with pytest.raises(Killed):
        train(clip_shards, str(tmp_path), settings=settings, tell=kill_at(3))
    train(clip_shards, str(tmp_path), settings=settings)
    runs = {path.stem for path in (tmp_path / "logs").rglob("run-*.wandb")}
    assert len(runs) == 1, "a resumed training goes on in the same run"


def test_a_fused_adamw_steps_as_a_plain_one_within_rounding():
    modules = [TokenizerModule(MODEL, QUICK) for _ in range(2)]
    modules[1].load_state_dict(modules[0].state_dict())
    (fused,), (plain,) = (module.configure_optimizers() for module in modules)
    assert all(group["fused"] for group in fused.param_groups)
    for group in plain.param_groups:
        group["fused"], group["foreach"] = False, False
    dice = torch.Generator().manual_seed(0)
    for _ in range(5):
        for one, other in zip(*(module.tokenizer.parameters() for module in modules), strict=True):
            one.grad = torch.randn(one.shape, generator=dice)
            other.grad = one.grad.clone()
        fused.step(), plain.step()
    for one, other in zip(*(module.tokenizer.parameters() for module in modules), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_judge_has_a_learning_rate_and_a_warm_up_of_its_own(clip_shards, tmp_path):
    settings = replace(QUICK, steps=4, gan=0.5, gan_from=1, gan_lr=4e-3)
    assert [judge_learning_rate(step, settings) for step in (1, 2, 3)] == [2e-3, 4e-3, 4e-3]
    assert judge_learning_rate(3, replace(settings, gan_lr=0)) == settings.lr
    train(clip_shards, str(tmp_path), settings=settings)
    states = torch.load(tmp_path / "last.ckpt", weights_only=True)["optimizer_states"]
    assert [state["param_groups"][0]["lr"] for state in states] == [learning_rate(3, settings), 4e-3]


def test_weights_of_lpips_that_do_not_fit_are_refused_before_anything_is_written(clip_shards, tmp_path):
    with pytest.raises(ValueError, match="no backbone and no linear weights of LPIPS"):
        train(clip_shards, str(tmp_path / "out"), settings=replace(QUICK, feature=0.1, lpips=str(tmp_path)))
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------ what goes wrong


def test_a_full_disk_is_one_clear_error_and_the_same_command_goes_on(clip_shards, tmp_path, monkeypatch):
    whole = train(clip_shards, str(tmp_path / "whole"), settings=QUICK)
    out, sync, full = tmp_path / "full", os.fsync, []

    def fsync(handle: int) -> None:
        if "last.ckpt" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            full.append(handle)
            if len(full) == 2:
                raise OSError(28, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(
        storage.StorageError, match=r"cannot write .*last\.ckpt: no space left; free some space and run"
    ):
        train(clip_shards, str(out), settings=QUICK)
    assert torch.load(out / "last.ckpt", weights_only=True)["rushes"]["steps_done"] == 2
    assert not list(out.glob(".*.part"))
    assert train(clip_shards, str(out), settings=QUICK).fingerprint == whole.fingerprint
    assert metrics(out) == metrics(tmp_path / "whole")


def test_metrics_that_cannot_be_written_name_the_file(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(storage.StorageError, match=r"metrics\.jsonl: No space left on device; free some space"):
        journal.Journal(tmp_path, [], False, None)._append("{}\n")


def test_a_loss_that_is_no_number_stops_and_names_step_and_last_good_checkpoint(clip_shards, tmp_path, monkeypatch):
    loss = TokenizerModule.loss

    def spoilt(module, *args):
        found, again, figures = loss(module, *args)
        return found * (float("nan") if module.steps_done == 4 else 1.0), again, figures

    monkeypatch.setattr(TokenizerModule, "loss", spoilt)
    with pytest.raises(DivergenceError, match=r"loss is nan at step 5; .*last\.ckpt of step 4; lower lr"):
        train(clip_shards, str(tmp_path), settings=QUICK)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert all(weight.isfinite().all() for weight in saved["state_dict"].values())


def test_a_gradient_that_is_no_number_stops_before_it_reaches_a_weight(clip_shards, tmp_path, monkeypatch):
    loss = TokenizerModule.loss

    def spoilt(module, *args):
        found, again, figures = loss(module, *args)
        last = module.tokenizer.decoder.leave.weight.sum()
        return found + (last * 0).sqrt(), again, figures  # finite, its slope is not

    monkeypatch.setattr(TokenizerModule, "loss", spoilt)
    with pytest.raises(DivergenceError, match="gradient is nan at step 1; none is saved"):
        train(clip_shards, str(tmp_path), settings=QUICK)


def test_a_checkpoint_that_is_damaged_or_of_another_size_is_refused(clip_shards, tmp_path):
    with pytest.raises(Killed):
        train(clip_shards, str(tmp_path), settings=QUICK, tell=kill_at(3))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ResumeError, match=r"of another size: .* use the settings .* or remove .*last\.ckpt"):
        train(clip_shards, str(tmp_path), TokenizerConfig(channels=8), QUICK)
    (tmp_path / "config.json").unlink()
    content = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ResumeError, match="is damaged or no checkpoint"):
        train(clip_shards, str(tmp_path), settings=QUICK)


def test_shards_without_video_are_refused_before_anything_is_trained(write_clips, tmp_path):
    with pytest.raises(ValueError, match="no clip that can be decoded"):
        train(write_clips({"one": b"text"}), str(tmp_path), settings=QUICK)
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("devices", "precision", "words"),
    [(1, "32-true", "there is one; give devices=2"), (2, "16-mixed", "bfloat16, which this one lacks")],
)
def test_a_model_that_cannot_be_sharded_here_is_refused(clip_shards, tmp_path, monkeypatch, devices, precision, words):
    monkeypatch.setattr(training, "precision", lambda: precision)
    with pytest.raises(ValueError, match=words):
        train(clip_shards, str(tmp_path / "out"), settings=replace(QUICK, strategy="fsdp", devices=devices))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("gpu", "bf16", "amx", "expected"),
    [
        (False, True, False, "32-true"),
        (False, True, True, "bf16-mixed"),
        (True, True, False, "bf16-mixed"),
        (True, False, True, "16-mixed"),
    ],
)
def test_the_precision_is_what_the_hardware_has(monkeypatch, gpu, bf16, amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 and not including_emulation)
    assert training.precision() == expected


@pytest.mark.parametrize(
    ("gpu", "cudnn", "gan", "warned"),
    [(True, 91002, 0.5, True), (True, 91501, 0.5, False), (True, 91002, 0.0, False), (False, 91002, 0.5, False)],
)
def test_a_cudnn_whose_conv3d_is_broken_is_warned_of_where_one_is_used(monkeypatch, caplog, gpu, cudnn, gan, warned):
    module = TokenizerModule(MODEL, replace(QUICK, gan=gan))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: cudnn)
    training._warn_of_conv3d(module)
    assert ("cuDNN 9.10.2 has no usable" in caplog.text) == warned


def test_a_strip_shows_the_picture_and_every_rate(stirred, tmp_path):
    journal.write_strip(stirred(rates=(2, 4, 8)), torch.zeros(2, 3, 9, 16, 24, dtype=torch.uint8), tmp_path / "s.png")
    assert Image.open(tmp_path / "s.png").size == (6 * 24, 4 * 16)
