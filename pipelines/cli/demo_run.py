"""`rushes demo`: the whole job on footage that the dependencies carry, from raw files to a generated clip.

Small settings, so that it ends within minutes on two cores; the same steps with larger ones are a real run. Every step
resumes, so a second demo only checks that all is there. The pictures show that the way is whole, not what models of
this size could learn from ninety seconds of footage.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

from rushes.dit.config import DiTConfig, SampleConfig
from rushes.dit.config import TrainConfig as DiTTrainConfig
from rushes.pipelines.cli import demo_footage
from rushes.pipelines.config import CurateConfig, LatentsConfig, PackConfig
from rushes.pipelines.engine import cluster, curate, encode_latents
from rushes.pipelines.progress import Reporter
from rushes.pipelines.report import accounting, page, summary
from rushes.pipelines.stages.select import selections
from rushes.pipelines.store import storage
from rushes.pipelines.store.ledger import fingerprint
from rushes.tokenizer.config import Budget, TokenizerConfig
from rushes.tokenizer.config import TrainConfig as TokenizerTrainConfig
from rushes.tokenizer.shipped import SHIPPED

log = logging.getLogger("rushes")

CURATE = CurateConfig(pack=PackConfig(shard_mb=4.0))
MODEL = TokenizerConfig()
# From the shipped weights, and with small steps, so that what they know stays.
TOKENIZER = TokenizerTrainConfig(steps=60, batch=1, frames=32, side=64, lr=1e-4, save_every=30)
LATENTS = LatentsConfig(side_px=64)
# Small batches give more steps for the time; shifted times train near noise, where a clip's layout is decided.
DIT = DiTTrainConfig(model=DiTConfig(size="nano"), steps=1200, tokens=1024, lr=2e-3, shift=10.0, log_every=50)
# Few steps, for a model that knows what a clip looks like and not yet what noise does: each further one adds some.
SAMPLE = SampleConfig(steps=4, shift=10.0, guidance=1.0, seed=1)


def run(out: str) -> dict[str, object]:
    """Run the demo in a local folder and return the summary of its run; the report and the clips lie in the folder."""
    from rushes.dit import sample
    from rushes.dit import train as dit_train
    from rushes.tokenizer import reconstruct
    from rushes.tokenizer import train as tokenizer_train

    root, reporter = str(Path(out)), Reporter()
    log.info("footage   composing the demo's inputs in %s/footage", root)
    with reporter.work("footage"):
        demo_footage.footage(f"{root}/footage")
    curate.curate([f"{root}/footage"], root, CURATE, reporter=reporter)

    log.info("tokenizer fine-tuning the shipped %s tokenizer for %d steps", MODEL.size, TOKENIZER.steps)
    clips = selections.folder(root)
    with reporter.work("tokenizer") as beat:
        trained = tokenizer_train.train(clips, f"{root}/tokenizer", MODEL, TOKENIZER, SHIPPED, beat.tell)
    film, budget = f"{root}/tokenizer/reconstruction.mp4", Budget(share=LATENTS.share)
    if _is_new(film, trained.model, budget):
        with reporter.work("tokenizer") as beat:
            done = reconstruct.reconstruct(
                trained.model, clips, film, budget=budget, side_px=128, max_seconds=4.0, tell=beat.tell
            )
        _mark(film, trained.model, budget)
        log.info("tokenizer reconstruction at %.1f dB, %d latents for %d frames", done.psnr, done.latents, done.frames)

    encode_latents.run(root, trained.model, LATENTS, CURATE.ray, reporter)
    cluster.stop()

    log.info("dit       training %d steps of a %s transformer", DIT.steps, DIT.model.size)
    with reporter.work("dit") as beat:
        model = dit_train.train(DIT, selections.folder(root, "latents"), f"{root}/dit", beat.tell)
    config, clip = _asked(root), f"{root}/dit/sample.mp4"
    if _is_new(clip, model, config):
        with reporter.work("dit") as beat:
            planned = sample.sample(config, str(model), trained.model, clip, beat.tell)
        _mark(clip, model, config)
        log.info("dit       %d frames generated for %r", sum(planned.lengths), config.prompt)

    with reporter.work("report"):
        books = accounting.open_books(root)
        found = summary.of(root, books=books)
        found["report"] = page.write(root, books=books)
    return found


def _asked(root: str) -> SampleConfig:
    """Return the longest clip's caption, facts, length and size, so that the demo asks for what it was trained on.

    A model that has seen so few clips knows no other lengths: it is told how far away a clip's end is.
    """
    from rushes.pipelines.store import shards

    facts = [
        json.loads(sample["json"])
        for uri in shards.shard_uris(selections.folder(root, "latents"))
        for sample in shards.read_shard(uri, ("json",))
    ]
    clip = max(facts, key=lambda one: (one["frames"], one["key"]))
    known = {name: float(clip[name]) for name in DIT.model.facts if clip.get(name) is not None}
    even = {side: 2 * round(clip[side] / 2) for side in ("height", "width")}
    seconds = clip["frames"] / clip["fps"]
    asked = replace(SAMPLE, prompt=clip["caption"], facts=known, seconds=seconds, fps=clip["fps"], **even)
    return replace(asked, rates=tuple(clip["rates"]))


def _is_new(film: str, model: str | Path, settings: object) -> bool:
    """Whether a film is still to be made of this model with these settings."""
    mark = Path(f"{film}.made")
    return not Path(film).exists() or not mark.exists() or mark.read_text() != _made_of(model, settings)


def _mark(film: str, model: str | Path, settings: object) -> None:
    storage.write_bytes(f"{film}.made", _made_of(model, settings).encode())


def _made_of(model: str | Path, settings: object) -> str:
    about = json.loads((Path(model) / "config.json").read_text())
    return fingerprint(about["fingerprint"], settings)
