"""Train a diffusion transformer on latent shards: `rushes dit train LATENTS --out RUN/dit`.

    OUT/train.json        the resolved config and the latents' fingerprint
    OUT/metrics.jsonl     a line for every `log_every` steps
    OUT/checkpoint.ckpt   everything a resume needs
    OUT/model/            the averaged weights: what `rushes dit sample` reads

The same command again resumes at the checkpoint, with the same batches, noise and weights as if it had never stopped.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, IterableDataset

from rushes.dit.config import TrainConfig
from rushes.dit.data import LatentError, Packed, Round, require_same
from rushes.dit.model import save
from rushes.dit.module import FlowModule
from rushes.dit.statistics import Statistics, statistics
from rushes.pipelines import threads
from rushes.pipelines.store import ledger, shards, storage
from rushes.tokenizer.codec import OURS
from rushes.tokenizer.config import Tell, silent

FIGURES = ("loss", "probe_loss", "lr", "tokens_per_s")
"""What is told of a line of the metrics."""


def train(config: TrainConfig, latents: str, out: str, tell: Tell = silent) -> Path:
    """Train, or go on training, and return the folder of the model.

    Args:
        config: The run's settings. `model.in_channels` is taken from the latents.
        latents: Folder of latent shards, local or in an object store.
        out: Local folder of the run.
        tell: Told of every step, with each line of the metrics.

    Raises:
        ValueError: the latents are none or of several tokenizers, or `out` belongs to another config.
    """
    folder = storage.local_path(out)
    if not storage.is_local(out):
        raise ValueError(f"out={out} is not a local folder; train to a local one and copy the model")
    facts = statistics(latents, config.model, config.seed)
    config = replace(config, model=replace(config.model, in_channels=len(facts.mean)))
    _claim(folder, config, facts, latents)
    threads.warn_of_spinning(torch.get_num_threads())
    L.seed_everything(config.seed, verbose=False)
    module = FlowModule(config, facts)
    checkpoint = folder / "checkpoint.ckpt"
    data = Stream(latents, config, facts, module)
    with warnings.catch_warnings():
        _hush()
        trainer = _trainer(config, [Keeper(folder, config, facts, data, tell)])
        trainer.fit(
            module,
            DataLoader(data, batch_size=None),
            ckpt_path=checkpoint if checkpoint.exists() else None,
            weights_only=True,
        )
    return folder / "model"


def _claim(folder: Path, config: TrainConfig, facts: Statistics, latents: str) -> None:
    """Write the config to the run's folder, or make sure that it is the one that stands there."""
    settings = {
        k: v for k, v in asdict(config).items() if k not in ("steps", "log_every", "save_every", "workers", "device")
    }
    content = ledger.fingerprint([shard.sha256 for shard in shards.read_manifest(latents).shards])
    whose = {"tokenizer": facts.fingerprint, "tokenizer_name": facts.tokenizer}
    record = json.loads(json.dumps({"train": settings, **whose, "latents": content}))
    path = folder / "train.json"
    if path.exists():
        found = json.loads(path.read_text())
        trained = found.get("tokenizer_name", OURS), found["tokenizer"]
        require_same(str(folder), trained, (facts.tokenizer, facts.fingerprint), f"{latents} are those of")
        changed = [
            name
            for name in {**record["train"], **found["train"]}
            if record["train"].get(name) != found["train"].get(name)
        ]
        changed += ["other latents"] if record["latents"] != found.get("latents") else []
        if changed:
            raise ValueError(
                f"{folder} holds a run with other settings ({', '.join(changed)}); "
                f"use those again, another --out, or remove that folder"
            )
    storage.write_bytes(str(path), (json.dumps({**record, "steps": config.steps}, indent=2) + "\n").encode())


