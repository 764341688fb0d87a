"""`rushes latents RUN`: clip shards of a selection through the tokenizer into latent shards, one for each, on Ray.

Under one budget for all clips there are two passes. The first writes what each segment loses at each rate into the
table `rates`; one λ is found over all of it; the second encodes each clip at its rates. λ belongs to the shards as they
are: where they change it is found again, and the shards whose rates it changes are made again.

A latent shard that is done under the same tokenizer, rates or budget, and clip shard is not made again, unless some of
its clips failed: our own clips decode, so what failed was damaged on its way and may have been mended.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pyarrow.dataset as ds

from rushes.pipelines.config import LatentsConfig, RayConfig
from rushes.pipelines.engine import cluster, job
from rushes.pipelines.engine.line import Line
from rushes.pipelines.progress import Reporter
from rushes.pipelines.report import summary
from rushes.pipelines.stages.latents import spend
from rushes.pipelines.stages.latents.stage import LatentsJob
from rushes.pipelines.stages.rates.stage import RatesJob
from rushes.pipelines.stages.select import selections
from rushes.pipelines.store import shards, storage
from rushes.pipelines.store.ledger import Ledger, fingerprint
from rushes.tokenizer.config import Budget, predicted
from rushes.tokenizer.shipped import folder_of, frozen_kind

log = logging.getLogger("rushes")
Row = dict[str, Any]
FORMAT = 3  # of a sample; shards of an earlier one are made again
SHOWN = 20  # failures named in the log; all stand in the table `errors`


def run(
    run_: str,
    model: str,
    config: LatentsConfig,
    ray: RayConfig,
    reporter: Reporter | None = None,
    selection: str = "",
) -> shards.Manifest:
    """Encode every clip shard of a selection into `RUN/latents/<selection>`; return the manifest of the latents.

    Args:
        run_: folder or URI of the run.
        model: name of a tokenizer that the workers can read, see `tokenizer.codec`.
        config: size and budget.
        ray: where to run.
        reporter: where progress is shown.
        selection: whose shards; see `selections.folder` for what is meant without it.

    Raises:
        ValueError: there is no such tokenizer, the run has no shards, or the settings are none.
        BudgetError: the budget is below the minimum of all clips together, which the message names.
        RuntimeError: not one clip could be encoded, or the shards changed meanwhile.
        StorageError: another process makes latents of the run.
    """
    _check(config)
    run_ = run_.rstrip("/")
    ledger = Ledger(run_)
    ledger.require()
    root = selections.folder(run_, "shards", selection)
    print_ = tokenizer_fingerprint(model)
    if not frozen_kind(model)[0]:
        Budget(rate=config.rate).rate_of(_about(model)["config"]["rates"])
    work = _Work(
        ledger=ledger.snapshot(), root=root, selection=root.rsplit("/", 1)[-1], model=model, config=config,
        tokenizer=print_, predicted=predicted(variant_of(model), config.allocation), ray=ray,
        reporter=reporter or Reporter(),
    )  # fmt: skip
    with storage.alone(f"{run_}/latents"):
        for folder in ("latents", "ledger/rates", "ledger/latents"):
            storage.sweep(f"{run_}/{folder}")
        return work.done()


@dataclass(frozen=True, kw_only=True)
class _Work:
    """The two passes over the shards of a selection."""

    ledger: Ledger
    """As it was before."""
    root: str
    selection: str
    model: str
    config: LatentsConfig
    tokenizer: str
    """Its fingerprint."""
    predicted: bool
    """Whether the tokenizer foresees distortion; else it is measured."""
    ray: RayConfig
    reporter: Reporter

    @property
    def out(self) -> str:
        """Where the latent shards go."""
        return f"{self.ledger.run}/latents/{self.selection}"

    @cached_property
    def packed(self) -> dict[str, shards.ShardInfo]:
        """The clip shards by the name of their unit."""
        found = shards.read_manifest(self.root).shards
        return {f"{self.selection}.{shard.path.removesuffix('.tar').replace('/', '-')}": shard for shard in found}

    @cached_property
    def looks(self) -> dict[str, str]:
        """By unit the fingerprint of its part of `rates`."""
        common = (FORMAT, self.tokenizer, self.predicted, self.config.side_px, self.config.pictures)
        return {name: fingerprint(*common, shard.sha256) for name, shard in self.packed.items()}

    @cached_property
    def failed(self) -> set[str]:
        """The units of which some clips failed before."""
        return {part.unit.removeprefix("latents-") for part in self.ledger.parts("errors")}

    def done(self) -> shards.Manifest:
        """Do both passes; return the manifest of the latents."""
        price, rates = self.priced()
        made_of = {name: self.made_of(name, rates.get(name)) for name in self.packed}
        self.encode(made_of, rates)
        for row in failures(self.ledger.run, self.selection)[:SHOWN]:
            log.warning("latents   failed: %s %s: %s; %s", row["uri"], row["key"] or "", row["reason"], row["remedy"])
        where = ds.field("selection") == self.selection
        made = self.tidy(made_of).read("latents", ["shard"], where=where)["shard"].to_pylist()
        if self.packed and not made:
            look = f"rushes verify --full {self.ledger.run}"
            raise RuntimeError(f"not one clip of {self.root} could be encoded; run `{look}`")
        manifest = shards.write_manifest(
            self.out, [shards.read_info(self.out, shard) for shard in made], kind="latents",
            fingerprint=fingerprint(FORMAT, self.tokenizer, self.predicted, self.config),
            extra={"tokenizer": self.tokenizer, "selection": self.selection, **price},
        )  # fmt: skip
        shards.prune(self.out, manifest)
        return manifest

    def made_of(self, name: str, rates: str | None) -> str:
        """Return the fingerprint of a latent shard: of its clips' rates, where these were chosen over all clips."""
        common, shard = (FORMAT, self.tokenizer), self.packed[name].sha256
        if rates is not None:
            return fingerprint(*common, self.config.side_px, self.config.pictures, shard, rates)
        return fingerprint(*common, self.predicted, self.config, shard)

    def priced(self) -> tuple[Row, dict[str, str]]:
        """Return what the manifest tells of λ, and by unit the rates that it buys where one budget is for all clips."""
        if not self.config.together:
            return {} if self.config.lam is None else {"lam": self.config.lam}, {}
        self._look()
        if shards.read_manifest(self.root).shards != list(self.packed.values()):
            raise RuntimeError(f"the shards of {self.root} changed meanwhile; run the same command again")
        parts = {name: self.ledger.part("rates", name, look) for name, look in self.looks.items()}
        with self.reporter.work("budget"):
            spent = spend.spend(self.ledger, parts, self.config)
        log.info("budget    %d of %d latents for all clips, λ = %.6g", spent.latents, spent.budget, spent.lam)
        bound = fingerprint(self.config, sorted(self.looks.items()))
        return {"lam": spent.lam, "budget": spent.budget, "bound": bound}, spent.rates

    def _look(self) -> None:
        """Write what the clips of each shard lose at each rate, where that is not known."""
        there = {(part.unit, part.fingerprint) for part in self.ledger.parts("rates")}
        pending = [
            {"unit": name, "shard": shard.path, "todo": ["rates"], "prints": {"rates": self.looks[name]},
             "stale": self._stale(rates=name)}
            for name, shard in self.packed.items() if (name, self.looks[name]) not in there or name in self.failed
        ]  # fmt: skip
        settings = RatesJob(
            selection=self.selection, model=self.model, side_px=self.config.side_px,
            tokenizer=self.tokenizer, predicted=self.predicted, pictures=self.config.pictures,
        )  # fmt: skip
        self._leg("rates", settings, pending)

    def encode(self, made_of: Mapping[str, str], rates: Mapping[str, str]) -> None:
        """Make the latent shards that are not there, also where a tar or a side-car was removed by hand."""
        done = {(part.unit, part.fingerprint) for part in self.ledger.parts("latents") if part.unit not in self.failed}
        held = {uri.removeprefix(f"{self.out}/") for uri in storage.list_files(self.out, recursive=True)}
        remedy = selections.pack_command(self.ledger.run, self.selection)
        pending = [
            {"unit": name, "shard": shard.path, "todo": ["latents"], "remedy": remedy, "rates": rates.get(name),
             "prints": {"rates": self.looks[name], "latents": made_of[name], "errors": {"latents": made_of[name]}},
             "stale": self._stale(latents=name, errors=f"latents-{name}")}
            for name, shard in self.packed.items()
            if (name, made_of[name]) not in done or not {shard.path, shard.sidecar} <= held
        ]  # fmt: skip
        if pending:
            summary.outdate(self.ledger.run)
        settings = LatentsJob(
            selection=self.selection, model=self.model, config=self.config, tokenizer=self.tokenizer
        )  # fmt: skip
        self._leg("latents", settings, pending)

    def _stale(self, **units: str) -> dict[str, list[Row]]:
        return {table: [vars(part) for part in self.ledger.parts(table, unit)] for table, unit in units.items()}

    def _leg(self, name: str, settings: Any, pending: list[Row]) -> None:
        before = len(self.packed) - len(pending)
        if not pending:
            self.reporter.skipped(name, before)
            return
        cluster.start(self.ray)
        segments = [
            cluster.Segment(place=place, make=partial(Line, self.ledger.run, settings, names))
            for place, names, _ in job.segments([name], settings, cluster.gpus())
        ]
        with self.reporter.leg({name: (len(pending), before)}) as shown:
            for row in cluster.stream(pending, segments, watch=shown.state):
                if row.get("fatal"):
                    raise RuntimeError(row["fatal"])

    def tidy(self, made_of: Mapping[str, str]) -> Ledger:
        """Remove the parts of shards and settings that are no more; return the ledger as it is now."""
        ledger, prefix = Ledger(self.ledger.run).snapshot(), f"{self.selection}."
        for table, current, begins in (
            ("rates", self.looks, prefix), ("latents", made_of, prefix), ("errors", made_of, f"latents-{prefix}"),
        ):  # fmt: skip
            ledger.tidy(table, {name.removeprefix(prefix): own for name, own in current.items()}, begins)
        return ledger


