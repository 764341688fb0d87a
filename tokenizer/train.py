"""Train a tokenizer from the shards of a run; the same command resumes it exactly.

    rushes tokenizer train RUN/shards --out RUN/tokenizer

About 0.5 s a step for a nano on one CPU core; writes `metrics.jsonl` and `strips/` as it trains, `model/` at the end.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from PIL import Image

from pipelines import ledger, shards, storage
from tokenizer.config import TokenizerConfig, TrainConfig
from tokenizer.data import ClipBatches, loader, to_pictures
from tokenizer.losses import psnr
from tokenizer.model import Tokenizer, grow, load, save
from tokenizer.module import TokenizerModule, norm_latents, unit

log = logging.getLogger(__name__)


class ResumeError(ValueError):
    """The folder holds a training that these settings cannot go on with."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a finished training left."""

    model: str
    """Folder of the model."""
    fingerprint: str
    """Fingerprint of the model."""
    steps: int
    """Steps taken in all."""
    seconds: float
    """Time of this call."""
    psnr: dict[str, float]
    """PSNR in dB on training crops for each rate, with the averaged weights: a sign of progress, no evaluation."""


def train(
    shards_root: str,
    out: str,
    model: TokenizerConfig | None = None,
    settings: TrainConfig | None = None,
    start: str = "",
    progress: Callable[[dict[str, float]], None] | None = None,
) -> Trained:
    """Train a tokenizer and return where it is. A finished training is not repeated, a broken off one goes on.

    Args:
        shards_root: Clip shards, on disk or in an object store.
        out: Local folder for checkpoints, metrics, strips and the model.
        model: What to train; the default is a nano.
        settings: How to train it.
        start: Folder of a saved tokenizer to start from; empty starts afresh. It has the same configuration, or is
            one of four frames per latent from which a grown-16x grows.
        progress: Called with each line of the metrics.

    Raises:
        ResumeError: `out` holds a training with other settings or other shards.
        ValueError: The shards hold no video, `out` is not local, or `start` is of another configuration.
    """
    begun = time.monotonic()
    model, settings = model or TokenizerConfig(), settings or TrainConfig()
    if not storage.is_local(out):
        raise ValueError(f"out={out} must be a local folder; copy {out}/model afterwards, or mount the bucket")
    folder = storage.local_path(out)
    record = _record(shards_root, model, settings, start)
    if _resumes(folder, record) and storage.exists(f"{out}/model/config.json"):
        done = json.loads((folder / "trained.json").read_text())
        return Trained(**{**done, "model": f"{out}/model", "seconds": time.monotonic() - begun})
    storage.write_bytes(f"{out}/config.json", json.dumps(record, indent=2).encode())
    module = _fit(shards_root, folder, model, settings, start, progress)
    return _finish(module, shards_root, folder, settings, begun)


def _record(shards_root: str, model: TokenizerConfig, settings: TrainConfig, start: str) -> dict[str, Any]:
    manifest = shards.read_manifest(shards_root)
    if manifest.kind != "clips":
        raise ValueError(f"{shards_root} holds {manifest.kind}; a tokenizer is trained on shards of clips")
    content = ledger.fingerprint([shard.sha256 for shard in manifest.shards])
    return json.loads(
        json.dumps({"model": asdict(model), "train": asdict(settings), "start": start, "shards": content})
    )


