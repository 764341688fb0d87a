"""A small network that predicts what a segment loses at every rate, from its pixels, in one cheap pass.

    rushes tokenizer scorer RUN                 # writes scorer.safetensors and scorer.json beside RUN/tokenizer/model

Measuring codes and decodes each segment at every rate; predicting looks at it once. It looks at pixels, not at the
tokenizer's features: the norms of the trunk depend on the rate, so there is no pass that all rates could share. What it
sees are energies on a 16×16 grid: what the segment would lose if frames of one latent were replaced by their mean, at
every rate; how neighbouring frames differ; and texture, which is lost at any rate. A fresh tokenizer loses just that,
and the network learns by how much a trained one does better.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as tensors_to
from torch import Tensor, nn

from rushes.pipelines.store import shards, storage
from rushes.tokenizer.allocate import total
from rushes.tokenizer.codec import AnyTokenizer, fingerprint
from rushes.tokenizer.config import Allocation, Budget, ScorerConfig, Tell, silent
from rushes.tokenizer.data import segments, to_pictures
from rushes.tokenizer.model import Tokenizer, load
from rushes.tokenizer.rates import RateDistortion, choose, measure
from rushes.tokenizer.shipped import SHIPPED, folder_of, frozen_kind

GRID = 16
"""Cells of a side of the maps that the network sees, whatever the size of the pictures."""
SMALL_PX = 64
"""Longest shorter side at which change in time is measured; noise of single pixels is coded by no rate anyway."""
STILL = 4
"""Texture, and what changes at full size, is measured on every so many frames."""
FLOOR = 1e-7
"""Energy that is nothing: far below that of a level of 8 bits, (2 / 255)² / 12 = 5e-6."""
FEATURES = 2
"""Version of what a scorer sees: one that was trained on an earlier one is refused."""
WEIGHTS, ABOUT = "scorer.safetensors", "scorer.json"


class Scorer(nn.Module):
    """About 50,000 weights: a linear map of the logarithms of mean energies, and a convolutional correction to it."""

    mean: Tensor
    std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, rates: Sequence[int], tokenizer: str):
        super().__init__()
        self.rates, self.tokenizer = tuple(rates), tokenizer
        maps, out = len(rates) + 4, len(rates)
        self.cells = nn.Sequential(
            nn.Conv2d(maps, 32, 3, padding=1), nn.SiLU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1), nn.SiLU(),
        )  # fmt: skip
        last, self.linear = nn.Linear(64, out), nn.Linear(maps + 1, out)
        self.head = nn.Sequential(nn.Linear(64 + maps + 1, 64), nn.SiLU(), last)
        for layer in (last, self.linear):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for name, size in (("mean", maps + 1), ("target_mean", out)):
            self.register_buffer(name, torch.zeros(size))
            self.register_buffer(name.replace("mean", "std"), torch.ones(size))

    def forward(self, maps: Float[Tensor, "n maps 16 16"], frames: Float[Tensor, " n"]) -> Float[Tensor, "n rates"]:
        """Return the logarithm of the distortion of a frame at each rate, in units of the training set's spread."""
        whole = (summary(maps, frames) - self.mean) / self.std
        scale, shift = self.std[:-1, None, None], self.mean[:-1, None, None]
        seen = self.cells(((maps + FLOOR).log() - shift) / scale).mean(dim=(2, 3))
        return self.linear(whole) + self.head(torch.cat([seen, whole], dim=1))


def summary(maps: Float[Tensor, "n maps 16 16"], frames: Float[Tensor, " n"]) -> Float[Tensor, "n maps_1"]:
    """Return the logarithms of the mean of each map and of the number of frames."""
    return torch.cat([(maps.mean(dim=(2, 3)) + FLOOR).log(), frames.log()[:, None]], dim=1)


