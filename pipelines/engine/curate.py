"""`rushes curate INPUT… --out RUN`: raw footage to shards, stage after stage; the same command resumes.

`curate` is the whole job and reads from top to bottom. A stage looks up which of its units are finished under the
present configuration, runs the others on Ray and goes on. All that a run knows stands in its ledger.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import duckdb
import pyarrow.compute as pc

from rushes.filters import sketches
from rushes.pipelines.config import CurateConfig, check
from rushes.pipelines.engine import cluster, plan
from rushes.pipelines.media import footage
from rushes.pipelines.models import score, weights
from rushes.pipelines.progress import Reporter
from rushes.pipelines.report.accounting import Account, account
from rushes.pipelines.stages.caption import sources as caption
from rushes.pipelines.stages.caption.stage import CaptionActor
from rushes.pipelines.stages.encode.stage import encode_unit
from rushes.pipelines.stages.match import stage as match
from rushes.pipelines.stages.pack import pack
from rushes.pipelines.stages.pack.stage import shards_unit
from rushes.pipelines.stages.scan.stage import scan_chunks, scan_unit
from rushes.pipelines.stages.score.stage import ScoreActor
from rushes.pipelines.stages.select import select, selections
from rushes.pipelines.stages.shots.stage import shots_unit
from rushes.pipelines.stages.sources.stage import probe_unit
from rushes.pipelines.stages.unit import kept_keys, reporting, write_errors
from rushes.pipelines.stages.witness.stage import WitnessActor
from rushes.pipelines.store import runfile, shards, storage
from rushes.pipelines.store.encoded import prune_encoded
from rushes.pipelines.store.ledger import Ledger, Part, fingerprint

log = logging.getLogger("rushes")
Row = dict[str, Any]
MAX_SHARDS_AT_ONCE = 64  # shards whose clips one worker looks up in the ledger together
REDONE = ("encoded", "captions", "scores", "clips", "sketches", "trims", "strips", "witness", "signals", "windows",
          "frames", "sources")  # fmt: skip
CHANGED = {
    "code": "changed",
    "reason": "its content is not the one that was planned",
    "remedy": "curate the new content into another --out, or put the old file back",
}
STAGES = ("sources", "scan", "witness", "shots", "score", "match", "select", "caption", "encode", "pack")


def _base(unit: str) -> str:
    """Return the unit of sources that a unit belongs to: a scan unit is a part of one."""
    return "-".join(unit.split("-")[:2])


class RunFailed(RuntimeError):
    """A run cannot go on; the message is one sentence for people."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a run: its units, what a worker does with one, and the tables it owns."""

    name: str
    tables: tuple[str, ...]
    """The tables it writes; the last one marks a unit as done."""
    units: dict[str, Row]
    """Unit name → the row given to the worker, with the unit's fingerprint."""
    work: Callable[..., Row] | type
    arguments: Row = field(default_factory=dict)
    is_actor: bool = False
    workers: int = 0
    use_gpu: bool = True


def curate(
    inputs: Sequence[str],
    run: str,
    config: CurateConfig,
    *,
    through: str = "pack",
    retry_failed: bool = False,
    reporter: Reporter | None = None,
) -> Account:
    """Curate footage into shards and return the account of every second of it.

    Args:
        inputs: files, folders, globs, `s3://` URIs and lists; none to go on with what the run already has.
        run: folder or URI of the run.
        config: all settings.
        through: the last stage to run.
        retry_failed: forget the failures of earlier runs and try their units again.
        reporter: where progress is shown.

    Raises:
        RunFailed: the run cannot go on, for a full disk, say.
        ValueError: an input, the policy or a model is not there; nothing was run.
    """
    job = Job(run, config, reporter or Reporter())
    job.check(through)
    with storage.alone(job.run):
        job.open(inputs, retry_failed)
        cluster.start(config.ray)
        for name in STAGES[: STAGES.index(through) + 1]:
            getattr(job, name)()
        storage.sweep(job.run)  # what workers that died had begun to write
    return account(run)


