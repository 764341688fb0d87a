"""Selection: which clips stay, which rule dropped the others, and which copy stands for which duplicate.

Pure: tables in, tables out; no Ray and no file but the policy's. Limits come first, then duplicates among the
survivors. The work is done on Arrow columns, one rule at a time, so that a million clips need little more memory than
their hashes. The result depends on the rows, not on their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters import policy as policies
from filters.duplicates import DuplicateRules, Index, Match, Pair, resolve, verify
from filters.policy import Policy, Rule
from pipelines import storage
from pipelines.ledger import TABLES

DERIVED = ("pixels", "min_side_px", "aspect")
"""Measures made of several columns: what is left of the picture inside its bars."""
NOT_MEASURES = {"phash", "phash_s", "frame_s"}
CROP = ("crop_left", "crop_top", "crop_right", "crop_bottom")
NEEDED = ("key", "source_id", "duration_s", "width", "height", "bit_rate", "luma_std", "phash", "phash_s", *CROP)
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
    known = (columns - NOT_MEASURES) | set(DERIVED) | set(scorers)
    for rule in policy.rules:
        if rule.measure not in known and not rule.optional:
            raise policies.missing(rule, known)


def select(clips: pa.Table, scores: pa.Table, policy: Policy) -> tuple[pa.Table, pa.Table]:
    """Return the rows of the tables `selection` (a row per clip, sorted by key) and `pairs` (a row per duplicate).

    Raises MissingMeasure where a rule that is not optional needs a measure or a scorer that is nowhere, and ValueError
    where two clips have one key.

    Args:
        clips: table `clips`.
        scores: table `scores`; a scorer's value is a measure under the scorer's name.
        policy: what to keep.
    """
    if not len(clips):
        return TABLES["selection"].empty_table(), TABLES["pairs"].empty_table()
    known = _known(clips, scores)
    for rule in policy.rules:
        if rule.measure not in known and not rule.optional:
            raise policies.missing(rule, known)
    clips = _sorted(clips, policy)
    verdicts = _Verdicts(len(clips))
    for place, rule in enumerate(policy.rules):
        if rule.measure in known:
            verdicts.apply(rule, place, measure(rule.measure, clips, scores))
    survivors = np.flatnonzero(verdicts.failed < 0)
    pairs = _duplicates(clips, scores, survivors, policy.dedup) if policy.dedup.enabled else []
    return _selection(clips, policy, verdicts, pairs), _pairs(clips, policy, pairs)


def _sorted(clips: pa.Table, policy: Policy) -> pa.Table:
    """Return the columns that selection needs, sorted by key. Raises ValueError where a key stands twice."""
    counts = pc.value_counts(clips["key"])
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise ValueError(
            f"{len(twice)} clip keys stand in several rows, such as {twice[0]}; equal sources must be scanned once"
        )
    wanted = {*NEEDED, *(rule.measure for rule in policy.rules), *(name.lstrip("-") for name in policy.dedup.prefer)}
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
            numbers = _numbers(column)
            here = np.flatnonzero(_fails(rule, numbers) & (self.failed < 0))
            self.values[here], self.limits[here] = numbers[here], _limits(rule, numbers[here])
            self.detail.update((clip, UNMEASURED) for clip in here[np.isnan(numbers[here])].tolist())
        self.failed[here] = place

    def drop_duplicate(self, pair: Pair, place: int, kept_key: str) -> None:
        """Mark a clip as dropped for another."""
        self.failed[pair.dropped] = place
        self.values[pair.dropped], self.limits[pair.dropped] = pair.distance, pair.limit
        self.detail[pair.dropped] = f"{pair.kind} as {kept_key}"


def _fails(rule: Rule, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which numbers fail a rule; agrees with `Rule.passes` number by number."""
    fails = ~np.isnan(_limits(rule, numbers))
    for among, wanted in ((rule.among, True), (rule.not_among, False)):
        if among is not None:
            fails |= np.isin(numbers, [float(v) for v in among if isinstance(v, int | float)]) != wanted
    return np.where(np.isnan(numbers), not rule.optional, fails)


