"""`rushes select --dry-run`: what a policy would keep, answered from the ledger alone in seconds. No Ray, no video.

    found = trial("runs/first", "svd-pretrain")
    print("\\n".join(lines(found)))

Reads the columns that the policy looks at, tries its rules, seeks duplicates and compares the outcome with a selection
that the run already has. Nothing is written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rushes.filters.policy import DUPLICATE, Policy, Rule, Value
from rushes.filters.verdicts import Verdicts
from rushes.pipelines.progress import counted
from rushes.pipelines.stages.select import select, selections
from rushes.pipelines.stages.select.measures import remedy
from rushes.pipelines.store.columns import numbers
from rushes.pipelines.store.ledger import Ledger

log = logging.getLogger("rushes")
Mask = npt.NDArray[np.bool_]
UPPER = "UPPER BOUNDS: rules that could not be measured were left out, so fewer clips than these would stay"


def trial(
    run: str, name: str = "", *, against: str = "", skip_unmeasured: bool = False, examples: int = 0
) -> dict[str, Any]:
    """Return what a policy would do with a run's clips, as plain values.

    Args:
        run: the run's folder.
        name: a preset, a path, or a selection of the run; the policy of its configuration if not given.
        against: the selection to compare with; the current one if not given.
        skip_unmeasured: whether to count without the rules whose measure no clip has. What is counted then is an upper
            bound, and says so.
        examples: how many keys of newly kept and of newly dropped clips to list.

    Raises ValueError for a folder that is no run, PolicyError, also for a measure that there never is, and
    SelectionError for an unknown `against`.
    """
    if examples < 0:
        raise ValueError(f"cannot list {examples} clips; give a number from 0")
    clock = _Clock()
    ledger = Ledger(run)
    ledger.require()
    policy = selections.chosen(run, name, selections.hdr_of(run))[0]
    seen = selections.material(ledger, policy, lambda text: log.info("dry run: %s; nothing is kept of it", text))
    clock.lap("read")
    select.check_names(policy, seen.there)
    absent = select.unmeasured(policy, set(seen.there)) if len(seen.clips) else []
    found: dict[str, Any] = {
        "run": run, "policy": policy.name, "about": policy.about,
        "unmeasured": [
            {"rule": rule.name, "measure": rule.measure, "remedy": remedy(rule, seen.there)} for rule in absent
        ],
        "counted": skip_unmeasured or not absent,
        "upper_bound": bool(absent),
        "notes": _notes(ledger, policy),
    }  # fmt: skip
    if found["counted"]:
        found |= _counted(seen, policy, absent, ledger, against, examples, clock)
    return {**found, "seconds": clock.laps}


def _counted(
    seen: selections.Material, policy: Policy, absent: Sequence[Rule], ledger: Ledger, against: str, examples: int,
    clock: _Clock,
) -> dict[str, Any]:  # fmt: skip
    judged = select.judge(seen.clips, seen.scores, policy, seen.there, [rule.name for rule in absent])
    clock.lap("limits")
    selection, _ = select.resolve(judged, seen.scores, policy, seen.matches)
    clock.lap("duplicates")
    seconds = numbers(selection["duration_s"].combine_chunks())
    found = counts(policy, judged.verdicts, seconds, absent)
    found["against"] = _compared(ledger, against, policy, judged.verdicts, selection, seconds, examples)
    clock.lap("compare")
    return found


def counts(
    policy: Policy, verdicts: Verdicts, seconds: npt.NDArray[np.float64], absent: Sequence[Rule] = ()
) -> dict[str, Any]:
    """Return what verdicts come to in clips and hours: `found`, `kept`, `rules` in their order, and `duplicates`.

    Args:
        policy: what was tried.
        verdicts: of each clip, duplicates among them.
        seconds: length of each clip.
        absent: rules that were left out.
    """
    places, most = verdicts.failed + 1, len(policy.rules) + 2  # kept, the rules, duplicates
    clips = np.bincount(places, minlength=most)
    known = np.nan_to_num(seconds) if np.isnan(seconds.sum()) else seconds
    hours = np.bincount(places, known, minlength=most) / 3600
    kept, *ruled, duplicates = (
        {"clips": int(one), "hours": float(other)} for one, other in zip(clips, hours, strict=True)
    )
    rules = []
    for rule, dropped in zip(policy.rules, ruled, strict=True):
        row = {"rule": rule.name, "measure": rule.measure, "limit": limit_text(rule), "measured": rule not in absent}
        row |= dropped
        if rule.name in verdicts.thresholds:
            value, left, of = verdicts.thresholds[rule.name]
            row |= {"threshold": None if np.isnan(value) else value, "kept_of": [left, of]}
        rules.append(row)
    return {
        "found": {"clips": len(seconds), "hours": float(known.sum()) / 3600},
        "kept": kept,
        "rules": rules,
        "duplicates": {"sought": policy.dedup.enabled, **duplicates},
    }


def changed(policy: Policy, verdicts: Verdicts, seconds: npt.NDArray[np.float64], was: Mask) -> dict[str, Any]:
    """Return what verdicts change against another selection, which kept the clips `was`: by clips, hours and rules."""
    kept = verdicts.kept
    lost = was & ~kept
    names = [*(rule.name for rule in policy.rules), DUPLICATE]
    rows = [(names[place], lost & (verdicts.failed == place)) for place in np.unique(verdicts.failed[lost])]
    return {
        "same": _tally(seconds, kept & was),
        "newly_kept": _tally(seconds, kept & ~was),
        "newly_dropped": {
            **_tally(seconds, lost),
            "rules": [{"rule": name, **_tally(seconds, chosen)} for name, chosen in sorted(rows, key=itemgetter(0))],
        },
    }


def _compared(
    ledger: Ledger, against: str, policy: Policy, verdicts: Verdicts, selection: pa.Table,
    seconds: npt.NDArray[np.float64], examples: int,
) -> dict[str, Any] | None:  # fmt: skip
    """Return what changes against a selection that stands in the ledger, None where there is none."""
    other = selections.choose(ledger.run, selections.names(ledger), against)
    if other is None:
        return None
    before, was, gone = _before(ledger, other, selection)
    found = changed(policy, verdicts, seconds, was)
    found["newly_kept"]["examples"] = _keys(selection, verdicts.kept & ~was, examples)
    found["newly_dropped"]["examples"] = _keys(selection, was & ~verdicts.kept, examples)
    return {
        "selection": other,
        "stale": other in selections.stale(ledger),
        "kept": {"clips": len(before), "hours": (pc.sum(before["duration_s"]).as_py() or 0.0) / 3600},
        **found,
        "no_longer_clips": gone,
    }


def _before(ledger: Ledger, name: str, selection: pa.Table) -> tuple[pa.Table, Mask, int]:
    """Return what a selection of the ledger keeps, which clips of another one that is, and how many of it are gone."""
    every = ledger.read("selection", ["key", "kept", "duration_s"], where=pc.field("policy") == name)
    before = every.filter(every["kept"])
    if every["key"].equals(selection["key"]):  # both are sorted by key, and mostly of the same clips
        return before, _mask(every["kept"]), 0
    keys = [table["key"].combine_chunks() for table in (before, selection)]
    gone = pc.sum(pc.invert(pc.is_in(keys[0], value_set=keys[1]))).as_py() or 0
    return before, _mask(pc.is_in(keys[1], value_set=keys[0])), gone


def _tally(seconds: npt.NDArray[np.float64], chosen: Mask) -> dict[str, float | int]:
    own = seconds[chosen]
    total = own.sum()
    return {"clips": len(own), "hours": float(np.nansum(own) if np.isnan(total) else total) / 3600}


def _keys(selection: pa.Table, chosen: Mask, count: int) -> list[dict[str, Any]]:
    rows = selection.take(pa.array(np.flatnonzero(chosen)[:count]))
    return rows.select(["key", "rule", "value", "limit", "detail"]).to_pylist()


def _mask(column: pa.ChunkedArray | pa.Array) -> Mask:
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return column.to_numpy(zero_copy_only=False).astype(bool)


def _notes(ledger: Ledger, policy: Policy) -> list[str]:
    notes = [selections.unfinished(ledger)]
    if reason := selections.clash(ledger, policy):
        notes.append(f"it could be tried but not selected by: {reason}")
    elif changed := selections.differs(ledger, policy):
        notes.append(
            f"a selection of other rules bears the name {policy.name} here and would be replaced "
            f"(changed: {', '.join(changed)}); give the policy another name to keep both"
        )
    return [note for note in notes if note]


def limit_text(rule: Rule) -> str:
    """Return a rule's limit as people write it: `≥ 16`, `highest 30 %`, `is CC0 or missing`."""
    words: list[str] = []
    for sign, bound in (("≥", rule.min), ("≤", rule.max)):
        words += [f"{sign} {bound:g}"] if bound is not None else []
    for sign, among in (("is", rule.among), ("is not", rule.not_among)):
        words += [f"{sign} {' or '.join(map(_listed, among))}"] if among is not None else []
    if rule.share is not None:
        words.append(f"{'lowest' if rule.keep_highest is None else 'highest'} {100 * rule.share:g} %")
    return " and ".join(words) + (" or missing" if rule.missing == "keep" else "")