class Job:
    """A run under way: the ledger, the configuration and the fingerprints that chain the stages together."""

    def __init__(self, run: str, config: CurateConfig, reporter: Reporter):
        self.run, self.config, self.reporter = storage.absolute(run), config, reporter
        self.ledger = Ledger(self.run)
        self.policy_at = selections.source(self.run, config.select.policy)
        self.policy = select.read_policy(self.policy_at)
        self.prints = self._fingerprints()
        self.units: list[str] = []
        self.excluded: dict[str, list[str]] = {}

    def _fingerprints(self) -> dict[str, str]:
        c = self.config
        sources = fingerprint("sources", c.scan.max_side_px)
        scan = fingerprint("scan", c.scan, sources)
        witness = fingerprint("witness", c.shots.witness, scan)
        shots = fingerprint("shots", c.shots, sketches.PARAMETERS, witness)
        score_ = fingerprint("score", sorted(c.score.scorers), c.score.clip_model, c.score.clip_weights,
                             c.score.aesthetic_head, shots)  # fmt: skip
        return {
            "sources": sources, "scan": scan, "witness": witness, "shots": shots, "score": score_,
            "caption": fingerprint(caption.made_by(c.caption, c.score.scorers), score_),
            "encode": fingerprint("encode", c.pack.codec, c.pack.crf, c.pack.max_side_px, c.pack.crop_bars,
                                  c.pack.audio, c.pack.copy, sorted(c.pack.copy_codecs), shots),
        }  # fmt: skip

    def check(self, through: str) -> None:
        """Refuse before any work what cannot end well: an impossible setting, another schema, a missing model.

        Models and what the policy asks of them only where a stage up to `through` needs them.
        """
        check(self.config)
        self.ledger.check()
        last = STAGES.index(through)
        if last >= STAGES.index("witness") and self.config.shots.witness != "none":
            weights.transnet()
        if last >= STAGES.index("score"):
            score.check(self.config.score)
        if last >= STAGES.index("select"):
            select.check(self.policy, self.config.score.scorers)
            if reason := selections.clash(self.ledger, self.policy):
                raise selections.SelectionError(reason)
        if last >= STAGES.index("caption"):
            caption.check(self.config.caption)

    def open(self, inputs: Sequence[str], retry_failed: bool) -> None:
        """Add the inputs to the work list and create or reopen the run folder; a wrong input leaves it untouched."""
        storage.sweep(self.run)
        planned = plan.Planned(new=0, known=0, changed=[])
        if inputs:
            rows = footage.expand(inputs, self.config.inputs)
            planned = plan.add_inputs(self.ledger, rows, self.config.inputs, self._same_content)
            log.info("plan      %d new inputs, %d known", planned.new, planned.known)
        self.units = plan.units(self.ledger)
        if not self.units:
            raise ValueError(f"{self.run} has no inputs yet; name files, folders, globs or lists")
        self.ledger.create()
        runfile.save(self.run, self.config, inputs)
        if retry_failed:
            self._forget_failures()
        if inputs:
            changed = [uri for uri in planned.changed if not self._same_content(uri)]  # a retried one is read anew
            lost = [{"uri": uri, "seconds": 0.0, **CHANGED} for uri in changed]
            write_errors(self.ledger, "plan", {"unit": "changed", "fingerprint": plan.FINGERPRINT}, lost)

    def _same_content(self, uri: str) -> bool:
        found = self.ledger.read("sources", ["digest"], where=pc.field("uri") == uri)["digest"].to_pylist()
        if not found:
            return True  # never read: whatever it is now is what will be read
        return bool(footage.digest_of(uri).sampled == found[0])

    def _forget_failures(self) -> None:
        """Remove what the units with failures wrote, the last stage first: killed half-way, the rest is still sound.

        Matches and all selections count as not done, since a new clip may be a duplicate of any other, and so do shards
        with clips of these units. The fingerprints of neither tell that a unit may hold other content than before.
        """
        failed = set(self.ledger.read("errors", ["unit"])["unit"].to_pylist())
        units = {_base(unit) for unit in failed} & set(self.units)
        if not units:
            return
        keys = self.ledger.read("clips", ["key"], where=pc.field("unit").isin(sorted(units)))["key"]
        packed = self.ledger.read("packed", where=pc.field("key").isin(keys.combine_chunks())).to_pylist()
        gone = {pack.shard_unit(row["policy"], row["bucket"], int(row["shard"][-10:-4])) for row in packed}
        for table in ("packed", "selection", "pairs", "matches", *REDONE):
            for part in self.ledger.parts(table):
                if table in REDONE and _base(part.unit) in units:
                    self._forget(table, part)
                elif table not in REDONE and (table != "packed" or part.unit in gone):
                    self.ledger.outdate(table, part)

    def _forget(self, table: str, part: Part) -> None:
        """Let a unit's part count as not done; captions are kept, since each tells by itself whether it still holds."""
        if table == "captions":
            self.ledger.outdate(table, part)
        else:
            storage.remove(part.uri)

    def sources(self) -> None:
        """Probe every input; then find the byte-identical ones, which are read once."""
        self._run(self._stage("sources", ("sources",), probe_unit))
        with duckdb.connect() as db:
            db.register("sources", self.ledger.dataset("sources"))
            again = db.sql(
                "select unit, uri from (select unit, uri, row_number() over (partition by source_id "
                "order by wave, unit, uri) as copy from sources) where copy > 1 order by unit, uri"
            ).fetchall()
        self.excluded = {}
        for unit, uri in again:
            self.excluded.setdefault(unit, []).append(uri)

    def scan(self) -> None:
        """Decode everything once."""
        units: dict[str, Row] = {}
        for unit in self.units:
            rows = self.ledger.read_unit("sources", unit, ["uri", "duration_s"]).to_pylist()
            excluded = self.excluded.get(unit, [])
            for index, chunk in enumerate(scan_chunks(rows, set(excluded), self.config)):
                if chunk:
                    name = f"{unit}-{index:03d}"
                    units[name] = {"unit": name, "sources": unit, "chunk": index, "excluded": excluded,
                                   "fingerprint": fingerprint(self.prints["scan"], excluded)}  # fmt: skip
        self._run(
            Stage(name="scan", tables=("frames", "windows", "signals"), units=units,
                  work=reporting(scan_unit), arguments={"run": self.run, "config": self.config})
        )  # fmt: skip

    def witness(self) -> None:
        """Let TransNetV2 look at the windows in doubt; no video is read."""
        if self.config.shots.witness == "none":
            return
        self._run(
            Stage(name="witness", tables=("witness",), units=self._units("witness"), work=WitnessActor,
                  arguments={"run": self.run}, is_actor=True)
        )  # fmt: skip

    def shots(self) -> None:
        """Find the clips; no video is read."""
        self._run(self._stage("shots", ("strips", "trims", "sketches", "clips"), shots_unit))

    def score(self) -> None:
        """Let the models look at the representative frames."""
        arguments = {"run": self.run, "config": self.config.score}
        self._run(
            Stage(name="score", tables=("scores",), units=self._units("score"), work=ScoreActor,
                  arguments=arguments, is_actor=True, workers=self.config.score.actors)
        )  # fmt: skip

    def match(self) -> None:
        """Find which clips resemble which, once for all policies."""
        if match.is_current(self.ledger):
            self.reporter.skipped("match", len(self.units))
        else:
            match.run(self.ledger, lambda text: log.info("match     %s", text))

    def select(self) -> None:
        """Keep or drop each clip by the policy, and of duplicates the best copy; other selections are left alone."""
        prints = selections.print_of(self.ledger, self.policy)
        if selections.is_done(self.ledger, self.policy, prints):
            self.reporter.skipped("select", len(self.units))
        else:
            found = selections.select(self.ledger, self.policy, select.policy_text(self.policy_at))
            log.info("select    %d of %d clips kept, %d duplicates", *found)
        self.prints["select"] = prints
        if others := [name for name in selections.stale(self.ledger) if name != self.policy.name]:
            commands = "; ".join(selections.pack_command(self.run, name) for name in others)
            log.warning("select    made of an older ledger: %s; bring up to date with: %s", ", ".join(others), commands)

    def caption(self) -> None:
        """Describe the kept clips."""
        c = self.config.caption
        workers = c.actors or {"tags": cluster.cpus(), "endpoint": 1, "transformers": cluster.gpus() or 1}[c.source]
        arguments = {"run": self.run, "config": c, "made_by": caption.made_by(c, self.config.score.scorers),
                     "actors": workers}  # fmt: skip
        self._run(
            Stage(name="caption", tables=("captions",), units=self._kept_units("caption"), arguments=arguments,
                  work=CaptionActor, is_actor=True, workers=workers, use_gpu=c.source == "transformers")
        )  # fmt: skip

    def encode(self) -> None:
        """Cut the kept clips: the only pictures that are ever encoded."""
        stage = Stage(name="encode", tables=("encoded",), units=self._kept_units("encode"),
                      work=reporting(encode_unit),
                      arguments={"run": self.run, "config": self.config})  # fmt: skip
        self._run(stage)
        prune_encoded(self.run)

    def pack(self) -> None:
        """Put the encoded clips into the shards of this selection, and write their manifest last."""
        shards_ = self._shard_units()
        done = {(part.unit, part.fingerprint) for part in self.ledger.parts("packed")}
        root = pack.shards_root(self.run, self.policy.name)
        there = {uri.removeprefix(f"{root}/") for uri in storage.list_files(root, recursive=True)}
        pending = [  # one whose tar or side-car was removed by hand is made anew, too
            row for row in shards_
            if (row["unit"], row["fingerprint"]) not in done
            or not {row["path"], row["path"].removesuffix(".tar") + ".parquet"} <= there
        ]  # fmt: skip
        size = min(MAX_SHARDS_AT_ONCE, math.ceil(len(pending) / (4 * cluster.cpus()))) if pending else 1
        groups = {
            f"group-{at:06d}": {"unit": f"group-{at:06d}", "shards": pending[at : at + size], "fingerprint": ""}
            for at in range(0, len(pending), size)
        }
        arguments = {"run": self.run, "config": self.config, "policy": self.policy.name}
        self._follow("pack", list(groups.values()), len(shards_) - len(pending), reporting(shards_unit), arguments)
        prefix = pack.shard_unit(self.policy.name)
        self.ledger.tidy("packed", {row["unit"].removeprefix(prefix): row["fingerprint"] for row in shards_}, prefix)
        infos = [shards.read_info(root, row["path"]) for row in shards_]
        manifest = shards.write_manifest(root, infos, kind="clips", fingerprint=self.prints["select"],
                                         extra={"policy": self.policy.name})  # fmt: skip
        shards.prune(root, manifest)

    def _shard_units(self) -> list[Row]:
        """Return a row for each shard that there should be; its fingerprint follows all that its samples hold."""
        captions = self.ledger.read("captions", ["key", "bound"])
        captioned = captions["key"].combine_chunks()
        encoded = self.ledger.read("encoded", ["key", "unit", "bucket", "wave", "size_bytes", "sha256"])
        encoded = encoded.filter(pc.is_in(encoded["key"], value_set=captioned))
        bound = captions["bound"].take(pc.index_in(encoded["key"], value_set=captioned))
        facts = zip(encoded["sha256"].to_pylist(), encoded["unit"].to_pylist(), bound.to_pylist(), strict=True)
        made = dict(zip(encoded["key"].to_pylist(), facts, strict=True))
        balance = pack.balance_of(self.ledger, self.policy.name)
        rows = []
        own = self.ledger.read("selection", ["key", "kept"], where=pc.field("policy") == self.policy.name)
        for planned in pack.shard_plan(encoded, own, self.config.pack):
            name = pack.shard_unit(self.policy.name, planned.bucket, planned.index)
            prints = fingerprint(
                self.policy.name,
                self.config.pack.name,
                self.prints["caption"],
                [(key, *made[key], balance.get(key)) for key in planned.keys],
            )
            path = f"{planned.bucket}/{self.config.pack.name}-{planned.index:06d}.tar"
            rows.append({"unit": name, "plan": asdict(planned), "fingerprint": prints, "path": path})
        return rows

    def _units(self, stage: str) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        for unit in self.units:
            excluded = self.excluded.get(unit, []) if stage != "sources" else []  # told only after probing
            print_ = fingerprint(self.prints[stage], excluded)
            rows[unit] = {"unit": unit, "wave": int(unit[1:5]), "excluded": excluded, "fingerprint": print_}
        return rows

    def _kept_units(self, stage: str) -> dict[str, Row]:
        """Return units whose fingerprint follows which clips are kept: another policy redoes only what it changes."""
        rows = self._units(stage)
        for unit, row in rows.items():
            row["made_by"] = self.prints[stage]
            row["fingerprint"] = fingerprint(row["fingerprint"], kept_keys(self.ledger, unit))
        return rows

    def _stage(self, name: str, tables: tuple[str, ...], unit_work: Callable[..., Row]) -> Stage:
        arguments = {"run": self.run, "config": self.config}
        return Stage(name=name, tables=tables, units=self._units(name), work=reporting(unit_work), arguments=arguments)

    def _run(self, stage: Stage) -> None:
        done = {(part.unit, part.fingerprint) for part in self.ledger.parts(stage.tables[-1])}
        pending = [row for unit, row in stage.units.items() if (unit, row["fingerprint"]) not in done]
        before = len(stage.units) - len(pending)
        self._follow(
            stage.name, pending, before, stage.work, stage.arguments, stage.is_actor, stage.workers, stage.use_gpu
        )
        current = {unit: row["fingerprint"] for unit, row in stage.units.items()}
        for table in stage.tables:
            self.ledger.tidy(table, current)
        self.ledger.tidy("errors", current, prefix=f"{stage.name}-")

    def _follow(
        self, name: str, pending: list[Row], before: int, work_: Any, arguments: Row, is_actor: bool = False,
        workers: int = 0, use_gpu: bool = True,
    ) -> None:  # fmt: skip
        """Run units to their end. Raises RunFailed as soon as one says that nothing can be written any more."""
        if not pending:
            self.reporter.skipped(name, before)
            return
        if is_actor:
            rows = cluster.run_actors(pending, work_, arguments, actors=workers, use_gpu=use_gpu)
        else:
            rows = cluster.run_units(pending, work_, arguments, in_flight=self.config.ray.max_in_flight)
        for row in self.reporter.follow(name, rows, len(pending), before):
            if row.get("note"):
                log.warning("%-9s %s: %s", name, row["unit"], row["note"])
            if row["fatal"]:
                raise RunFailed(row["fatal"])