def _trainer(config: TrainConfig, callbacks: list[Any]) -> L.Trainer:
    gpu = config.device != "cpu" and torch.cuda.is_available()
    if config.device == "cuda" and not gpu:
        raise ValueError("device='cuda', but torch sees no GPU; use device='auto'")
    return L.Trainer(
        max_steps=config.steps,
        accelerator="cuda" if gpu else "cpu",
        devices="auto" if gpu else 1,
        precision="bf16-mixed" if gpu and torch.cuda.is_bf16_supported() else "32-true",
        gradient_clip_val=config.clip_norm,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _hush() -> None:
    """Lightning's advice that does not apply: readers are few by choice, and a GPU may be left alone by choice."""
    for text in (".*does not have many workers.*", ".*GPU available but not used.*", ".*treespec.*"):
        warnings.filterwarnings("ignore", message=text)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class Stream(IterableDataset):
    """Packed batches without end, round after round, from where the module stands.

    A resume reads the batches of its round that were already trained on, and passes over them.
    """

    def __init__(self, root: str, config: TrainConfig, facts: Statistics, module: FlowModule):
        self.root, self.config, self.facts, self.module = root, config, facts, module

    def __iter__(self) -> Iterator[Packed]:
        number, done = self.module.position
        while True:
            count = 0
            for count, batch in enumerate(self.round(number), start=1):
                if count > done:
                    yield replace(batch, position=(number, count))
            if count == 0:
                raise LatentError(
                    f"{self.root} has no clip that fits; raise tokens, crop with max_cells, or use fewer processes"
                )
            number, done = number + 1, 0

    def round(self, number: int) -> Iterator[Packed]:
        """Yield the batches of one round of epochs."""
        each = self.facts.epochs_of_round(self.config, self.module.trainer.world_size * max(self.config.workers, 1))
        epochs = range(number * each, (number + 1) * each)
        batches = Round(self.root, self.config, epochs, self.facts.fingerprint)
        yield from DataLoader(batches, batch_size=None, num_workers=self.config.workers)


class Keeper(L.Callback):
    """Writes metrics, checkpoints and the model."""

    def __init__(self, folder: Path, config: TrainConfig, facts: Statistics, data: Stream, tell: Tell):
        self.folder, self.config, self.facts, self.data, self.tell = folder, config, facts, data, tell
        self.losses: list[torch.Tensor] = []
        self.tokens = self.clips = 0
        self.since = 0.0
        self.probe: Packed | None = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Drop the lines of metrics that the checkpoint knows nothing of; they will be written again."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= trainer.global_step]
        if trainer.is_global_zero:
            storage.write_bytes(str(path), "".join(kept).encode())
            self.tell(trainer.global_step, self.config.steps, "steps", {})
        self.since = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Packed, batch_idx: int) -> None:
        """Count, and write what is due at this step."""
        step = trainer.global_step
        self.losses.append(outputs["loss"].detach())
        self.tokens, self.clips = self.tokens + len(batch.tokens), self.clips + len(batch.lengths)
        last = step == self.config.steps
        saving = last or step % self.config.save_every == 0
        due = saving or step % self.config.log_every == 0
        figures = self._log(trainer, module, batch, saving) if due else {}
        if trainer.is_global_zero:
            self.tell(step, self.config.steps, "steps", figures)
        if saving:
            self._save(trainer, module)

    def _log(self, trainer: L.Trainer, module: FlowModule, batch: Packed, probing: bool) -> dict[str, float]:
        """Write a line and return its figures; the averaged weights' loss on a fixed batch where asked."""
        now = time.monotonic()
        line = {
            "step": trainer.global_step,
            "loss": float(torch.stack(self.losses).mean()),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "round": batch.position[0],
            "tokens": self.tokens / len(self.losses),
            "clips": self.clips / len(self.losses),
            "tokens_per_s": self.tokens / max(now - self.since, 1e-9),
        }
        if probing:
            self.probe = self.probe or next(iter(self.data.round(0)))
            line["probe_loss"] = module.probe(self.probe.to(module.device))
        if not torch.isfinite(torch.tensor(line["loss"])):
            raise ValueError(f"the loss is {line['loss']} at step {line['step']}; lower lr or clip_norm and start anew")
        if trainer.is_global_zero:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
        self.losses, self.tokens, self.clips, self.since = [], 0, 0, time.monotonic()
        return {name: value for name, value in line.items() if name in FIGURES}

    def _save(self, trainer: L.Trainer, module: FlowModule) -> None:
        part = self.folder / ".checkpoint.ckpt.part"
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            part.replace(self.folder / "checkpoint.ckpt")
            about = {
                "tokenizer": self.facts.fingerprint,
                "tokenizer_name": self.facts.tokenizer,
                "typical": self.facts.typical,
                "captioned": self.facts.captioned,
            }
            save(module.ema, str(self.folder / "model"), {**about, "step": trainer.global_step})
