from __future__ import annotations

import json
import logging
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from rushes.dit.config import TrainConfig
from rushes.dit.data import Packs
from rushes.dit.index import read_index
from rushes.dit.model import Condition, load
from rushes.dit.module import FlowModule, ema_exponent, thinned
from rushes.dit.plan import fixed, windows
from rushes.dit.statistics import statistics
from rushes.dit.text import Embedded, embed_ahead
from rushes.dit.train import _steps_done, _trainer, train
from rushes.pipelines.progress import Reporter
from rushes.tokenizer.module import DivergenceError

FAST = TrainConfig(steps=6, tokens=40, log_every=1, save_every=3, warmup=2, device="cpu")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load(str(run / "model"))[0].state_dict()


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_ends_with_the_weights_and_losses_of_an_uninterrupted_one(latents, tmp_path):
    train(FAST, latents, str(tmp_path / "whole"))
    train(replace(FAST, steps=4), latents, str(tmp_path / "resumed"))
    train(FAST, latents, str(tmp_path / "resumed"))
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    losses = [[(line["step"], line["loss"]) for line in metrics(tmp_path / run)] for run in ("whole", "resumed")]
    assert losses[0] == losses[1] and [step for step, _ in losses[0]] == [1, 2, 3, 4, 5, 6]


def test_a_killed_run_goes_on_from_its_last_checkpoint(latents, tmp_path, monkeypatch):
    train(FAST, latents, str(tmp_path / "whole"))

    class Killed(BaseException):
        pass

    def kill_at_5(self, *rest) -> torch.Tensor:
        if self.global_step == 5:
            raise Killed
        return original(self, *rest)

    original = FlowModule.training_step
    monkeypatch.setattr(FlowModule, "training_step", kill_at_5)
    with pytest.raises(Killed):
        train(FAST, latents, str(tmp_path / "killed"))
    monkeypatch.undo()
    train(FAST, latents, str(tmp_path / "killed"))
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert [line["step"] for line in metrics(tmp_path / "killed")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_no_number_is_not_taken_and_its_clips_are_named(latents, tmp_path, monkeypatch, what):
    met = []

    def broken(self, batch, *rest) -> torch.Tensor:
        loss = original(self, batch, *rest)
        if self.global_step == 4 and not met:
            met.extend({ticket.clip for ticket in batch.tickets})
            if what == "gradient":
                loss.register_hook(lambda gradient: gradient * torch.nan)
            else:
                self.taken[-1][0].fill_(False)
        return loss

    original = FlowModule.training_step
    monkeypatch.setattr(FlowModule, "training_step", broken)
    with pytest.raises(DivergenceError, match=r"no number at step 5.*last checkpoint stands.*lower lr") as told:
        train(replace(FAST, packs=2, save_every=2), latents, str(tmp_path))
    assert set(re.findall(r"[0-9a-f]{16}-\d+", str(told.value))) == (set(met) if what == "loss" else set())
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2, 3, 4]
    assert not (tmp_path / ".failed").exists(), "of what several processes tell one another"
    assert _steps_done(tmp_path / "checkpoint.ckpt") == 4 and load(str(tmp_path / "model"))[1]["step"] == 4


def test_a_learning_rate_beyond_all_bounds_ends_the_training_at_that_step(latents, tmp_path):
    with pytest.raises(DivergenceError, match=r"the loss of a pack with the clips? .* is no number at step 2"):
        train(replace(FAST, lr=1e30), latents, str(tmp_path))


def test_a_training_is_never_silent_and_tells_every_step(latents, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "rushes")
    told, original = [], FlowModule.training_step

    def steps() -> list[tuple]:
        return [words for words in told if words[2] == "steps"]

    def slow_third(self, *rest):
        end = time.monotonic() + 10
        while len(steps()) == 3 and "2/6 steps" not in caplog.text:
            assert time.monotonic() < end, "silent"
            time.sleep(0.005)
        return original(self, *rest)

    monkeypatch.setattr(FlowModule, "training_step", slow_third)
    with Reporter(live=False, every_s=0.01).work("dit") as beat:
        train(FAST, latents, str(tmp_path), lambda *words: told.append(words) or beat.tell(*words))
    assert [words[:3] for words in steps()] == [(step, 6, "steps") for step in range(7)]
    losses = [line["loss"] for line in metrics(tmp_path)]
    assert [words[3]["loss"] for words in steps()[1:]] == losses
    assert re.fullmatch(rf"dit       6/6 steps, loss {losses[-1]:.4g}, .*", caplog.messages[-1])


