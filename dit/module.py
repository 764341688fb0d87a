"""One training step of the diffusion transformer, as a LightningModule."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from rushes.dit import flow, plan
from rushes.dit.config import TrainConfig
from rushes.dit.data import Batch
from rushes.dit.layers import SelfAttention, SwiGLU
from rushes.dit.model import Condition, DiT
from rushes.dit.optimizer import MuonAdamW, adamw
from rushes.dit.predictors import Predictor
from rushes.dit.sharding import shard
from rushes.dit.statistics import Statistics
from rushes.tokenizer.module import DivergenceError
from rushes.tokenizer.sharding import full_tensor

PROBE_TIMES = (0.125, 0.375, 0.625, 0.875)
WIDTH_OF_XL = 1152
NAMED = 8
"""Clips at most that an error names."""


class FlowModule(L.LightningModule):
    """The network, the average of its past weights, and the optimizer.

    Noise, times and what is hidden come with the batch (`plan`), so no state of a generator is kept: where training
    stands is a round and a step.
    """

    def __init__(self, config: TrainConfig, statistics: Statistics):
        super().__init__()
        self.config = config
        self.net = DiT(config.model)
        self.net.latent_mean.copy_(statistics.mean)
        self.net.latent_std.copy_(statistics.std)
        self.net.fact_mean.copy_(statistics.fact_mean)
        self.net.fact_std.copy_(statistics.fact_std)
        self.net.checkpointing = config.checkpointing
        self.ema = copy.deepcopy(self.net).requires_grad_(False)
        if config.compile:
            compiled(self.net)  # the average, a copy, is used too seldom
        self.exponent = ema_exponent(config.ema_width)
        self.position = (0, 0)
        """Round and step where training goes on."""
        self.seen: list[Tensor] = []
        """Of each batch since the last line of metrics: error over time and picture, those, tokens, clips, seconds."""
        self.taken: list[tuple[Tensor, list[str]]] = []
        """Of each pack of the step that is under way: whether its loss is a number, and its clips."""
        self.token_s = statistics.token_s

    def configure_model(self) -> None:
        """Spread network and average over the processes, where that is asked for."""
        if self.config.strategy == "fsdp":
            assert self.device_mesh is not None
            for net in (self.net, self.ema):
                shard(net, self.device_mesh["data_parallel"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the flow loss of a packed batch, as its part of that of a step.

        It is the integral of the error over time and picture, over that of a pack of tokens of usual length: a second
        weighs the same wherever it stands, so the gradient of a set of clips is the same in whatever packs they come.
        """
        lengths = batch.packed.lengths
        shift = flow.shifts(lengths, self.config.model.shift_tokens, self.config.shift)
        t = flow.logit_normal_times(batch.normals, shift.to(self.device))
        t = flow.with_uniform(t, batch.uniforms[:, -1], self.config.uniform)
        known = thinned(batch.condition, self.config.drop_condition, batch.uniforms[:, :-1])
        spent = known.where_unknown(batch.packed.seconds).sum() * batch.weight
        error = self._loss(self.net, batch, t, known, self.noise(batch)) * spent
        counted = [sum(lengths) * batch.weight, len(batch.tickets) * batch.weight, batch.duration_s * batch.weight]
        self.seen.append(torch.stack([error.detach(), spent, *error.new_tensor(counted)]))
        self.taken.append((error.detach().isfinite(), [ticket.clip for ticket in batch.tickets]))
        self.position = batch.position or self.position
        return error / (self.config.tokens * self.token_s)

    def figures(self) -> tuple[float, float, float, float]:
        """Return loss of a second, tokens, clips and seconds of all batches since this was asked last, on all ranks."""
        own = torch.stack(self.seen).double().sum(dim=0)
        error, spent, tokens, clips, seconds = self.trainer.strategy.reduce(own, reduce_op="sum").tolist()
        self.seen = []
        return error / spent, tokens, clips, seconds

    @torch.no_grad()
    def validate(
        self, net: Predictor, batches: Iterable[Batch], times: Sequence[float] = PROBE_TIMES
    ) -> dict[float, float]:
        """Return the loss of a network on batches at each of fixed times, with the noise of the batches."""
        errors, spent = dict.fromkeys(times, 0.0), 0.0
        for batch in (one.to(self.device) for one in batches):
            noise, own = self.noise(batch), float(batch.packed.seconds.sum())
            spent += own
            for time in times:
                t = torch.full((len(batch.tickets),), time, device=self.device)
                errors[time] += float(self._loss(net, batch, t, batch.condition, noise)) * own
        return {time: error / spent for time, error in errors.items()}

    def noise(self, batch: Batch) -> Tensor:
        """Return the ends of the paths of a batch, which are drawn here: half of what a reader would have to send."""
        width = self.config.model.token_width
        return plan.noise(batch.tickets, batch.packed.lengths, width).to(self.device)

    def _loss(self, net: Predictor, batch: Batch, t: Tensor, condition: Condition, noise: Tensor) -> Tensor:
        packed, data = batch.packed, net.normalise(batch.packed.tokens)
        each = torch.repeat_interleave(t, torch.tensor(packed.lengths, device=t.device))
        x = flow.mix(data, noise, condition.where_unknown(each)[:, None])
        told = (packed.positions, packed.rates, packed.orders, packed.lengths)
        velocity = net(x, *told, t, condition)
        return flow.loss(velocity, data, noise, condition.where_unknown(packed.seconds))

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Scale the gradient of a step down to `clip_norm`.

        Raises DivergenceError where it, or the loss of a pack, is no number: in all processes, before any steps.
        """
        norm = full_tensor(clip_grad_norm_(self.net.parameters(), self.config.clip_norm or math.inf))
        taken, self.taken = self.taken, []
        finite = torch.stack([one for one, _ in taken])
        if self.trainer.strategy.reduce_boolean_decision(bool(finite.all() & norm.isfinite())):
            return
        wrong = [clips for whole, (_, clips) in zip(finite.tolist(), taken, strict=True) if not whole]
        clips = sorted({clip for one in self._of_all(wrong) for clip in one})
        what = f"loss of a pack with {_named(clips)}" if clips else f"norm of the gradient, {float(norm)},"
        raise DivergenceError(
            f"the {what} is no number at step {self.global_step + 1}, which was not taken: the last checkpoint stands; "
            "train anew in another --out with a lower lr or clip_norm, and look at those clips where it is always they"
        )

    def _of_all(self, own: list[list[str]]) -> list[list[str]]:
        """Return the lists of all processes one behind the other; all have to ask."""
        if self.trainer.world_size == 1:
            return own
        found: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(found, own)
        return [one for each in found for one in each]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then fold the new weights into the average: a power function, section 3.1 of arXiv 2312.02696."""
        super().optimizer_step(*args, **kwargs)
        decay = (1 - 1 / (self.global_step + 1)) ** self.exponent
        with torch.no_grad():
            for average, now in zip(self.ema.parameters(), self.net.parameters(), strict=True):
                average.lerp_(now, 1 - decay)

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with a linear warm-up and, where it is asked for, a linear end."""
        peak = self.config.lr or 1e-4 * WIDTH_OF_XL / self.config.model.width
        make = MuonAdamW if self.config.optimizer == "muon" else adamw
        optimizer = make(self.net, peak, self.config.weight_decay)
        rise, fall = self.config.warmup + 1, self.config.cooldown * self.config.steps

        def share(step: int) -> float:
            return max(0.0, min(1.0, (step + 1) / rise, (self.config.steps - step) / fall if fall else 1.0))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Begin at the rate of the step: a checkpoint brings that of the steps that were asked for then."""
        schedule: Any = self.lr_schedulers()
        for group, peak, share in zip(
            schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
        ):
            group["lr"] = peak * share(schedule.last_epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record where training stands: the same on all ranks."""
        checkpoint["position"] = list(self.position)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where training stood, on however many ranks."""
        self.position = (checkpoint["position"][0], checkpoint["position"][1])


def compiled(net: DiT) -> None:
    """Have torch compile what blocks do with single tokens: projections, norms, rotation, feed-forward.

    Attention is left out: its lengths are other ones in each pack, and each would be compiled anew.
    """
    torch._dynamo.config.optimize_ddp = False  # blocks are graphs enough to send gradients while others are made
    for layer in net.blocks.modules():
        if isinstance(layer, SwiGLU):
            layer.compile(dynamic=True)
        elif isinstance(layer, SelfAttention):
            layer.project = torch.compile(layer.project, dynamic=True)  # type: ignore[method-assign]


def _named(clips: list[str]) -> str:
    more = f" and {len(clips) - NAMED} more" if len(clips) > NAMED else ""
    return f"the clip{'s' * (len(clips) > 1)} {', '.join(clips[:NAMED])}{more}"


def thinned(condition: Condition, share: float, uniforms: Float[Tensor, "clips draws"]) -> Condition:
    """Return the condition with some of it hidden, since a sampler may be asked with any part of it.

    A `share` of clips loses everything, which guidance needs. A third of the others keeps its caption alone, a third
    its facts alone: where both tell the same, what never stands alone is never learned. Of every second clip's facts
    some are hidden, a share that is drawn for each. `uniforms` are four numbers in [0, 1) for each clip, and one for
    each fact.
    """
    nothing, kept, some, most = uniforms[:, :4].unbind(dim=1)
    alone = (3 * kept).floor()
    hidden = uniforms[:, 4:] < torch.where(some < 0.5, most, 0.0)[:, None]
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
