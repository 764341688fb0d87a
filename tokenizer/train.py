"""Train a tokenizer from the shards of a run; the same command resumes it exactly.

    rushes tokenizer train RUN/shards --out RUN/tokenizer

    OUT/config.json      the resolved settings and the shards' fingerprint
    OUT/metrics.jsonl    a line for every `log_every` steps, and at each save; `curves.svg` draws them
    OUT/strips/          what the averaged weights keep of a clip, at each save
    OUT/last.ckpt        everything a resume needs
    OUT/model/           the averaged weights, at the end

About 0.5 s a step for a nano on one CPU core.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import lightning as L
import torch
from jaxtyping import UInt8
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from rushes.pipelines import threads
from rushes.pipelines.store import ledger, shards, storage
from rushes.tokenizer import loggers
from rushes.tokenizer.config import Tell, TokenizerConfig, TrainConfig, silent
from rushes.tokenizer.data import ClipBatches, fixed_batches, held_share, loader
from rushes.tokenizer.growth import grown
from rushes.tokenizer.journal import DurableIO, Journal, validate, write_strip
from rushes.tokenizer.lpips import LPIPS
from rushes.tokenizer.model import Tokenizer, grow, load, save
from rushes.tokenizer.module import TokenizerModule, norm_latents, unit
from rushes.tokenizer.sharding import Sharded, whole

log = logging.getLogger(__name__)

FREE = ("log_every", "logger", "checkpointing")
"""Settings that do not decide the weights, and so may change at a resume."""
CUDNN_CONV3D = 91_500
"""The first cuDNN with a half-precision Conv3d that torch uses: 9.15."""


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
    """PSNR in dB for each rate, with the averaged weights, on crops of held-out clips where there are some; else on
    training crops: a sign of progress, no evaluation."""
    held_out: bool = False
    """Whether it was measured on clips that were not trained on."""


def train(
    shards_root: str,
    out: str,
    model: TokenizerConfig | None = None,
    settings: TrainConfig | None = None,
    start: str = "",
    tell: Tell = silent,
) -> Trained:
    """Train a tokenizer and return where it is. A finished training is not repeated, a broken off one goes on.

    Args:
        shards_root: Clip shards, on disk or in an object store.
        out: Local folder for checkpoints, metrics, strips and the model.
        model: What to train; the default is a nano.
        settings: How to train it.
        start: Folder of a saved tokenizer, or `shipped`, to start from, of the same configuration or with fewer rates;
            empty starts afresh.
        tell: Told of every step, with each line of the metrics.

    Raises:
        ResumeError: `out` holds a training with other settings or other shards, or a damaged checkpoint.
        DivergenceError: The loss or a gradient is no number any more.
        StorageError: A file cannot be written, such as on a full disk; the last checkpoint is whole.
        ValueError: The shards hold no video, `out` is not local, a stage asks for a rate that the model lacks, the
            logger is not installed, weights of LPIPS are missing or do not fit, or the model cannot be sharded on this
            machine.
    """
    begun = time.monotonic()
    model, settings = model or TokenizerConfig(), settings or TrainConfig()
    if not storage.is_local(out):
        raise ValueError(f"out={out} must be a local folder; copy {out}/model afterwards, or mount the bucket")
    folder = storage.local_path(out)
    settings.plan(model.rates)
    loggers.require(settings.logger)
    if settings.lpips:
        LPIPS(settings.lpips)  # what is wrong with its weights is said before anything is written
    record = _record(shards_root, model, settings, start)
    if not (_resumes(folder, record) and storage.exists(f"{out}/model/config.json")):
        _processes(settings)
        storage.write_bytes(f"{out}/config.json", json.dumps(record, indent=2).encode())
        _fit(shards_root, folder, model, settings, start, tell, record)
    done = json.loads((folder / "trained.json").read_text())
    return Trained(**{**done, "model": f"{out}/model", "seconds": time.monotonic() - begun})


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
    defaults = {field.name: field.default for field in fields(TrainConfig) if field.default is not MISSING}
    found = {**defaults, **found}  # a training from before a setting was there
    changed = [f"{name} {found.get(name)}, not {wanted[name]}" for name in wanted if found.get(name) != wanted[name]]
    if changed:
        raise ResumeError(
            f"{folder} holds a training with other settings ({'; '.join(changed)}); "
            f"use those again, another --out, or remove that folder"
        )
    return True


def _settings(record: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the weights, flat."""
    train = {name: value for name, value in record["train"].items() if name not in FREE}
    model = {f"model.{name}": value for name, value in record["model"].items()}
    return {**model, **train, "start": record["start"], "shards": record["shards"]}


def _fit(
    root: str,
    folder: Path,
    model: TokenizerConfig,
    settings: TrainConfig,
    start: str,
    tell: Tell,
    record: dict[str, Any],
) -> None:
    last = folder / "last.ckpt"
    threads.warn_of_spinning(torch.get_num_threads())
    L.seed_everything(settings.seed, verbose=False)
    module = TokenizerModule(model, settings, _started(start, model) if start else None)
    clips = replace(settings, holdout=held_share(root, settings))
    probe, held = fixed_batches(root, clips)
    done = _check(last, module)
    journal = Journal(folder, probe, held, tell)
    run = ledger.fingerprint(_settings(record), str(folder.resolve()))
    logger = loggers.logger(settings.logger, folder, run, done, record)
    trainer = _trainer(settings, journal, logger)
    with loggers.ending(logger), warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        warnings.filterwarnings("ignore", message=".*treespec.*")  # Lightning's own use of torch
        warnings.filterwarnings("ignore", message=".*returned a view tensor")  # FSDP2's; nothing is written into it
        if done < settings.total:
            _warn_of_conv3d(module)
            resumed = str(last) if last.exists() else None
            trainer.fit(module, datamodule=Clips(root, clips), ckpt_path=resumed, weights_only=True)
        else:
            module.load_state_dict(torch.load(last, map_location="cpu", weights_only=True)["state_dict"])
    average = whole(module.average)
    if trainer.is_global_zero:
        _finish(module, average.cpu(), folder, probe, held)
    trainer.strategy.barrier()


