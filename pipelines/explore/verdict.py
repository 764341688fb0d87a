"""One clip under a policy: every rule with what it measured against its limit, and the limit that would just keep it.

    told(bench, bench.policy, key)["rules"]

`rushes select` names the first rule that fails, since one is enough; who moves limits has to see them all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from rushes.filters.policy import DUPLICATE, Policy, Rule, Value
from rushes.filters.verdicts import UNMEASURED, Verdicts
from rushes.pipelines.explore.workbench import Workbench
from rushes.pipelines.stages.select import trial

BOUNDS = ("min", "max")


def told(bench: Workbench, policy: Policy, key: str) -> dict[str, Any]:
    """Return the verdict of a policy on a clip: `kept`, `by` (what drops it), `detail`, and `rules`.

    `rules` has a row for each limit: the rule, its measure, the exact `value`, `form` (min, max, keep_highest,
    keep_lowest or list), the `limit` as a number, of a list as people write it, whether it `fails` (null of a share
    where the clip never came so far), what else is `said`, and the limit of that form that just `keeps` it, or null.

    Args:
        bench: the run.
        policy: whose verdict is meant.
        key: the clip.

    Raises KeyError for a key that is none, PolicyError and MissingMeasure as a selection does.
    """
    with bench.lock:
        verdicts, at = bench.verdicts(policy), bench.place(key)
        first, word = int(verdicts.failed[at]), int(verdicts.words[at])
        names = [*(rule.name for rule in policy.rules), DUPLICATE]
        return {
            "policy": policy.name,
            "kept": first < 0,
            "by": None if first < 0 else names[first],
            "detail": verdicts.texts[word] if word >= 0 else None,
            "rules": [
                row for place, rule in enumerate(policy.rules) for row in _rows(bench, verdicts, rule, place, at)
            ],
        }


def _rows(bench: Workbench, verdicts: Verdicts, rule: Rule, place: int, at: int) -> Iterator[dict[str, Any]]:
    value = bench.value(rule.measure, at)
    row = {"rule": rule.name, "measure": rule.measure, "value": value}
    if rule.share is not None:
        yield row | _share(bench, verdicts, rule, place, at, value)
        return
    for form in BOUNDS:
        if getattr(rule, form) is not None:
            others: dict[str, Any] = {other: None for other in (*BOUNDS, "among", "not_among") if other != form}
            yield row | _limit(dataclasses.replace(rule, **others), form, value)
    if rule.among is not None or rule.not_among is not None:
        yield row | _limit(dataclasses.replace(rule, min=None, max=None), "list", value)


def _limit(rule: Rule, form: str, value: Value) -> dict[str, Any]:
    fails = not rule.passes(value)
    number = form in BOUNDS and value is not None
    return {
        "form": form,
        "limit": getattr(rule, form) if form in BOUNDS else trial.limit_text(rule),
        "fails": fails,
        "said": UNMEASURED if value is None else None,
        "keeps": value if fails and number else None,  # limits are inclusive
    }


def _share(bench: Workbench, verdicts: Verdicts, rule: Rule, place: int, at: int, value: Value) -> dict[str, Any]:
    """Return what a share makes of a clip: it is taken of those that the rules before left, equals in their order."""
    form = "keep_lowest" if rule.keep_highest is None else "keep_highest"
    found: dict[str, Any] = {"form": form, "limit": rule.share, "fails": None, "said": None, "keeps": None}
    comes = verdicts.failed[at] < 0 or verdicts.failed[at] >= place
    if value is None:
        return found | {"fails": comes and rule.missing == "drop", "said": UNMEASURED}
    threshold, left, of = verdicts.thresholds.get(rule.name, (math.nan, 0, 0))
    if math.isfinite(threshold):
        found["said"] = f"{left} of {of}, to {threshold!r}"
    if not comes:
        return found
    values = bench.numbers_of(rule.measure)
    assert values is not None and isinstance(value, int | float)
    rivals = np.flatnonzero(((verdicts.failed < 0) | (verdicts.failed >= place)) & np.isfinite(values))
    ahead = values[rivals] < value if form == "keep_lowest" else values[rivals] > value
    rank = int(ahead.sum()) + int((values[rivals[rivals < at]] == value).sum()) + 1
    fails = bool(verdicts.failed[at] == place)
    return found | {"fails": fails, "keeps": _of(rule, form, rank, len(rivals)) if fails else None}


def _of(rule: Rule, form: str, rank: int, clips: int) -> float:
    """Return the share that keeps as many of the clips as it says; one clip more where no shorter number says it."""
    share: Any = rank / clips
    said = dataclasses.replace(rule, **{form: share})
    return float(share if said.count(clips) <= rank else math.nextafter(share, 0))
