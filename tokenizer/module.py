"""One training step of the tokenizer in Lightning; everything that a resumed run needs is in its state.

Each batch is coded at several rates: the lowest always, then one drawn for each segment, then the highest (the sandwich
rule of arXiv 1903.05134), so that one trunk serves them all and segments learn to follow neighbours of another rate.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from tokenizer.config import BASE_RATE, TokenizerConfig, TrainConfig
from tokenizer.data import Position
from tokenizer.losses import FeatureDistance, kl, psnr
from tokenizer.model import Latents, Tokenizer, segment_lengths


class TokenizerModule(L.LightningModule):
    """The tokenizer in training, its running average, and where in the shards it is."""

    def __init__(self, config: TokenizerConfig, train: TrainConfig, start: Tokenizer | None = None):
        super().__init__()
        self.settings = train
        self.tokenizer = start.train().requires_grad_(True) if start else Tokenizer(config)
        self.tokenizer.checkpointing = train.checkpointing
        if train.only_new:
            new = set(self.tokenizer.new_parameters())
            if not new:
                raise ValueError(
                    f"only_new trains what growing added, and a {config.variant} tokenizer has nothing new"
                )
            for name, parameter in self.tokenizer.named_parameters():
                parameter.requires_grad_(name in new)
        self.average = copy.deepcopy(self.tokenizer).eval().requires_grad_(False)
        self.feature = FeatureDistance() if train.feature else None
        self.steps_done = 0
        self.positions: dict[int, Position] = {}
        self.figures: dict[str, float] = {}

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """Return the loss of one batch, the mean over the rates at which it was coded."""
        self.positions[int(batch["worker"])] = tuple(batch["position"])
        video = unit(batch["video"])
        noise = torch.Generator(device=video.device).manual_seed(self.seed(self.global_rank))
        passes = [(rates, *self.loss(video, rates, noise)) for rates in self.rates(video.shape[2])]
        each = [figures for _, _, figures in passes]
        self.figures = {name: sum(figures[name] for figures in each) / len(each) for name in each[0]}
        self.figures |= {f"psnr_rate_{r[0]}": figures["psnr"] for r, _, figures in passes if len(set(r)) == 1}
        return torch.stack([loss for _, loss, _ in passes]).mean()

    def rates(self, frames: int) -> list[tuple[int, ...]]:
        """Return the rates of each pass over this step's batch."""
        known = self.tokenizer.config.rates
        options = [rate for rate in known if rate > BASE_RATE] if self.settings.only_new else known
        count = len(segment_lengths(frames, self.tokenizer.config.segment))
        dice = torch.Generator().manual_seed(self.seed(0))
        mixed = tuple(options[int(i)] for i in torch.randint(len(options), (count,), generator=dice))
        lowest, highest = (options[0],) * count, (options[-1],) * count
        turn = [lowest, mixed, highest][self.steps_done % 3]
        other = [highest, mixed][self.steps_done % 2]
        return {1: [turn], 2: [lowest, other]}.get(self.settings.passes, [lowest, mixed, highest])

    def seed(self, rank: int) -> int:
        """Return the seed of this step's dice on one device; it depends on nothing that a resume would lose."""
        return (self.settings.seed * 1_000_003 + self.steps_done) * 65_536 + rank

    def loss(
        self, video: Float[Tensor, "b 3 t h w"], rates: tuple[int, ...], noise: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the weighted loss of a batch at given rates, and its parts as plain numbers."""
        settings, tokenizer = self.settings, self.tokenizer
        mean, logvar = tokenizer.posterior(video, rates, at_once=len(rates))
        drawn = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=noise, device=mean.device)
        t, h, w = video.shape[2:]
        lengths = segment_lengths(t, tokenizer.config.segment)
        latents = Latents(z=tokenizer.normed(drawn), rates=rates, lengths=lengths, height=h, width=w)
        again = tokenizer.decode(latents, at_once=len(rates))
        l1, divergence = (again - video).abs().mean(), kl(mean.float(), logvar.float())
        loss = settings.l1 * l1 + settings.kl * divergence
        figures: dict[str, Any] = {
            "l1": l1,
            "kl": divergence,
            "psnr": psnr((again.detach().clamp(-1, 1) - video).square().mean()),
        }
        if self.feature is not None:
            figures["feature"] = self._feature(again, video, noise)
            loss = loss + settings.feature * figures["feature"]
        figures["loss"] = loss
        return loss, {name: float(torch.as_tensor(value).detach()) for name, value in figures.items()}

    def _feature(self, again: Tensor, video: Tensor, noise: torch.Generator) -> Tensor:
        assert self.feature is not None
        picked = torch.randperm(video.shape[2], generator=noise, device=video.device)[: self.settings.feature_frames]
        pairs = (x[:, :, picked].transpose(1, 2).flatten(0, 1).contiguous() for x in (again, video))
        return self.feature(*pairs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW over the tokenizer alone; norms, biases and rate gains are not decayed."""
        weights = [p for p in self.tokenizer.parameters() if p.ndim > 2]
        others = [p for p in self.tokenizer.parameters() if p.ndim <= 2]
        groups = [{"params": weights, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.settings.lr, betas=(0.9, 0.95))

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Set the learning rate of this step, take it, move the running average and count."""
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.steps_done, self.settings)
        optimizer.step(closure=optimizer_closure)
        self.steps_done += 1
        decay = min(self.settings.ema, (1 + self.steps_done) / (10 + self.steps_done))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.tokenizer.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the count of steps and the positions in the shards."""
        checkpoint["rushes"] = {
            "steps_done": self.steps_done,
            "positions": {k: list(v) for k, v in self.positions.items()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the count of steps and the positions in the shards."""
        self.steps_done = checkpoint["rushes"]["steps_done"]
        self.positions = {int(k): (v[0], v[1]) for k, v in checkpoint["rushes"]["positions"].items()}


def unit(video: UInt8[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 3 t h w"]:
    """Return 8-bit video in [-1, 1]."""
    return video.float() / 127.5 - 1


def learning_rate(step: int, settings: TrainConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine down to a tenth."""
    warm = min(1.0, (step + 1) / max(settings.warmup, 1))
    through = min(1.0, step / max(settings.steps, 1))
    return settings.lr * warm * (0.55 + 0.45 * math.cos(math.pi * through))


@torch.no_grad()
def norm_latents(tokenizer: Tokenizer, videos: list[Float[Tensor, "b 3 t h w"]]) -> None:
    """Set the shift and scale of the latents so that over these videos they have zero mean and unit variance."""
    channels = []
    for video in videos:
        for rate in tokenizer.config.rates:
            mean, _ = tokenizer.posterior(
                video, tokenizer.rates_of(segment_lengths(video.shape[2], tokenizer.config.segment), rate)
            )
            channels.append(mean.transpose(0, 2).flatten(1))
    seen = torch.cat(channels, dim=1)
    tokenizer.latent_mean.copy_(seen.mean(dim=1))
    tokenizer.latent_std.copy_(seen.std(dim=1).clamp_min(1e-3))
