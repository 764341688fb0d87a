from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rushes.filters import judge as module
from rushes.filters.judge import AT_ONCE, Judge, compressed, digest, judge, log_odds
from tests.bench.judge import Network

USUAL = dict.fromkeys(judge().names, 0.0)


def test_a_witness_who_sees_a_cut_never_makes_it_less_likely() -> None:
    rng = np.random.default_rng(0)
    steps = [
        {name: float(value) for name, value in zip(USUAL, rng.normal(0, 30, len(USUAL)), strict=True)}
        for _ in range(50)
    ]
    odds, weight = judge().odds(steps)
    assert np.isfinite(odds).all() and (weight >= 0).all() and weight.max() > 0


def test_each_step_is_judged_by_itself_and_of_none_nothing_is_said() -> None:
    steps = [USUAL, {**USUAL, "content": 90.0, "corners": np.nan}]
    together = judge().odds(steps)
    for k, step in enumerate(steps):
        assert [part[0] for part in judge().odds([step])] == [part[k] for part in together]
    assert [len(part) for part in judge().odds([])] == [0, 0]


def test_many_steps_are_judged_a_few_at_a_time_and_as_each_is_alone() -> None:
    steps = [{**USUAL, "content": float(k), "size": 100.0 - k} for k in range(2 * AT_ONCE + 3)]
    odds, weight = judge().odds(steps)
    assert len(odds) == len(weight) == len(steps)
    for k in (0, AT_ONCE - 1, AT_ONCE, len(steps) - 1):
        assert [part[0] for part in judge().odds([steps[k]])] == [odds[k], weight[k]]


@pytest.mark.parametrize("data", [None, b"", b"PK\x03\x04 no more", "half"])
def test_weights_that_are_missing_or_damaged_are_named_with_the_remedy(
    data: bytes | str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = module._data()
    if data is not None:
        (tmp_path / module.WEIGHTS).write_bytes(whole[: len(whole) // 2] if isinstance(data, str) else data)
    monkeypatch.setattr(module.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"rushes/filters/judge\.npz are missing or damaged .*; install rushes again"):
        judge.__wrapped__()
    if data is None:
        with pytest.raises(ValueError, match="install rushes again"):
            digest.__wrapped__()


def test_numbers_are_compressed_and_what_is_not_told_is_told_apart_from_nothing() -> None:
    rows: list[Mapping[str, float]] = [{"a": np.e - 1, "b": -(np.e - 1)}, {"a": np.nan, "b": 0.0}]
    assert compressed(rows, ["a", "b"], ["a"]) == pytest.approx(np.array([[1, -1, 0], [0, 0, 1]]))


def test_a_witness_is_trusted_to_a_point_and_one_who_was_not_asked_says_nothing() -> None:
    assert log_odds(np.array([0.0, 0.5, 1.0, np.nan])) == pytest.approx([-4, 0, 4, 0])


def test_the_sums_are_those_of_the_network_that_was_trained() -> None:
    torch.manual_seed(0)
    net = Network(3)
    parts: dict[str, Any] = {
        "into": net.into.weight.T,
        "offset": net.into.bias,
        "out": net.out.weight.T,
        "base": net.out.bias,
    }
    weights = {name: part[None].detach().numpy() for name, part in parts.items()}
    weights |= {"names": np.array(["a", "b"]), "missing": np.array(["b"]), "limit": np.array(2.5)}
    weights |= {"mean": np.zeros(3), "spread": np.ones(3)}
    odds, weight = Judge(weights).odds([{"a": 1.5, "b": np.nan}])
    x = torch.tensor([[np.log1p(1.5), 0.0, 1.0]], dtype=torch.float32)
    for said in (-2.0, 0.0, 3.0):
        theirs = net(x, torch.tensor([said])).item()
        assert odds[0] + weight[0] * said == pytest.approx(theirs, abs=1e-5)