def _resumes(folder: Path, record: dict[str, Any]) -> bool:
    """Whether the folder holds this training. Raises ResumeError if it holds another."""
    path = folder / "config.json"
    if not path.exists():
        return False
    found, wanted = _settings(json.loads(path.read_text())), _settings(record)
    changed = [f"{name} {found.get(name)}, not {wanted[name]}" for name in wanted if found.get(name) != wanted[name]]
    if changed:
        raise ResumeError(
            f"{folder} holds a training with other settings ({'; '.join(changed)}); "
            f"use those again, another --out, or remove that folder"
        )
    return True


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the weights, flat; how often a line is written does not."""
    train = {name: value for name, value in record["train"].items() if name not in ("log_every", "checkpointing")}
    model = {f"model.{name}": value for name, value in record["model"].items()}
    return {**model, **train, "start": record["start"], "shards": record["shards"]}


def _fit(
    root: str,
    folder: Path,
    model: TokenizerConfig,
    settings: TrainConfig,
    start: str,
    progress: Callable[[dict[str, float]], None] | None,
) -> TokenizerModule:
    last = folder / "last.ckpt"
    L.seed_everything(settings.seed, verbose=False)
    module = TokenizerModule(model, settings, _started(start, model) if start else None)
    if last.exists():
        module.on_load_checkpoint(torch.load(last, map_location="cpu", weights_only=True))
    probe = next(iter(ClipBatches(root, replace(settings, workers=0))))["video"]
    _cut_metrics(folder / "metrics.jsonl", module.steps_done)
    data = ClipBatches(root, settings, module.positions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", message=".*treespec.*")  # Lightning's own use of torch
        trainer = _trainer(settings, Journal(folder, probe, progress))
        trainer.fit(module, loader(data), ckpt_path=str(last) if last.exists() else None, weights_only=True)
    return module


def _started(path: str, model: TokenizerConfig) -> Tokenizer:
    start = load(path)
    if model.variant == "grown-16x" and start.config.variant != model.variant:
        start = grow(start)
    if start.config != model:
        raise ValueError(f"{path} holds a tokenizer of {start.config}, which is not the {model} that was asked for")
    return start


def _trainer(settings: TrainConfig, journal: Journal) -> L.Trainer:
    gpu = torch.cuda.is_available()
    many = gpu and torch.cuda.device_count() > 1
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return L.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices="auto" if gpu else 1,
        strategy="ddp_find_unused_parameters_true" if many else "auto",  # a pass skips the stages of other rates
        precision="bf16-mixed" if gpu and torch.cuda.is_bf16_supported() else "32-true",
        max_steps=settings.steps,
        gradient_clip_val=settings.grad_clip,
        callbacks=[journal],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class Journal(L.Callback):
    """Writes metrics, strips and checkpoints as the training goes on."""

    def __init__(self, folder: Path, probe: torch.Tensor, progress: Callable[[dict[str, float]], None] | None):
        self.folder, self.probe, self.progress = folder, probe, progress
        self.begun = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log, draw and save where it is due."""
        step, settings = module.steps_done, module.settings
        every = max(1, settings.save_every // max(settings.workers, 1)) * max(settings.workers, 1)
        last = step == settings.steps
        if trainer.is_global_zero and (step % settings.log_every == 0 or step == 1 or last):
            line = {"step": step, "elapsed_s": round(time.monotonic() - self.begun, 3), **module.figures}
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            if self.progress:
                self.progress(line)
        if step % every == 0 or last:  # a multiple of the workers, so that a resumed run begins with the first worker
            if trainer.is_global_zero:
                write_strip(module.average, self.probe, self.folder / "strips" / f"{step:06d}.png")
            part = self.folder / ".last.ckpt.part"
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                part.replace(self.folder / "last.ckpt")


def _cut_metrics(path: Path, steps_done: int) -> None:
    """Remove the lines that a killed run wrote after its last checkpoint."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= steps_done]
        storage.write_bytes(str(path), "".join(f"{line}\n" for line in kept).encode())


@torch.no_grad()
def write_strip(tokenizer: Tokenizer, clips: torch.Tensor, path: Path, shown: int = 6) -> dict[str, float]:
    """Draw frames of the first clip and below them their reconstruction at each rate; return the PSNR of each rate."""
    video = unit(clips).to(tokenizer.latent_mean.device)
    picked = np.linspace(0, video.shape[2] - 1, shown).round().astype(int)
    rows, quality = [to_pictures(video)[picked]], {}
    for rate in tokenizer.config.rates:
        again = tokenizer.decode(tokenizer.encode(video, rate)).clamp(-1, 1)
        quality[str(rate)] = psnr((again - video).square().mean())
        rows.append(to_pictures(again)[picked])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).save(path)
    return quality


def _finish(module: TokenizerModule, root: str, folder: Path, settings: TrainConfig, begun: float) -> Trained:
    tokenizer = module.average.cpu()
    batches = islice(ClipBatches(root, replace(settings, workers=0)), 4)
    videos = [unit(batch["video"]) for batch in batches]
    norm_latents(tokenizer, videos)
    quality = write_strip(
        tokenizer, torch.cat([((v + 1) * 127.5).round() for v in videos]), folder / "strips" / "final.png"
    )
    done: dict[str, Any] = {
        "fingerprint": save(tokenizer, str(folder / "model.part")),
        "steps": module.steps_done,
        "psnr": quality,
    }
    storage.write_bytes(str(folder / "trained.json"), json.dumps(done).encode())
    (folder / "model.part").replace(folder / "model")
    return Trained(**done, model=str(folder / "model"), seconds=time.monotonic() - begun)