def _check(path: Path, module: TokenizerModule) -> int:
    """Return the steps that a checkpoint has done, 0 if there is none. Raises ResumeError for one that does not fit."""
    if not path.exists():
        return 0
    remedy = f"remove {path} to start anew"
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        shapes = {name: tuple(weight.shape) for name, weight in found["state_dict"].items()}
        done = int(found["rushes"]["steps_done"])
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, UnpicklingError) as error:
        raise ResumeError(f"{path} is damaged or no checkpoint of a tokenizer ({error}); {remedy}") from error
    for name, weight in module.state_dict().items():
        if shapes.get(name) != tuple(weight.shape):
            raise ResumeError(
                f"{path} is of another size: {name} is {shapes.get(name, 'missing')}, not {tuple(weight.shape)}; "
                f"use the settings that it was trained with, or {remedy}"
            )
    return done


class Clips(L.LightningDataModule):
    """Batches from where the module stands: asked for after a checkpoint was taken up."""

    def __init__(self, root: str, settings: TrainConfig):
        super().__init__()
        self.root, self.settings = root, settings

    def train_dataloader(self) -> Any:
        """Return the loader of this process."""
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        first = module.steps_done
        return loader(ClipBatches(self.root, self.settings, module.positions, stages=module.stages, first=first))


def _started(path: str, model: TokenizerConfig) -> Tokenizer:
    """Return a tokenizer of the wanted configuration that codes as the saved one did at the rates that it had."""
    start = load(path)
    if model.variant == "grown-16x" and start.config.variant != model.variant:
        start = grow(start)
    return grown(start, model)


def _trainer(settings: TrainConfig, journal: Journal, logger: Logger | None) -> L.Trainer:
    devices = _processes(settings)
    # A pass skips the stages of other rates, which DDP has to be told.
    strategy: Any = Sharded(devices) if settings.strategy == "fsdp" else "ddp_find_unused_parameters_true"
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return L.Trainer(
        accelerator="gpu" if torch.cuda.is_available() else "cpu",
        devices=devices,
        strategy=strategy if devices > 1 else "auto",
        precision=precision(),
        max_epochs=1,  # which has no end: the journal stops at the last step
        callbacks=[journal],
        plugins=[DurableIO()],
        logger=logger or False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _processes(settings: TrainConfig) -> int:
    """Return how many processes train. Raises ValueError where they cannot share a model as they are asked to."""
    devices = settings.devices or max(1, torch.cuda.device_count())
    if settings.strategy == "fsdp" and devices == 1:
        raise ValueError("strategy=fsdp shares a model between processes and there is one; give devices=2 or more")
    if settings.strategy == "fsdp" and precision() == "16-mixed":
        raise ValueError("strategy=fsdp needs a GPU with bfloat16, which this one lacks; use strategy=ddp")
    return devices


def precision() -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """Return the precision for this machine: bfloat16 where it is fast, else fp16 with a scaler, and fp32 on a CPU.

    On CPUs it is fast with AMX (2.5 to 4 × fp32 in a convolution), and without it 50 to 500 times slower than fp32.
    """
    if not torch.cuda.is_available():
        return "bf16-mixed" if torch.cpu._is_amx_tile_supported() else "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


def _warn_of_conv3d(module: nn.Module) -> None:
    """Warn where half-precision Conv3d falls back to a kernel that is slow and takes many times the memory.

    torch 2.9 and later leave cuDNN before 9.15 aside there (pytorch/pytorch issue 166643).
    """
    version = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    if version is not None and version < CUDNN_CONV3D and any(isinstance(m, nn.Conv3d) for m in module.modules()):
        log.warning(
            "cuDNN %s has no usable half-precision Conv3d, so the discriminator is slow and takes much memory; "
            "install nvidia-cudnn 9.15 or newer for this CUDA (pytorch/pytorch#166643)",
            f"{version // 10_000}.{version // 100 % 100}.{version % 100}",
        )


def _finish(
    module: TokenizerModule,
    tokenizer: Tokenizer,
    folder: Path,
    probe: Sequence[UInt8[Tensor, "b 3 t h w"]],
    held: bool,
) -> None:
    if not module.stages[-1].decoder_only:
        norm_latents(tokenizer, map(unit, probe))
    write_strip(tokenizer, probe[0], folder / "strips" / "final.png")
    quality = {rate: found["psnr"] for rate, found in validate(tokenizer, probe).items()}
    print_ = save(tokenizer, str(folder / "model.part"))
    done = {"fingerprint": print_, "steps": module.steps_done, "psnr": quality, "held_out": held}
    storage.write_bytes(str(folder / "trained.json"), json.dumps(done).encode())
    (folder / "model.part").replace(folder / "model")
