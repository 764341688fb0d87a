"""One training step of the diffusion transformer, as a LightningModule."""

from __future__ import annotations

import copy
import math
from typing import Any

import lightning as L
import torch
from torch import Tensor

from rushes.dit import flow
from rushes.dit.config import TrainConfig
from rushes.dit.data import Packed
from rushes.dit.model import Condition, DiT
from rushes.dit.statistics import Statistics
from rushes.dit.text import TextEncoder

PROBE_TIMES = (0.125, 0.375, 0.625, 0.875)
WIDTH_OF_XL = 1152


class FlowModule(L.LightningModule):
    """The network, the average of its past weights, and the optimizer.

    Noise, times and dropped captions are drawn from (seed, step, rank), so a resumed run draws what an uninterrupted
    one would have drawn.
    """

    def __init__(self, config: TrainConfig, statistics: Statistics):
        super().__init__()
        self.config = config
        self.net = DiT(config.model)
        self.net.latent_mean.copy_(statistics.mean)
        self.net.latent_std.copy_(statistics.std)
        self.net.fact_mean.copy_(statistics.fact_mean)
        self.net.fact_std.copy_(statistics.fact_std)
        self.ema = copy.deepcopy(self.net).requires_grad_(False)
        self.exponent = ema_exponent(config.ema_width)
        self.position = (0, 0)
        self._text: list[TextEncoder] = []  # in a list, for it is frozen and no part of the checkpoint

    def training_step(self, batch: Packed, batch_idx: int) -> Tensor:
        """Return the flow loss of a packed batch."""
        generator = self._generator(self.global_step)
        shift = flow.shifts(batch.lengths, self.config.model.shift_tokens, self.config.shift)
        t = flow.logit_normal_times(len(batch.lengths), generator, shift.to(self.device))
        known = thinned(self.condition(batch), self.config.drop_condition, generator)
        loss = self._loss(self.net, batch, t, generator, known)
        self.position = batch.position
        return loss

    @torch.no_grad()
    def probe(self, batch: Packed) -> float:
        """Return the averaged weights' loss on a batch at fixed times and noise: a smooth curve."""
        condition, losses = self.condition(batch), []
        for number, time in enumerate(PROBE_TIMES):
            t = torch.full((len(batch.lengths),), time, device=self.device)
            losses.append(self._loss(self.ema, batch, t, self._generator(-1 - number), condition))
        return float(torch.stack(losses).mean())

    def _loss(self, net: DiT, batch: Packed, t: Tensor, generator: torch.Generator, condition: Condition) -> Tensor:
        data = net.normalise(batch.tokens)
        noise = torch.randn(data.shape, generator=generator, device=data.device)
        each = torch.repeat_interleave(t, torch.tensor(batch.lengths, device=t.device))[:, None]
        told = (batch.positions, batch.rates, batch.orders, batch.lengths)
        velocity = net(flow.mix(data, noise, each), *told, t, condition)
        return flow.loss(velocity, data, noise, batch.seconds)

    def condition(self, batch: Packed) -> Condition:
        """Return captions and facts of a batch as the network takes them."""
        if not self._text:
            self._text.append(TextEncoder(self.config.model, self.device))
        words, lengths, pooled = self._text[0](batch.captions)
        return Condition(words=words, word_lengths=lengths, pooled=pooled, facts=batch.facts)

    def _generator(self, step: int) -> torch.Generator:
        seed = ((self.config.seed * 2**32 + step) * 4096 + self.global_rank) % 2**63
        return torch.Generator(self.device).manual_seed(seed)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then fold the new weights into the average: a power function, section 3.1 of arXiv 2312.02696."""
        super().optimizer_step(*args, **kwargs)
        decay = (1 - 1 / (self.global_step + 1)) ** self.exponent
        with torch.no_grad():
            for average, now in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                average.lerp_(now, 1 - decay)

    def configure_optimizers(self) -> Any:
        """Return AdamW with a linear warm-up; only matrices decay."""
        matrices = [p for p in self.net.parameters() if p.ndim > 1]
        vectors = [p for p in self.net.parameters() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.config.weight_decay},
            {"params": vectors, "weight_decay": 0},
        ]
        peak = self.config.lr or 1e-4 * WIDTH_OF_XL / self.config.model.width
        optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.99))
        rise = self.config.warmup + 1
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / rise))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Packed, device: torch.device, dataloader_idx: int) -> Packed:
        """Move a batch; Lightning's own way would look into every field."""
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record where each rank stands in its data."""
        places = torch.as_tensor(self.all_gather(torch.tensor(self.position, device=self.device)))
        checkpoint["positions"] = places.reshape(-1, 2).tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where this rank stood. Raises ValueError where the number of ranks has changed."""
        places = checkpoint["positions"]
        if len(places) != self.trainer.world_size:
            raise ValueError(
                f"the checkpoint is of {len(places)} processes, not {self.trainer.world_size}; use as many"
            )
        self.position = (places[self.global_rank][0], places[self.global_rank][1])


def thinned(condition: Condition, share: float, generator: torch.Generator) -> Condition:
    """Return the condition with some of it hidden, since a sampler may be asked with any part of it.

    A `share` of clips loses everything, which guidance needs. A third of the others keeps its caption alone, a third
    its facts alone: where both tell the same, what never stands alone is never learned. Of every second clip's facts
    some are hidden, a share that is drawn for each.
    """
    clips, device = len(condition.facts), generator.device
    nothing, kept, some, most = torch.rand(4, clips, generator=generator, device=device)
    alone = (3 * kept).floor()
    hidden = torch.rand(condition.facts.shape, generator=generator, device=device)
    hidden = hidden < torch.where(some < 0.5, most, 0.0)[:, None]
    factless, wordless = (nothing < share) | (alone == 0), (nothing < share) | (alone == 1)
    return condition.without_facts(hidden | factless[:, None]).without_captions(wordless.tolist())


def ema_exponent(width: float) -> float:
    """Return gamma of the power-function average of a relative width, by bisection of eq. 3.1 of arXiv 2312.02696.

    The width is the standard deviation of the weight that past steps have, as a share of training's length.
    """

    def relative_width(gamma: float) -> float:
        return math.sqrt(gamma + 1) / (gamma + 2) / math.sqrt(gamma + 3)

    if not 0.001 <= width <= 0.28:
        raise ValueError(f"ema_width={width} must lie between 0.001 and 0.28")
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if relative_width(middle) > width else (low, middle)
    return low + 1
