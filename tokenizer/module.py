"""One training step of the tokenizer in Lightning; everything that a resumed run needs is in its state.

Each batch is coded at several rates: the lowest always, then one drawn for each segment, then the highest (the sandwich
rule of arXiv 1903.05134), so that one trunk serves them all and segments learn to follow neighbours of another rate.
The rates grow with the stages of the training; the discriminator, where there is one, joins late.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import lightning as L
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import clip_grad_norm_

from rushes.tokenizer.config import BASE_RATE, Stage, TokenizerConfig, TrainConfig, stage_at
from rushes.tokenizer.data import Position
from rushes.tokenizer.discriminator import Discriminator
from rushes.tokenizer.growth import inherit
from rushes.tokenizer.losses import FeatureDistance, balance, hinge, kl
from rushes.tokenizer.lpips import LPIPS
from rushes.tokenizer.metrics import psnr
from rushes.tokenizer.model import Latents, Tokenizer, segment_lengths
from rushes.tokenizer.sharding import full_tensor, rewritten, shard

HEARD = 5
"""Warm-ups after which the discriminator has its whole say."""
SHAPES = 256
"""What encoder and decoder may be compiled for."""


class DivergenceError(RuntimeError):
    """The training has left the realm of numbers."""


class TokenizerModule(L.LightningModule):
    """The tokenizer in training, its running average, its judge, and where in the shards each process is.

    Steps are counted here: Lightning counts one for each optimizer.
    """

    def __init__(self, config: TokenizerConfig, train: TrainConfig, start: Tokenizer | None = None):
        super().__init__()
        self.automatic_optimization = False
        self.settings, self.stages = train, train.plan(config.rates)
        self.known = start.config.rates if start else ()
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
        self.feature: FeatureDistance | LPIPS | None = None
        if train.feature:
            self.feature = LPIPS(train.lpips) if train.lpips else FeatureDistance()
        self.discriminator = Discriminator() if train.gan else None
        if train.compile:
            compiled(self.tokenizer)  # the average, a copy, is used too seldom
        self.steps_done = 0
        self.positions: dict[int, Position] = {}
        self.figures: dict[str, float] = {}

    def configure_model(self) -> None:
        """Spread tokenizer, average and judge over the processes, where that is asked for.

        The judge is small, but a unit of its own too: so its gradients are averaged by the same means.
        """
        if self.settings.strategy == "fsdp":
            assert self.device_mesh is not None
            mesh = self.device_mesh["data_parallel"]
            for tokenizer in (self.tokenizer, self.average):
                shard(tokenizer, mesh)
            if self.discriminator is not None:
                fully_shard(self.discriminator, mesh=mesh)

    @property
    def stage(self) -> Stage:
        """The stage of the step that comes next."""
        return stage_at(self.stages, self.steps_done)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Take one step on a batch: of the tokenizer, on the mean over the rates of its loss, then of its judge."""
        assert batch["step"] == self.steps_done, f"batch of step {batch['step']} at step {self.steps_done}"
        self._freeze()
        self.positions[int(batch["worker"])] = tuple(batch["position"])
        video = unit(batch["video"])
        noise = torch.Generator(device=video.device).manual_seed(self.seed(self.global_rank))
        passes = [(rates, *self.loss(video, rates, noise)) for rates in self.rates(video.shape[2])]
        self.figures = _means([figures for *_, figures in passes])
        self.figures |= {f"psnr_rate_{r[0]}": figures["psnr"] for r, _, _, figures in passes if len(set(r)) == 1}
        tokenizer_steps, *judge_steps = self._optimizers()
        rate = learning_rate(self.steps_done, self.settings)
        self._step(tokenizer_steps, torch.stack([loss for _, loss, _, _ in passes]).mean(), rate)
        if self.judging:
            loss = self._judge(video, [again for _, _, again, _ in passes])
            self._step(judge_steps[0], loss, judge_learning_rate(self.steps_done, self.settings))
        self.steps_done += 1
        self._move_average()

    @property
    def judging(self) -> bool:
        """Whether the discriminator takes part in this step."""
        return self.discriminator is not None and self.steps_done >= self.settings.gan_from

    def rates(self, frames: int) -> list[tuple[int, ...]]:
        """Return the rates of each pass over this step's batch."""
        options: tuple[int, ...] = self.stage.rates
        if self.settings.only_new:
            options = tuple(rate for rate in options if rate > BASE_RATE)
        count = len(segment_lengths(frames, self.tokenizer.config.segment))
        dice = torch.Generator().manual_seed(self.seed(0))
        mixed = tuple(options[int(i)] for i in torch.randint(len(options), (count,), generator=dice))
        lowest, highest = (options[0],) * count, (options[-1],) * count
        turn = [lowest, mixed, highest, mixed][self.steps_done % 4]
        other = [highest, mixed][self.steps_done % 2]
        asked = {1: [turn], 2: [lowest, other]}.get(self.settings.passes, [lowest, mixed, highest])
        return asked if len(options) > 1 else asked[:1]

    def seed(self, rank: int) -> int:
        """Return the seed of this step's dice on one device; it depends on nothing that a resume would lose."""
        return (self.settings.seed * 1_000_003 + self.steps_done) * 65_536 + rank

    def loss(
        self, video: Float[Tensor, "b 3 t h w"], rates: tuple[int, ...], noise: torch.Generator
    ) -> tuple[Tensor, Float[Tensor, "b 3 t h w"], dict[str, float]]:
        """Return the weighted loss of a batch at given rates, its reconstruction, and the parts as plain numbers."""
        settings, tokenizer = self.settings, self.tokenizer
        with torch.set_grad_enabled(not self.stage.decoder_only):
            mean, logvar = tokenizer.posterior(video, rates, at_once=len(rates))
        drawn = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=noise, device=mean.device)
        t, h, w = video.shape[2:]
        lengths = segment_lengths(t, tokenizer.config.segment)
        latents = Latents(z=tokenizer.normed(drawn), rates=rates, lengths=lengths, height=h, width=w)
        again = tokenizer.decode(latents, at_once=len(rates))
        parts: dict[str, Any] = {"l1": (again - video).abs().mean(), "kl": kl(mean.float(), logvar.float())}
        parts["psnr"] = psnr((again.detach().clamp(-1, 1) - video).square().mean())
        loss = settings.l1 * parts["l1"]
        if self.feature is not None:
            parts[self.feature.name] = self._feature(again, video, noise)
            loss = loss + settings.feature * parts[self.feature.name]
        if self.judging:
            assert self.discriminator is not None
            parts["gan"] = -self.discriminator.requires_grad_(False)(again).mean()
            parts["gan_weight"] = settings.gan * heard(self.steps_done, settings) * balance(loss, parts["gan"], again)
            loss = loss + parts["gan_weight"] * parts["gan"]
        parts["loss"] = loss = loss + settings.kl * parts["kl"]
        return loss, again.detach(), {name: float(torch.as_tensor(value).detach()) for name, value in parts.items()}

    def _feature(self, again: Tensor, video: Tensor, noise: torch.Generator) -> Tensor:
        assert self.feature is not None
        picked = torch.randperm(video.shape[2], generator=noise, device=video.device)[: self.settings.feature_frames]
        pairs = (x[:, :, picked].transpose(1, 2).flatten(0, 1).contiguous() for x in (again, video))
        return self.feature(*pairs)

    def _judge(self, video: Tensor, fakes: list[Tensor]) -> Tensor:
        assert self.discriminator is not None
        self.discriminator.requires_grad_(True)
        real = self.discriminator(video)
        loss = torch.stack([hinge(real, self.discriminator(fake)) for fake in fakes]).mean()
        self.figures["discriminator"] = float(loss.detach())
        return loss

    # ------------------------------------------------------------------------------------------------------- the steps

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return AdamW over the tokenizer, where norms, biases and rate gains are not decayed, and over its judge."""
        weights = [p for p in self.tokenizer.parameters() if p.ndim > 2]
        others = [p for p in self.tokenizer.parameters() if p.ndim <= 2]
        groups = [{"params": weights, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}]
        # All of a step in one kernel; a scaler of gradients would leave them scaled where they are clipped.
        fused = self._trainer is None or self.trainer.precision != "16-mixed"
        adamw = partial(torch.optim.AdamW, lr=self.settings.lr, fused=fused)
        found: list[torch.optim.Optimizer] = [adamw(groups, betas=(0.9, 0.95))]
        if self.discriminator is not None:
            found.append(adamw(self.discriminator.parameters(), betas=(0.5, 0.9), weight_decay=0.0))
        return found

    def _optimizers(self) -> list[Any]:
        found = self.optimizers()
        return found if isinstance(found, list) else [found]

    def _step(self, optimizer: Any, loss: Tensor, rate: float) -> None:
        self._expect_finite("loss", loss.detach())
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip gradients. Raises DivergenceError where one is no number, unless a scaler passes over the step."""
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        norm = full_tensor(clip_grad_norm_(weights, self.settings.grad_clip))
        if self.trainer.precision != "16-mixed":
            self._expect_finite("gradient", norm)

    def _expect_finite(self, what: str, value: Tensor) -> None:
        finite = bool(torch.isfinite(value).all())
        if not self.trainer.strategy.reduce_boolean_decision(finite):  # all processes stop, or none waits for ever
            raise DivergenceError(f"the {what} is {float(value)} at step {self.steps_done + 1}")

    def _freeze(self) -> None:
        if self.settings.only_new:
            return  # frozen for good
        for part in (self.tokenizer.encoder, self.tokenizer.coarse_in):
            part.requires_grad_(not self.stage.decoder_only)

    @torch.no_grad()
    def _move_average(self) -> None:
        decay = min(self.settings.ema, (1 + self.steps_done) / (10 + self.steps_done))
        for mean, now in zip(self.average.parameters(), self.tokenizer.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)  # exact where both are the same, as what is frozen is

    # ------------------------------------------------------------------------------------------------ stages and resume

    @torch.no_grad()
    def open_stage(self, videos: Iterable[Float[Tensor, "b 3 t h w"]]) -> None:
        """Prepare the first step of a stage; at any other step nothing happens.

        New rates take over what the highest rate so far has learned. Where the encoder stays as it is from now on, it
        is the averaged one, whose latents are normed over `videos`: they are the ones that the model will have.
        """
        stage = self.stage
        if self.steps_done != stage.first:
            return
        before = self.stages[self.stages.index(stage) - 1] if stage.first else None
        if stage.decoder_only and not (before and before.decoder_only) and (before or not self.known):
            with rewritten(self.average) as average:
                norm_latents(average, videos)
            self.tokenizer.load_state_dict(self.average.state_dict())
        elif before:
            new = set(stage.rates) - set(before.rates) - set(self.known)
            for tokenizer in (self.tokenizer, self.average):
                with rewritten(tokenizer) as whole:
                    inherit(whole, sorted(new), before.rates[-1])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the count of steps and the positions of every process in the shards."""
        places: list[Any] = [self.positions]
        if self.trainer.world_size > 1:
            places = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(places, self.positions)
        saved = [{worker: list(place) for worker, place in one.items()} for one in places]
        checkpoint["rushes"] = {"steps_done": self.steps_done, "positions": saved}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the count of steps and this process's positions. Raises ValueError if it is of more or fewer."""
        places = checkpoint["rushes"]["positions"]
        if len(places) != self.trainer.world_size:
            raise ValueError(
                f"the checkpoint is of {len(places)} processes, not {self.trainer.world_size}; "
                f"give devices={len(places)}"
            )
        self.steps_done = checkpoint["rushes"]["steps_done"]
        self.positions = {int(worker): _position(*place) for worker, place in places[self.global_rank].items()}


