"""What a run came to, in a few lines or as JSON: the account, the failures, the shards. No Ray, no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rushes.pipelines.media.passed_over import line
from rushes.pipelines.progress import counted
from rushes.pipelines.report import captions, facts, rights
from rushes.pipelines.report.accounting import Account, Books, open_books
from rushes.pipelines.stages.select import selections
from rushes.pipelines.store import shards, storage
from rushes.pipelines.store.ledger import Ledger

MAX_FAILURES = 50
"""Failures that are named in lines; in plain values there are `facts.FAILURES`, and the number of all."""
_FAILURE = ("stage", "uri", "key", "seconds", "code", "reason", "remedy")


def of(run: str, policy: str | None = None, books: Books | None = None) -> dict[str, Any]:
    """Return the account of a run, its failures and its shards as plain values.

    Args:
        run: the run.
        policy: the policy whose selection is counted; see `accounting.account`.
        books: the run's books under that policy, where they are open already.

    Raises ValueError where the folder is not a run.
    """
    Ledger(run).require()
    books = books or open_books(run, policy)
    found = books.account
    return {
        "run": run,
        "policy": found.policy,
        "inputs": found.inputs,
        "input_s": round(found.input_s, 6),
        "account": _entries(found),
        "unexplained_s": round(found.unexplained_s, 6),
        "passed_over": facts.passed_over(books),
        "failed": facts.failed(books),
        "failures": [{name: row[name] for name in _FAILURE} for row in _by_source(facts.failures(books))],
        "selections": found.policies,
        "stale": selections.stale(books.ledger),
        "captions": captions.of(books.connection),
        **rights.of(books),
        "shards": _shards(run, found.policy),
    }


def forget(run: str) -> None:
    """Forget the summary of a run and that its shards are complete; whoever changes the run does so before."""
    storage.remove_many([_kept(run), _packed(run)])


def outdate(run: str) -> None:
    """Forget the summary of a run, since its page is another now, or tells of less than there is."""
    storage.remove(_kept(run))


def keep(run: str, state: str, found: dict[str, Any]) -> None:
    """Keep a summary with the fingerprint of what it is of."""
    storage.write_bytes(_kept(run), json.dumps({"state": state, "found": found}, default=str).encode())


def kept(run: str, state: str) -> dict[str, Any] | None:
    """Return the summary that was kept of this state of a run, None where another or none was."""
    text = storage.read_if_there(_kept(run))
    try:
        record = json.loads(text or b"{}")
        return record["found"] if record["state"] == state else None
    except (ValueError, KeyError, TypeError):  # cut short, or written by hand
        return None


def _kept(run: str) -> str:
    return f"{run.rstrip('/')}/report/summary.json"


def _by_source(failures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(failures, key=lambda row: (row["uri"] or "", row["stage"] or ""))


def _entries(found: Account) -> list[dict[str, Any]]:
    return [
        {"fate": e.fate, "reason": e.reason, "seconds": round(e.seconds, 6), "clips": e.clips, "sources": e.sources}
        for e in found.entries
    ]


def _shards(run: str, policy: str | None) -> dict[str, Any] | None:
    root = f"{run.rstrip('/')}/shards/{policy}"
    if policy is None or not storage.exists(f"{root}/manifest.json"):
        return None
    manifest = shards.read_manifest(root)
    return {
        "shards": len(manifest.shards),
        "samples": manifest.samples,
        "bytes": sum(s.size_bytes for s in manifest.shards),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Return the summary as lines for a terminal."""
    inputs = counted(found["inputs"], "input")
    text = [f"{found['run']}: {inputs}, {found['input_s']:.3f} s of footage, policy {found['policy']}", ""]
    text += [f"  {'fate':<9} {'reason':<24} {'seconds':>12} {'clips':>8} {'sources':>8}"]
    for e in found["account"]:
        text += [f"  {e['fate']:<9} {e['reason']:<24} {e['seconds']:>12.3f} {e['clips']:>8} {e['sources']:>8}"]
    others = [name for name in found["selections"] if name != found["policy"]]
    if others:
        text[0] += f" (other selections: {', '.join(others)})"
    if found["stale"]:
        commands = (selections.pack_command(found["run"], name) for name in found["stale"])
        text.insert(
            1, f"made of an older ledger: {', '.join(found['stale'])}; bring up to date with: {'; '.join(commands)}"
        )
    total = sum(e["seconds"] for e in found["account"])
    text += [f"  {'sum':<9} {'':<24} {total:>12.3f} {sum(e['clips'] for e in found['account']):>8}"]
    if told := line(found.get("passed_over", [])):
        text += ["", told]
    if found["captions"]:
        text += ["", *captions.lines(found["captions"])]
    text += rights.lines(found)
    if found["shards"]:
        s = found["shards"]
        text += ["", f"{counted(s['samples'], 'clip')} in {counted(s['shards'], 'shard')}, {s['bytes'] / 1e6:.1f} MB"]
    if found["failures"]:
        text += ["", *_failure_lines(found["failures"], found["failed"])]
    if found.get("report"):
        text += ["", f"report: {found['report']}"]
    return text


def _failure_lines(failures: Sequence[dict[str, Any]], number: int) -> list[str]:
    text = [f"{number} failed (what is mended is tried again by the same command with --retry-failed):"]
    for row in failures[:MAX_FAILURES]:
        lost = f" ({row['seconds']:.2f} s lost)" if row["seconds"] else ""
        text += [f"  {row['key'] or row['uri']}: {row['stage']}: {row['code']}: {row['reason']}{lost}; {row['remedy']}"]
    if number > MAX_FAILURES:
        text += [f"  … and {number - MAX_FAILURES} more, in the table `errors` and in the report"]
    return text


def packed(run: str) -> dict[str, str]:
    """Return, by policy, the fingerprint of what its shards were made of, as far as nothing was written since."""
    try:
        found = json.loads(storage.read_if_there(_packed(run)) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def mark_packed(run: str, policy: str, made_of: str) -> None:
    """Note that the shards of a policy are complete."""
    text = json.dumps({**packed(run), policy: made_of})
    storage.write_bytes(_packed(run), text.encode())


def _packed(run: str) -> str:
    return f"{run.rstrip('/')}/report/packed.json"
