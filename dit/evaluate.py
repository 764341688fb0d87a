"""Evaluate a diffusion transformer on the latents that it was trained on: `rushes dit eval RUN`.

    OUT/metrics.json   every figure, with the sizes of the sets
    OUT/loss.svg       held-out loss by noise level, beside predictors that know nothing of pictures
    OUT/nearest.png    generated clips, each above the training clip that is nearest to it

Real clips are latents decoded by the tokenizer, as generated ones are: the tokenizer's own loss is in both. Clips that
training held out come first; where they are too few, clips that were trained on fill up, and are counted. Memory holds
one clip at a time, and of the others a vector and a strip of small pictures. What distances are of: `judge.py`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rushes.dit import flow, sample
from rushes.dit.config import DiTConfig, EvalConfig, TrainConfig
from rushes.dit.data import LatentClip, parse, require_same
from rushes.dit.frechet import distances, diversity, frechet
from rushes.dit.index import read_index
from rushes.dit.judge import Judge, Seen, camera_of, facts_of_clip, plan_of, sheet
from rushes.dit.model import DiT, load, patchify
from rushes.dit.module import FlowModule
from rushes.dit.plan import VALIDATION, Ticket, Windows, generator
from rushes.dit.predictors import Gaussian, Linear, Predictor, Zero
from rushes.dit.statistics import MEASURED_CLIPS, Statistics
from rushes.dit.text import TextEncoder
from rushes.dit.train import Clips, content_of
from rushes.filters import embed
from rushes.pipelines.store import storage
from rushes.tokenizer import codec as codecs
from rushes.tokenizer.config import Tell, silent
from rushes.tokenizer.plots import Line, chart

TIMES = tuple(number / 20 for number in range(1, 20, 2))
"""Noise levels at which the loss is measured."""
ASKED_STD = 2.0
"""How far a camera is asked to move, in standard deviations of the clips of the training."""
MOVES = ("pan", "tilt", "zoom")
FURTHER = 100_000
"""From the seeds of clips like real ones to those of clips of one prompt."""
LEAST_CLIPS = 4
"""For a Fréchet distance between halves."""


def evaluate(
    folder: str, tokenizer: str, latents: str, out: str, config: EvalConfig, weights: Path, tell: Tell = silent
) -> dict[str, Any]:
    """Return what a training of a diffusion transformer came to, and write it.

    Args:
        folder: folder of the training.
        tokenizer: name of the tokenizer that made the latents, see `tokenizer.codec`.
        latents: the latents that it was trained on.
        out: folder to write to.
        config: sizes of the sets, and how to sample.
        weights: EfficientNet-Lite0's, as its package has them.
        tell: told of each clip that is looked at.

    Raises:
        ValueError: there is no model, or tokenizer or latents are not those of the training.
    """
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    if config.device == "cuda" and device.type != "cuda":
        raise ValueError("device='cuda', but torch sees no GPU; use device='auto'")
    dit, about = load(f"{folder}/model")
    index, settings = read_index(latents), settings_of(folder, latents, dit.config)
    codec = codecs.load(tokenizer).to(device)
    trained = about.get("tokenizer_name", codecs.OURS), str(about["tokenizer"])
    require_same(folder, trained, (codecs.name_of(codec), codecs.fingerprint(codec)), f"{tokenizer} is")
    clips = Clips(index, settings, Path(storage.local_path(folder)) / "text", tell)
    clips.prepare_data()
    dit, config = dit.to(device), replace(config, shift=config.shift or settings.shift)
    judge = Judge(
        dit=dit, codec=codec, text=TextEncoder(dit.config, device),
        features=embed.load_lite0(weights, str(device)), config=config,
    )  # fmt: skip
    found: dict[str, Any] = {
        "fingerprint": about["fingerprint"], "steps": about.get("step"), "config": asdict(config),
        "loss": losses(dit, clips, folder),
    }  # fmt: skip
    found |= judged(judge, clips, out, tell)
    storage.write_bytes(f"{out}/metrics.json", (json.dumps(found, indent=1) + "\n").encode())
    curves = [Line(name, list(zip(TIMES, row, strict=True)), marks=True) for name, row in found["loss"]["at"].items()]
    title = f"Loss on {'held-out' if found['loss']['held_out'] else 'training'} clips"
    storage.write_bytes(f"{out}/loss.svg", chart(curves, title, "t, from data to noise", "flow loss").encode())
    return found


def settings_of(folder: str, latents: str, model: DiTConfig) -> TrainConfig:
    """Return the settings of a training. Raises ValueError where it was trained on other latents."""
    try:
        record = json.loads(storage.read_bytes(f"{folder}/train.json"))
    except FileNotFoundError as error:
        if storage.exists(f"{folder}/distill.json"):
            raise ValueError(
                f"{folder} holds a student; give the folder of the training that it was made of"
            ) from error
        raise ValueError(f"{folder} holds no training (no train.json); train with `rushes dit train`") from error
    if record["latents"] != content_of(latents):
        raise ValueError(
            f"{folder} was trained on other latents than {latents}: nothing tells which of them are held out; "
            "give the run with its latents, or train again"
        )
    return TrainConfig(**{**record["train"], "model": model})


def losses(dit: DiT, clips: Clips, folder: str) -> dict[str, Any]:
    """Return the loss at each noise level of the network and of predictors that know nothing of pictures.

    `as` is the network's as an error of what others predict, noise, data or v, at EDM's `sigmas`: papers tell of those.
    """
    statistics = Statistics.from_json(json.loads(storage.read_bytes(f"{folder}/statistics.json")))
    module, batches = FlowModule(clips.config, statistics).to(dit.device), clips.validation()
    some = first_windows(clips, clips.trained, MEASURED_CLIPS, clips.config.seed)
    tokens = (patchify(clip.latents.float(), dit.config.patch) for clip in some)
    predictors: dict[str, Predictor] = {
        "network": dit, "zero": Zero(dit), "unit Gaussian": Gaussian(dit), "best linear": Linear(dit, tokens),
    }  # fmt: skip
    at = {name: list(module.validate(one, batches, TIMES).values()) for name, one in predictors.items()}
    scales = {target: flow.conversion(target, torch.tensor(TIMES))[1].square().tolist() for target in flow.TARGETS}
    return {
        "held_out": clips.held, "windows": sum(len(batch.tickets) for batch in batches), "times": list(TIMES),
        "mean": {name: float(np.mean(row)) for name, row in at.items()}, "at": at,
        "sigmas": [flow.sigma(t) for t in TIMES],
        "as": {target: (np.array(scale) * at["network"]).tolist() for target, scale in scales.items()},
    }  # fmt: skip


def judged(judge: Judge, clips: Clips, out: str, tell: Tell) -> dict[str, Any]:
    """Return what is found of generated clips: distance, nearest training clips, diversity, camera."""
    config, seed = judge.config, judge.config.seed
    held = min(config.clips, len(np.unique(clips.held_out.clip)))

    def references() -> Iterator[LatentClip]:
        """Read anew each time: latents are large."""
        yield from first_windows(clips, clips.held_out, held, seed)
        yield from first_windows(clips, clips.trained, config.clips - held, seed)

    plans = [plan_of(clip) for clip in references()]
    trained = min(config.trained, len(np.unique(clips.trained.clip)))
    moves = _moves(judge.dit)
    total = 2 * len(plans) + trained + config.samples * (1 + 2 * len(moves))
    done = itertools.count(1)

    def told(seen: Iterable[Any]) -> list[Any]:
        found = []
        for one in seen:
            found.append(one)
            tell(next(done), total, "clips looked at", {})
        return found

    tell(0, total, "clips looked at", {})
    real = told(judge.real(clip) for clip in references())
    made = told(
        judge.generated(plan_of(clip), seed + number, clip.caption, facts_of_clip(clip, judge.dit))
        for number, clip in enumerate(references())
    )
    known = told(judge.real(clip) for clip in first_windows(clips, clips.trained, trained, seed))
    prompt = next(references()).caption
    same = told(judge.generated(plans[0], seed + FURTHER + number, prompt, {}) for number in range(config.samples))
    storage.write_bytes(f"{out}/nearest.png", sheet(made, known))
    return {
        "sets": {"real": len(real), "of_them_held_out": held, "generated": len(made), "trained": len(known),
                 "of_trained": len(set(clips.trained.clip.tolist()))},
        "frechet": frechets(real, made),
        "nearest": nearest(real[:held], made, known),
        "diversity": {"prompt": prompt, "samples": len(same), "of_samples": _diversity(same),
                      "of_real": _diversity(real)},
        "camera": cameras(judge, moves, plans, told),
    }  # fmt: skip


def frechets(real: Sequence[Seen], made: Sequence[Seen]) -> dict[str, float] | None:
    """Return Fréchet distances of vectors of frames; None of too few.

    `real_generated` is that of both sets. The others are of halves, every second clip, for a distance of few clips
    is too large: `floor` between the halves of the real set, `generated` from one to clips generated like the other,
    and `shuffled` to the other with its frames out of order, which must be further away than the floor.
    """
    if len(real) < LEAST_CLIPS:
        return None
    one, other = (np.stack([clip.vector for clip in real[first::2]]) for first in (0, 1))
    return {
        "real_generated": frechet(np.stack([clip.vector for clip in real]), np.stack([clip.vector for clip in made])),
        "floor": frechet(one, other),
        "generated": frechet(one, np.stack([clip.vector for clip in made[1::2]])),
        "shuffled": frechet(one, np.stack([clip.shuffled for clip in real[1::2]])),
    }


def nearest(held: Sequence[Seen], made: Sequence[Seen], known: Sequence[Seen]) -> dict[str, Any] | None:
    """Return the nearest training clip of each generated one, by the mean of their frames' features.

    Beside it stands how near held-out clips are to their nearest: what is generated and much nearer is a copy.
    """
    if not known:
        return None
    table = distances(np.stack([clip.shown for clip in made]), np.stack([clip.shown for clip in known]))
    own = [float(distances(clip.shown[None], np.stack([one.shown for one in known])).min()) for clip in held]
    return {
        "generated": float(np.median(table.min(axis=1))),
        "held_out": float(np.median(own)) if own else None,
        "each": [
            {"key": known[row].key, "distance": float(table[i, row])} for i, row in enumerate(table.argmin(axis=1))
        ],
    }


def cameras(judge: Judge, moves: Mapping[str, float], plans: Sequence[sample.Plan], told: Any) -> dict[str, Any]:
    """Return for each direction of the camera how much of it was asked for, and what the generated clips do.

    Nothing else is asked of them; they are as long and as large as clips of the training.
    """
    found, asked_of = {}, list(itertools.islice(itertools.cycle(plans), judge.config.samples))
    for name, amount in moves.items():
        for sign, word in ((1, "+"), (-1, "-")):
            asked = {name: sign * amount}
            measured = told(
                camera_of(judge.frames(planned, judge.latents(planned, judge.config.seed + i, "", asked)), planned.fps)
                for i, planned in enumerate(asked_of)
            )
            values = [getattr(one, name) for one in measured]
            found[f"{word}{name}"] = {
                "asked": sign * amount, "measured": float(np.mean(values)), "samples": len(values),
                "right": float(np.mean([value * sign > 0 for value in values])),
            }  # fmt: skip
    right = [one["right"] for one in found.values()]
    return {"right": float(np.mean(right)) if right else None, "by_chance": 0.5, "directions": found}


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """Return an evaluation as lines for the terminal."""
    loss, sets, far, near = found["loss"], found["sets"], found["frechet"], found["nearest"]
    whose = "held-out clips" if loss["held_out"] else "clips that were trained on, for none is held out"
    lines = [f"loss on {loss['windows']} windows of {whose}, t = {TIMES[0]:g} … {TIMES[-1]:g}"]
    for name, row in loss["at"].items():
        lines.append(f"  {name:<16}{loss['mean'][name]:>7.3f}   " + _row(row))
    lines.append(f"the network's, as others count it, sigma = {loss['sigmas'][0]:.2g} … {loss['sigmas'][-1]:.2g}")
    lines += [
        f"  {name:<16}{np.mean(row):>7.3f}   {_row(row)}" for name, row in loss["as"].items() if name != "velocity"
    ]
    few = sets["real"] < embed.LITE0_WIDTH * 2
    lines += [
        f"{sets['real']} real clips, {sets['of_them_held_out']} of them held out, {sets['generated']} generated"
        + (f": few for {2 * embed.LITE0_WIDTH} features, so all distances are too large" if few else "")
    ]
    if far is None:
        lines.append(f"no Fréchet distance: it takes {LEAST_CLIPS} clips")
    else:
        lines += [
            f"Fréchet distance of EfficientNet-Lite0 features (mean, steps): {far['real_generated']:.1f}; of halves:",
            f"  generated {far['generated']:.1f}, real {far['floor']:.1f} (the floor), shuffled {far['shuffled']:.1f}"
            + ("" if far["shuffled"] > far["floor"] else ": not above the floor, so the order of frames is not told"),
        ]
    if near:
        held = "" if near["held_out"] is None else f", of held-out clips {near['held_out']:.2f}"
        lines.append(
            f"nearest of {sets['trained']} training clips (of {sets['of_trained']}), median distance: of generated "
            f"clips {near['generated']:.2f}{held}; see nearest.png"
        )
    various, right = found["diversity"], found["camera"]["right"]
    values = various["of_samples"], various["of_real"]
    of_samples, of_real = ("-" if value is None else f"{value:.2f}" for value in values)
    how = "not asked, for no clip that was trained on moves" if right is None else f"{right:.2f}, by chance 0.5"
    lines += [
        f"diversity, mean distance of {various['samples']} clips of one prompt: {of_samples}, of real clips {of_real}",
        f"camera goes the way that is asked: {how}",
    ]
    for name, one in found["camera"]["directions"].items():
        lines.append(
            f"  {name:<6} asked {one['asked']:+.3f}, measured {one['measured']:+.3f}, right {one['right']:.2f} of "
            f"{one['samples']}"
        )
    return lines


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def first_windows(clips: Clips, found: Windows, most: int, seed: int) -> Iterator[LatentClip]:
    """Yield some clips of windows, the same for a seed: of each the first window, cropped as in training."""
    index, first = clips.index, np.flatnonzero(found.number == 0)
    for at in sorted(generator("evaluated", seed).permutation(first)[: max(most, 0)].tolist()):
        row = int(found.clip[at])
        ticket = Ticket(seed=clips.config.seed, clip=index.key(row), epoch=VALIDATION, window=0)
        clip = parse(index.read(row), index.fingerprint).window(int(found.first[at]), int(found.last[at]))
        yield clip.cropped(clips.config.max_cells, ticket)


def _moves(dit: DiT) -> dict[str, float]:
    """Return how much of each move of the camera is asked for; one that no clip makes cannot have been learned."""
    spread = dict(zip(dit.config.facts, dit.fact_std.tolist(), strict=True))
    return {name: ASKED_STD * spread[name] for name in MOVES if spread.get(name, 1.0) != 1.0}


def _diversity(seen: Sequence[Seen]) -> float | None:
    return diversity(np.stack([clip.shown for clip in seen])) if len(seen) > 1 else None
