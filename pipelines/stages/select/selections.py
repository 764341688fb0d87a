"""The selections of a run: several stand beside each other, each with its own verdicts and shards. No Ray, no torch.

    RUN/policies/NAME.yaml                      the policy as it was when it selected
    RUN/ledger/selection/part-NAME.*            its verdicts, sorted by key
    RUN/ledger/pairs/part-NAME.*                its duplicates
    RUN/shards/NAME/, RUN/latents/NAME/         what was packed of it

Captions and encoded clips are made once, for the clips that any selection keeps. `current` is the policy in the run's
`config.yaml`. A selection carries the fingerprint of the policy, the clips and the scores it was made of: another
content under the same name is another selection, and one that was made before inputs came in is `stale` until its
policy selects again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from rushes.filters import policy as policies
from rushes.filters.policy import Policy
from rushes.pipelines.progress import counted
from rushes.pipelines.stages.match import stage as match
from rushes.pipelines.stages.select import dedup
from rushes.pipelines.stages.select import select as selecting
from rushes.pipelines.stages.select.measures import measurable
from rushes.pipelines.store import shards, storage, takedowns
from rushes.pipelines.store.ledger import Ledger, fingerprint
from rushes.pipelines.store.tables import TABLES

log = logging.getLogger("rushes")
SCORES = ["key", "scorer", "model", "value"]
ROWS = 65_536
"""Rows that are read or written at once."""


class SelectionError(ValueError):
    """There is no such selection, or it cannot be made yet; the message says which there are and what to do."""


def names(ledger: Ledger) -> list[str]:
    """Return the names of the policies that have selected from a ledger, sorted; one listing."""
    return sorted({part.unit for part in ledger.parts("selection")})


def kept_by_unit(ledger: Ledger) -> Iterator[tuple[str, list[str]]]:
    """Yield each unit of sources that has a clip which any selection keeps, with the sorted keys of these clips.

    Captions and encoded clips are made for them once. Units come sorted, one at a time.
    """
    dataset = ledger.dataset("selection")
    if dataset is None:
        return
    import duckdb  # a dry run has no need of it

    with duckdb.connect() as db:
        db.register("selection", dataset)
        found = db.sql("select distinct unit, key from selection where kept order by unit, key")
        for unit, rows in groupby(_rows(found), itemgetter(0)):
            yield unit, [key for _, key in rows]


def _rows(found: Any) -> Iterator[tuple[str, str]]:
    for batch in found.to_arrow_reader(ROWS):
        yield from zip(batch["unit"].to_pylist(), batch["key"].to_pylist(), strict=True)


def settings(run: str) -> dict:
    """Return the resolved configuration that a run saved, empty where there is none."""
    uri = f"{run.rstrip('/')}/config.yaml"
    found = yaml.safe_load(storage.read_if_there(uri) or b"")
    return found if isinstance(found, dict) else {}


def current(run: str) -> str:
    """Return the name of the policy in the run's configuration, empty where there is none."""
    configured = str((settings(run).get("select") or {}).get("policy", ""))
    try:
        return _read(configured, hdr_of(run))[0].name if configured else ""
    except (policies.PolicyError, storage.StorageError, OSError):  # moved since; by custom it bears the policy's name
        return configured.rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".yml")


def succeeds(run: str, given: str) -> str:
    """Return in a sentence that a command makes another policy the run's own, empty where it does not."""
    before = str((settings(run).get("select") or {}).get("policy", ""))
    if before in ("", given):
        return ""
    return f"{given} becomes the policy of the run, which was {before}: commands that name none mean it from now on"


def choose(run: str, there: list[str], wanted: str | None = None) -> str | None:
    """Return the selection that is meant: the wanted one, else the only one, else the current one, else the first.

    None where nothing is selected yet. Raises SelectionError if the wanted one is not there.
    """
    if wanted:
        if wanted not in there:
            said = ", ".join(there) or "none yet"
            raise SelectionError(f"policy {wanted!r} has selected nothing in {run}; selections there: {said}")
        return wanted
    if len(there) < 2:
        return there[0] if there else None
    configured = current(run)
    return configured if configured in there else there[0]


