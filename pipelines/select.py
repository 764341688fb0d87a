"""Selection: which clips stay, which rule dropped the others, and which copy stands for which duplicate.

Pure: tables in, tables out; no Ray and no file but the policy's. Limits come first, then duplicates among the
survivors. The work is done on Arrow columns, one rule at a time, so that a million clips need little more memory than
their hashes. The result depends on the rows, not on their order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters import policy as policies
from filters.policy import Policy, Rule
from filters.survivors import Pair
from pipelines import storage
from pipelines.dedup import balance, duplicates, measured, pair_rows
from pipelines.ledger import TABLES
from pipelines.measures import CROP, DERIVED, NOT_MEASURES, known, measure, numbers

NEEDED = (
    "key", "source_id", "uri", "duration_s", "width", "height", "bit_rate", "luma_std", "phash", "phash_s", *CROP,
)  # fmt: skip
UNMEASURED = "not measured"


def read_policy(name: str) -> Policy:
    """Return a policy by a preset's name or the path of a YAML file. Raises PolicyError, which says what there is."""
    return policies.load(policy_text(name))


def policy_text(name: str) -> str:
    """Return the YAML of a policy, found as `read_policy` finds it."""
    if name in policies.presets() or not name.endswith((".yaml", ".yml")):
        return policies.preset_text(name)
    if not storage.exists(name):
        raise policies.PolicyError(f"there is no policy file {name}; presets are {', '.join(policies.presets())}")
    return storage.read_bytes(name).decode("utf-8")


def check(policy: Policy, scorers: Sequence[str]) -> None:
    """Make sure that every rule finds its measure, before anything runs. Raises MissingMeasure, which names it."""
    columns = {field.name for field in TABLES["clips"] if not pa.types.is_list(field.type)}
    there = (columns - NOT_MEASURES) | set(DERIVED) | set(scorers)
    for rule in policy.rules:
        if rule.measure not in there and not rule.optional:
            raise policies.missing(rule, there)


def select(
    clips: pa.Table, scores: pa.Table, policy: Policy, sketches: pa.Table | None = None
) -> tuple[pa.Table, pa.Table]:
    """Return the rows of the tables `selection` (a row per clip, sorted by key) and `pairs` (a row per duplicate).

    Raises MissingMeasure where a rule that is not optional needs a measure or a scorer that is nowhere, and ValueError
    where two clips have one key.

    Args:
        clips: table `clips`.
        scores: table `scores`; a scorer's value is a measure under the scorer's name.
        policy: what to keep.
        sketches: table `sketches`, which spares the work of making them; the result is the same without it.
    """
    if not len(clips):
        return TABLES["selection"].empty_table(), TABLES["pairs"].empty_table()
    there = known(clips, scores)
    for rule in policy.rules:
        if rule.measure not in there and not rule.optional:
            raise policies.missing(rule, there)
    clips = _sorted(clips, policy)
    verdicts = _Verdicts(len(clips))
    for place, rule in enumerate(policy.rules):
        if rule.measure in there:
            verdicts.apply(rule, place, measure(rule.measure, clips, scores))
    survivors = np.flatnonzero(verdicts.failed < 0)
    pairs = duplicates(clips, scores, survivors, policy.dedup, sketches) if policy.dedup.enabled else []
    selection = _selection(clips, policy, verdicts, pairs)
    return _weighted(selection, clips, scores, policy), pair_rows(clips, policy, pairs)


def _sorted(clips: pa.Table, policy: Policy) -> pa.Table:
    """Return the columns that selection needs, sorted by key. Raises ValueError where a key stands twice."""
    counts = pc.value_counts(clips["key"])
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise ValueError(
            f"{len(twice)} clip keys stand in several rows, such as {twice[0]}; equal sources must be scanned once"
        )
    wanted = {*NEEDED, *(rule.measure for rule in policy.rules), *map(measured, policy.dedup.prefer)}
    columns = [name for name in clips.column_names if name in wanted]
    return clips.select(columns).take(pc.sort_indices(clips["key"])).combine_chunks()


