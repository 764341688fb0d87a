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
        {"rates": ()},
        {"segment": 12},
    ],
)
def test_a_configuration_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TokenizerConfig(**wrong, **({"rates": (8,)} if "segment" in wrong else {}))


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