def folder(run: str, kind: str = "shards", wanted: str = "") -> str:
    """Return the folder of a selection's shards or latents: the wanted one, else the only one, else the current one.

    Raises ShardError that lists those that there are.
    """
    return shards.find(f"{run.rstrip('/')}/{kind}", wanted, current(run))


def source(run: str, name: str) -> str:
    """Return where a policy stands that is named: a preset, a path, or one that selected in this run before.

    Without a name it is the policy of the run's configuration. Raises SelectionError where that names none.
    """
    given = name or str((settings(run).get("select") or {}).get("policy", ""))
    if not given:
        raise SelectionError(f"{run}/config.yaml names no policy; give --policy a preset's name or a path")
    own = f"{run.rstrip('/')}/policies/{given}.yaml"
    return own if given not in policies.presets() and "/" not in given and storage.exists(own) else given


def chosen(run: str, name: str, hdr: str) -> tuple[Policy, str]:
    """Return the policy that is named, found as `source` finds it, and its YAML.

    Where HDR is to be dropped (`pack.hdr`), a rule of it does so, and it bears another name; see `select.without_hdr`.
    """
    return _read(source(run, name), hdr)


def hdr_of(run: str) -> str:
    """Return what the run's configuration says that becomes of HDR, empty where there is none."""
    return str((settings(run).get("pack") or {}).get("hdr", ""))


def _read(where: str, hdr: str) -> tuple[Policy, str]:
    policy, text = selecting.read_policy(where), selecting.policy_text(where)
    if hdr == "drop":
        text = selecting.without_hdr(text)
        policy = policies.load(text)
    return policy, text


def pack_command(run: str, name: str) -> str:
    """Return the command that selects, if anything changed, and packs one selection of a run, whichever is current."""
    given = name
    if name in policies.presets() and saved(run, name) not in (None, policies.preset(name)):
        given = f"{run.rstrip('/')}/policies/{name}.yaml"
    return f"rushes pack --out {run.rstrip('/')} --select.policy {given}"


def saved(run: str, name: str) -> Policy | None:
    """Return the policy under whose name a selection stands, as it was then; None where its text is gone."""
    uri = f"{run.rstrip('/')}/policies/{name}.yaml"
    return selecting.read_policy(uri) if storage.exists(uri) else None


def print_of(ledger: Ledger, policy: Policy) -> str:
    """Return the fingerprint of the selection that a policy makes of the ledger as it is; a few listings."""
    return _print(_made_of(ledger), policy)


def _made_of(ledger: Ledger) -> tuple[list[Any], str]:
    """Return what the parts are that any selection is made of, and those that only duplicates are told by."""
    tables = [[(part.unit, part.fingerprint) for part in ledger.parts(table)] for table in ("clips", "scores")]
    failed = [(part.unit, part.fingerprint) for part in ledger.parts("errors", "score-*")]
    return [*tables, failed], match.print_of(ledger)


def _print(made_of: tuple[list[Any], str], policy: Policy) -> str:
    parts, matches = made_of
    return fingerprint("select", policy, *parts, matches if policy.dedup.enabled else "")


def is_done(ledger: Ledger, policy: Policy, print_: str) -> bool:
    """Whether a policy has selected from the ledger as it is."""
    parts = [part.fingerprint for part in ledger.parts("selection", policy.name)]
    return parts == [print_] and print_ in [part.fingerprint for part in ledger.parts("pairs", policy.name)]


def stale(ledger: Ledger) -> list[str]:
    """Return the selections that were made of another ledger than there is now: before inputs came in, say."""
    prints = {table: {part.unit: part.fingerprint for part in ledger.parts(table)} for table in ("selection", "pairs")}
    made_of = _made_of(ledger) if prints["selection"] else ([], "")
    found = []
    for name in sorted(prints["selection"]):
        policy = saved(ledger.run, name)
        now = None if policy is None else _print(made_of, policy)
        if any(prints[table].get(name) != now for table in prints):
            found.append(name)
    return found


