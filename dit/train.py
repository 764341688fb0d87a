"""Train a diffusion transformer on latent shards: `rushes dit train LATENTS --out RUN/dit`.

    OUT/train.json        the resolved config and the latents' fingerprint
    OUT/statistics.json   scale, facts and usual sizes of the latents, measured once
    OUT/text/             the captions, embedded ahead
    OUT/metrics.jsonl     a line for every `log_every` steps; at each save what held-out clips lose, by noise level
    OUT/checkpoint.ckpt   everything a resume needs
    OUT/model/            the averaged weights: what `rushes dit sample` reads

The same command again resumes at the checkpoint, with the same batches, noise and weights as if it had never stopped;
on another number of devices or with other workers likewise, with weights equal up to rounding.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from rushes.dit.config import TrainConfig
from rushes.dit.data import Batch, Packs, loader, require_same
from rushes.dit.index import Index, read_index
from rushes.dit.model import DiT, save
from rushes.dit.module import FlowModule
from rushes.dit.plan import fixed, windows
from rushes.dit.processes import Together
from rushes.dit.sharding import whole
from rushes.dit.statistics import Statistics, statistics
from rushes.dit.text import Embedded, embed_ahead
from rushes.pipelines import threads
from rushes.pipelines.store import ledger, shards, storage
from rushes.tokenizer import loggers
from rushes.tokenizer.codec import OURS
from rushes.tokenizer.config import Tell, silent
from rushes.tokenizer.sharding import Sharded

FIGURES = ("loss", "held_loss", "probe_loss", "lr", "tokens_per_s")
"""What is told of a line of the metrics."""
FREE = (
    "steps", "log_every", "save_every", "workers", "devices", "device", "logger",
    "strategy", "checkpointing", "compile",
)  # fmt: skip
"""Settings that do not decide the weights, but for rounding, and so may change at a resume."""
OLDER = {"uniform": 0.0}
"""What a training had from before a setting was there, where that is not the setting's default."""
VALIDATION_PACKS = 4
"""Packs at most on which the loss is measured at each save."""


def train(config: TrainConfig, latents: str, out: str, tell: Tell = silent) -> Path:
    """Train, or go on training, and return the folder of the model.

    Args:
        config: The run's settings. `model.in_channels` is taken from the latents.
        latents: Folder of latent shards, local or in an object store.
        out: Local folder of the run.
        tell: Told of every step, with each line of the metrics.

    Raises:
        ValueError: the latents are none or of several tokenizers, or `out` belongs to another config.
        DivergenceError: loss or gradient of a step is no number; the step is not taken, its clips are named.
        ProcessError: another process of the training failed or was killed.
    """
    folder = storage.local_path(out)
    if not storage.is_local(out):
        raise ValueError(f"out={out} is not a local folder; train to a local one and copy the model")
    loggers.require(config.logger)
    index = read_index(latents)
    config = replace(config, model=replace(config.model, in_channels=index.channels), packs=_packs(config, folder))
    if (folder / "distill.json").exists():
        raise ValueError(f"{folder} holds a student; give another --out")
    done = _steps_done(folder / "checkpoint.ckpt")
    record = _claim(folder, config, index, done)
    facts = _measured(folder, config, index)
    threads.warn_of_spinning(torch.get_num_threads())
    L.seed_everything(config.seed, verbose=False)
    module, clips = FlowModule(config, facts), Clips(index, config, folder / "text", tell)
    about = {
        "tokenizer": index.fingerprint, "tokenizer_name": index.tokenizer,
        "typical": facts.typical, "captioned": facts.captioned,
        "known": config.known, "pictures": index.pictures, "longest_s": float(clips.trained.seconds.max()),
    }  # fmt: skip
    with warnings.catch_warnings():
        _hush()
        logger = loggers.logger(config.logger, folder, ledger.fingerprint(record, str(folder.resolve())), done, record)
        together = Together(folder)
        trainer = _trainer(config, [together, Keeper(folder, config, about, clips, tell)], logger)
        resumed = str(folder / "checkpoint.ckpt") if done else None
        with loggers.ending(logger), together.watched(trainer):
            trainer.fit(module, datamodule=clips, ckpt_path=resumed, weights_only=True)
    return folder / "model"


def _devices(config: TrainConfig) -> int:
    """Return how many processes train."""
    return config.devices or (max(1, torch.cuda.device_count()) if config.device != "cpu" else 1)


