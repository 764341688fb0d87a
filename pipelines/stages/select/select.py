"""Selection: which clips stay, which rule dropped the others, and which copy stands for which duplicate.

Pure: tables in, tables out; no Ray and no file but the policy's. Limits come first, then duplicates among the
survivors. The work is done on Arrow columns, one rule at a time; no hash is read, since which clips resemble which was
found before (table `matches`). The result depends on the rows, not on their order.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from rushes.filters import policy as policies
from rushes.filters.policy import DUPLICATE, Policy, Rule
from rushes.filters.survivors import Pair
from rushes.filters.verdicts import Verdicts
from rushes.pipelines.stages.select.dedup import balance, duplicates, measured, pair_rows
from rushes.pipelines.stages.select.measures import absent, known, measurable, measure, with_scores
from rushes.pipelines.store import storage
from rushes.pipelines.store.columns import CROP, flat, numbers
from rushes.pipelines.store.tables import TABLES

NEEDED = ("key", "uri", "unit", "duration_s", "width", "height", "bit_rate", *CROP)
HDR_RULE = {"name": "hdr", "measure": "hdr", "in": [False], "basis": "ours", "source": "--pack.hdr drop"}


def read_policy(name: str) -> Policy:
    """Return a policy by a preset's name or the path of a YAML file. Raises PolicyError, which says what there is."""
    text = policy_text(name)
    try:
        return policies.load(text)
    except policies.PolicyError as error:
        said = re.sub(r"^line (\d+), column (\d+)(?=:)", r"\1:\2", str(error))  # file:line:column, as editors take it
        raise policies.PolicyError(f"{name}:{said}" if said != str(error) else f"{name}: {said}") from error


