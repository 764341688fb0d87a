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

from dit.config import DiTConfig, SampleConfig
from dit.config import TrainConfig as DiTTrainConfig
from pipelines import curate, demo, encode_latents, stages, summary
from pipelines.config import CurateConfig, LatentsConfig, PackConfig
from pipelines.report import page
from tokenizer.config import Budget, TokenizerConfig
from tokenizer.config import TrainConfig as TokenizerTrainConfig

log = logging.getLogger("rushes")

CURATE = CurateConfig(pack=PackConfig(shard_mb=4.0))
TOKENIZER = TokenizerTrainConfig(steps=240, batch=1, frames=32, side=64, save_every=120)
LATENTS = LatentsConfig(side_px=64, share=0.75)
DIT = DiTTrainConfig(model=DiTConfig(size="nano"), steps=300, tokens=2048, lr=1e-3, save_every=150)
SAMPLE = SampleConfig(seconds=2.0, steps=30, seed=1)


def run(out: str) -> dict[str, object]:
    """Run the demo in a local folder and return the summary of its run; the report and the clips lie in the folder."""
    from dit import sample
    from dit import train as dit_train
    from tokenizer import reconstruct
    from tokenizer import train as tokenizer_train

    root = str(Path(out))
    log.info("footage   composing the demo's inputs in %s/footage", root)
    demo.footage(f"{root}/footage")
    curate.curate([f"{root}/footage"], root, CURATE)

    log.info("tokenizer training %d steps of a %s tokenizer", TOKENIZER.steps, TokenizerConfig().size)
    trained = tokenizer_train.train(f"{root}/shards", f"{root}/tokenizer", TokenizerConfig(), TOKENIZER)
    film = f"{root}/tokenizer/reconstruction.mp4"
    if not Path(film).exists():
        budget = Budget(share=LATENTS.share)
        done = reconstruct.reconstruct(
            trained.model, f"{root}/shards", film, budget=budget, side_px=128, max_seconds=4.0
        )
        log.info("tokenizer reconstruction at %.1f dB, %d latents for %d frames", done.psnr, done.latents, done.frames)

    encode_latents.run(root, trained.model, LATENTS, CURATE.ray)
    stages.stop()

    log.info("dit       training %d steps of a %s transformer", DIT.steps, DIT.model.size)
    clip = Path(root) / "dit" / "sample.mp4"
    if not clip.exists():
        model = dit_train.train(DIT, f"{root}/latents", f"{root}/dit")
        config = replace(SAMPLE, prompt=_a_caption(root))
        planned = sample.sample(config, str(model), trained.model, str(clip))
        log.info("dit       %d frames generated for %r", planned.frames, config.prompt)

    found = summary.of(root)
    found["report"] = page.write(root)
    return found


def _a_caption(root: str) -> str:
    """Return the caption of the first latent, so that the demo asks for what it was trained on."""
    from pipelines import shards

    first = shards.shard_uris(f"{root}/latents")[0]
    sample = next(iter(shards.read_shard(first, ("json",))))
    return str(json.loads(sample["json"])["caption"])