def _packs(config: TrainConfig, folder: Path) -> int:
    """Return the packs of a step: asked for, or those that the run began with, or one for each device."""
    path, devices = folder / "train.json", _devices(config)
    if config.strategy == "fsdp" and devices == 1:
        raise ValueError("strategy=fsdp shares a network between processes and there is one; give devices=2 or more")
    begun = json.loads(path.read_text())["train"].get("packs", 0) if path.exists() else 0
    packs = config.packs or begun or devices
    if packs % devices:
        raise ValueError(
            f"a step has packs={packs}, which {devices} devices cannot share out evenly; "
            f"give devices={max(n for n in range(1, devices + 1) if packs % n == 0)}, or another --out and other packs"
        )
    return packs


def _measured(folder: Path, config: TrainConfig, index: Index) -> Statistics:
    """Return the statistics of the latents, which are measured once for a run: a resume reads no clip again."""
    path = folder / "statistics.json"
    if not path.exists():
        found = statistics(index, config.model, config.seed)
        storage.write_bytes(str(path), (json.dumps(found.to_json()) + "\n").encode())
    return Statistics.from_json(json.loads(path.read_text()))


def _steps_done(path: Path) -> int:
    """Return the steps that a checkpoint has done, 0 if there is none. Raises ValueError for one that is damaged."""
    if not path.exists():
        return 0
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, UnpicklingError) as error:
        raise ValueError(f"{path} is damaged or no checkpoint ({error}); remove it to start anew") from error


def content_of(latents: str) -> str:
    """Return what tells sets of latent shards apart: a fingerprint of their content."""
    return ledger.fingerprint([shard.sha256 for shard in shards.read_manifest(shards.find(latents)).shards])


def _claim(folder: Path, config: TrainConfig, index: Index, done: int) -> dict[str, Any]:
    """Write the config to the run's folder, or make sure that it is the one that stands there; return what decides."""
    settings = {k: v for k, v in asdict(config).items() if k not in FREE}
    whose = {"tokenizer": index.fingerprint, "tokenizer_name": index.tokenizer}
    record = json.loads(json.dumps({"train": settings, **whose, "latents": content_of(index.root)}))
    path = folder / "train.json"
    begun = (folder / "checkpoint.ckpt").exists()
    if path.exists() and not begun and json.loads(path.read_text()).get("train") != record["train"]:
        (folder / "statistics.json").unlink(missing_ok=True)  # of a try that ended before its first checkpoint
    if path.exists() and begun:
        found = json.loads(path.read_text())
        trained = found.get("tokenizer_name", OURS), found["tokenizer"]
        require_same(str(folder), trained, (index.tokenizer, index.fingerprint), f"{index.root} are those of")
        known = {name: value for name, value in asdict(TrainConfig()).items() if name in record["train"]}
        before = {**known, **OLDER, **found["train"]}  # a training from before a setting was there
        before["model"] = {**known["model"], **before["model"]}
        changed = [name for name in {**record["train"], **before} if record["train"].get(name) != before.get(name)]
        changed += ["other latents"] if record["latents"] != found.get("latents") else []
        if changed:
            raise ValueError(
                f"{folder} holds a run with other settings ({', '.join(changed)}); "
                f"use those again, another --out, or remove that folder"
            )
    storage.write_bytes(str(path), (json.dumps({**record, "steps": max(config.steps, done)}, indent=2) + "\n").encode())
    return dict(record)