def policy_text(name: str) -> str:
    """Return the YAML of a policy, found as `read_policy` finds it."""
    if name in policies.presets() or not name.endswith((".yaml", ".yml")):
        return policies.preset_text(name)
    if not storage.exists(name):
        raise policies.PolicyError(f"there is no policy file {name}; presets are {', '.join(policies.presets())}")
    try:
        return storage.read_bytes(name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise policies.PolicyError(f"{name} is not UTF-8 text ({error.reason} at byte {error.start})") from error


def without_hdr(text: str) -> str:
    """Return the YAML of a policy with a rule in front that drops HDR, named POLICY-sdr, to stand beside the policy.

    One that has a rule on the measure `hdr` is returned as it is.
    """
    if any(rule.measure == "hdr" for rule in policies.load(text).rules):
        return text
    given = yaml.safe_load(text)
    rules = [HDR_RULE, *(given.get("rules") or [])]
    return yaml.safe_dump(
        {**given, "name": given["name"] + "-sdr", "rules": rules}, sort_keys=False, allow_unicode=True
    )


def check(policy: Policy, scorers: Sequence[str]) -> None:
    """Make sure that every rule finds its measure, before anything runs.

    Raises PolicyError for a measure that there never is, MissingMeasure for one that these scorers do not make.
    """
    check_names(policy)
    there = measurable(scorers)
    for rule in unmeasured(policy, there):
        raise absent(rule, there)


def check_names(policy: Policy, there: Iterable[str] = ()) -> None:
    """Raise PolicyError for a measure that no run can have, with the names nearest to it, or a limit of another kind.

    `missing: keep` is no excuse: such a rule would pass every clip, unseen.

    Args:
        policy: what to check.
        there: measures that clips have, whatever made them.
    """
    from rushes.pipelines.models.score import SCORERS

    possible = measurable(SCORERS) | set(there)
    asked = [(f"rule {rule.name}", rule.measure) for rule in policy.rules]
    asked += [("dedup.prefer", measured(name)) for name in policy.dedup.prefer]
    asked += [(f"dedup.{kind}.scorer", getattr(policy.dedup, kind).scorer) for kind in ("semantic", "balance")]
    for where, name in asked:
        if name and name not in possible:
            near = difflib.get_close_matches(name, possible, n=3)
            said = f"did you mean {' or '.join(near)}?" if near else f"measures are {', '.join(sorted(possible))}"
            raise policies.PolicyError(f"policy {policy.name}: {where} needs {name!r}, which is no measure; {said}")
    for rule in policy.rules:
        _check_kind(rule, f"policy {policy.name}: rule {rule.name}")


def _check_kind(rule: Rule, where: str) -> None:
    """Raise PolicyError where a rule limits a measure by what it never is: text by a number, or a number by text."""
    kind = TABLES["clips"].field(rule.measure).type if rule.measure in TABLES["clips"].names else pa.float64()
    is_text = pa.types.is_string(kind)
    if is_text and not (rule.min is rule.max is rule.share is None):
        raise policies.PolicyError(f"{where} compares {rule.measure}, which is text, with a number; use in or not_in")
    fits: Any
    fits, wanted = (str, "text; put it in quotes") if is_text else ((int, float), "a number")
    if pa.types.is_boolean(kind):
        fits, wanted = bool, "true or false"
    for value in (*(rule.among or ()), *(rule.not_among or ())):
        if not isinstance(value, fits) or (isinstance(value, bool) and fits is not bool):
            raise policies.PolicyError(f"{where} lists {value!r} for {rule.measure}, which is {wanted}")


def unmeasured(policy: Policy, there: Set[str]) -> list[Rule]:
    """Return the rules that need a measure which nobody made; those that keep what is missing pass clips instead."""
    return [rule for rule in policy.rules if rule.measure not in there and rule.missing == "drop"]


def columns(policy: Policy) -> list[str]:
    """Return the columns of the table `clips` that a policy looks at."""
    wanted = {*NEEDED, *asked(policy)} | ({"luma_std"} if policy.dedup.enabled else set())
    return [name for name in TABLES["clips"].names if name in wanted]


def asked(policy: Policy) -> set[str]:
    """Return the measures that a policy looks at, be they columns, derived ones or scorers."""
    preferred = {measured(name) for name in policy.dedup.prefer} if policy.dedup.enabled else set()
    return {rule.measure for rule in policy.rules} | preferred


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Clips under the limits of a policy, before duplicates are sought among those that stay."""

    clips: pa.Table
    """Sorted by key, with the values of the scorers that the policy looks at."""
    there: Set[str]
    """All measures that there are."""
    verdicts: Verdicts


def judge(
    clips: pa.Table, scores: pa.Table, policy: Policy, there: Set[str] = frozenset(), skip: Iterable[str] = ()
) -> Judged:
    """Try every rule on every clip, the first one that fails being the reason.

    Raises MissingMeasure where a rule that drops what is missing needs a measure or a scorer that is nowhere,
    PolicyError where one compares a label with a number, and ValueError where two clips have one key.

    Args:
        clips: table `clips`, or those of its columns that `columns` names.
        scores: table `scores`; a scorer's value is a measure under the scorer's name.
        policy: what to keep.
        there: all measures that there are, where `scores` holds only those that the policy looks at.
        skip: names of rules that are left out, to see what the others do.
    """
    return tried(prepared(clips, scores, policy), policy, there or known(clips, scores), skip)


def prepared(clips: pa.Table, scores: pa.Table, policy: Policy) -> pa.Table:
    """Return what a policy looks at of clips, with the values of scorers, sorted by key. Raises as `judge` does."""
    return _sorted(clips.select([name for name in clips.column_names if name in columns(policy)]), scores, policy)


def tried(clips: pa.Table, policy: Policy, there: Set[str], skip: Iterable[str] = ()) -> Judged:
    """Try every rule on clips that were prepared, maybe for another policy that looks at these columns and more."""
    skipped = set(skip)
    for rule in unmeasured(policy, there):
        if rule.name not in skipped and len(clips):
            raise absent(rule, there)
    verdicts = Verdicts(len(clips))
    for place, rule in enumerate(policy.rules):
        if rule.measure in there and rule.name not in skipped and len(clips):
            _apply(rule, place, measure(rule.measure, clips), verdicts)
    return Judged(clips=clips, there=there, verdicts=verdicts)


def _apply(rule: Rule, place: int, column: pa.Array, verdicts: Verdicts) -> None:
    if not pa.types.is_string(column.type):
        verdicts.numbers(rule, place, numbers(column))
        return
    encoded = column.dictionary_encode("encode")  # null is a label of its own: not measured
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    verdicts.labels(rule, place, codes, encoded.dictionary.to_pylist())


def select(clips: pa.Table, scores: pa.Table, policy: Policy, matches: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows of the tables `selection` (a row per clip, sorted by key) and `pairs` (a row per duplicate).

    Arguments and errors are those of `judge`; `matches` is the table of that name, aligned by the policy's rules.
    """
    judged = judge(clips, scores, policy)
    selection, pairs = resolve(judged, scores, policy, matches)
    return selection, pair_rows(judged.clips, policy, pairs)


def resolve(judged: Judged, scores: pa.Table, policy: Policy, matches: pa.Table) -> tuple[pa.Table, list[Pair]]:
    """Drop duplicates among the clips that the limits leave; return the rows of `selection`, and who went for whom."""
    pairs = settle(judged, scores, policy, matches)
    selection = _selection(judged.clips, policy, judged.verdicts)
    return _weighted(selection, judged.clips, scores, policy), pairs


def settle(judged: Judged, scores: pa.Table, policy: Policy, matches: pa.Table) -> list[Pair]:
    """Drop duplicates among the clips that the limits leave, in their verdicts; return who went for whom."""
    clips, verdicts = judged.clips, judged.verdicts
    if not (policy.dedup.enabled and len(clips)):
        return []
    pairs = duplicates(clips, scores, np.flatnonzero(verdicts.kept), policy.dedup, matches)
    stays = flat(clips["key"]).take(pa.array([pair.kept for pair in pairs], pa.int64())).to_pylist()
    verdicts.drop(
        np.array([pair.dropped for pair in pairs], np.int64), len(policy.rules),
        np.array([pair.distance for pair in pairs]), np.array([pair.limit for pair in pairs]),
        [f"{pair.level} of {key}" for pair, key in zip(pairs, stays, strict=True)],
    )  # fmt: skip
    return pairs


def _sorted(clips: pa.Table, scores: pa.Table, policy: Policy) -> pa.Table:
    """Return clips with their scores, sorted by key. Raises ValueError where a key stands twice."""
    clips = with_scores(clips, scores, asked(policy))
    clips = clips.take(pc.sort_indices(clips["key"])).combine_chunks()
    key = flat(clips["key"])
    twice = key[1:].filter(pc.equal(key[1:], key[:-1])) if len(key) else key
    if len(twice):
        raise ValueError(
            f"{len(pc.unique(twice))} clip keys stand in several rows, such as {twice[0]}; "
            "equal sources must be scanned once"
        )
    return clips


def _selection(clips: pa.Table, policy: Policy, verdicts: Verdicts) -> pa.Table:
    duplicate = len(policy.rules)
    failed, kept = verdicts.failed, verdicts.kept
    names = pa.array([*(rule.name for rule in policy.rules), DUPLICATE], pa.string())
    stages = pa.array(["limits", "duplicates"], pa.string())
    rows = {
        "key": clips["key"],
        "unit": clips["unit"],
        "policy": pa.repeat(pa.scalar(policy.name, pa.string()), len(clips)),
        "kept": pa.array(kept),
        "stage": stages.take(pa.array((failed == duplicate).astype(np.int32), mask=kept)),
        "rule": names.take(pa.array(failed, mask=kept)),
        "value": pa.array(verdicts.values, mask=np.isnan(verdicts.values)),
        "limit": pa.array(verdicts.limits, mask=np.isnan(verdicts.limits)),
        "detail": pa.array(verdicts.texts, pa.string()).take(pa.array(verdicts.words, mask=verdicts.words < 0)),
        "duration_s": clips["duration_s"],
        "cluster": pa.nulls(len(clips), pa.int32()),
        "weight": pa.nulls(len(clips), pa.float64()),
    }
    return pa.table(rows).cast(TABLES["selection"])


def _weighted(selection: pa.Table, clips: pa.Table, scores: pa.Table, policy: Policy) -> pa.Table:
    """Return the selection with cluster and weight of the kept clips, where the policy balances."""
    kept = np.flatnonzero(selection["kept"].to_numpy())
    found = balance(clips, scores, kept, policy.dedup) if len(kept) else None
    if found is None:
        return selection
    of, weight = np.full(len(clips), -1, np.int32), np.full(len(clips), np.nan)
    of[kept], weight[kept] = found
    columns = {"cluster": pa.array(of, mask=of < 0), "weight": pa.array(weight, mask=np.isnan(weight))}
    for name, values in columns.items():
        selection = selection.set_column(selection.schema.get_field_index(name), selection.field(name), values)
    return selection
