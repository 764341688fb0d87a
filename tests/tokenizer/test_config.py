from __future__ import annotations

import subprocess
import sys

import pytest

from rushes.tokenizer.config import Budget, TokenizerConfig, TrainConfig, stage_at


def test_the_configuration_loads_no_torch():
    code = "import sys, tokenizer.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": "huge"},
        {"space": 7},
        {"channels": 1},
        {"rates": (8, 4)},
        {"rates": (3,)},
        {"segment": 12},
    ],
)
def test_a_configuration_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TokenizerConfig(**wrong, **({"rates": (8,)} if "segment" in wrong else {}))


def test_no_rates_are_those_of_the_variant():
    assert TokenizerConfig().rates == (2, 4, 8, 16) and TokenizerConfig(variant="dual-branch").rates == (4,)


def test_a_budget_is_one_limit_or_none():
    assert Budget() == Budget(share=0.0, latents=0)
    assert not Budget().limited and Budget(latents=1).limited and Budget(per_second=2.5).limited
    for two in ({"share": 0.5, "latents": 3}, {"share": 0.5, "per_second": 3.0}, {"latents": 5, "per_second": 3.0}):
        with pytest.raises(ValueError, match="give one of"):
            Budget(**two)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="per_second > 0"):
            Budget(per_second=wrong)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Budget(share=1.5)


def test_stages_follow_one_another_and_grow():
    config = TrainConfig(stages="image:100, 4:200,8:100@64,16:50,decoder:10@192", side=96, frames=17)
    stages = config.plan((4, 8, 16))
    assert config.total == 460 and [stage.first for stage in stages] == [0, 100, 300, 400, 450]
    assert [stage.rates for stage in stages] == [(4,), (4,), (4, 8), (4, 8, 16), (4, 8, 16)]
    assert [(stage.frames, stage.side) for stage in stages] == [(1, 96), (17, 96), (17, 64), (17, 96), (17, 192)]
    assert [stage.decoder_only for stage in stages] == [False, False, False, False, True]
    assert [stage_at(stages, step) for step in (0, 99, 100, 459, 999)] == [stages[i] for i in (0, 0, 1, 4, 4)]


def test_a_training_without_stages_is_one_of_every_rate():
    (stage,) = TrainConfig(steps=7).plan((2, 4))
    assert (stage.steps, stage.rates, stage.frames, stage.decoder_only) == (7, (2, 4), 32, False)
    assert TrainConfig(steps=7).total == 7
    assert TrainConfig(stages="decoder:5").plan((2, 4))[0].rates == (2, 4)


@pytest.mark.parametrize("wrong", ["image", "4:0", "four:3", "4:2@", "4:2;8:2", "-4:2", "4:2,"])
def test_stages_that_cannot_be_read_are_refused(wrong):
    with pytest.raises(ValueError, match=r"is no stage; write image:STEPS"):
        TrainConfig(stages=wrong)


@pytest.mark.parametrize("wrong", [{"holdout": 1.0}, {"holdout": -0.1}, {"gan": -1.0}, {"gan_from": -1}])
def test_a_training_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainConfig(**wrong)