@torch.no_grad()
def features(pictures: UInt8[np.ndarray, "t h w 3"], rates: Sequence[int]) -> Float[Tensor, "maps 16 16"]:
    """Return energies of a segment's luma on a grid: change within a latent at each rate, then the four others."""
    luma = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) for picture in pictures]
    step = -(-min(pictures.shape[1:3]) // SMALL_PX)
    size = [-(-side // step) for side in pictures.shape[2:0:-1]]
    small = _floats([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in luma])
    maps = [_within(small, rate) for rate in rates]
    still, coarse, following = _floats(luma[::STILL]), small[::STILL], luma[1::STILL]
    change = (_floats(following) - still[: len(following)]).square() if following else torch.zeros_like(still)
    maps.append(change.mean(dim=0))
    maps += [_texture(still), _texture(coarse), ((still.mean(dim=0) + 1) / 2)]
    return torch.stack([F.adaptive_avg_pool2d(one[None], GRID)[0] for one in maps])


def _floats(frames: Sequence[np.ndarray]) -> Float[Tensor, "t h w"]:
    """Return frames of 0 to 255 in [-1, 1]."""
    return torch.from_numpy(np.array(frames, dtype=np.float32)).div_(127.5).sub_(1)


def _within(frames: Float[Tensor, "t h w"], rate: int) -> Float[Tensor, "h w"]:
    """Return the mean squared difference of frames and the mean of their latent's; a short last one is filled up."""
    fill = frames[-1:].expand(-len(frames) % rate, -1, -1)
    groups = torch.cat([frames, fill]).unflatten(0, (-1, rate))
    return (groups - groups.mean(dim=1, keepdim=True)).square().mean(dim=(0, 1))  # torch's var is four times slower


def _texture(frames: Float[Tensor, "t h w"]) -> Float[Tensor, "h w"]:
    """Return the mean squared difference of each pixel and its right and lower neighbours."""
    padded = F.pad(frames[:, None], (0, 1, 0, 1), mode="replicate")[:, 0]
    right, below = padded[:, :-1, 1:] - frames, padded[:, 1:, :-1] - frames
    return (right.square() + below.square()).mean(dim=0)


@torch.no_grad()
def predict(scorer: Scorer, pictures: UInt8[np.ndarray, "t h w 3"]) -> Float[np.ndarray, " rates"]:
    """Return the distortion of a segment at each rate, as `RateDistortion.distortion` counts it, without coding it."""
    device, frames = scorer.mean.device, len(pictures)
    maps = features(pictures, scorer.rates)[None].to(device)
    score = scorer(maps, torch.tensor([float(frames)], device=device)) * scorer.target_std + scorer.target_mean
    return (score.double().exp()[0] * frames).cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class Example:
    """One measured clip as the scorer sees it."""

    maps: Float[Tensor, "segments maps 16 16"]
    """`features` of each segment."""
    frames: Float[Tensor, " segments"]
    """Frames of each segment."""
    table: RateDistortion
    """What was measured."""


def example(tokenizer: Tokenizer, videos: Iterable[Float[Tensor, "1 3 t h w"]]) -> Example:
    """Return the measured distortions of a clip, given segment by segment, and what the scorer sees of it."""
    maps, lengths = [], []

    def seen() -> Iterator[Tensor]:
        for video in videos:
            maps.append(features(to_pictures(video), tokenizer.config.rates))
            lengths.append(float(video.shape[2]))
            yield video

    table = measure(tokenizer, seen())
    if not maps:
        raise ValueError("a clip without frames tells a scorer nothing; leave it out")
    return Example(maps=torch.stack(maps), frames=torch.tensor(lengths), table=table)


def fit_scorer(
    tokenizer: Tokenizer, examples: Sequence[Example], settings: ScorerConfig | None = None, tell: Tell = silent
) -> Scorer:
    """Return a scorer of this tokenizer, trained on measured clips; the same seed gives the same one.

    The loss is Huber's on the logarithm of the distortion: errors count by their ratio, in dark and still segments too.

    Raises:
        ValueError: There is no example, or a distortion is not finite.
    """
    settings = settings or ScorerConfig()
    if not examples:
        raise ValueError("a scorer needs at least one measured clip")
    maps, frames = torch.cat([one.maps for one in examples]), torch.cat([one.frames for one in examples])
    losses = torch.from_numpy(np.concatenate([one.table.distortion for one in examples])).float()
    if not torch.isfinite(losses).all():
        raise ValueError("distortion holds NaN or infinity; the tokenizer or a video is broken")
    target = (losses / frames[:, None] + FLOOR).log()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        scorer = Scorer(tokenizer.config.rates, fingerprint(tokenizer))
        _norm(scorer, summary(maps, frames), target)
        _train(scorer, maps, frames, (target - scorer.target_mean) / scorer.target_std, settings, tell)
    return scorer.eval().requires_grad_(False)


def _norm(scorer: Scorer, whole: Float[Tensor, "n maps_1"], target: Float[Tensor, "n rates"]) -> None:
    """Set the buffers so that input and target are about zero mean and unit variance."""
    for name, values in (("", whole), ("target_", target)):
        getattr(scorer, f"{name}mean").copy_(values.mean(dim=0))
        getattr(scorer, f"{name}std").copy_(values.std(dim=0, correction=0).clamp_min(1e-2))


def _train(scorer: Scorer, maps: Tensor, frames: Tensor, target: Tensor, settings: ScorerConfig, tell: Tell) -> None:
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=settings.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for step in range(settings.steps):
        picked = torch.randint(len(maps), (settings.batch,))
        sides = [side for side in (2, 3) if torch.rand(()) < 0.5]  # a mirrored segment loses as much
        found = scorer(maps[picked].flip(sides), frames[picked])
        loss = F.smooth_l1_loss(found, target[picked], beta=0.3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        tell(step + 1, settings.steps, "steps", {})


def regret(scorer: Scorer, examples: Iterable[Example], share: float) -> float:
    """Return by how many dB the measured distortion of clips is higher when predictions choose the rates."""
    best, found = 0.0, 0.0
    with torch.no_grad():
        for one in examples:
            score = scorer(one.maps, one.frames) * scorer.target_std + scorer.target_mean
            guess = (score.double().exp() * one.frames[:, None]).numpy()
            for table in (one.table, RateDistortion(costs=one.table.costs, distortion=guess)):
                chosen = choose(scorer.rates, table, Budget(share=share), 0.0)
                loss = total(one.table.distortion, [scorer.rates.index(rate) for rate in chosen])
                best, found = (best + loss, found) if table is one.table else (best, found + loss)
    return float(10 * np.log10(found / best))


def fit(root: str, model: str, settings: ScorerConfig | None = None, tell: Tell = silent) -> dict[str, float]:
    """Train the scorer of a saved tokenizer on clip shards and write it beside the model.

    Every fifth clip is held out, to tell what allocation by prediction costs.

    Args:
        root: Root of the clip shards.
        model: Folder of the tokenizer.
        settings: How to train it.
        tell: Told of each clip that was measured, then of each step.

    Returns:
        Clips measured, and the regret in dB on those held out at a half and at a quarter of the latents.

    Raises:
        ValueError: There is no tokenizer, there are fewer than five clips, or the model is the shipped one.
    """
    if model == SHIPPED:
        raise ValueError("the shipped tokenizer has its scorer; to train another, copy its folder and name the copy")
    settings = settings or ScorerConfig()
    tokenizer = load(model).to("cuda" if torch.cuda.is_available() else "cpu")
    device, length = tokenizer.latent_mean.device, tokenizer.config.segment
    clips = islice(shards.pipeline(root, members=("mp4",), nodes=False), settings.clips)
    examples, total = [], min(shards.read_manifest(root).samples, settings.clips)
    tell(0, total, "clips measured", {})
    for clip in clips:
        videos = (video.to(device) for _, video in segments(clip["mp4"], length, settings.side_px))
        examples.append(example(tokenizer, videos))
        tell(len(examples), total, "clips measured", {})
    if len(examples) < 5:
        raise ValueError(f"{root} has {len(examples)} clips; a scorer needs five at least, to hold one of them out")
    scorer = fit_scorer(tokenizer, [one for i, one in enumerate(examples) if i % 5], settings, tell)
    save_scorer(scorer, model)
    shares = {"half": 0.5, "quarter": 0.25}
    costs = {f"regret_db_{name}": regret(scorer, examples[::5], share) for name, share in shares.items()}
    return {"clips": float(len(examples)), **costs}


def scorer_fingerprint(scorer: Scorer) -> str:
    """Return 12 hex digits that change with any weight, rate or the tokenizer."""
    digest = hashlib.sha256(json.dumps([FEATURES, scorer.rates, scorer.tokenizer]).encode())
    for name, tensor in sorted(scorer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def save_scorer(scorer: Scorer, model: str) -> None:
    """Write the scorer beside the tokenizer in a folder or an object-store prefix."""
    root = model.rstrip("/")
    about = {"kind": "rushes-scorer", "features": FEATURES, "rates": scorer.rates, "tokenizer": scorer.tokenizer}
    about["fingerprint"] = scorer_fingerprint(scorer)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in scorer.state_dict().items()}
    storage.write_bytes(f"{root}/{WEIGHTS}", tensors_to(weights))
    storage.write_bytes(f"{root}/{ABOUT}", json.dumps(about, indent=2).encode())


def load_scorer(model: str, tokenizer: str) -> Scorer:
    """Return the scorer in a model's folder, on the CPU.

    Args:
        model: Folder or object-store prefix that `save_scorer` wrote to.
        tokenizer: Fingerprint of the tokenizer whose distortions it must predict.

    Raises:
        ValueError: There is none, it is damaged, or it belongs to another tokenizer.
    """
    root = folder_of(model)
    if not storage.exists(f"{root}/{ABOUT}"):
        raise ValueError(f"{model} holds no scorer ({ABOUT}); train one with `rushes tokenizer scorer`, or measure")
    about = json.loads(storage.read_bytes(f"{root}/{ABOUT}"))
    if about["tokenizer"] != tokenizer:
        raise ValueError(
            f"the scorer in {model} predicts for the tokenizer {about['tokenizer']}, not for {tokenizer}; "
            "train it again with `rushes tokenizer scorer`, or measure"
        )
    if about.get("features") != FEATURES:
        raise ValueError(
            f"the scorer in {model} looks at other features than this version of Rushes measures; "
            "train it again with `rushes tokenizer scorer`, or measure"
        )
    scorer = Scorer(about["rates"], about["tokenizer"])
    try:
        scorer.load_state_dict(tensors_from(storage.read_bytes(f"{root}/{WEIGHTS}")))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"the scorer in {model} is damaged: {error}; train it again") from error
    if scorer_fingerprint(scorer) != about["fingerprint"]:
        raise ValueError(f"the scorer in {model} is not the one that {ABOUT} describes; train it again")
    return scorer.eval().requires_grad_(False)


def scorer_for(model: str, tokenizer: AnyTokenizer, allocation: Allocation) -> Scorer | None:
    """Return the scorer that predicts for a loaded tokenizer, on its device, or None where distortion is measured.

    Raises ValueError where it is to be predicted and there is no scorer, or one of another tokenizer.
    """
    if allocation == "measured" or (allocation == "auto" and not has_scorer(model)):
        return None
    return load_scorer(model, fingerprint(tokenizer)).to(tokenizer.latent_mean.device)


def has_scorer(model: str) -> bool:
    """Whether a scorer stands beside a tokenizer, given by its name; none does beside a frozen VAE."""
    return not frozen_kind(model)[0] and storage.exists(f"{folder_of(model)}/{ABOUT}")