def _limits(rule: Rule, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the limit that each number breaks, NaN where it breaks none."""
    low, high = (np.nan if bound is None else float(bound) for bound in (rule.min, rule.max))
    return np.where(numbers < low, low, np.where(numbers > high, high, np.nan))


def measure(name: str, clips: pa.Table, scores: pa.Table) -> pa.Array:
    """Return one measure of every clip: a column, a derived measure or a scorer's value; null where it has none."""
    if name in DERIVED:
        return pa.array(_derived(name, clips))
    if name in clips.column_names:
        return _flat(clips[name])
    rows = scores.filter(pc.equal(scores["scorer"], name)).select(["key", "model", "value"])
    rows = rows.take(pc.sort_indices(rows, [("key", "ascending"), ("model", "ascending")]))
    return _flat(rows["value"].take(pc.index_in(clips["key"], value_set=_flat(rows["key"]))))


def _flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _known(clips: pa.Table, scores: pa.Table) -> set[str]:
    scorers = {name for name in pc.unique(scores["scorer"]).to_pylist() if name is not None}
    return scorers | set(DERIVED) | (set(clips.column_names) - NOT_MEASURES)


def _derived(name: str, clips: pa.Table) -> npt.NDArray[np.float64]:
    column = {c: _numbers(_flat(clips[c])) for c in ("width", "height")}
    left, top, right, bottom = (np.nan_to_num(_numbers(_flat(clips[name]))) for name in CROP)
    width, height = column["width"] * (1 - left - right), column["height"] * (1 - top - bottom)
    if name == "pixels":
        return np.rint(width * height)
    return np.rint(np.minimum(width, height)) if name == "min_side_px" else width / height


def _numbers(values: pa.Array) -> npt.NDArray[np.float64]:
    return values.cast(pa.float64()).fill_null(float("nan")).to_numpy(zero_copy_only=False)


def _duplicates(
    clips: pa.Table, scores: pa.Table, survivors: npt.NDArray[np.int64], rules: DuplicateRules
) -> list[Pair]:
    contrast = _numbers(_flat(clips["luma_std"]))[survivors]
    comparable = survivors[~(contrast < rules.min_luma_std)]
    sequences = _Sequences(clips)
    index = Index()
    for clip in comparable.tolist():
        index.add(clip, sequences.hashes(clip))
    order = _best_first(clips, scores, comparable, rules)
    rank = np.empty(len(clips), np.int64)
    rank[order] = np.arange(len(order))
    seconds = _numbers(_flat(clips["duration_s"]))
    matches: dict[tuple[int, int], Match] = {}
    for a, b in index.candidates().tolist():
        if match := sequences.match(a, b, rules):
            matches[a, b] = match
    for a, b in list(_closure(matches, rank, seconds)):
        if (a, b) not in matches and (match := sequences.match(a, b, rules)):
            matches[a, b] = match
    linked = sorted({clip for pair in matches for clip in pair}, key=lambda clip: int(rank[clip]))
    return resolve(linked, {clip: float(seconds[clip]) for clip in linked}, matches)


class _Sequences:
    """The hashes of clips, read straight from the Arrow buffers."""

    def __init__(self, clips: pa.Table):
        hashes, times = _flat(clips["phash"]), _flat(clips["phash_s"])
        self._sources = _flat(clips["source_id"]).dictionary_encode().indices.to_numpy(zero_copy_only=False)
        self._offsets = [column.offsets.to_numpy() for column in (hashes, times)]
        self._values = [column.values.to_numpy(zero_copy_only=False) for column in (hashes, times)]

    def hashes(self, clip: int) -> npt.NDArray[np.uint64]:
        return self._row(0, clip)

    def _row(self, column: int, clip: int) -> npt.NDArray[Any]:
        offsets = self._offsets[column]
        return self._values[column][offsets[clip] : offsets[clip + 1]]

    def match(self, a: int, b: int, rules: DuplicateRules) -> Match | None:
        same = bool(self._sources[a] == self._sources[b])
        return verify(self._row(0, a), self._row(1, a), self._row(0, b), self._row(1, b), rules, same_source=same)


def _best_first(
    clips: pa.Table, scores: pa.Table, chosen: npt.NDArray[np.int64], rules: DuplicateRules
) -> npt.NDArray[np.int64]:
    """Return clips in the order of `rules.prefer`; the key decides between equals. What is not measured comes last."""
    columns = []
    known = _known(clips, scores)
    for name in rules.prefer:
        bare = name.removeprefix("-")
        if bare not in known:
            raise policies.missing(Rule(name="dedup.prefer", measure=bare), known)
        numbers = _numbers(measure(bare, clips, scores))[chosen]
        signed = numbers if name.startswith("-") else -numbers
        columns.append(np.where(np.isnan(signed), np.inf, signed))
    return chosen[np.lexsort((chosen, *reversed(columns)))]


def _closure(
    matches: dict[tuple[int, int], Match], rank: npt.NDArray[np.int64], seconds: npt.NDArray[np.float64]
) -> Iterator[tuple[int, int]]:
    """Yield, for each group of linked clips, the pairs with its best and its longest clip; LSH may have missed one."""
    root: dict[int, int] = {}

    def find(clip: int) -> int:
        while root.setdefault(clip, clip) != clip:
            root[clip] = root[root[clip]]
            clip = root[clip]
        return clip

    for a, b in sorted(matches):
        low, high = sorted((find(a), find(b)))
        root[high] = low
    groups: dict[int, list[int]] = {}
    for clip in sorted(root):
        groups.setdefault(find(clip), []).append(clip)
    for group in groups.values():
        best = min(group, key=lambda clip: rank[clip])
        longest = min(group, key=lambda clip: (-seconds[clip], rank[clip]))
        for chief in {best, longest}:
            yield from ((min(chief, clip), max(chief, clip)) for clip in group if clip != chief)


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
    }
    return pa.table(columns).cast(TABLES["selection"])


def _pairs(clips: pa.Table, policy: Policy, pairs: list[Pair]) -> pa.Table:
    keys = clips["key"]
    rows = [
        {
            "policy": policy.name,
            "key": keys[pair.dropped].as_py(),
            "kept_key": keys[pair.kept].as_py(),
            "kind": pair.kind,
            "distance": pair.distance,
            "offset_s": pair.offset_s,
            "overlap_s": pair.overlap_s,
            "why": _why(clips, pair),
        }
        for pair in pairs
    ]
    rows.sort(key=lambda row: str(row["key"]))
    return pa.Table.from_pylist(rows, schema=TABLES["pairs"])


def _why(clips: pa.Table, pair: Pair) -> str:
    def facts(clip: int) -> str:
        width, height, rate, seconds = (
            clips[name][clip].as_py() for name in ("width", "height", "bit_rate", "duration_s")
        )
        return f"{width}×{height}, {'?' if rate is None else round(rate / 1000)} kbit/s, {seconds:.2f} s"

    way = "" if pair.via is None else f", through {clips['key'][pair.via].as_py()}"
    verb = "contains it" if pair.kind == "excerpt" else "is preferred"
    return f"{facts(pair.kept)} {verb} over {facts(pair.dropped)}{way}"
