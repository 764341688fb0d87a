"""Evaluate a tokenizer: quality at every rate, and what choosing rates by budget gains over fixed rates and thresholds.

    rushes tokenizer eval RUN/tokenizer/model CLIPS… --out RUN/tokenizer/eval

Writes `metrics.json` and `rate-distortion.svg`, and tells the λ that spends a share of the latents on these clips, for
`rushes latents --lam` at the same `--side_px`. Every point of a curve is a clip coded again with the rates chosen, no
sum of what was measured at fixed rates. Memory holds one clip at a time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice, takewhile
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rushes.pipelines.store import shards, storage
from rushes.tokenizer.allocate import allocate, lam_for, monotone
from rushes.tokenizer.baselines import by_motion, by_ssim, by_tuned_ssim, held_ssim, motion
from rushes.tokenizer.codec import AnyTokenizer, fingerprint, load, predicts, segments, stream_again
from rushes.tokenizer.config import EvalConfig, Tell, silent
from rushes.tokenizer.data import ClipError
from rushes.tokenizer.losses import FeatureDistance
from rushes.tokenizer.metrics import WINDOW, flicker, psnr, ssim
from rushes.tokenizer.model import Tokenizer, counts
from rushes.tokenizer.plots import Line, chart
from rushes.tokenizer.rates import RateDistortion, costs, foresee, measure

log = logging.getLogger(__name__)
KINDS = ((0.01, "still"), (0.05, "slow"), (0.2, "moderate"), (float("inf"), "fast"))
"""Kinds of motion by the clip's measured motion, in widths per second, below which they end."""
MOTION_LIMITS, SSIM_LIMITS = (0.06, 0.03, 0.015), (0.95, 0.95, 0.95)
"""Thresholds of the baselines for the highest three rates: ours, for want of published ones."""
SHARES = (0.15, 0.1875, 0.25, 0.375, 0.5, 0.75, 1.0)
"""Budgets of the curves, as shares of what the lowest rate takes."""
PRICED = (1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)
"""Shares of which λ is told."""
Segments = list[Float[Tensor, "1 3 t h w"]]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip to evaluate on."""

    name: str
    """Key in its shard, or path of the file."""
    data: bytes | str
    """Its content, or the path."""
    kind: str
    """Kind of motion, empty where it was not measured."""


@dataclass(kw_only=True)
class Study:
    """What was found of one clip."""

    clip: Clip
    lengths: tuple[int, ...]
    """Frames of each segment."""
    measured: RateDistortion
    motions: Float[np.ndarray, " segments"]
    similarity: Float[np.ndarray, "segments rates"]
    """SSIM of each segment and its subsampled version."""
    predicted: Float[np.ndarray, "segments rates"] | None
    """Distortions that the linear code foresees; None without one."""
    by_rate: dict[int, dict[str, float | None]] = field(default_factory=dict)
    """At each rate alone: PSNR, SSIM (None of pictures below its window), feature distance, flicker, latents."""
    coded: dict[tuple[int, ...], float] = field(default_factory=dict)
    """Squared error (range [-1, 1], mean over pixels, summed over frames) under rates that were tried."""

    @property
    def frames(self) -> int:
        """Frames of the clip."""
        return sum(self.lengths)


def evaluate(model: str, sources: Sequence[str], out: str, config: EvalConfig, tell: Tell = silent) -> dict[str, Any]:
    """Evaluate a tokenizer on clips; return and write what was found.

    Args:
        model: a tokenizer's name, see `codec.load`.
        sources: roots of clip shards, or video files; clips it was not trained on, or the figures say nothing.
        out: folder to write to.
        config: sizes and limits.
        tell: told of each clip that was studied, then of each that was coded again with the rates chosen.

    Raises:
        ValueError: there is no tokenizer, or not one clip.
    """
    tokenizer = load(model).to("cuda" if torch.cuda.is_available() else "cpu")
    feature = FeatureDistance().to(tokenizer.latent_mean.device)
    studies: list[Study] = []
    total = count(sources, config.clips)
    tell(0, total, "clips studied", {})
    for number, clip in enumerate(islice(find(sources), config.clips or None), start=1):
        try:
            video = opened(tokenizer, clip, config)
        except ClipError as error:
            log.warning("clip %s is passed over: %s", clip.name, error)
            continue
        studies.append(study(tokenizer, feature, clip, video))
        quality = {f"PSNR at {rate}": value for rate, found in studies[-1].by_rate.items() if (value := found["psnr"])}
        tell(number, total, "clips studied", quality)
    if not studies:
        raise ValueError(f"{', '.join(sources)}: not one clip that can be decoded")
    made = plans(tokenizer, studies)
    tell(0, len(studies), "clips coded again", {})
    for i, one in enumerate(studies):
        video = opened(tokenizer, one.clip, config)
        for choice in made.values():
            recode(tokenizer, one, video, choice[i])
        tell(i + 1, len(studies), "clips coded again", {})
    found = summary(tokenizer, studies, made, config)
    storage.write_bytes(f"{out}/metrics.json", json.dumps(found, indent=1).encode())
    storage.write_bytes(f"{out}/rate-distortion.svg", drawn(found).encode())
    return found


def count(sources: Sequence[str], most: int) -> int:
    """Return how many clips shards and files hold, at most so many; 0 stands for no limit."""
    held = [shards.read_manifest(one).samples if _is_set(one) else 1 for one in sources]
    return min(sum(held), most or sum(held))


def _is_set(source: str) -> bool:
    return storage.exists(f"{source.rstrip('/')}/manifest.json")


def find(sources: Sequence[str]) -> Iterator[Clip]:
    """Yield the clips of shards and files."""
    for source in sources:
        if not _is_set(source):
            yield Clip(name=source, data=source if storage.is_local(source) else storage.read_bytes(source), kind="")
            continue
        for sample in shards.pipeline(source, members=("mp4", "json"), nodes=False):
            motion = json.loads(sample["json"]).get("motion")
            kind = "" if motion is None else next(name for most, name in KINDS if motion < most)
            yield Clip(name=sample["__key__"], data=sample["mp4"], kind=kind)


def opened(tokenizer: AnyTokenizer, clip: Clip, config: EvalConfig) -> Segments:
    """Return the segments of a clip. Raises ClipError where it has none."""
    chunks = segments(tokenizer, clip.data, config.side_px)
    within = takewhile(lambda chunk: chunk[0][0] < config.max_seconds, chunks)
    found = [video.to(tokenizer.latent_mean.device) for _, video in within]
    if not found:
        raise ClipError(f"{clip.name} has no frames")
    return found


@torch.no_grad()
def study(tokenizer: AnyTokenizer, feature: FeatureDistance, clip: Clip, video: Segments) -> Study:
    """Return what a clip costs and loses at each rate."""
    rates = tokenizer.config.rates
    large = min(video[0].shape[-2:]) >= WINDOW
    found = Study(
        clip=clip,
        lengths=tuple(segment.shape[2] for segment in video),
        measured=measure(tokenizer, video),
        motions=np.array([motion(segment) for segment in video]),
        similarity=np.stack([held_ssim(segment, rates) if large else np.ones(len(rates)) for segment in video]),
        predicted=foresee(tokenizer, video).distortion
        if isinstance(tokenizer, Tokenizer) and predicts(tokenizer, "auto")
        else None,
    )
    whole = torch.cat(video, dim=2)
    for rate in rates:
        again = torch.cat(list(stream_again(tokenizer, ((segment, rate) for segment in video))), dim=2)
        error = float((again - whole).square().mean(dim=(0, 1, 3, 4)).sum())
        found.coded[(rate,) * len(video)] = error
        pictures = [x[0].transpose(0, 1) for x in (again, whole)]
        found.by_rate[rate] = {
            "psnr": psnr(error / found.frames),
            "ssim": float(ssim(*pictures).mean()) if large else None,
            "feature": float(feature(*pictures)),
            "flicker": flicker(whole, again) if found.frames > 1 else 0.0,
            "latents": float(costs(found.lengths, [rate]).sum()),
        }
    return found


@torch.no_grad()
def recode(tokenizer: AnyTokenizer, one: Study, video: Segments, rates: tuple[int, ...]) -> float:
    """Return the squared error of a clip under some rates, coding it unless that was done."""
    if rates not in one.coded:
        pairs = zip(video, stream_again(tokenizer, zip(video, rates, strict=True)), strict=True)
        one.coded[rates] = sum(float((y - x).square().mean(dim=(0, 1, 3, 4)).sum()) for x, y in pairs)
    return one.coded[rates]


Plan = dict[tuple[str, float], list[tuple[int, ...]]]
"""Rates of every clip by method and budget, the budget as a share of what the lowest rate takes."""


def plans(tokenizer: AnyTokenizer, studies: Sequence[Study]) -> Plan:
    """Return what each method chooses under each budget.

    `adaptive` has a budget for each clip, as have `motion`, `ssim`, `tuned ssim`, `predicted` and the fixed rates.
    `tuned ssim` has thresholds for each clip, an oracle that no system has; `adaptive, all clips` shares one budget
    out over all of them, and `tuned ssim, all clips` has the one best set of thresholds for all.
    """
    rates = np.array(tokenizer.config.rates)
    calm, similar = (limits[len(limits) + 1 - len(rates) :] for limits in (MOTION_LIMITS, SSIM_LIMITS))
    found: Plan = {}
    for i, rate in enumerate(tokenizer.config.rates):
        share = sum(one.measured.costs[:, i].sum() for one in studies) / _most(studies)
        found["fixed", share] = [(rate,) * len(one.lengths) for one in studies]
    budgets = sorted({*SHARES, *(share for _, share in found)})
    for share in budgets:
        picked: dict[str, list[list[int]]] = {}
        for one in studies:
            cost, loss = one.measured.costs, monotone(one.measured.distortion, one.measured.costs)
            budget = max(round(share * int(cost[:, 0].sum())), int(cost.min(axis=1).sum()))
            ways: dict[str, list[int]] = {
                "adaptive": allocate(loss, cost, budget),
                "motion": by_motion(one.motions, cost, calm, budget),
                "ssim": by_ssim(one.similarity, cost, similar, budget),
                "tuned ssim": by_tuned_ssim(one.similarity, loss, cost, budget)[0],
            }
            if one.predicted is not None:
                ways["predicted"] = allocate(monotone(one.predicted, cost), cost, budget)
            for name, options in ways.items():
                picked.setdefault(name, []).append(options)
        cost = np.concatenate([one.measured.costs for one in studies])
        loss = np.concatenate([monotone(one.measured.distortion, one.measured.costs) for one in studies])
        budget = max(round(share * int(cost[:, 0].sum())), int(cost.min(axis=1).sum()))
        similarity = np.concatenate([one.similarity for one in studies])
        for name, options in (
            ("adaptive, all clips", allocate(loss, cost, budget)),
            ("tuned ssim, all clips", by_tuned_ssim(similarity, loss, cost, budget)[0]),
        ):
            together = iter(options)
            picked[name] = [list(islice(together, len(one.lengths))) for one in studies]
        for name, choices in picked.items():
            found[name, share] = [tuple(int(rate) for rate in rates[options]) for options in choices]
    return found


def prices(studies: Sequence[Study]) -> dict[str, list[dict[str, float]]]:
    """Return λ for shares of what the lowest rate takes over all clips, by measured and by predicted distortions.

    A share that is below the minimum has the λ of the minimum.
    """
    cost = np.concatenate([one.measured.costs for one in studies])
    found = {"measured": np.concatenate([one.measured.distortion for one in studies])}
    predicted = [one.predicted for one in studies if one.predicted is not None]
    if predicted:
        found["predicted"] = np.concatenate(predicted)
    least, most = int(cost.min(axis=1).sum()), int(cost.max(axis=1).sum())
    return {
        name: [{"share": share, "lam": lam_for(loss, cost, max(int(share * most + 1e-9), least))} for share in PRICED]
        for name, loss in found.items()
    }


def _most(studies: Sequence[Study]) -> int:
    return sum(int(one.measured.costs[:, 0].sum()) for one in studies)


def summary(tokenizer: AnyTokenizer, studies: Sequence[Study], made: Plan, config: EvalConfig) -> dict[str, Any]:
    """Return the record of an evaluation: means over clips by rate and kind of motion, curves, and every clip."""
    frames = sum(one.frames for one in studies)
    by_rate = {str(rate): _mean([one.by_rate[rate] for one in studies]) for rate in tokenizer.config.rates}
    kinds = sorted({one.clip.kind for one in studies})
    by_kind = {
        kind or "not measured": {
            str(rate): _mean([one.by_rate[rate] for one in studies if one.clip.kind == kind])
            for rate in tokenizer.config.rates
        }
        for kind in kinds
    }
    curves: dict[str, list[dict[str, float]]] = {}
    for (method, share), choice in sorted(made.items()):
        spent = sum(sum(counts(one.lengths, rates)) for one, rates in zip(studies, choice, strict=True))
        errors = [one.coded[rates] for one, rates in zip(studies, choice, strict=True)]
        each = [psnr(error / one.frames) for error, one in zip(errors, studies, strict=True)]
        curves.setdefault(method, []).append(
            {"share": share, "latents": spent, "latents_per_frame": spent / frames,
             "psnr": psnr(sum(errors) / frames), "mean_psnr": sum(each) / len(each)}
        )  # fmt: skip
    return {
        "fingerprint": fingerprint(tokenizer), "config": asdict(config), "clips": len(studies), "frames": frames,
        "by_rate": by_rate, "by_kind": by_kind, "curves": curves, "lam": prices(studies),
        "each": [
            {"clip": one.clip.name, "kind": one.clip.kind, "frames": one.frames,
             "by_rate": {str(rate): figures for rate, figures in one.by_rate.items()},
             "gain": _gains(made, studies, i)}
            for i, one in enumerate(studies)
        ],
    }  # fmt: skip


def _mean(figures: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each figure over the clips that have it."""
    table = {name: [each[name] for each in figures if each[name] is not None] for name in figures[0]}
    return {name: sum(values) / len(values) if values else None for name, values in table.items()}  # type: ignore[arg-type]


