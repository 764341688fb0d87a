"""What a training of the tokenizer writes as it goes: metrics, curves, strips and checkpoints, each whole."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import lightning as L
import numpy as np
import torch
from jaxtyping import Float, UInt8
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from PIL import Image
from torch import Tensor

from rushes.pipelines.report import charts
from rushes.pipelines.store import storage
from rushes.tokenizer.config import Tell
from rushes.tokenizer.data import to_pictures
from rushes.tokenizer.losses import Distance
from rushes.tokenizer.metrics import psnr
from rushes.tokenizer.model import Tokenizer
from rushes.tokenizer.module import DivergenceError, unit
from rushes.tokenizer.sharding import whole

SHOWN = 6
"""Frames of a strip."""


class DurableIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name, has the disk hold it, then gives it its name.

    Raises StorageError that names the file and the remedy where it cannot be written; the checkpoint before stays.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint in place of the one before."""
        content = io.BytesIO()  # torch's own writer hides why a disk refused
        torch.save(checkpoint, content)
        with storage.open_write(str(path)) as file:
            file.write(content.getbuffer())


class Journal(L.Callback):
    """Writes metrics, curves, strips and checkpoints, opens stages, and ends the training after its last step."""

    def __init__(
        self,
        folder: Path,
        probe: Sequence[UInt8[Tensor, "b 3 t h w"]],
        held: bool,
        tell: Tell,
    ):
        self.folder, self.probe, self.held, self.tell = folder, probe, held, tell
        self.begun = time.monotonic()

    @property
    def metrics(self) -> Path:
        """The file of metrics."""
        return self.folder / "metrics.jsonl"

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Drop the lines that a killed run wrote after its last checkpoint; they will be written again."""
        if trainer.is_global_zero and self.metrics.exists():
            lines = [line for line in self.metrics.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= module.steps_done]
            storage.write_bytes(str(self.metrics), "".join(f"{line}\n" for line in kept).encode())
        if trainer.is_global_zero:
            self.tell(module.steps_done, module.settings.total, "steps", {})

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Open the stage that begins here."""
        module.open_stage(unit(clips).to(module.device) for clips in self.probe)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log, draw and save where it is due."""
        step, settings = module.steps_done, module.settings
        # At a multiple of the workers, so that a resumed run begins with the first of them.
        every = max(1, settings.save_every // max(settings.workers, 1)) * max(settings.workers, 1)
        last = step == settings.total
        saving = step % every == 0 or last
        average = whole(module.average) if saving else None  # asked for by all processes, for each has a part of it
        if trainer.is_global_zero:
            due = saving or step % settings.log_every == 0 or step == 1
            self.tell(step, settings.total, "steps", self._log(module, average) if due else {})
        if saving:
            trainer.save_checkpoint(self.folder / "last.ckpt")
        trainer.should_stop = last

    def _log(self, module: Any, average: Tokenizer | None) -> dict[str, float]:
        """Write a line and return its figures: also what the averaged weights are worth, where they are given."""
        line = {"step": module.steps_done, "elapsed_s": round(time.monotonic() - self.begun, 3), **module.figures}
        if average and self.held:
            line |= _named(validate(average, self.probe, module.feature, module.settings.feature_frames))
        self._append(json.dumps(line) + "\n")
        figures = {name: value for name, value in line.items() if name not in ("step", "elapsed_s")}
        for logger in module.trainer.loggers:
            logger.log_metrics(figures, module.steps_done)
        if average:
            write_strip(average, self.probe[0], self.folder / "strips" / f"{module.steps_done:06d}.png")
            curves = charts.sheet(charts.series(self.metrics.read_text()))
            storage.write_bytes(str(self.folder / "curves.svg"), curves.encode())
        return figures

    def _append(self, line: str) -> None:
        try:
            with self.metrics.open("a") as file:
                file.write(line)
        except OSError as error:
            raise storage.StorageError(
                f"cannot write {self.metrics}: {error.strerror}; free some space and run the same command again"
            ) from error

    def on_exception(self, trainer: L.Trainer, module: Any, exception: BaseException) -> None:
        """Say of a training that diverged where it was still sound."""
        if isinstance(exception, DivergenceError):
            last = self.folder / "last.ckpt"
            saved = torch.load(last, map_location="cpu", weights_only=True, mmap=True) if last.exists() else None
            good = (
                f"the last good checkpoint is {last} of step {saved['rushes']['steps_done']}"
                if saved
                else "none is saved"
            )
            exception.args = (f"{exception}; {good}; lower lr or grad_clip, and train into another --out",)


def validate(
    tokenizer: Tokenizer,
    batches: Sequence[UInt8[Tensor, "b 3 t h w"]],
    distance: Distance | None = None,
    frames: int = 0,
) -> dict[str, dict[str, float]]:
    """Return what batches of clips lose at each rate: PSNR in dB, `l1`, and a distance on so many frames of each."""
    found = {}
    for rate in tokenizer.config.rates:
        losses = [_losses(tokenizer, clips, rate, distance, frames) for clips in batches]
        means = {name: torch.stack([one[name] for one in losses]).mean() for name in losses[0]}
        found[str(rate)] = {"psnr": psnr(means.pop("mse")), **{name: float(value) for name, value in means.items()}}
    return found


@torch.no_grad()
def _losses(
    tokenizer: Tokenizer, clips: Tensor, rate: int, distance: Distance | None, frames: int
) -> dict[str, Float[Tensor, ""]]:
    video = unit(clips.to(tokenizer.latent_mean.device))
    again = tokenizer.decode(tokenizer.encode(video, rate, scale="-1..1"))
    found = {"mse": (again.clamp(-1, 1) - video).square().mean(), "l1": (again - video).abs().mean()}
    if distance is not None:
        picked = torch.linspace(0, video.shape[2] - 1, min(frames, video.shape[2])).round().long()
        found[distance.name] = distance(*(x[:, :, picked].transpose(1, 2).flatten(0, 1) for x in (again, video)))
    return found


def _named(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return losses under the names of the metrics: PSNR for each rate, the others as means over the rates."""
    psnrs = {f"held_psnr_rate_{rate}": losses["psnr"] for rate, losses in found.items()}
    others = next(iter(found.values())).keys() - {"psnr"}
    return psnrs | {f"held_{name}": mean(losses[name] for losses in found.values()) for name in sorted(others)}


@torch.no_grad()
def write_strip(tokenizer: Tokenizer, clips: UInt8[Tensor, "b 3 t h w"], path: Path) -> None:
    """Draw frames of the first clip and below them their reconstruction at each rate."""
    video = unit(clips[:1].to(tokenizer.latent_mean.device))
    picked = np.linspace(0, video.shape[2] - 1, SHOWN).round().astype(int)
    rows = [to_pictures(video)[picked]]
    for rate in tokenizer.config.rates:
        rows.append(to_pictures(tokenizer.decode(tokenizer.encode(video, rate, scale="-1..1")))[picked])
    image = io.BytesIO()
    Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).save(image, "PNG")
    storage.write_bytes(str(path), image.getvalue())
