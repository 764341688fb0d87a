"""`rushes latents RUN`: clip shards of a selection through the tokenizer into latent shards, one for each, on Ray.

A latent shard that is done under the same tokenizer, budget and clip shard is not made again, unless some of its clips
failed: our own clips decode, so what failed was damaged on its way and may have been mended.
"""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import Any

import pyarrow.dataset as ds

from rushes.pipelines.config import LatentsConfig, RayConfig
from rushes.pipelines.engine import cluster, job
from rushes.pipelines.engine.line import Line
from rushes.pipelines.progress import Reporter
from rushes.pipelines.report import summary
from rushes.pipelines.stages.latents.stage import LatentsJob
from rushes.pipelines.stages.select import selections
from rushes.pipelines.store import shards, storage
from rushes.pipelines.store.ledger import Ledger, fingerprint
from rushes.tokenizer.shipped import folder_of, frozen_kind

log = logging.getLogger("rushes")
Row = dict[str, Any]
FORMAT = 2  # of a sample; shards of an earlier one are made again
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
        RuntimeError: not one clip could be encoded.
    """
    _check(config)
    run_, reporter = run_.rstrip("/"), reporter or Reporter()
    ledger = Ledger(run_)
    ledger.require()
    ledger = ledger.snapshot()
    root = selections.folder(run_, "shards", selection)
    selection = root.rsplit("/", 1)[-1]
    out, prefix = f"{run_}/latents/{selection}", f"{selection}."
    print_ = tokenizer_fingerprint(model)
    scorer = scorer_fingerprint(model, config)
    units: dict[str, Row] = {}
    for shard in shards.read_manifest(root).shards:
        name = prefix + shard.path.removesuffix(".tar").replace("/", "-")
        own = fingerprint(FORMAT, print_, scorer, config, shard.sha256)
        units[name] = {
            "unit": name,
            "shard": shard.path,
            "todo": ["latents"],
            "remedy": selections.pack_command(run_, selection),
            "prints": {"latents": own, "errors": {"latents": own}},
            "fingerprint": own,
        }
    failed = {part.unit for part in ledger.parts("errors")}
    done = {(part.unit, part.fingerprint) for part in ledger.parts("latents") if f"latents-{part.unit}" not in failed}
    there = {uri.removeprefix(f"{out}/") for uri in storage.list_files(out, recursive=True)}
    pending = [  # one whose tar or side-car was removed by hand is made anew, too
        row for name, row in units.items()
        if (name, row["fingerprint"]) not in done
        or not {row["shard"], row["shard"].removesuffix(".tar") + ".parquet"} <= there
    ]  # fmt: skip
    before = len(units) - len(pending)
    if pending:
        summary.outdate(run_)
        cluster.start(ray)
        settings = LatentsJob(selection=selection, model=model, config=config, tokenizer=print_)
        for row in pending:
            row["stale"] = {
                "latents": [vars(part) for part in ledger.parts("latents", row["unit"])],
                "errors": [vars(part) for part in ledger.parts("errors", f"latents-{row['unit']}")],
            }
        segments = [
            cluster.Segment(place=place, make=partial(Line, run_, settings, names))
            for place, names, _ in job.segments(["latents"], settings, cluster.gpus())
        ]
        with reporter.leg({"latents": (len(pending), before)}) as shown:
            for row in cluster.stream(pending, segments, watch=shown.state):
                if row.get("fatal"):
                    raise RuntimeError(row["fatal"])
    else:
        reporter.skipped("latents", before)
    ledger = Ledger(run_).snapshot()
    current = {name.removeprefix(prefix): row["fingerprint"] for name, row in units.items()}
    ledger.tidy("latents", current, prefix)
    ledger.tidy("errors", current, f"latents-{prefix}")
    for row in failures(run_, selection)[:SHOWN]:
        log.warning("latents   failed: %s %s: %s; %s", row["uri"], row["key"] or "", row["reason"], row["remedy"])
    made = ledger.read("latents", ["shard"], where=ds.field("selection") == selection)["shard"].to_pylist()
    if units and not made:
        raise RuntimeError(f"not one clip of {root} could be encoded; run `rushes verify --full {run_}`")
    infos = [shards.read_info(out, shard) for shard in made]
    extra = {"tokenizer": print_, "selection": selection}
    manifest = shards.write_manifest(
        out, infos, kind="latents", fingerprint=fingerprint(FORMAT, print_, scorer, config), extra=extra
    )
    shards.prune(out, manifest)
    return manifest


def failures(run_: str, selection: str) -> list[Row]:
    """Return what failed when the latents of a selection were made, as rows of the table `errors`."""
    rows = Ledger(run_).read("errors", ["stage", "unit", "uri", "key", "reason", "remedy"]).to_pylist()
    return [row for row in rows if row["stage"] == "latents" and row["unit"].startswith(f"{selection}.")]


def _check(config: LatentsConfig) -> None:
    """Raise ValueError for settings that no clip can be encoded with, before any worker starts."""
    from rushes.tokenizer.config import Budget

    Budget(share=config.share, per_second=config.per_second)
    if config.side_px < 0:
        raise ValueError(f"side_px={config.side_px} must be a number of pixels; 0 keeps the size of the clips")


def tokenizer_fingerprint(model: str) -> str:
    """Return the fingerprint of a tokenizer. Raises ValueError where there is none."""
    if frozen_kind(model)[0]:
        from rushes.tokenizer import codec

        return codec.fingerprint(codec.load(model))
    uri = f"{folder_of(model)}/config.json"
    if not storage.exists(uri):
        raise ValueError(
            f"{model} holds no tokenizer; train one with `rushes tokenizer train RUN`, or give --tokenizer shipped, "
            "wan:PATH or hunyuan:PATH"
        )
    return str(json.loads(storage.read_bytes(uri))["fingerprint"])


def scorer_fingerprint(model: str, config: LatentsConfig) -> str:
    """Return the fingerprint of the scorer that decides on rates, empty where they are measured.

    Raises ValueError where it is to be predicted and the model has no scorer.
    """
    if config.allocation == "measured" or (config.allocation == "auto" and frozen_kind(model)[0]):
        return ""
    uri = f"{folder_of(model)}/scorer.json"
    if not storage.exists(uri):
        if config.allocation == "predicted":
            raise ValueError(f"{model} holds no scorer; train one with `rushes tokenizer scorer RUN`, or measure")
        return ""
    return str(json.loads(storage.read_bytes(uri))["fingerprint"])