def _gains(made: Plan, studies: Sequence[Study], i: int) -> dict[str, float]:
    """Return by how many dB choosing rates beats each fixed rate of the same latents, in one clip."""
    one, gains = studies[i], {}
    for (method, share), choice in made.items():
        if method == "fixed" and ("adaptive", share) in made:
            better = one.coded[made["adaptive", share][i]]
            gains[str(choice[i][0])] = psnr(better / one.frames) - psnr(one.coded[choice[i]] / one.frames)
    return gains


def drawn(found: dict[str, Any]) -> str:
    """Return the rate–distortion curves as SVG."""
    lines = [
        Line(method, sorted((point["latents_per_frame"], point["psnr"]) for point in points), method == "fixed")
        for method, points in found["curves"].items()
    ]
    title = f"{found['clips']} clips, {found['frames']} frames"
    return chart(lines, title, "latents per frame", "PSNR of all frames, dB", log_x=True)


def lines_of(found: dict[str, Any]) -> list[str]:
    """Return an evaluation as lines for the terminal."""
    head = f"{'rate':<14}{'latents':>9}{'PSNR':>8}{'SSIM':>8}{'feature':>9}{'flicker':>9}"
    lines = [f"{found['clips']} clips, {found['frames']} frames, means over clips", head]
    for name, table in ({"": found["by_rate"]} | found["by_kind"]).items():
        for rate, f in table.items():
            similar = "-" if f["ssim"] is None else f"{f['ssim']:.4f}"
            lines.append(
                f"{rate + ' ' + name:<14}{f['latents']:>9.1f}{f['psnr']:>8.2f}{similar:>8}"
                f"{f['feature']:>9.4f}{f['flicker']:>9.2f}"
            )
    for method, points in found["curves"].items():
        shown = "  ".join(f"{point['share']:.3g}: {point['psnr']:.2f}" for point in points)
        lines.append(f"{method:<22}{shown}")
    for name, points in found["lam"].items():
        shown = "  ".join(f"{point['share']:.4g}: {point['lam']:.4g}" for point in points)
        lines.append(f"{f'λ of a share, {name}':<24}{shown}")
    return lines
