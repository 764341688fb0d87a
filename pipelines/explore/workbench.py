"""A run's clips in memory, on which policies are tried while a person moves their limits.

    bench = Workbench("runs/first")
    bench.outcome(policies.load(text))["kept"]      # the counts of `rushes select --dry-run`

Rules are tried and duplicates told by `stages.select`, which every selection is made by; what is kept here is what
need not be read or sorted again. Memory holds the columns that were asked for, 12 bytes a clip and number.
"""

from __future__ import annotations

import dataclasses
import operator
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from rushes.filters import policy as policies
from rushes.filters.policy import DUPLICATE, Policy, Value
from rushes.filters.verdicts import Verdicts
from rushes.pipelines.explore import views
from rushes.pipelines.explore.map import Map
from rushes.pipelines.report import measures
from rushes.pipelines.report.accounting import Books
from rushes.pipelines.report.charts import Histogram
from rushes.pipelines.stages.select import select, selections, trial
from rushes.pipelines.stages.select.measures import measure as values_of
from rushes.pipelines.stages.select.measures import with_scores
from rushes.pipelines.store import storage
from rushes.pipelines.store.columns import flat, numbers
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.sql import reading, tables
from rushes.pipelines.store.tables import TABLES

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]
PAGE = 60
LABELS = 50
"""Values of a text that are counted by themselves."""
ORDERS = ("highest", "lowest", "nearest", "spread")
TAG = "tag"
FIRST_TAG = r"^(?P<tag>.*?) [0-9.]+(?:,|$)"
COLOURS = 9
"""Labels that have a colour of their own; the others share one."""
FATES = ("", "kept", "dropped", "new", "lost")
"""All clips, those of a fate, and those that come in and go out against the selection."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which clips are meant: those that all of this holds for."""

    fate: str = ""
    """Kept or dropped by the policy; new or lost against the selection; any if empty."""
    rule: str = ""
    """Dropped by this rule; by any or none if empty."""
    text: str = ""
    """Source or caption has it, in either case."""
    ranges: tuple[tuple[str, float, float], ...] = ()
    """A measure lies from the first number to below the second; each may be infinite."""
    lasso: tuple[tuple[float, float], ...] = ()
    """On the map it lies inside this line."""

    def __post_init__(self) -> None:
        if self.fate not in FATES:
            raise ValueError(f"fates are {', '.join(FATES[1:])}; not {self.fate!r}")


ALL = Filter()
"""All clips."""


@dataclass(frozen=True, kw_only=True)
class Hue:
    """What a colour stands for: a number of each clip, or which of some names it bears."""

    values: Numbers | None = None
    codes: npt.NDArray[np.int64] | None = None
    names: Sequence[str | None] = ()