class _Verdicts:
    """For each clip the place of the first rule that it fails, −1 while none, with its value and the broken limit."""

    def __init__(self, clips: int):
        self.failed = np.full(clips, -1, np.int32)
        self.values = np.full(clips, np.nan)
        self.limits = np.full(clips, np.nan)
        self.detail: dict[int, str] = {}

    def apply(self, rule: Rule, place: int, column: pa.Array) -> None:
        """Mark the clips whose first failing rule this is; agrees with `Policy.verdict` clip by clip."""
        if pa.types.is_string(column.type):
            passing = [value for value in pc.unique(column).to_pylist() if rule.passes(value)]
            fails = ~pc.is_in(column, value_set=pa.array(passing, column.type)).to_numpy(zero_copy_only=False)
            here = np.flatnonzero(fails & (self.failed < 0))
            self.detail.update((clip, column[clip].as_py() or UNMEASURED) for clip in here.tolist())
        else:
            values = numbers(column)
            here = np.flatnonzero(_fails(rule, values) & (self.failed < 0))
            self.values[here], self.limits[here] = values[here], _limits(rule, values[here])
            self.detail.update((clip, UNMEASURED) for clip in here[np.isnan(values[here])].tolist())
        self.failed[here] = place

    def drop_duplicate(self, pair: Pair, place: int, kept_key: str) -> None:
        """Mark a clip as dropped for another."""
        self.failed[pair.dropped] = place
        self.values[pair.dropped], self.limits[pair.dropped] = pair.distance, pair.limit
        self.detail[pair.dropped] = f"{pair.level} of {kept_key}"


def _fails(rule: Rule, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which values fail a rule; agrees with `Rule.passes` number by number."""
    fails = ~np.isnan(_limits(rule, values))
    for among, wanted in ((rule.among, True), (rule.not_among, False)):
        if among is not None:
            fails |= np.isin(values, [float(v) for v in among if isinstance(v, int | float)]) != wanted
    return np.where(np.isnan(values), not rule.optional, fails)


def _limits(rule: Rule, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the limit that each number breaks, NaN where it breaks none."""
    low, high = (np.nan if bound is None else float(bound) for bound in (rule.min, rule.max))
    return np.where(values < low, low, np.where(values > high, high, np.nan))


def _selection(clips: pa.Table, policy: Policy, verdicts: _Verdicts, pairs: list[Pair]) -> pa.Table:
    duplicate = len(policy.rules)
    for pair in pairs:
        verdicts.drop_duplicate(pair, duplicate, clips["key"][pair.kept].as_py())
    failed, kept = verdicts.failed, verdicts.failed < 0
    names = pa.array([*(rule.name for rule in policy.rules), "duplicate"], pa.string())
    stages = pa.array(["limits", "duplicates"], pa.string())
    columns = {
        "key": clips["key"],
        "policy": pa.repeat(pa.scalar(policy.name, pa.string()), len(clips)),
        "kept": pa.array(kept),
        "stage": stages.take(pa.array((failed == duplicate).astype(np.int32), mask=kept)),
        "rule": names.take(pa.array(failed, mask=kept)),
        "value": pa.array(verdicts.values, mask=np.isnan(verdicts.values)),
        "limit": pa.array(verdicts.limits, mask=np.isnan(verdicts.limits)),
        "detail": pa.array((verdicts.detail.get(clip) for clip in range(len(clips))), pa.string(), size=len(clips)),
        "duration_s": clips["duration_s"],
        "cluster": pa.nulls(len(clips), pa.int32()),
        "weight": pa.nulls(len(clips), pa.float64()),
    }
    return pa.table(columns).cast(TABLES["selection"])


def _weighted(selection: pa.Table, clips: pa.Table, scores: pa.Table, policy: Policy) -> pa.Table:
    """Return the selection with cluster and weight of the kept clips, where the policy balances."""
    kept = np.flatnonzero(selection["kept"].to_numpy())
    found = balance(clips, scores, kept, policy.dedup)
    if found is None:
        return selection
    of, weight = np.full(len(clips), -1, np.int32), np.full(len(clips), np.nan)
    of[kept], weight[kept] = found
    columns = {"cluster": pa.array(of, mask=of < 0), "weight": pa.array(weight, mask=np.isnan(weight))}
    for name, values in columns.items():
        selection = selection.set_column(selection.schema.get_field_index(name), selection.field(name), values)
    return selection
