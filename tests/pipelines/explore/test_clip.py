"""All rules of a clip are told, and the limit that is said to keep it does, by the code of `rushes select`."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rushes.filters import policy as policies
from rushes.pipelines.explore.clip import verdict
from rushes.pipelines.explore.workbench import Workbench
from tests.pipelines.explore.rules import rules


@settings(max_examples=25, deadline=None)
@given(given_rules=rules(), at=st.integers(0, 10**6))
def test_a_limit_that_is_said_to_keep_a_clip_just_keeps_it(
    bench: Workbench, given_rules: list[dict[str, Any]], at: int
) -> None:
    key = bench.keys[at % len(bench.keys)].decode()
    text = {"name": "tried", "rules": given_rules, "dedup": {"enabled": False}}
    failing = set()
    for _ in range(2 * len(given_rules) + 1):
        found = verdict(bench, policies.load(text), key)
        verdicts = bench.verdicts(policies.load(text))
        fails = [row for row in found["rules"] if row["fails"]]
        assert found["kept"] is bool(verdicts.kept[bench.place(key)]) is not bool(fails)
        assert found["by"] == (fails[0]["rule"] if fails else None)
        assert len({row["rule"] for row in found["rules"]}) == len(given_rules)
        mended = next((row for row in fails if row["keeps"] is not None), None)
        if mended is None:
            break
        assert mended["rule"] not in failing, "a limit keeps a clip at once"
        failing.add(mended["rule"])
        rule = next(rule for rule in given_rules if rule["name"] == mended["rule"])
        rule[mended["form"]] = mended["keeps"]
        if mended["form"] in ("min", "max"):  # by a hair more it would not
            beyond = np.nextafter(mended["keeps"], np.inf if mended["form"] == "min" else -np.inf)
            one = {"name": "hair", "rules": [rule | {mended["form"]: float(beyond)}], "dedup": {"enabled": False}}
            assert not verdict(bench, policies.load(one), key)["kept"]
    assert all(row["said"] or row["form"] == "list" for row in fails)


def test_a_duplicate_is_told_beside_rules_that_pass(bench: Workbench) -> None:
    place = bench.verdicts(bench.policy).failed.tolist().index(len(bench.policy.rules))
    found = verdict(bench, bench.policy, bench.keys[place].decode())
    assert found["by"] == policies.DUPLICATE and " of " in found["detail"]
    assert not any(row["fails"] for row in found["rules"])
