"""Settings of the tokenizer: one `size` dial, everything else is derived. Importing this loads no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Size = Literal["nano", "tiny", "small", "base"]
Allocation = Literal["auto", "measured", "predicted"]
Variant = Literal["adaptive", "fixed-4x8x8", "dual-branch", "grown-16x", "structure-dynamics"]
Strategy = Literal["ddp", "fsdp"]
LoggerName = Literal["none", "csv", "tensorboard", "wandb"]

# size: width at 1/8 of the side, blocks for each stage. Half of a nano is five stages of one block of 12·80² weights.
_DIALS: dict[str, tuple[int, int]] = {"nano": (80, 1), "tiny": (136, 2), "small": (256, 3), "base": (480, 4)}
FORESEEING: tuple[Variant, ...] = ("adaptive",)
"""Variants whose linear code tells what a segment loses at each rate, without coding it."""
KNOWN_RATES = (1, 2, 4, 8, 16)
OWN_RATES: dict[str, tuple[int, ...]] = {
    "adaptive": (2, 4, 8, 16), "fixed-4x8x8": (4,), "dual-branch": (4,), "grown-16x": (4, 8, 16),
}  # fmt: skip
"""Rates of a variant for which none are given; structure-dynamics has one grid for each segment."""
BASE_RATE = 4
"""Frames per latent of the trunk on which grown-16x and structure-dynamics build."""
PATCH = 4
"""Two levels of Haar patching: the network never sees full resolution."""
Tell = Callable[[int, int, str, Mapping[str, float]], None]
"""What long work tells of itself: how many are done, of how many (0 where nobody knows), of what, and new figures."""


def predicted(variant: str, allocation: Allocation) -> bool:
    """Whether what a segment loses at each rate is foreseen, by a tokenizer of a variant, or none of ours.

    Raises ValueError where it is to be foreseen and cannot.
    """
    if allocation == "predicted" and variant not in FORESEEING:
        raise ValueError(
            f"{variant or 'a frozen VAE'} cannot tell what it will lose, as a tokenizer of the variant "
            f"{', '.join(FORESEEING)} can; give --allocation measured"
        )
    return allocation != "measured" and variant in FORESEEING


def silent(done: int, total: int, of: str, figures: Mapping[str, float]) -> None:
    """Tell nobody."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """What a tokenizer is. Two tokenizers of equal configuration load each other's weights."""

    variant: Variant = "adaptive"
    """adaptive: each segment has its rate and is coded jointly (tokenizer/joint.py). Four published systems beside it:
    fixed-4x8x8 (HunyuanVideo), dual-branch (IV-VAE), grown-16x (ProMAG), structure-dynamics (VidTwin); see
    tokenizer/variants.py."""
    size: Size = "nano"
    """nano ≈ 1 M, tiny ≈ 5 M, small ≈ 25 M, base ≈ 120 M parameters."""
    channels: int = 16
    """Channels of a latent."""
    space: int = 8
    """Pixels of a side for one latent cell: 4, 8, 16 or 32."""
    segment: int = 16
    """Frames of a segment; each segment has its own rate."""
    rates: tuple[int, ...] = ()
    """Frames per latent among which each segment may choose, ascending powers of two that divide the segment; empty
    takes those of the variant, which for adaptive are 2, 4, 8, 16."""

    def __post_init__(self):
        if self.size not in _DIALS:
            raise ValueError(f"size={self.size!r} is not one of {', '.join(_DIALS)}")
        if self.space not in (4, 8, 16, 32):
            raise ValueError(f"space={self.space} is not one of 4, 8, 16, 32")
        if self.channels < 3:
            raise ValueError(f"channels={self.channels} cannot hold a colour; give at least 3, usually 16")
        if self.variant not in (*OWN_RATES, "structure-dynamics"):
            raise ValueError(f"variant={self.variant!r} is not one of {', '.join(OWN_RATES)}, structure-dynamics")
        object.__setattr__(self, "rates", tuple(self.rates) or OWN_RATES.get(self.variant, (self.segment,)))
        bad = [rate for rate in self.rates if rate not in KNOWN_RATES or self.segment % rate]
        if bad or list(self.rates) != sorted(set(self.rates)):
            raise ValueError(
                f"rates={self.rates} must ascend and be among {KNOWN_RATES}, each dividing segment={self.segment}"
            )
        for fits, needed in self._needs():
            if not fits:
                raise ValueError(f"variant={self.variant!r} needs {needed}, or use variant='adaptive'")

    def _needs(self) -> list[tuple[bool, str]]:
        """Return what the variant asks of the other settings, and whether it is so."""
        given = f"not {self.rates}"
        return {
            "fixed-4x8x8": [
                (self.rates == (4,), f"rates=(4,), {given}"),
                (self.channels == 16, f"channels=16, not {self.channels}"),
                (self.space == 8, f"space=8, not {self.space}"),
            ],
            "dual-branch": [
                (self.channels >= 6 and self.channels % 2 == 0, f"an even number of channels ≥ 6, not {self.channels}")
            ],
            "grown-16x": [
                (
                    BASE_RATE in self.rates and self.rates[-1] > BASE_RATE,
                    f"{BASE_RATE} and more among its rates, {given}",
                )
            ],
            "structure-dynamics": [
                (self.rates == (self.segment,), f"rates=({self.segment},), one grid for each segment, {given}"),
                (self.segment > BASE_RATE, f"a segment of more than {BASE_RATE} frames, not {self.segment}"),
            ],
        }.get(self.variant, [])

    @property
    def base(self) -> TokenizerConfig:
        """The trunk of four frames per latent on which a variant builds."""
        kept = tuple(rate for rate in self.rates if rate <= BASE_RATE)
        return replace(self, variant="adaptive", rates=kept or (BASE_RATE,))

    @property
    def margin(self) -> int:
        """Columns right of the latent cells of the picture, and rows below, that hold the dynamics of a segment."""
        return self.segment // BASE_RATE if self.variant == "structure-dynamics" else 0

    def cells(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the latents of a picture of so many pixels."""
        return -(-height // self.space) + self.margin, -(-width // self.space) + self.margin

    @property
    def width(self) -> int:
        """Channels of the trunk below the first spatial stage; that stage has half of it."""
        return _DIALS[self.size][0]

    @property
    def depth(self) -> int:
        """Blocks of each stage."""
        return _DIALS[self.size][1]

    @property
    def time_stages(self) -> int:
        """Halvings of the frame rate that the highest rate needs."""
        return self.rates[-1].bit_length() - 1

    @property
    def space_stages(self) -> int:
        """Halvings of the sides after the Haar patching."""
        return (self.space // PATCH).bit_length() - 1


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run of steps of a training: what it reads and what of the tokenizer it trains."""

    first: int
    """Step at which it begins, from 0."""
    steps: int
    """Steps that it lasts."""
    rates: tuple[int, ...]
    """Frames per latent that it trains, ascending."""
    frames: int
    """Frames of its clips; 1 trains on still pictures."""
    side: int
    """Side of its crops in pixels."""
    decoder_only: bool
    """The encoder, and with it every latent, stays as it is."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a tokenizer is trained."""

    steps: int = 400
    """Steps of the optimizer, in all; `stages` count their own."""
    stages: str = ""
    """Growth in stages, such as `image:100,4:200,8:100,16:100,decoder:100@192`: what is trained, steps, and the side of
    the crops where it is another than `side`. `image` trains still pictures, a number every rate up to it, `decoder`
    the decoder alone at the rates reached. Empty trains every rate from the first step."""
    batch: int = 2
    """Clips for each step (on each device)."""
    frames: int = 32
    """Frames of a training clip, cut at random from a clip of a shard; shorter clips are filled by their last frame."""
    min_frames: int = 16
    """Shorter clips are passed over."""
    side: int = 96
    """Side of the random square crop in pixels."""
    shrink: float = 2.0
    """The shorter side is scaled at random between `side` and this many times `side` before the crop."""
    crops: int = 4
    """Crops taken from each clip that is decoded, at places of their own in the same frames; they come in different
    batches, or apart in large ones. 1 decodes for every crop."""
    holdout: float = 0.05
    """Share of the clips, chosen by a hash of their keys, that is never trained on: quality is measured on them at each
    save. One at least, where there are two clips; 0 trains on all, and measures on clips that are trained on."""
    only_new: bool = False
    """Train only what growing added (variant grown-16x), at the new rates; the trunk it grew from stays as it is."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup: int = 20
    """Steps of linear warm-up; a cosine follows, down to a tenth of the peak."""
    passes: int = 2
    """Rates trained on each batch: 1 takes in turn the lowest, a mixture, the highest and a mixture; 2 the lowest and
    another; 3 the lowest, a mixture and the highest."""
    l1: float = 1.0
    """Weight of the mean absolute error."""
    feature: float = 0.05
    """Weight of a perceptual distance, on a few frames: in EfficientNet-Lite0 features (`feature` in the metrics), or
    LPIPS; 0 leaves that network unloaded."""
    feature_frames: int = 2
    """Frames of each clip that the perceptual distance looks at."""
    lpips: str = ""
    """Folder with the weights of LPIPS, which is then the perceptual distance (`lpips_vgg`, `lpips_alex`): a backbone
    of torchvision and the linear weights of the same net. Usual weights of it are `--feature` 0.1 to 1."""
    kl: float = 1e-6
    """Weight of the Kullback–Leibler divergence, summed over channels, averaged over cells."""
    gan: float = 0.0
    """Weight of a patch discriminator's judgement, against a gradient as large as that of the other losses; 0 has no
    discriminator."""
    gan_from: int = 0
    """Step from which the discriminator takes part; late, when there are details to judge."""
    gan_lr: float = 0.0
    """Peak learning rate of the discriminator, with a warm-up of its own; 0 takes that of the tokenizer."""
    ema: float = 0.99
    """Decay of the averaged weights that are saved as the model."""
    grad_clip: float = 1.0
    """Norm to which gradients are clipped."""
    seed: int = 0
    """Seed of weights, clips, crops and noise."""
    workers: int = 0
    """Processes that decode clips; 0 decodes in the training process."""
    devices: int = 0
    """Training processes on this machine, one for each GPU; 0 takes every GPU, or one process where there is none."""
    strategy: Strategy = "ddp"
    """How several processes train one model: ddp, each holds all of it; fsdp, each holds a part of weights, average,
    gradients and optimizer state, gathered stage by stage as they are used: less memory, more traffic. Both give the
    same model up to rounding. fsdp needs two devices at least, and on GPUs bfloat16."""
    save_every: int = 50
    """Steps between checkpoints and strips; a kill costs at most this many."""
    log_every: int = 5
    """Steps between lines of metrics.jsonl."""
    logger: LoggerName = "none"
    """Where the lines of metrics.jsonl go besides, by Lightning's loggers: csv and tensorboard write to OUT/logs, wandb
    to Weights & Biases; the packages of the last two are installed apart."""
    compile: bool = False
    """Compile encoder and decoder by torch.compile: a minute or more for each shape at the start, then faster steps.
    Numbers differ by rounding. A CPU needs a C++ compiler."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: slower, much less memory."""
    shuffle: int = 64
    """Clips held for shuffling."""

    def __post_init__(self):
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout={self.holdout} is no share of the clips; give 0 or more, and less than 1")
        if self.crops < 1:
            raise ValueError(f"crops={self.crops} takes nothing from a clip; give 1 or more")
        if min(self.gan, self.gan_from, self.gan_lr) < 0:
            raise ValueError(f"gan={self.gan}, gan_from={self.gan_from}, gan_lr={self.gan_lr} must not be negative")
        if self.lpips and not self.feature:
            raise ValueError(f"lpips={self.lpips} has no weight; give feature=0.1 or more, or leave lpips out")
        if self.compile and self.strategy == "fsdp":
            raise ValueError("compile and strategy=fsdp do not go together yet; leave one of them out")
        names = [name for name, _, _ in self._named()]
        if self.only_new and "decoder" in names:
            raise ValueError(f"only_new trains new parts of encoder and decoder; leave decoder out of {self.stages!r}")

    @property
    def total(self) -> int:
        """Steps in all."""
        return sum(steps for _, steps, _ in self._named()) or self.steps

    def plan(self, rates: tuple[int, ...]) -> tuple[Stage, ...]:
        """Return the stages of the training of a tokenizer that has these rates.

        Raises ValueError where a stage names a rate that the tokenizer lacks, or where one of its rates is never
        trained.
        """
        stages: list[Stage] = []
        highest = rates[-1] if not self.stages or self._named()[0][0] == "decoder" else rates[0]
        for name, steps, side in self._named() or [("", self.steps, self.side)]:
            highest = int(name) if name.isdecimal() else highest
            if highest not in rates:
                raise ValueError(f"stages={self.stages!r} names rate {highest}, but the tokenizer has {list(rates)}")
            stages.append(
                Stage(
                    first=stages[-1].first + stages[-1].steps if stages else 0,
                    steps=steps,
                    rates=rates[: rates.index(highest) + 1],
                    frames=1 if name == "image" else self.frames,
                    side=side,
                    decoder_only=name == "decoder",
                )
            )
        left = sorted(set(rates).difference(*(stage.rates for stage in stages)))
        if left:
            raise ValueError(
                f"stages={self.stages!r} never trains rates {left} of the tokenizer; add {left[-1]}:STEPS, "
                f"or leave them out of its rates"
            )
        return tuple(stages)

    def _named(self) -> list[tuple[str, int, int]]:
        """Return name, steps and side of each stage that was asked for."""
        found = []
        for part in self.stages.replace(" ", "").split(",") if self.stages.strip() else []:
            match = re.fullmatch(r"(image|decoder|[1-9]\d*):([1-9]\d*)(?:@([1-9]\d*))?", part)
            if match is None:
                raise ValueError(
                    f"stages={self.stages!r}: {part!r} is no stage; write image:STEPS, RATE:STEPS or decoder:STEPS, "
                    "each with @SIDE where its crops have another side, and a comma between them"
                )
            found.append((match[1], int(match[2]), int(match[3] or self.side)))
        return found


def stage_at(stages: tuple[Stage, ...], step: int) -> Stage:
    """Return the stage of a step; the last one goes on beyond its end."""
    return next((stage for stage in stages if step < stage.first + stage.steps), stages[-1])


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a tokenizer is evaluated."""

    clips: int = 32
    """Clips at most; 0 takes all."""
    side_px: int = 128
    """Clips are shrunk so that the shorter side has this many pixels; 0 keeps their size."""
    max_seconds: float = 4.0
    """Of each clip, and the rest of the segment; all of it is held in memory."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many latents a clip may have, at what price, or the one rate of all its segments: the lowest without any."""

    share: float = 0.0
    """Share of the latents that the lowest rate number would take, such as 0.6; 0 means no limit."""
    latents: int = 0
    """Latents in all; 0 means no limit."""
    per_second: float = 0.0
    """Latents for each second of the clip; 0 means no limit."""
    lam: float | None = None
    """λ in place of a number: the squared error (range [-1, 1], mean over pixels, summed over frames) that one latent
    must save; `rushes tokenizer eval` tells which λ spends which share. 0 takes all latents that save anything."""
    rate: int = 0
    """Frames per latent of every segment, such as 4: nothing is chosen; 0 takes the lowest that the tokenizer has."""

    def __post_init__(self):
        if self.lam is not None and not 0 <= self.lam < math.inf:
            raise ValueError(
                f"lam={self.lam} must be an error for a latent, 0 or more; `rushes tokenizer eval` tells some"
            )
        given = sum((*map(bool, (self.share, self.latents, self.per_second, self.rate)), self.lam is not None))
        counts = 0 <= self.share <= 1 and 0 <= self.per_second < math.inf and min(self.latents, self.rate) >= 0
        if not counts or given > 1:
            asked = {name: value for name, value in vars(self).items() if value != getattr(Budget, name)}
            told = " and ".join(f"{name}={value}" for name, value in asked.items())
            raise ValueError(
                f"{told} is no budget: give one of share between 0 and 1, latents ≥ 1, per_second > 0, lam or rate, "
                "and nothing for the others"
            )

    @property
    def limited(self) -> bool:
        """Whether there is a limit or a price at all."""
        return bool(self.share or self.latents or self.per_second or self.lam is not None)

    def rate_of(self, rates: Sequence[int]) -> int:
        """Return the rate of all segments where there is no limit. Raises ValueError for one that is not among them."""
        if self.rate and self.rate not in rates:
            raise ValueError(f"rate={self.rate} is unknown to this tokenizer; it has {list(rates)}")
        return self.rate or rates[0]