def _trainer(config: TrainConfig, callbacks: list[L.Callback], logger: Any) -> L.Trainer:
    gpu = config.device != "cpu" and torch.cuda.is_available()
    if config.device == "cuda" and not gpu:
        raise ValueError("device='cuda', but torch sees no GPU; use device='auto'")
    return L.Trainer(
        max_steps=config.steps,
        accelerator="cuda" if gpu else "cpu",
        devices=_devices(config),
        strategy=Sharded(_devices(config)) if config.strategy == "fsdp" else "auto",
        accumulate_grad_batches=config.packs // _devices(config),
        precision="bf16-mixed" if gpu and torch.cuda.is_bf16_supported() else "32-true",
        callbacks=callbacks,
        logger=logger or False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _hush() -> None:
    """Lightning's advice that does not apply: readers are few by choice, and a GPU may be left alone by choice."""
    for text in (
        ".*does not have many workers.*", ".*GPU available but not used.*", ".*treespec.*", ".*returned a view tensor",
        "The .grad attribute",
    ):  # fmt: skip
        warnings.filterwarnings("ignore", message=text)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


class Clips(L.LightningDataModule):
    """Packs from where the module stands: asked for after a checkpoint was taken up."""

    def __init__(self, index: Index, config: TrainConfig, text: Path, tell: Tell):
        super().__init__()
        self.index, self.config, self.text, self.tell = index, config, text, tell
        self.trained, self.held_out = windows(index, config)
        self.held = len(self.held_out) > 0
        self._fixed = fixed(self.held_out if self.held else self.trained, config, VALIDATION_PACKS)

    def prepare_data(self) -> None:
        """Embed the captions, in one process; the others wait for it."""
        gpu = self.config.device != "cpu" and torch.cuda.is_available()
        embed_ahead(self.index.captions, self.config.model, self.text, "cuda" if gpu else "cpu", self.tell)

    def packs(self) -> Packs:
        """Return what reads packs."""
        return Packs(self.index, Embedded(self.text, self.config.model), self.config)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of this process."""
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        rank, world = self.trainer.global_rank, self.trainer.world_size
        return loader(self.packs(), self.trained, module.position, rank, world)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch; Lightning's own way would look into every field."""
        return batch.to(device)

    def validation(self) -> list[Batch]:
        """Return the packs on which the loss is measured, held out where any clip is: the same at any time."""
        packs = self.packs()
        return [packs[wanted] for wanted in self._fixed]


class Keeper(L.Callback):
    """Writes metrics, checkpoints and the model."""

    def __init__(self, folder: Path, config: TrainConfig, about: dict[str, Any], clips: Clips, tell: Tell):
        self.folder, self.config, self.about, self.clips, self.tell = folder, config, about, clips, tell
        self.since, self.logged = 0.0, 0
        self.fixed: list[Batch] = []
        self.finished = False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Drop the lines of metrics that the checkpoint knows nothing of; they will be written again."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= trainer.global_step]
        if trainer.is_global_zero:
            storage.write_bytes(str(path), "".join(kept).encode())
            self.tell(trainer.global_step, self.config.steps, "steps", {})
        self.since, self.logged = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Write what is due at this step."""
        if batch.position is None:
            return
        step = trainer.global_step
        last = step == self.config.steps
        saving = last or step % self.config.save_every == 0
        average = whole(module.ema) if saving else None  # asked for by all processes, for each may have a part of it
        due = saving or step % self.config.log_every == 0
        figures = self._log(trainer, module, average) if due else {}
        if trainer.is_global_zero:
            self.tell(step, self.config.steps, "steps", figures)
        if average:
            self._save(trainer, average)

    def _log(self, trainer: L.Trainer, module: FlowModule, average: DiT | None) -> dict[str, float]:
        """Write a line and return its figures; also the loss of averaged weights on fixed packs, where given."""
        loss, tokens, clips, seconds = module.figures()
        now, steps = time.monotonic(), trainer.global_step - self.logged
        line = {
            "step": trainer.global_step,
            "loss": loss,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "round": module.position[0],
            "tokens": tokens / steps,
            "clips": clips / steps,
            "tokens_per_s": tokens / max(now - self.since, 1e-9),
            "clip_seconds_per_s": seconds / max(now - self.since, 1e-9),
        }
        if trainer.is_global_zero:
            line |= self._validated(module, average) if average else {}
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            for logger in trainer.loggers:
                logger.log_metrics({name: value for name, value in line.items() if name != "step"}, trainer.global_step)
        self.since, self.logged = time.monotonic(), trainer.global_step
        return {name: value for name, value in line.items() if name in FIGURES}

    def _validated(self, module: FlowModule, average: DiT) -> dict[str, float]:
        """Return the loss on fixed packs, the mean and at each time; of clips that are trained on it is no test."""
        self.fixed = self.fixed or self.clips.validation()
        name, found = "held_loss" if self.clips.held else "probe_loss", module.validate(average, self.fixed)
        return {name: sum(found.values()) / len(found), **{f"{name}_at_{t:g}": loss for t, loss in found.items()}}

    def _save(self, trainer: L.Trainer, average: DiT) -> None:
        part = self.folder / ".checkpoint.ckpt.part"
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:  # the model first: a checkpoint never stands beside an older one
            save(average, str(self.folder / "model"), {**self.about, "step": trainer.global_step})
            part.replace(self.folder / "checkpoint.ckpt")

    def on_fit_start(self, trainer: L.Trainer, module: Any) -> None:
        """Note that a finished training is asked for again: its model is written anew if it is not there."""
        self.finished = _steps_done(self.folder / "checkpoint.ckpt") >= self.config.steps

    def on_fit_end(self, trainer: L.Trainer, module: Any) -> None:
        """Write the model of a finished training where somebody removed it."""
        if self.finished and not (self.folder / "model" / "config.json").exists():
            average, done = whole(module.ema), _steps_done(self.folder / "checkpoint.ckpt")
            if trainer.is_global_zero:
                save(average, str(self.folder / "model"), {**self.about, "step": done})