def unfinished(ledger: Ledger) -> str:
    """Return why a ledger cannot be selected from yet, empty where it can: every unit must be scored."""
    units = ledger.read("units", ["unit", "source_id"])
    down = pc.is_in(
        units["source_id"], value_set=pa.array(sorted(takedowns.now(takedowns.read(ledger)).sources), pa.string())
    )
    planned = set(units.filter(pc.invert(down))["unit"].to_pylist())
    if probed := set(ledger.read("plan", ["unit"])["unit"].to_pylist()) - {
        part.unit for part in ledger.parts("sources")
    }:
        command = f"rushes curate --config {ledger.run}/config.yaml --out {ledger.run} --through score"
        return f"{len(probed)} units of {ledger.run} are not probed yet; run `{command}` first"
    for table, stage in (("clips", "shots"), ("scores", "score")):
        if missing := planned - {part.unit for part in ledger.parts(table)}:
            command = f"rushes curate --config {ledger.run}/config.yaml --out {ledger.run} --through {stage}"
            return f"{len(missing)} of {len(planned)} units of {ledger.run} have no {table} yet; run `{command}` first"
    return ""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a policy looks at: the clips of a ledger that could be scored, their scores and which resemble which."""

    clips: pa.Table
    scores: pa.Table
    matches: pa.Table
    """Aligned by the policy's rules; empty where it seeks no duplicates."""
    there: frozenset[str]
    """All measures that some clip has."""


def material(ledger: Ledger, policy: Policy, say: Callable[[str], None] = log.info) -> Material:
    """Read what a policy looks at, and only that; matches that are not current are computed and not kept."""
    vectors = {policy.dedup.semantic.scorer, policy.dedup.balance.scorer} - {""}
    clips, scores, scorers = columns_of(ledger, selecting.columns(policy), selecting.asked(policy) | vectors, vectors)
    return Material(
        clips=clips,
        scores=scores,
        matches=match.read(ledger, policy.dedup, say) if policy.dedup.enabled else TABLES["matches"].empty_table(),
        there=frozenset(measurable(scorers)),
    )


def columns_of(
    ledger: Ledger, columns: Sequence[str], scorers: Set[str], vectors: Set[str] = frozenset()
) -> tuple[pa.Table, pa.Table, set[str]]:
    """Return columns of the clips that could be scored, the scores that some scorers gave, and all scorers there are.

    Args:
        ledger: the ledger.
        columns: of the table `clips`.
        scorers: whose rows of the table `scores`; others are passed over, as are names that are no scorer.
        vectors: whether their vectors come, too: where there is any.
    """
    from rushes.pipelines.store.sql import reading, tables

    told = [*SCORES, *(["vector"] if vectors else [])]
    listed = ", ".join("'" + name.replace("'", "''") + "'" for name in sorted(scorers)) or "null"
    queries = {
        "clips": f"select {', '.join(columns)} from clips where key not in "
        "(select key from errors where stage = 'score' and key is not null)",
        "scores": f"select {', '.join(told)} from scores where scorer in ({listed})",
    }
    schemas = (
        TABLES[name].empty_table().select(names).schema for name, names in (("clips", columns), ("scores", told))
    )
    with reading(ledger), tables(ledger, "clips", "scores", "errors", ordered=True) as db:
        clips, scores = (
            db.sql(queries[name]).to_arrow_table().cast(schema) for name, schema in zip(queries, schemas, strict=True)
        )
        found = db.sql("select distinct scorer from scores").fetchall()
    return clips, scores, {name for (name,) in found if name}