def _position(epoch: int, behind: int, held: int = 0, given: int = 0) -> Position:
    """Return a position as it was saved; two numbers were enough where each decode gave one crop."""
    return epoch, behind, held, given


def compiled(tokenizer: Tokenizer) -> None:
    """Have torch compile encoder and decoder where they are called; their weights keep their names.

    Each is compiled for every rate, run of segments and size of crops that comes, and for a first chunk and later ones.
    """
    torch._dynamo.config.recompile_limit = SHAPES  # with more, torch would quietly stop to compile
    torch._dynamo.config.optimize_ddp = False  # two graphs are enough to send gradients while others are made
    for part in (tokenizer.encoder, tokenizer.decoder):
        part.compile(dynamic=False)


def _means(figures: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(one[name] for one in figures) / len(figures) for name in figures[0]}


def unit(video: UInt8[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 3 t h w"]:
    """Return 8-bit video in [-1, 1]."""
    return video.float() / 127.5 - 1


def learning_rate(step: int, settings: TrainConfig) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine down to a tenth."""
    warm = min(1.0, (step + 1) / max(settings.warmup, 1))
    through = min(1.0, step / max(settings.total, 1))
    return settings.lr * warm * (0.55 + 0.45 * math.cos(math.pi * through))


def heard(step: int, settings: TrainConfig) -> float:
    """Return the share of its say that the discriminator has: it knows nothing at first, and what it says is noise."""
    return min(1.0, (step - settings.gan_from + 1) / max(HEARD * settings.warmup, 1))


def judge_learning_rate(step: int, settings: TrainConfig) -> float:
    """Return the discriminator's learning rate: a warm-up from where it joins, no decay, for what it judges moves."""
    return (settings.gan_lr or settings.lr) * min(1.0, (step - settings.gan_from + 1) / max(settings.warmup, 1))


@torch.no_grad()
def norm_latents(tokenizer: Tokenizer, videos: Iterable[Float[Tensor, "b 3 t h w"]]) -> None:
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
