"""`rushes latents RUN`: clip shards through the tokenizer into latent shards, one for each, on Ray.

A latent shard that is done under the same tokenizer, budget and clip shard is not made again.
"""

from __future__ import annotations

import json
from typing import Any

from pipelines import shards, stages, storage, work
from pipelines.config import LatentsConfig, RayConfig
from pipelines.ledger import Ledger, fingerprint
from pipelines.progress import Reporter

Row = dict[str, Any]


def run(
    run_: str, model: str, config: LatentsConfig, ray: RayConfig, reporter: Reporter | None = None
) -> shards.Manifest:
    """Encode every clip shard of a run and return the manifest of the latents.

    Args:
        run_: folder or URI of the run.
        model: folder of a saved tokenizer that the workers can read.
        config: size and budget.
        ray: where to run.
        reporter: where progress is shown.

    Raises:
        ValueError: there is no such tokenizer, or the run has no shards.
    """
    run_, reporter = run_.rstrip("/"), reporter or Reporter()
    ledger, root, out = Ledger(run_), f"{run_}/shards", f"{run_}/latents"
    ledger.check()
    print_ = tokenizer_fingerprint(model)
    units = {}
    for shard in shards.read_manifest(root).shards:
        name = shard.path.removesuffix(".tar").replace("/", "-")
        units[name] = {"unit": name, "shard": shard.path, "fingerprint": fingerprint(print_, config, shard.sha256)}
    done = {(part.unit, part.fingerprint) for part in ledger.parts("latents")}
    pending = [row for name, row in units.items() if (name, row["fingerprint"]) not in done]
    before = len(units) - len(pending)
    if pending:
        stages.start(ray)
        arguments = {"run": run_, "model": model, "config": config, "print_": print_}
        rows = stages.run_actors(pending, LatentsActor, arguments)
        for row in reporter.follow("latents", rows, len(pending), before):
            if row["fatal"]:
                raise RuntimeError(row["fatal"])
    else:
        reporter.skipped("latents", before)
    current = {name: row["fingerprint"] for name, row in units.items()}
    ledger.tidy("latents", current)
    ledger.tidy("errors", current, prefix="latents-")
    infos = [shards.read_info(out, row["shard"]) for row in units.values()]
    extra = {"tokenizer": print_}
    manifest = shards.write_manifest(out, infos, kind="latents", fingerprint=fingerprint(print_, config), extra=extra)
    shards.prune(out, manifest)
    return manifest


def tokenizer_fingerprint(model: str) -> str:
    """Return the fingerprint of a saved tokenizer. Raises ValueError where there is none."""
    uri = f"{model.rstrip('/')}/config.json"
    if not storage.exists(uri):
        raise ValueError(
            f"{model} holds no tokenizer; train one with `rushes tokenizer train RUN`, or give --tokenizer"
        )
    return str(json.loads(storage.read_bytes(uri))["fingerprint"])


class LatentsActor:
    """Encodes one shard after another: table `latents`, and the shard itself."""

    def __init__(self, run: str, model: str, config: LatentsConfig, print_: str):
        self.run, self.model, self.config, self.print_ = run, model, config, print_

    def __call__(self, unit: Row) -> Row:
        """Encode the clips of one shard; what cannot be decoded becomes an error row."""
        from pipelines import latents
        from tokenizer.config import Budget

        ledger, budget = Ledger(self.run), Budget(share=self.config.share)
        try:
            info, failed = latents.encode_shard(
                f"{self.run}/shards",
                unit["shard"],
                f"{self.run}/latents",
                self.model,
                budget,
                side_px=self.config.side_px,
            )
            errors = [
                {**row, "seconds": 0.0, "remedy": "run `rushes verify --full` on the clip shards"} for row in failed
            ]
            work.write_errors(ledger, "latents", unit, errors)
            row = {"shard": info.path, "samples": info.samples, "size_bytes": info.size_bytes, "sha256": info.sha256,
                   "tokenizer": self.print_}  # fmt: skip
            ledger.write("latents", unit["unit"], [row], unit["fingerprint"])
        except storage.StorageError as error:
            return {**work.status(unit, 0, 0.0, 0), "fatal": str(error)}
        seconds = info.stats.get("duration_s", {}).get("sum", 0.0)
        return work.status(unit, info.samples, seconds, len(failed))