def failures(run_: str, selection: str) -> list[Row]:
    """Return what failed when the latents of a selection were made, as rows of the table `errors`."""
    rows = Ledger(run_).read("errors", ["stage", "unit", "uri", "key", "reason", "remedy"]).to_pylist()
    return [row for row in rows if row["stage"] == "latents" and row["unit"].startswith(f"{selection}.")]


def _check(config: LatentsConfig) -> None:
    """Raise ValueError for settings that no clip can be encoded with, before any worker starts."""
    if config.lam is None and not config.rate:
        Budget(share=config.share, per_second=config.per_second)
    elif config.per_clip:
        raise ValueError("lam and rate are no budget that a clip could have by itself; give one of them or per_clip")
    else:
        Budget(lam=config.lam, per_second=config.per_second, rate=config.rate)  # the share is not looked at
    if (config.rate or config.lam is not None) and config.share not in (0, LatentsConfig.share):
        instead = "rate" if config.rate else "lam"
        raise ValueError(f"share={config.share} and {instead} contradict each other; give one of them")
    if not 0 <= config.pictures <= 1:
        raise ValueError(f"pictures={config.pictures} is no share of the clips; give 0 to 1")
    if config.side_px < 0:
        raise ValueError(f"side_px={config.side_px} must be a number of pixels; 0 keeps the size of the clips")


def tokenizer_fingerprint(model: str) -> str:
    """Return the fingerprint of a tokenizer. Raises ValueError where there is none."""
    if frozen_kind(model)[0]:
        from rushes.tokenizer import codec

        return codec.fingerprint(codec.load(model))
    return str(_about(model)["fingerprint"])


def variant_of(model: str) -> str:
    """Return the variant of a tokenizer, empty for a frozen VAE. Raises ValueError where there is none."""
    return "" if frozen_kind(model)[0] else str(_about(model)["config"]["variant"])


def _about(model: str) -> Row:
    uri = f"{folder_of(model)}/config.json"
    if not storage.exists(uri):
        raise ValueError(
            f"{model} holds no tokenizer; train one with `rushes tokenizer train RUN`, or give --tokenizer shipped, "
            "wan:PATH or hunyuan:PATH"
        )
    about: Row = json.loads(storage.read_bytes(uri))
    return about