class Workbench:
    """The clips of a run under one selection, sorted by key; the columns of a measure come when it is asked for."""

    def __init__(self, run: str, selection: str = ""):
        """Read what the selection's policy looks at; that of config.yaml where nothing is selected yet.

        Raises NoRun, SelectionError and PolicyError.
        """
        self.run = storage.absolute(run).rstrip("/")
        self.ledger = Ledger(self.run).snapshot()
        self.ledger.require()
        self.selections = selections.names(self.ledger)
        self.lock = threading.RLock()
        """Held while policies are tried …"""
        self.asking = threading.RLock()
        """… and while the connection of the books answers, so that a slow query holds up no slider."""
        self.choose(selection)
        seen = selections.material(self.ledger, self.policy)
        self.there = seen.there
        self._matches = {self.policy.dedup: (seen.matches, seen.scores)}
        self.clips = select.prepared(seen.clips, seen.scores, self.policy)
        self._ready = self.clips.select([])
        self._make_ready(select.asked(self.policy))
        self.seconds = numbers(flat(self.clips["duration_s"]))
        self._drawing = duckdb.connect()
        self._bins: dict[str, tuple[Histogram, npt.NDArray[np.int64]]] = {}
        self._labels: dict[str, tuple[npt.NDArray[np.int64], list[str | None]]] = {}
        self._all: dict[str, npt.NDArray[np.int64]] = {}
        self._gone: tuple[Mask, dict[str, npt.NDArray[np.int64]]] = np.empty(0, bool), {}
        """Clips that were dropped last, and how many of them in each bin."""
        self._tried: dict[Policy, Verdicts] = {}
        self._said: tuple[str, Mask] = "", np.empty(0, bool)
        """The words that were last searched for, and where they stand."""
        self.map = Map(self.run, self.ledger, self.clips["key"], self.there)

    def choose(self, selection: str) -> None:
        """Look at the run under one of its selections; see `selections.choose`. Raises SelectionError, PolicyError."""
        self.selection = selections.choose(self.run, self.selections, selection)
        self.policy, text = selections.chosen(self.run, self.selection or "", selections.hdr_of(self.run))
        self.given: dict[str, Any] = yaml.safe_load(text)
        """The policy as its file has it."""

    @cached_property
    def books(self) -> Books:
        """The run's ledger with its views, for queries; opened when one is asked, since its account takes a while."""
        return views.opened(self.run, self.selection)

    def _make_ready(self, asked: Iterable[str]) -> None:
        """Lay the columns out as rules are tried on them: numbers without nulls, and beside them what is derived."""
        for name in self.clips.column_names:
            column = self.clips[name]
            if name not in self._ready.column_names:
                text = pa.types.is_string(column.type)
                self._ready = self._ready.append_column(name, column if text else pa.array(numbers(flat(column))))
        for name in views.DERIVED:
            if name in asked and name not in self._ready.column_names:
                self._ready = self._ready.append_column(name, pa.array(numbers(values_of(name, self.clips))))

    @cached_property
    def keys(self) -> npt.NDArray[np.bytes_]:
        """The keys of all clips, ascending."""
        return _fixed(self.clips["key"])

    @cached_property
    def was(self) -> Mask | None:
        """Which clips the selection keeps; None where nothing is selected."""
        if self.selection is None:
            return None
        with reading(self.ledger), tables(self.ledger, "selection") as db:
            db.execute("set variable policy = ?", [self.selection])
            kept = "select key from selection where policy = getvariable('policy') and kept"
            rows = db.sql(kept).to_arrow_table()
        places = np.searchsorted(self.keys, _fixed(rows["key"]))
        found = np.zeros(len(self.keys), bool)
        found[places[places < len(found)]] = True
        return found

    def place(self, key: str) -> int:
        """Return the row of a clip. Raises KeyError for a key that is none."""
        at = int(np.searchsorted(self.keys, key.encode()))
        if at >= len(self.keys) or self.keys[at] != key.encode():
            raise KeyError(key)
        return at

    def measured(self) -> list[dict[str, Any]]:
        """Return the measures that a rule can limit, each with title, unit and whether it is a number."""
        found = []
        for name in sorted(self.there):
            title, unit = measures.TITLES.get(name, (name.replace("_", " ").capitalize(), ""))
            kind = TABLES["clips"].field(name).type if name in TABLES["clips"].names else pa.float64()
            form = "text" if pa.types.is_string(kind) else "flag" if pa.types.is_boolean(kind) else "number"
            found.append({"name": name, "title": title, "unit": unit, "form": form})
        return found

    # ------------------------------------------------------------------------------------------------------- trying

    def need(self, policy: Policy) -> None:
        """Read what a policy looks at and is not here yet. Raises PolicyError for a measure that there never is."""
        select.check_names(policy, self.there)
        asked = {*select.columns(policy), *(select.asked(policy) - set(views.DERIVED))} - set(self.clips.column_names)
        if fresh := asked & self.there:
            self._add(fresh)
        self._make_ready(select.asked(policy))
        if policy.dedup not in self._matches:
            seen = selections.material(self.ledger, policy)
            self._matches[policy.dedup] = seen.matches, seen.scores

    def _add(self, names: set[str]) -> None:
        """Read columns of the clips, or what scorers gave them."""
        own = [name for name in TABLES["clips"].names if name in names]
        clips, scores, _ = selections.columns_of(self.ledger, ["key", *own], names)
        found = with_scores(clips, scores, names - set(own))
        places = pc.index_in(flat(self.clips["key"]), value_set=flat(found["key"]))
        for name in sorted(names):
            self.clips = self.clips.append_column(name, flat(found[name]).take(places))

    def verdicts(self, policy: Policy, settled: bool = True) -> Verdicts:
        """Return the verdicts of a policy; not settled, those of its limits alone, without duplicates."""
        if policy in self._tried:
            return self._tried[policy]
        self.need(policy)
        judged = select.tried(self._ready, policy, self.there)
        if settled:
            matches, scores = self._matches[policy.dedup]
            select.settle(judged, scores, policy, matches)
            for old in [one for one in self._tried if one != self.policy][:-2]:  # what all is held against stays
                self._tried.pop(old)
            self._tried[policy] = judged.verdicts
        return judged.verdicts

    def outcome(self, policy: Policy, settled: bool = True) -> dict[str, Any]:
        """Return what a policy does: counts as of a dry run, what changes, and how its measures are spread.

        Args:
            policy: what to try.
            settled: whether duplicates are sought among what its limits leave; without, there are more kept, and no
                spread of a measure that was not drawn before.
        """
        begun = time.perf_counter()
        with self.lock:
            verdicts = self.verdicts(policy, settled)
            found = trial.counts(policy, verdicts, self.seconds) | {"settled": settled, "policy": policy.name}
            names = {rule.measure for rule in policy.rules}
            drawn = names if settled else names & {*self._bins, *self._labels}
            found["spread"] = self._spreads(sorted(drawn), ~verdicts.kept)
            if self.was is not None:
                changed = trial.changed(policy, verdicts, self.seconds, self.was)
                found["against"] = {"selection": self.selection, **changed}
        return found | {"ms": round(1000 * (time.perf_counter() - begun), 1)}

    def _spreads(self, names: Sequence[str], gone: Mask) -> dict[str, Any]:
        """Return how measures are spread over all clips and those that are not gone, from what was gone before.

        A limit that moves a little changes the verdict of few clips: only these are counted anew.
        """
        before, counts = self._gone
        turned = np.flatnonzero(before != gone) if len(before) else np.arange(len(gone))
        if 2 * len(turned) < gone.sum():
            came, went = turned[before[turned]], turned[gone[turned]]
            counts = {name: old - self._counts(name, came) + self._counts(name, went) for name, old in counts.items()}
        else:
            counts = {}
        for name in names:
            if name not in counts:
                counts[name] = self._counts(name, np.flatnonzero(gone))
        self._gone = gone, counts
        return {name: self._drawn(name, counts[name]) for name in names}

    def _counts(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return how many of some clips are in each bin of a measure, or have each of its values."""
        if self._is_label(name):
            codes, labels = self._coded(name)
            return np.bincount(codes[rows], minlength=len(labels))
        if name not in self._bins:
            self._bins[name] = self._binned(name, numbers(flat(self._ready[name])))
        drawn, places = self._bins[name]
        return np.bincount(places[rows], minlength=len(drawn.edges))

    def _drawn(self, name: str, gone: npt.NDArray[np.int64]) -> dict[str, Any]:
        """Return the spread of a measure, from how many of the clips in each bin, or of each value, are gone."""
        if self._is_label(name):
            return {"labels": _listed(self._coded(name)[1], self._every(name), gone)}
        drawn, _ = self._bins[name]
        kept = [whole - part for whole, part in zip(drawn.dropped, gone.tolist(), strict=False)]
        return {"edges": drawn.edges, "log": drawn.log, "all": drawn.dropped, "kept": kept}

    def _every(self, name: str) -> npt.NDArray[np.int64]:
        """Return how many of all clips have each value of a label."""
        if name not in self._all:
            codes, labels = self._coded(name)
            self._all[name] = np.bincount(codes, minlength=len(labels))
        return self._all[name]

    def _is_label(self, name: str) -> bool:
        kind = self.clips[name].type if name in self.clips.column_names else pa.float64()
        return bool(pa.types.is_string(kind) or pa.types.is_boolean(kind))

    def _coded(self, name: str) -> tuple[npt.NDArray[np.int64], list[str | None]]:
        """Return a column of labels as numbers, and what these stand for."""
        if name not in self._labels:
            column = self._tags() if name == TAG else flat(self.clips[name]).cast(pa.string())
            encoded = column.dictionary_encode("encode")
            codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
            self._labels[name] = codes, encoded.dictionary.to_pylist()
        return self._labels[name]

    def _tags(self) -> pa.Array:
        """Return the likeliest tag of each clip; null where it has none."""
        rows = self.ledger.read("scores", ["key", "label"], pc.field("scorer") == "tags")
        found = rows["label"].take(pc.index_in(flat(self.clips["key"]), value_set=flat(rows["key"])))
        return pc.struct_field(pc.extract_regex(flat(found), FIRST_TAG), "tag")

    def hue(self, policy: Policy, name: str) -> Hue:
        """Return what colours clips: `fate` or `rule` under a policy, `tag`, or any measure.

        Raises PolicyError for a measure that there never is.
        """
        with self.lock:
            if name in ("fate", "rule"):
                failed = self.verdicts(policy).failed
                names = ["kept", *(rule.name for rule in policy.rules), DUPLICATE]
                return Hue(codes=failed.astype(np.int64) + 1, names=names) if name == "rule" else Hue(
                    codes=np.where(failed < 0, 0, 1), names=["kept", "dropped"]
                )  # fmt: skip
            if name != TAG:
                self._look([name])
            if name == TAG or self._is_label(name):
                return _commonest(*self._coded(name))
            return Hue(values=self._values(name))

    def _binned(self, name: str, values: Numbers) -> tuple[Histogram, npt.NDArray[np.int64]]:
        """Return the report's histogram of a measure, and in which bin each clip is; those without a value in none."""
        unit = measures.TITLES.get(name, ("", ""))[1]
        self._drawing.register("held", pa.table({"value": values, "kept": np.zeros(len(values), bool)}))
        books = Books(
            run=self.run, ledger=self.ledger, connection=self._drawing, policy=self.selection, policies=self.selections
        )
        drawn = measures.histogram(books, "held", [], unit.startswith("share"))
        self._drawing.unregister("held")
        if drawn is None:
            return Histogram(edges=[], kept=[], dropped=[], log=False), np.zeros(len(values), np.int64)
        places = np.searchsorted(drawn.edges[1:-1], values, side="right")
        places[~np.isfinite(values)] = len(drawn.edges) - 1
        return drawn, places

    # ------------------------------------------------------------------------------------------------------ looking

    def listed(
        self, policy: Policy, chosen: Filter = ALL, *, measure: str = "", order: str = "highest", limit: float = 0.0,
        first: int = 0, count: int = PAGE,
    ) -> dict[str, Any]:  # fmt: skip
        """Return a page of clips under a policy.

        Args:
            policy: whose verdicts are meant.
            chosen: which clips.
            measure: by which they are ordered; by key if empty.
            order: highest, lowest, nearest to `limit`, or spread evenly from the lowest to the highest.
            limit: see `order`.
            first: so many are passed over.
            count: so many at most.

        Raises ValueError for words that mean nothing.
        """
        if order not in ORDERS:
            raise ValueError(f"orders are {', '.join(ORDERS)}; not {order!r}")
        with self.lock:
            verdicts = self.verdicts(policy)
            rows = np.flatnonzero(self.meant(policy, chosen))
            values = self._values(measure)
            if values is not None:
                rows = rows[np.isfinite(values[rows])]
                page = _ordered(rows, values[rows], order, limit, first, count)
            else:
                page = rows[first : first + count]
            return {"total": len(rows), "clips": [self._card(int(at), policy, verdicts, values) for at in page]}

    def meant(self, policy: Policy, chosen: Filter) -> Mask:
        """Return which clips a filter means under a policy."""
        with self.lock:
            return self._but_ranges(policy, chosen) & _all(self._within(one) for one in chosen.ranges)

    def _but_ranges(self, policy: Policy, chosen: Filter) -> Mask:
        found = self._among(self.verdicts(policy), policy, chosen.fate, chosen.rule) & self._saying(chosen.text)
        return found & self.map.inside(chosen.lasso) if chosen.lasso else found

    def _within(self, span: tuple[str, float, float]) -> Mask:
        measure, low, high = span
        values = self._values(measure)
        assert values is not None, measure
        return (values >= low) & (values < high)

    def spread(self, policy: Policy, chosen: Filter, names: Sequence[str]) -> dict[str, Any]:
        """Return how measures are spread over all clips, and over those that a filter means under a policy.

        What a filter says of a measure itself is left out of that measure's own spread, so that a range can be moved.
        """
        with self.lock:
            self._look([*names, *(one[0] for one in chosen.ranges)])
            rest, spans = self._but_ranges(policy, chosen), [(one[0], self._within(one)) for one in chosen.ranges]
            found = {}
            for name in names:
                stays = rest & _all(inside for other, inside in spans if other != name)
                found[name] = self._drawn(name, self._counts(name, np.flatnonzero(~stays)))
            return found

    def need_all(self) -> None:
        """Read every measure that is a number and not here yet."""
        self._look([one["name"] for one in self.measured() if one["form"] == "number"])

    def _look(self, names: Sequence[str]) -> None:
        some: dict[str, dict[str, Any]] = {
            "number": {"min": 0},
            "text": {"in": [""]},
            "flag": {"in": [True]},
        }  # any limit has its measure read
        forms = {one["name"]: one["form"] for one in self.measured()}
        rules = [
            {"name": f"r{at}", "measure": name, **some[forms.get(name, "number")]}
            for at, name in enumerate(dict.fromkeys(names))
        ]
        self.need(dataclasses.replace(policies.load({"name": "looked", "rules": rules}), dedup=self.policy.dedup))

    def _values(self, measure: str) -> Numbers | None:
        if not measure:
            return None
        self._look([measure])
        return numbers(flat(self._ready[measure]))

    def value(self, measure: str, at: int) -> Value:
        """Return what a policy that was tried looks at of the clip in a row; None where nothing was measured."""
        if measure in self.clips.column_names:
            found = self.clips[measure][at].as_py()
        else:
            found = float(self._ready[measure][at].as_py()) if measure in self._ready.column_names else None
        return None if isinstance(found, float) and np.isnan(found) else found

    def numbers_of(self, measure: str) -> Numbers | None:
        """Return a measure of all clips that is in memory as numbers; None for another."""
        known = measure in self._ready.column_names and not pa.types.is_string(self._ready[measure].type)
        return numbers(flat(self._ready[measure])) if known else None

    def text_of(self, name: str) -> dict[str, Any]:
        """Return a policy as its file has it: that of a selection, `draft:NAME` or a preset. Raises PolicyError."""
        draft = re.fullmatch(r"draft:([A-Za-z0-9_-]{1,64})", name)
        if draft and storage.exists(uri := f"{self.run}/drafts/{draft[1]}.yaml"):
            select.read_policy(uri)
            found: dict[str, Any] = yaml.safe_load(select.policy_text(uri))
            return found
        if name not in self.selections and name not in policies.presets():
            raise policies.PolicyError(f"{name[:80]!r} is no selection, draft or preset")
        text = selections.chosen(self.run, name, selections.hdr_of(self.run))[1]
        return dict(yaml.safe_load(text))

    def named(self, name: str) -> Policy:
        """Return a policy of the run by its name, found as `text_of` finds it. Raises PolicyError."""
        return policies.load(self.text_of(name))

    def drafts(self) -> list[str]:
        """Return the names of the policies that were saved here."""
        names = (uri.rsplit("/", 1)[-1] for uri in storage.list_files(f"{self.run}/drafts"))
        return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))

    def _among(self, verdicts: Verdicts, policy: Policy, fate: str, rule: str) -> Mask:
        was = np.zeros(len(self.keys), bool) if self.was is None else self.was
        sets = {"kept": verdicts.kept, "dropped": ~verdicts.kept, "new": verdicts.kept & ~was,
                "lost": was & ~verdicts.kept}  # fmt: skip
        found = sets.get(fate, np.ones(len(self.keys), bool))
        names = [*(one.name for one in policy.rules), DUPLICATE]
        return found & (verdicts.failed == names.index(rule)) if rule in names else found

    def _saying(self, text: str) -> Mask:
        if not text:
            return np.ones(len(self.keys), bool)
        if self._said[0] != text:  # a list, its histograms and the map ask for the same words
            named = pc.match_substring(flat(self.clips["uri"]), text, ignore_case=True)
            where = pc.match_substring(pc.field("long"), text, ignore_case=True)
            keys = self.ledger.read("captions", ["key"], where)["key"]
            captioned = pc.is_in(flat(self.clips["key"]), value_set=flat(keys))
            self._said = text, pc.or_kleene(named, captioned).fill_null(False).to_numpy(zero_copy_only=False)
        return self._said[1]

    def _card(self, at: int, policy: Policy, verdicts: Verdicts, values: Numbers | None) -> dict[str, Any]:
        place = int(verdicts.failed[at])
        names = [*(rule.name for rule in policy.rules), DUPLICATE]
        word = int(verdicts.words[at])
        return {
            "key": self.keys[at].decode(),
            "uri": storage.redact(self.clips["uri"][at].as_py() or ""),
            "duration_s": _finite(self.seconds[at]),
            "fate": "kept" if place < 0 else "dropped",
            "rule": None if place < 0 else names[place],
            "value": _finite(verdicts.values[at]),
            "limit": _finite(verdicts.limits[at]),
            "detail": None if word < 0 else verdicts.texts[word],
            "was": None if self.was is None else bool(self.was[at]),
            "measured": None if values is None else _finite(values[at]),
        }

    # ------------------------------------------------------------------------------------------------------- saving

    def save(self, given: dict[str, Any], replace: bool = False) -> dict[str, str]:
        """Write a policy as RUN/drafts/NAME.yaml, which `rushes select` takes, and return where and the command.

        Raises PolicyError for what is no policy or bears the name of a preset with other rules, FileExistsError where
        a draft has the name and is not to be replaced.
        """
        policy = policies.load(given)
        select.check_names(policy, self.there)
        if reason := selections.clash(self.ledger, policy):
            raise policies.PolicyError(reason)
        uri = f"{self.run}/drafts/{policy.name}.yaml"
        if not replace and storage.exists(uri):
            raise FileExistsError(f"there is a draft of the name {policy.name} already; give another, or replace it")
        storage.write_bytes(uri, yaml.safe_dump(given, sort_keys=False, allow_unicode=True).encode())
        return {"path": uri, "command": f"rushes select --out {self.run} --policy {uri}"}


