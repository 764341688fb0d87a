from __future__ import annotations

import subprocess
import sys

import pytest

from tokenizer.config import Budget, TokenizerConfig


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
    with pytest.raises(ValueError, match="not both"):
        Budget(share=0.5, latents=3)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Budget(share=1.5)
