"""`rushes curate INPUT… --out RUN`: raw footage to shards, leg after leg; the same command resumes.

`curate` is the whole job and reads from top to bottom. A leg looks up, in one listing of the ledger, which of its units
are finished under the present configuration, runs the others on Ray and goes on. All that a run knows stands in its
ledger.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rushes.pipelines.config import CurateConfig, check
from rushes.pipelines.engine import cluster, job, plan, removal
from rushes.pipelines.engine.line import Line
from rushes.pipelines.engine.removal import Takedown
from rushes.pipelines.media import footage
from rushes.pipelines.media.passed_over import PassedOver, line
from rushes.pipelines.progress import Reporter
from rushes.pipelines.report import summary
from rushes.pipelines.stages import stage as stages
from rushes.pipelines.stages.caption.stage import forget_journals
from rushes.pipelines.stages.match import stage as match
from rushes.pipelines.stages.pack import pack
from rushes.pipelines.stages.select import select, selections
from rushes.pipelines.stages.stage import Stage
from rushes.pipelines.stages.unit import SCANNED
from rushes.pipelines.store import runfile, shards, storage, takedowns
from rushes.pipelines.store.encoded import prune_encoded
from rushes.pipelines.store.ledger import Ledger, Part, fingerprint
from rushes.pipelines.store.tables import TABLES

log = logging.getLogger("rushes")
Row = dict[str, Any]
MAX_SHARDS_AT_ONCE = 64  # shards whose clips one worker looks up in the ledger together
PACKED_OF = ("selection", "captions", "encoded", "scores", "clips")
READ_THE_INPUT = ("sources", "scan", "encode")
CHANGED = {
    "code": "changed",
    "reason": "its content is not the one that was planned",
    "remedy": "curate the new content into another --out, or put the old file back",
}


def _base(unit: str) -> str:
    """Return the unit of probing that a unit, or a chunk of one, belongs to."""
    return "-".join(unit.split("-")[:2])


def _worked(unit: str) -> str:
    """Return the unit of work that a chunk belongs to; a unit of work or of probing is itself."""
    return "-".join(unit.split("-")[:3])


class RunFailed(RuntimeError):
    """A run cannot go on; the message is one sentence for people."""


def curate(
    inputs: Sequence[str],
    run: str,
    config: CurateConfig,
    *,
    through: str = "pack",
    retry_failed: bool = False,
    takedown: Takedown | None = None,
    reporter: Reporter | None = None,
) -> str:
    """Curate footage into shards; `report.accounting` tells where every second of it went.

    Returns the fingerprint of what the run holds then: it stays the same while nothing is to be done.

    Args:
        inputs: files, folders, globs, `s3://` URIs and lists; none to go on with what the run already has.
        run: folder or URI of the run.
        config: all settings.
        through: the last stage to run.
        retry_failed: forget the failures of earlier runs and try their units again.
        takedown: footage that is taken down, or given back; what was taken down before stays so without it.
        reporter: where progress is shown.

    Raises:
        RunFailed: the run cannot go on, for a full disk, say.
        ValueError: an input, the policy or a model is not there; nothing was run.
    """
    steps = job.through(through)
    made = Curation(run, config, reporter or Reporter())
    made.check(steps)
    with storage.alone(made.run):
        made.open(inputs, retry_failed)
        made.note(takedown or Takedown())
        cluster.start(config.ray)
        made.probe()
        made.resolve(takedown or Takedown())
        if "scan" in steps:
            made.find([name for name in job.FOUND if name in steps])
        if "match" in steps:
            made.match()
        if "select" in steps:
            made.select()
        if kept := [name for name in job.KEPT if name in steps]:
            made.keep(kept)
        if "pack" in steps:
            made.pack()
        storage.sweep(made.run)  # what workers that died had begun to write
        return made.state()


class Curation:
    """A run under way: the ledger, the configuration and the fingerprints that chain the stages together."""

    def __init__(self, run: str, config: CurateConfig, reporter: Reporter):
        self.run, self.config, self.reporter = storage.absolute(run), config, reporter
        self.ledger = Ledger(self.run)
        self.policy, self.policy_text = selections.chosen(self.run, config.select.policy, config.pack.hdr)
        self.prints = job.fingerprints(config)
        self._snapshot: Ledger | None = None
        self.changed = False
        """Whether anything was written that the run's content depends on."""
        self.probed: list[str] = []
        self.units: list[plan.WorkUnit] = []
        self.taken: list[Row] = []
        """Rows of the table `takedowns`."""

    def listed(self) -> Ledger:
        """Return the ledger as one listing told it; listed anew only after workers have written."""
        self._snapshot = self._snapshot or self.ledger.snapshot()
        return self._snapshot

    def _write(self) -> None:
        """Note that something is written, before it is: what was summed up before no longer holds."""
        if not self.changed:
            summary.forget(self.run)
            self.changed = True

    def state(self) -> str:
        """Return the fingerprint of the ledger as it stands, by the names of its parts, and of the policy."""
        ledger = self.listed()
        parts = [[(part.unit, part.fingerprint) for part in ledger.parts(table)] for table in TABLES]
        return fingerprint("state", self.policy.name, parts)

    def check(self, steps: Sequence[str]) -> None:
        """Refuse before any work what cannot end well: an impossible setting, another schema, a missing model.

        Models and what the policy asks of them only where one of the steps needs them.
        """
        check(self.config)
        self.ledger.check()
        for name in job.ON_UNITS:
            if name in steps:
                stages.load(name).check(self.config)
        if "select" in steps:
            select.check(self.policy, self.config.score.scorers)
            if reason := selections.clash(self.ledger, self.policy):
                raise selections.SelectionError(reason)

    def open(self, inputs: Sequence[str], retry_failed: bool) -> None:
        """Add the inputs to the work list and create or reopen the run folder; a wrong input leaves it untouched."""
        storage.sweep(self.run)
        planned, passed_over = plan.Planned(new=0, known=0, changed=[]), PassedOver()
        if inputs:
            rows = footage.expand(inputs, self.config.inputs, passed_over)
            with self.reporter.work("plan"):
                planned = plan.add_inputs(self.listed(), rows, self.config.inputs, self._same_content)
            if planned.new:
                self._write()
            log.info("plan      %d new inputs, %d known", planned.new, planned.known)
            if told := line(row for rows in passed_over.rows().values() for row in rows):
                log.info("plan      %s", told)
        self.probed = plan.probed_units(self.listed())
        if not self.probed:
            raise ValueError(f"{self.run} has no inputs yet; name files, folders, globs or lists")
        self.ledger.create()
        if said := selections.succeeds(self.run, self.config.select.policy):
            log.warning("select    %s", said)
        runfile.save(self.run, self.config, inputs)
        self._note(passed_over)
        if retry_failed:
            self._write()
            self._forget_failures()
            self._snapshot = None
        if inputs:
            changed = [uri for uri in planned.changed if not self._same_content(uri)]  # a retried one is read anew
            lost = [{"stage": "plan", "unit": "changed", "uri": uri, "seconds": 0.0, **CHANGED} for uri in changed]
            if lost:
                self.listed().write("errors", "plan-changed", lost, fingerprint("changed", changed))
            else:
                self.listed().remove("errors", "plan-changed")

    def _note(self, passed_over: PassedOver) -> None:
        """Keep in the ledger what stood in the folders of the inputs and was not taken, as it is now."""
        for folder, rows in passed_over.rows().items():
            unit, print_ = f"in-{fingerprint(folder)}", fingerprint("passed_over", rows)
            if self.listed().part("passed_over", unit, print_) in self.listed().parts("passed_over", unit):
                continue
            if rows or self.listed().parts("passed_over", unit):
                self._write()
                self.listed().write("passed_over", unit, rows, print_)

    def _same_content(self, uri: str) -> bool:
        found = self.ledger.read("sources", ["digest"], where=pc.field("uri") == uri)["digest"].to_pylist()
        if not found:
            return True  # never read: whatever it is now is what will be read
        return bool(footage.digest_of(uri).sampled == found[0])

    def _forget_failures(self) -> None:
        """Remove what the units with failures wrote, from the stage that failed on.

        The last stage goes first: killed half-way, the rest is still sound. Where a stage failed that reads the input,
        this is probed again, since it may have been mended; a unit that then holds other footage has another
        fingerprint. Unless captions alone failed, matches and all selections count as not done, since a new clip may be
        a duplicate of any other; and so do shards with clips of these units. The fingerprints of neither tell that a
        unit may hold other content than before.
        """
        ledger = self.ledger.snapshot()
        order = job.ON_UNITS
        first: dict[str, int] = {}
        for row in ledger.read("errors", ["unit", "stage"]).to_pylist():
            if row["stage"] in order and _base(row["unit"]) in self.probed:
                at = 0 if row["stage"] in READ_THE_INPUT else order.index(row["stage"])
                first[_worked(row["unit"])] = min(at, first.get(_worked(row["unit"]), at))
        if not first:
            return
        probed = {_base(unit) for unit, at in first.items() if at == 0}
        found = any(order[at] not in job.KEPT for at in first.values())
        clips = ledger.read("clips", ["key", "unit"])
        keys = clips.filter(pc.is_in(clips["unit"], value_set=pa.array(sorted(first), pa.string())))["key"]
        packed = ledger.read("packed", where=pc.field("key").isin(keys.combine_chunks())).to_pylist()
        gone = {pack.shard_unit(row["policy"], row["bucket"], int(row["shard"][-10:-4])) for row in packed}
        made_by = {table: order.index(name) for name in (*job.FOUND, *job.KEPT) for table in stages.load(name).writes}
        for table in ("packed", "selection", "pairs", "matches", *job.written(), "units", "sources"):
            for part in ledger.parts(table) if table in made_by else _one_each(ledger.parts(table)):
                unit = _worked(part.unit)
                if table in made_by:
                    if unit in first and made_by[table] >= first[unit]:
                        self._forget(table, part)
                elif table == "sources":
                    if part.unit in probed:
                        self._forget(table, part)
                elif part.unit in gone or (found if table != "units" else probed):
                    self.ledger.outdate(table, part)

    def _forget(self, table: str, part: Part) -> None:
        """Let a unit's part count as not done; captions are kept, since each tells by itself whether it still holds."""
        if table == "captions":
            self.ledger.outdate(table, part)
        else:
            storage.remove(part.uri)

    def probe(self) -> None:
        """Probe every input; then it is known which ones are byte-identical, and what each unit works on."""
        units = [plan.WorkUnit(name=name, wave=int(name[1:5]), probed_in=name, uris=[], seconds=0.0, chunks=1, print="")
                 for name in self.probed]  # fmt: skip
        prints = {name: {"sources": self.prints["sources"]} for name in self.probed}
        more = {name: {"prints": {"plan": plan.FINGERPRINT, "sources": self.prints["sources"], "errors": prints[name]}}
                for name in self.probed}  # fmt: skip
        index = job.Index(self.listed())
        again = {name[:5] for name in self.probed if not index.has("sources", name, self.prints["sources"])}
        for part in _one_each([part for part in self.listed().parts("units") if part.unit in again]):
            self._write()
            self.listed().outdate("units", part)  # other footage may be found under the same names
        self._leg(["sources"], units, prints, more)

    def note(self, takedown: Takedown) -> None:
        """Write down what is taken down before anything is done about it, so that no kill forgets it."""
        self.taken = takedowns.read(self.listed())
        self._take(removal.asked(self.taken, takedown))

    def resolve(self, takedown: Takedown) -> None:
        """Find what was taken down among the inputs of the run."""
        self._take(removal.looked_up(self.listed(), self.taken, takedown.similar))

    def _take(self, rows: Sequence[Row]) -> None:
        """Keep the rows of `takedowns`, where they are others than before."""
        if (rows := takedowns.ordered(rows)) != self.taken:
            self._write()
            takedowns.write(self.listed(), rows)
            self.taken = rows

    def find(self, steps: Sequence[str]) -> None:
        """Decode everything once, find the clips and let the models look at them; leave out what was taken down."""
        self._plan()
        down, before = takedowns.now(self.taken), takedowns.before(self.taken)
        if down != before:
            self._write()
            old = plan.work_units(self.listed(), self.config.scan, self.prints["sources"], before)
            for was, unit in removal.moved(old, self.units, down):
                removal.carry(self.listed(), was, unit, self.prints, down)
        removal.rescan(self.listed(), self.units, self.prints)
        lost = {unit.name: {"down": unit.down} for unit in self.units if unit.down}
        self._leg(steps, self.units, self._unit_prints(), lost)
        if "shots" in steps:
            removal.purge(self.listed(), self.units, self.prints)
        removal.forget(self.listed(), down)
        self._take(takedowns.applied(takedowns.resolved(self.listed(), self.taken)))

    def _plan(self) -> None:
        if not self.units:
            down = takedowns.now(self.taken)
            self.units = plan.work_units(self.listed(), self.config.scan, self.prints["sources"], down)

    def _unit_prints(self, keys: Mapping[str, Sequence[str]] | None = None) -> dict[str, dict[str, str]]:
        """Return the fingerprint of each stage in each unit; of cutting and captions it follows which clips are kept.

        So another policy does again only what it changes.
        """
        found = {}
        for unit in self.units:
            own = {name: fingerprint(self.prints[name], unit.print) for name in (*job.FOUND, *job.KEPT)}
            own |= {name: fingerprint(own[name], (keys or {}).get(unit.name, [])) for name in job.KEPT}
            found[unit.name] = own | {"sources": self.prints["sources"]}
        return found

    def match(self) -> None:
        """Find which clips resemble which, once for all policies."""
        if match.is_current(self.listed()):
            self.reporter.skipped("match", 1)
        else:
            self._write()
            with self.reporter.work("match"):
                match.run(self.listed(), lambda text: log.info("match     %s", text))

    def select(self) -> None:
        """Keep or drop each clip by the policy, and of duplicates the best copy; other selections are left alone."""
        ledger = self.listed()
        prints = selections.print_of(ledger, self.policy)
        if selections.is_done(ledger, self.policy, prints):
            self.reporter.skipped("select", 1)
        else:
            self._write()
            with self.reporter.work("select"):
                found = selections.select(ledger, self.policy, self.policy_text)
            log.info("select    %d of %d clips kept, %d duplicates", *found)
        self.prints["select"] = prints
        if others := [name for name in selections.stale(ledger) if name != self.policy.name]:
            commands = "; ".join(selections.pack_command(self.run, name) for name in others)
            log.warning("select    made of an older ledger: %s; bring up to date with: %s", ", ".join(others), commands)

    def keep(self, steps: Sequence[str]) -> None:
        """Describe and cut the kept clips: the only pictures that are ever encoded."""
        self._plan()
        keys = dict(selections.kept_by_unit(self.listed()))
        made_by = {"encode": self.prints["encode"], "caption": stages.load("caption").settings(self.config)}
        more = {unit.name: {"keys": keys.get(unit.name, []), "made_by": made_by} for unit in self.units}
        self._leg(steps, self.units, self._unit_prints(keys), more)
        if "encode" in steps:
            prune_encoded(self.run)
        if "caption" in steps and self.changed:
            forget_journals(self.run, made_by["caption"], {unit.name for unit in self.units})

    def pack(self) -> None:
        """Put the encoded clips into the shards of this selection, and write their manifest last."""
        root = pack.shards_root(self.run, self.policy.name)
        there = {uri.removeprefix(f"{root}/") for uri in storage.list_files(root, recursive=True)}
        if self._is_packed(root, there):
            self.reporter.skipped("pack", sum(name.endswith(".tar") for name in there))
            return
        rows, index = self._shard_units(self.listed()), job.Index(self.listed())
        pending = [row for row in rows if not _has_shard(row, index, there)]
        prefix = pack.shard_unit(self.policy.name)
        tasks = [_pack_task(at, group, self.policy.name, index) for at, group in _grouped(pending)]
        self._run(["pack"], tasks, {"pack": (len(tasks), len(rows) - len(pending))})
        self.listed().tidy("packed", {row["unit"].removeprefix(prefix): row["fingerprint"] for row in rows}, prefix)
        infos = [shards.read_info(root, row["path"]) for row in rows]
        manifest = shards.write_manifest(root, infos, kind="clips", fingerprint=self.prints["select"],
                                         extra={"policy": self.policy.name})  # fmt: skip
        shards.prune(root, manifest)
        summary.mark_packed(self.run, self.policy.name, self._made_of())  # last: whoever is killed before packs again

    def _made_of(self) -> str:
        """Return the fingerprint of all that the shards of this selection are made of, by the names of its parts."""
        ledger, own = self.listed(), pack.shard_unit(self.policy.name)
        tables = [[(part.unit, part.fingerprint) for part in ledger.parts(name)] for name in PACKED_OF]
        packed = [(part.unit, part.fingerprint) for part in ledger.parts("packed") if part.unit.startswith(own)]
        return fingerprint("pack", self.prints, self.config.pack, tables, packed)

    def _is_packed(self, root: str, there: set[str]) -> bool:
        """Whether nothing was done since these shards were packed, and all of them are still there."""
        if self.changed or "manifest.json" not in there:
            return False
        manifest = shards.read_manifest(root)
        tars = {info.path for info in manifest.shards}
        files = tars | {path.removesuffix(".tar") + ".parquet" for path in tars}
        return summary.packed(self.run).get(self.policy.name) == self._made_of() and files <= there

    def _shard_units(self, ledger: Ledger) -> list[Row]:
        """Return a row for each shard that there should be; its fingerprint follows all that its samples hold."""
        captions = ledger.read("captions", ["key", "bound"])
        captioned = captions["key"].combine_chunks()
        encoded = ledger.read("encoded", ["key", "unit", "bucket", "wave", "size_bytes", "sha256"])
        encoded = encoded.filter(pc.is_in(encoded["key"], value_set=captioned))
        bound = captions["bound"].take(pc.index_in(encoded["key"], value_set=captioned))
        facts = zip(encoded["sha256"].to_pylist(), encoded["unit"].to_pylist(), bound.to_pylist(), strict=True)
        made = dict(zip(encoded["key"].to_pylist(), facts, strict=True))
        balance = pack.balance_of(ledger, self.policy.name)
        rows = []
        own = ledger.read("selection", ["key", "kept"], where=pc.field("policy") == self.policy.name)
        for planned in pack.shard_plan(encoded, own, self.config.pack):
            name = pack.shard_unit(self.policy.name, planned.bucket, planned.index)
            prints = fingerprint(
                self.policy.name,
                self.config.pack.name,
                self.prints["caption"],
                [(key, *made[key], balance.get(key)) for key in planned.keys],
            )
            path = f"{planned.bucket}/{self.config.pack.name}-{planned.index:06d}.tar"
            units = sorted({made[key][1] for key in planned.keys})
            rows.append(
                {"unit": name, "plan": asdict(planned), "fingerprint": prints, "path": path, "units": units}
            )  # fmt: skip
        return rows

    def _leg(
        self, steps: Sequence[str], units: Sequence[plan.WorkUnit],
        prints: Mapping[str, Mapping[str, str]], more: Mapping[str, Row],
    ) -> None:  # fmt: skip
        """Run what a leg lacks, then remove what is no more: other configurations, units that are gone."""
        self._unmark(steps, units, prints)
        tasks = job.tasks(steps, units, job.Index(self.listed()), prints, more)
        self._run(steps, tasks, {name: _counted(stages.load(name), tasks, units) for name in steps})
        for name in steps:
            stage = stages.load(name)
            named = {unit.name: job.part_names(stage, unit.name, unit.chunks) for unit in units}
            current = {part: prints[unit][name] for unit, parts in named.items() for part in parts}
            for table in stage.writes:
                self.listed().tidy(table, current)
            self.listed().tidy("errors", current, prefix=f"{name}-")

    def _unmark(
        self, steps: Sequence[str], units: Sequence[plan.WorkUnit], prints: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Let a step count as not done where one of its tables was removed by hand: the last one tells that it is."""
        index = job.Index(self.listed())
        broken: list[Part] = []
        for stage in map(stages.load, steps):
            for unit in units if len(stage.writes) > 1 else ():
                for name in job.part_names(stage, unit.name, unit.chunks):
                    there = [index.has(table, name, prints[unit.name][stage.name]) for table in stage.writes]
                    if there[-1] and not all(there):
                        broken += index.of(stage.writes[-1], name)
        if broken:
            self._write()
            storage.remove_many([part.uri for part in broken])
            self._snapshot = None

    def _run(self, steps: Sequence[str], tasks: list[Row], totals: Mapping[str, tuple[int, int]]) -> None:
        """Run tasks to their end. Raises RunFailed as soon as one says that nothing can be written any more."""
        if not tasks:
            for name, (_, done) in totals.items():
                self.reporter.skipped(name, done)
            return
        segments = [
            cluster.Segment(place=place, make=partial(Line, self.run, self.config, names), workers=workers)
            for place, names, workers in job.segments(steps, self.config, cluster.gpus())
        ]
        self._write()
        self._snapshot = None
        with self.reporter.leg(totals) as shown:
            for task in cluster.stream(tasks, segments, in_flight=self.config.ray.max_in_flight, watch=shown.state):
                for did in task["did"]:
                    if did["note"]:
                        log.warning("%-9s %s: %s", did["step"], task["unit"], did["note"])
                if task.get("fatal"):
                    raise RunFailed(task["fatal"])


def _counted(stage: Stage, tasks: Sequence[Row], units: Sequence[plan.WorkUnit]) -> tuple[int, int]:
    """Return how many units a stage has to do and how many it has done; of what is scanned in chunks each counts."""
    todo = [task for task in tasks if stage.name in task["todo"]]
    split = stage.writes[-1] in SCANNED
    total = len(todo) if split else len({task["unit"] for task in todo})
    return total, sum(unit.chunks if split else 1 for unit in units) - total


def _one_each(parts: Sequence[Part]) -> list[Part]:
    """Return one part of each unit; a kill may have left two, of which outdating the one removes the other."""
    return list({part.unit: part for part in parts}.values())


def _grouped(pending: list[Row]) -> list[tuple[int, list[Row]]]:
    """Return shards in groups whose clips are looked up together: a few for each core."""
    size = min(MAX_SHARDS_AT_ONCE, math.ceil(len(pending) / (4 * cluster.cpus()))) if pending else 1
    return [(at, pending[at : at + size]) for at in range(0, len(pending), size)]


def _pack_task(at: int, group: list[Row], policy: str, index: job.Index) -> Row:
    """Return the task of a group of shards."""
    units = sorted({unit for row in group for unit in row["units"]})
    stale = [vars(part) for row in group for part in index.of("packed", row["unit"])]
    return {"unit": f"group-{at:06d}", "todo": ["pack"], "policy": policy, "shards": group, "units": units,
            "prints": {}, "stale": {"packed": stale}}  # fmt: skip


def _has_shard(row: Row, index: job.Index, there: set[str]) -> bool:
    """Whether a shard is done; one whose tar or side-car was removed by hand is made anew."""
    files = {row["path"], row["path"].removesuffix(".tar") + ".parquet"}
    return index.has("packed", row["unit"], row["fingerprint"]) and files <= there