def make(run: str, name: str = "") -> dict[str, Any]:
    """Let a policy select from a run and return what came of it, as plain values; shards are packed by curate.

    Raises SelectionError where units are not scored yet, MissingMeasure where a rule's measure is nowhere.
    """
    ledger = Ledger(storage.absolute(run))
    ledger.require()
    policy, text = chosen(run, name, hdr_of(run))
    with storage.alone(ledger.run):
        if reason := unfinished(ledger):
            raise SelectionError(reason)
        done = is_done(ledger, policy, print_of(ledger, policy))
        if not done:
            select(ledger, policy, text)
    rows = ledger.read("selection", ["kept", "duration_s"], where=pc.field("policy") == policy.name)
    hours = (pc.sum(rows.filter(rows["kept"])["duration_s"]).as_py() or 0.0) / 3600
    pairs = ledger.read("pairs", ["policy"], where=(pc.field("policy") == policy.name) & (pc.field("level") != "bytes"))
    return {
        "run": run,
        "policy": policy.name,
        "new": not done,
        "clips": len(rows),
        "kept": pc.sum(rows["kept"]).as_py() or 0,
        "kept_hours": hours,
        "duplicates": len(pairs),
        "selections": names(ledger),
        "current": current(run),
        "pack": pack_command(run, policy.name),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Return what `make` did as lines for a terminal."""
    word = "selected" if found["new"] else "had selected already; nothing changed"
    return [
        f"{found['policy']} {word}: {found['kept']} of {counted(found['clips'], 'clip')}, {found['kept_hours']:.4f} h, "
        f"{counted(found['duplicates'], 'duplicate')}",
        f"selections in {found['run']}: {', '.join(found['selections'])} (current: {found['current'] or 'none'})",
        f"shards of it: {found['pack']}",
    ]


def select(ledger: Ledger, policy: Policy, text: str) -> tuple[int, int, int]:
    """Let a policy select from a ledger and write its selection; return clips kept, clips judged and duplicates.

    A policy that bears the name of a selection of other content replaces that one, and says so in the log; see `clash`
    for the names that it may not bear. The table `matches` is brought up to date before, where duplicates are sought.
    """
    if reason := clash(ledger, policy):
        raise SelectionError(reason)
    if changed := differs(ledger, policy):
        log.warning(
            "select    %s selected here by other rules before; that selection is replaced (changed: %s)",
            policy.name, ", ".join(changed),
        )  # fmt: skip
    if policy.dedup.enabled:
        match.run(ledger, _say)
    seen = material(ledger, policy, _say)
    selecting.check_names(policy, seen.there)
    judged = selecting.judge(seen.clips, seen.scores, policy, seen.there)
    selection, dropped = selecting.resolve(judged, seen.scores, policy, seen.matches)
    sources = ledger.read("sources", ["source_id", "uri", "wave", "unit", "size_bytes"])
    pairs = [dedup.pair_rows(judged.clips, policy, dropped), dedup.same_bytes(sources, policy)]
    write(ledger, policy, text, selection, pa.concat_tables(pairs))
    return pc.sum(selection["kept"]).as_py() or 0, len(selection), len(dropped)


def _say(text: str) -> None:
    log.info("match     %s", text)


def write(ledger: Ledger, policy: Policy, text: str, selection: pa.Table, pairs: pa.Table) -> None:
    """Write a selection: its policy, its duplicates and its verdicts, over what stood under its name before.

    Args:
        ledger: the run's ledger.
        policy: what selected.
        text: its YAML.
        selection: a row per clip, sorted by key.
        pairs: a row per duplicate.
    """
    print_ = print_of(ledger, policy)
    storage.write_bytes(f"{ledger.run}/policies/{policy.name}.yaml", text.encode())
    ledger.write("pairs", policy.name, pairs, print_)
    pieces = (selection.slice(first, ROWS) for first in range(0, max(len(selection), 1), ROWS))
    ledger.write_batches("selection", policy.name, pieces, print_)


def clash(ledger: Ledger, policy: Policy) -> str:
    """Return why a policy may not select under its name, empty where it may.

    Whoever edits a policy and selects again wants the selection replaced. The name of a preset, though, stands for the
    preset's rules: nobody would look for others behind it. Only what selected under it here before may do so again.
    """
    if policy.name not in policies.presets():
        return ""
    rightful = policies.preset(policy.name), saved(ledger.run, policy.name)
    if any(one is not None and (one.rules, one.dedup) == (policy.rules, policy.dedup) for one in rightful):
        return ""
    return (
        f"the policy bears the name of the preset {policy.name}, but its rules are others; give it a name of its own, "
        "so that its selection stands beside the preset's"
    )


def differs(ledger: Ledger, policy: Policy) -> list[str]:
    """Return the names of the rules in which a policy differs from the one that selected under its name, if any."""
    before = saved(ledger.run, policy.name) if policy.name in names(ledger) else None
    if before is None or before == policy:
        return []
    old, new = ({rule.name: rule for rule in one.rules} for one in (before, policy))
    changed = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    if before.dedup != policy.dedup:
        changed.append("dedup")
    return changed or ["order of the rules" if list(old) != list(new) else "about"]