def test_a_finished_run_does_nothing_when_asked_again(latents, tmp_path):
    train(FAST, latents, str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("model/*")}
    train(FAST, latents, str(tmp_path))
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("model/*")}
    assert len(metrics(tmp_path)) == 6
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "model")
    train(replace(FAST, steps=2), latents, str(tmp_path))
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before, "a model that is gone is made again"
    assert json.loads((tmp_path / "train.json").read_text())["steps"] == FAST.steps, "as many as the model has seen"


def test_a_folder_with_another_config_is_refused(latents, tmp_path):
    train(replace(FAST, steps=1), latents, str(tmp_path))
    with pytest.raises(ValueError, match=r"other settings \(drop_condition\)"):
        train(replace(FAST, drop_condition=0.5), latents, str(tmp_path))
    record = json.loads((tmp_path / "train.json").read_text())
    del record["train"]["optimizer"], record["train"]["model"]["streams"]  # as before there were others
    (tmp_path / "train.json").write_text(json.dumps(record))
    older = {**record, "train": {name: value for name, value in record["train"].items() if name != "uniform"}}
    (tmp_path / "train.json").write_text(json.dumps(older))
    with pytest.raises(ValueError, match=r"other settings \(uniform\)"):
        train(replace(FAST, steps=1), latents, str(tmp_path))
    (tmp_path / "train.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"other settings \(optimizer\)"):
        train(replace(FAST, optimizer="muon"), latents, str(tmp_path))
    train(replace(FAST, steps=1), latents, str(tmp_path))


def test_a_clip_that_does_not_fit_is_left_out_and_named(make_latents, latent_sample, tmp_path, caplog):
    large = latent_sample(1, side=16)
    train(FAST, make_latents([latent_sample(0), large]), str(tmp_path / "run"))
    assert any("left out" in line and large.key in line and "max_cells" in line for line in caplog.messages)
    with pytest.raises(ValueError, match="no clip that fits; raise tokens"):
        train(FAST, make_latents([large], name="large"), str(tmp_path / "none"))


def test_one_latent_is_overfitted(make_latents, latent_sample, tmp_path):
    root = make_latents([latent_sample(3, rates=(4,), frames=16, caption="waves on a beach")])
    config = replace(FAST, steps=300, tokens=64, log_every=25, save_every=150, lr=2e-3, warmup=20, drop_condition=0.0)
    train(config, root, str(tmp_path / "run"))
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    probes = [line["probe_loss"] for line in metrics(tmp_path / "run") if "probe_loss" in line]
    assert sum(losses[-4:]) / 4 < losses[0] / 5
    assert probes[-1] < 0.2, (losses, probes)


def test_the_rate_rises_and_falls_as_asked(latents, tmp_path):
    train(replace(FAST, steps=10, warmup=3, cooldown=0.5, lr=1e-3, log_every=1), latents, str(tmp_path))
    rates = [line["lr"] for line in metrics(tmp_path)]
    assert rates == pytest.approx([1e-3 * min(1, (step + 1) / 4, (10 - step) / 5) for step in range(1, 11)])
    before = _net(tmp_path)
    train(replace(FAST, steps=11, warmup=3, cooldown=0.5, lr=1e-3, log_every=1), latents, str(tmp_path))
    assert not torch.equal(_net(tmp_path), before), "it rises again at the first step"


def _net(run: Path) -> torch.Tensor:
    found = torch.load(run / "checkpoint.ckpt", map_location="cpu", weights_only=True)
    return found["state_dict"]["net.tokens_in.weight"]


def test_the_average_has_the_width_asked_for():
    assert ema_exponent(0.1) == pytest.approx(6.94 + 1, abs=0.01)  # section 3.1 of arXiv 2312.02696
    assert ema_exponent(0.05) == pytest.approx(16.97 + 1, abs=0.01)


def test_prompts_and_single_facts_are_trained_alone_as_well_as_together():
    facts = torch.ones(2000, 4)
    known = Condition(words=torch.ones(2000, 3), word_lengths=(1,) * 2000, pooled=torch.ones(2000, 3), facts=facts)
    thin = thinned(known, 0.1, torch.rand(2000, 8, generator=torch.Generator().manual_seed(0)))
    worded, facts_left = torch.tensor(thin.word_lengths) > 0, (~thin.facts.isnan()).sum(dim=1)
    assert all((worded & (facts_left == count)).any() for count in range(5))
    nothing, facts_alone, words_alone = (
        float((words & (facts_left > 0 if facts else facts_left == 0)).float().mean())
        for words, facts in ((~worded, False), (~worded, True), (worded, False))
    )
    assert (
        0.07 < nothing < 0.2 and facts_alone > 0.2 and words_alone > 0.2 and nothing + facts_alone + words_alone < 0.8
    )


def test_a_run_on_other_latents_is_refused(make_latents, latent_sample, tmp_path):
    train(replace(FAST, steps=1), make_latents([latent_sample(0)]), str(tmp_path / "run"))
    with pytest.raises(ValueError, match="other latents"):
        train(replace(FAST, steps=1), make_latents([latent_sample(1)], name="other"), str(tmp_path / "run"))


def test_loss_and_gradient_of_the_same_clips_are_equal_under_any_packing_and_accumulation(
    latents, tmp_path, monkeypatch
):
    index, texts = read_index(latents), tmp_path / "text"
    config = TrainConfig(holdout=0.0, device="cpu", known=0.5)
    embed_ahead(index.captions, config.model, texts)
    facts, found = statistics(index, config.model), []
    gradients: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(
        FlowModule, "configure_gradient_clipping",
        lambda self, *_, **__: gradients.update({name: p.grad.clone() for name, p in self.net.named_parameters()}),
    )  # fmt: skip
    for tokens in (24, 50, 500):
        own = replace(config, tokens=tokens)
        plan = [replace(one, epochs=one.epochs * 0) for one in fixed(windows(index, own)[0], own, most=100)]
        own = replace(own, packs=len(plan), steps=1)
        packs = Packs(index, Embedded(texts, own.model), own)
        assert 0 < sum(int(packs[one].condition.known.sum()) for one in plan) < 60, "some tokens are known"
        torch.manual_seed(0)
        module = FlowModule(own, facts)
        for parameter in module.net.parameters():  # away from where most of them have no gradient
            parameter.data += 0.02 * torch.randn_like(parameter)
        _trainer(own, [], None).fit(module, DataLoader(packs, batch_size=None, sampler=plan))
        scale = tokens * own.packs  # a step of more room counts the same clips for less
        found.append((own.packs, module.figures()[0], {name: g * scale for name, g in gradients.items()}))
    assert found[0][0] > found[1][0] > found[2][0] == 1, "packs"
    for _, loss, gradient in found[1:]:
        assert loss == pytest.approx(found[0][1], rel=1e-5)
        for name, other in found[0][2].items():
            torch.testing.assert_close(gradient[name], other, rtol=0, atol=1e-5 * other.abs().max().item())


def test_held_out_clips_are_measured_at_each_noise_level_in_files_and_loggers(latents, tmp_path):
    train(replace(FAST, logger="csv"), latents, str(tmp_path))
    held = [line for line in metrics(tmp_path) if "held_loss" in line]
    assert [line["step"] for line in held] == [3, 6]
    levels = [held[0][f"held_loss_at_{time}"] for time in (0.125, 0.375, 0.625, 0.875)]
    assert held[0]["held_loss"] == pytest.approx(sum(levels) / 4)
    logged = next(tmp_path.glob("logs/*/metrics.csv")).read_text()
    assert "held_loss_at_0.125" in logged.splitlines()[0] and "clip_seconds_per_s" in logged
    assert any(line["loss"] > 0 and line["clip_seconds_per_s"] > 0 for line in metrics(tmp_path))


def test_packs_that_the_devices_cannot_share_and_a_damaged_checkpoint_are_refused(latents, tmp_path):
    with pytest.raises(ValueError, match="packs=3, which 2 devices cannot share out evenly; give devices=1"):
        train(replace(FAST, packs=3, devices=2), latents, str(tmp_path))
    train(replace(FAST, steps=1), latents, str(tmp_path))
    (tmp_path / "checkpoint.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint\.ckpt is damaged.*remove it"):
        train(FAST, latents, str(tmp_path))


def test_a_try_that_ended_before_it_began_leaves_the_folder_free(latents, tmp_path):
    out = str(tmp_path / "run")
    with pytest.raises(ValueError, match="raise tokens"):
        train(replace(FAST, steps=1, tokens=1), latents, out)
    train(replace(FAST, steps=1), latents, out)