def _listed(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._at = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a step."""
        now = time.perf_counter()
        self.laps[name], self._at = round(now - self._at, 4), now


def lines(found: dict[str, Any]) -> list[str]:
    """Return what `trial` found as lines for a terminal."""
    text = [f"{found['run']}: policy {found['policy']}" + (f", {found['about']}" if found["about"] else "")]
    text += [f"note: {note}" for note in found["notes"]]
    for row in found["unmeasured"]:
        text.append(f"not measured: rule {row['rule']} needs {row['measure']}: {row['remedy']}")
    if not found["counted"]:
        return [*text, "nothing was counted; --skip-unmeasured counts without these rules"]
    text += ["", f"  {'':<24} {'clips':>9} {'hours':>10}  limit", _line("found", found["found"])]
    for row in found["rules"]:
        text.append(_line(f"− {row['rule']}", row, _limit_words(row)))
    text.append(_line(f"− {DUPLICATE}", found["duplicates"], "" if found["duplicates"]["sought"] else "not sought"))
    text.append(_line("kept", found["kept"]))
    if found["upper_bound"]:
        text += ["", UPPER]
        if any("kept_of" in row for row in found["rules"]):
            text.append("and a rule that keeps a share took it of more clips than there would be")
    text += ["", *_against_lines(found["against"])]
    spent = ", ".join(f"{name} {value:.2f}" for name, value in found["seconds"].items())
    return [*text, "", f"{sum(found['seconds'].values()):.2f} s: {spent}", "nothing was written"]


def _limit_words(row: dict[str, Any]) -> str:
    words = f"{row['measure']} {row['limit']}"
    if not row["measured"]:
        return f"{words}: NOT MEASURED, left out"
    if row.get("threshold") is not None:
        words += f": {row['kept_of'][0]} of {row['kept_of'][1]}, to {row['threshold']:.6g}"
    return words


def _line(name: str, row: dict[str, Any], words: str = "") -> str:
    return f"  {name:<24} {row['clips']:>9} {row['hours']:>10.4f}  {words}".rstrip()


def _against_lines(found: dict[str, Any] | None) -> Iterable[str]:
    if found is None:
        return ["nothing is selected here yet, so there is nothing to compare with"]
    stale = ", made of an older ledger" if found["stale"] else ""
    text = [f"against the selection {found['selection']} ({counted(found['kept']['clips'], 'clip')}{stale}):"]
    new, lost = found["newly_kept"], found["newly_dropped"]
    text += [_line("kept by both", found["same"]), _line("newly kept", new)]
    text += [f"      {row['key']}" for row in new["examples"]]
    text += [_line("newly dropped", lost)]
    text += [_line(f"  by {row['rule']}", row) for row in lost["rules"]]
    for row in lost["examples"]:
        said = row["detail"] or f"{row['value']:.6g} against {row['limit']:.6g}"
        text.append(f"      {row['key']}  {row['rule']}: {said}")
    if found["no_longer_clips"]:
        text.append(f"  no longer clips, of that selection: {found['no_longer_clips']}")
    return text