def _fixed(keys: pa.ChunkedArray) -> npt.NDArray[np.bytes_]:
    """Return keys as bytes of equal length; where they are, as all keys of clips, without a string for each."""
    column = flat(keys)
    wide = len(column[0].as_py()) if len(column) else 0
    if wide and pc.all(pc.equal(pc.binary_length(column), wide)).as_py() and not column.null_count:
        _, _, data = column.buffers()
        first = np.frombuffer(column.buffers()[1], np.int32)[column.offset]
        return np.frombuffer(data, f"S{wide}", len(column), int(first))
    return np.array(column.to_pylist(), "S")


def _commonest(codes: npt.NDArray[np.int64], names: list[str | None]) -> Hue:
    """Return labels of which the commonest stay, the first the most common, and all others are one."""
    order = np.argsort(-np.bincount(codes, minlength=len(names)), kind="stable")
    shown = [at for at in order.tolist() if names[at] is not None][:COLOURS]
    place = np.full(len(names), len(shown))
    place[shown] = np.arange(len(shown))
    if None in names:
        place[names.index(None)] = len(shown) + 1
    return Hue(codes=place[codes], names=[*(names[at] for at in shown), "other", None])


def _all(masks: Iterable[Mask]) -> Any:
    """Return where all masks hold; true where there is none."""
    return reduce(operator.and_, masks, np.True_)


def _listed(names: list[str | None], every: npt.NDArray[np.int64], gone: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    order = np.argsort(-every, kind="stable")[:LABELS]
    return [{"label": names[at], "all": int(every[at]), "kept": int(every[at] - gone[at])} for at in order]


def _ordered(
    rows: npt.NDArray[np.int64], values: Numbers, order: str, limit: float, first: int, count: int
) -> npt.NDArray[np.int64]:
    """Return a page of rows in an order of their values; of a million only those that may stand on it are sorted."""
    if order == "spread":
        rows = rows[np.argsort(values, kind="stable")]
        if len(rows) > count:
            rows = rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]
        return rows
    sort_by = {"highest": -values, "nearest": np.abs(values - limit)}.get(order, values)
    end = first + count
    if 0 < end < len(rows):
        near = sort_by <= np.partition(sort_by, end - 1)[end - 1]
        rows, sort_by = rows[near], sort_by[near]
    return rows[np.argsort(sort_by, kind="stable")][first:end]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
