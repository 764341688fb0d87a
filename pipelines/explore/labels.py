"""What people say of clips that they looked at, kept in the ledger with who and when, and what it makes of a run.

    put(Ledger("runs/first"), key, "drop", who="ada", at="2026-11-29T23:59:00+00:00")
    print("\\n".join(lines(evaluated("runs/first"))))

`rushes eval` holds the cuts, the policy and the captions against them. A clip with any label counts as looked at: what
was not said to be wrong with it was right.
"""

from __future__ import annotations

import math
from typing import Any

import pyarrow.compute as pc

from rushes.pipelines.progress import counted
from rushes.pipelines.stages.select import selections
from rushes.pipelines.store.clip import is_key
from rushes.pipelines.store.ledger import Ledger, fingerprint

LABELS = {
    "keep": "belongs into the selection",
    "drop": "does not belong into the selection",
    "false_cut": "begins or ends where there is no cut",
    "missed_cut": "there is a cut inside",
    "wrong_caption": "its caption is wrong",
}
OPPOSITE = {"keep": "drop", "drop": "keep"}
PRINT = "0" * 12
"""A part of each person, replaced as a whole."""
SURE = 1.96
"""Standard deviations on either side of a 95 % interval."""
_COLUMNS = ["key", "source_id", "start_s", "end_s", "opens_with", "closes_with"]
_JOINS = ("cut", "fade", "dissolve", "wipe")

Row = dict[str, Any]


def put(ledger: Ledger, key: str, label: str, who: str, at: str, on: bool = True) -> list[Row]:
    """Note or take back what somebody says of a clip; return all that is said of it.

    Args:
        ledger: the run's ledger, no snapshot of it.
        key: the clip.
        label: one of `LABELS`; keep and drop replace each other.
        who: the name of who says it.
        at: when, as ISO 8601.
        on: whether it is said or taken back.

    Raises ValueError for a label or a key that is none.
    """
    if label not in LABELS or not is_key(key):
        raise ValueError(f"labels are {', '.join(LABELS)}, of the key of a clip; not {label[:40]!r} of {key[:40]!r}")
    unit = fingerprint(who)
    mine = [row for part in ledger.parts("labels", unit) for row in ledger.read_whole("labels", part).to_pylist()]
    gone = {label, OPPOSITE.get(label)}
    mine = [row for row in mine if row["key"] != key or row["label"] not in gone]
    if on:
        mine.append({"key": key, "label": label, "who": who, "said_at": at})
    mine.sort(key=lambda row: (row["key"], row["label"]))
    ledger.write("labels", unit, mine, PRINT)
    return of(ledger, key)


def of(ledger: Ledger, key: str) -> list[Row]:
    """Return what is said of a clip, by whom and when."""
    return ledger.read("labels", where=pc.field("key") == key).to_pylist()


def evaluated(run: str, selection: str = "") -> dict[str, Any]:
    """Return precision and recall of cuts and of a selection, and the share of right captions, under the labels.

    Args:
        run: the run.
        selection: which one; see `selections.choose`.

    Raises NoRun, SelectionError, and ValueError where nothing is labelled.
    """
    ledger = Ledger(run).snapshot()
    ledger.require()
    said: dict[str, set[str]] = {}
    for row in ledger.read("labels").to_pylist():
        said.setdefault(row["key"], set()).add(row["label"])
    keys = pc.field("key").isin(sorted(said))
    clips = {row["key"]: row for row in ledger.read("clips", _COLUMNS, keys).to_pylist()} if said else {}
    if not clips:
        raise ValueError(f"no clip of {run} is labelled; label some in `rushes explore {run}`, by keyboard")
    name = selections.choose(ledger.run, selections.names(ledger), selection)
    captioned = [key for key in ledger.read("captions", ["key"], keys)["key"].to_pylist() if key in clips]
    return {
        "run": run,
        "selection": name,
        "clips": len(clips),
        "cuts": _cuts(clips, said),
        "policy": None if name is None else _policy(ledger, name, clips, said),
        "captions": _rate(sum("wrong_caption" not in said[key] for key in captioned), len(captioned)),
    }


def _cuts(clips: dict[str, Row], said: dict[str, set[str]]) -> dict[str, Any]:
    """Return how many boundaries of the clips are right, and how many of the right ones were found."""
    ends = ("opens_with", "start_s"), ("closes_with", "end_s")
    found = {
        (row["source_id"], round(row[at], 3)) for row in clips.values() for kind, at in ends if row[kind] in _JOINS
    }
    false = min(sum("false_cut" in said[key] for key in clips), len(found))
    missed = sum("missed_cut" in said[key] for key in clips)
    right = len(found) - false
    return {"precision": _rate(right, len(found)), "recall": _rate(right, right + missed)}


def _policy(ledger: Ledger, name: str, clips: dict[str, Row], said: dict[str, set[str]]) -> dict[str, Any]:
    where = (pc.field("policy") == name) & pc.field("kept")
    kept = set(ledger.read("selection", ["key"], where)["key"].to_pylist())
    at_odds = {key for key in clips if {"keep", "drop"} <= said[key]}
    good = {key for key in clips if "keep" in said[key]} - at_odds
    bad = {key for key in clips if "drop" in said[key]} - at_odds
    right = len(good & kept)
    return {
        "precision": _rate(right, right + len(bad & kept)),
        "recall": _rate(right, len(good)),
        "people_disagree": len(at_odds),
    }


def _rate(right: int, of_: int) -> dict[str, Any]:
    """Return a share with its 95 % interval (Wilson, 1927); nulls where nothing was looked at."""
    if not of_:
        return {"right": right, "of": of_, "share": None, "low": None, "high": None}
    share, square = right / of_, SURE**2
    middle = (share + square / (2 * of_)) / (1 + square / of_)
    half = SURE / (1 + square / of_) * math.sqrt(share * (1 - share) / of_ + square / (4 * of_**2))
    return {"right": right, "of": of_, "share": share, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def lines(found: dict[str, Any]) -> list[str]:
    """Return an evaluation as lines for a terminal."""
    looked = f"{counted(found['clips'], 'clip')} {'was' if found['clips'] == 1 else 'were'} looked at"
    text = [f"{found['run']}: {looked}; a clip with any label counts as looked at"]
    rows = [("cuts, precision", found["cuts"]["precision"]), ("cuts, recall", found["cuts"]["recall"])]
    if found["policy"]:
        rows += [(f"{found['selection']}, {side}", found["policy"][side]) for side in ("precision", "recall")]
    rows.append(("captions that are right", found["captions"]))
    wide = max(len(name) for name, _ in rows)
    text += [f"  {name:<{wide}}  {_share(rate)}" for name, rate in rows]
    if found["policy"] and found["policy"]["people_disagree"]:
        at_odds = counted(found["policy"]["people_disagree"], "clip")
        text.append(f"  people disagree on {at_odds}, which count for no policy")
    return text


def _share(rate: dict[str, Any]) -> str:
    if rate["share"] is None:
        return "nothing to tell it by"
    return f"{rate['share']:.3f}  ({rate['right']} of {rate['of']}; 95 %: {rate['low']:.3f} to {rate['high']:.3f})"
