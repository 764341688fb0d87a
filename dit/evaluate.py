"""Evaluate a diffusion transformer on the latents that it was trained on: `rushes dit eval RUN`.

    OUT/metrics.json   every figure, with the sizes of the sets
    OUT/loss.svg       held-out loss by noise level, beside predictors that know nothing of pictures
    OUT/nearest.png    generated clips, each above the training clip that is nearest to it

Real clips are latents decoded by the tokenizer, as generated ones are: the tokenizer's own loss is in both. Clips that
training held out come first; where they are too few, clips that were trained on fill up, and are counted. Memory holds
one clip at a time, and of the others a vector and a strip of small pictures.

A clip's vector is made of EfficientNet-Lite0's pooled features (ImageNet) of some of its frames: their mean, which
tells what is shown, and the root mean square of their steps, which tells how it changes, and the order of frames with
it. The Fréchet distance of such vectors is neither FID nor FVD, and not to be compared with them.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from rushes.dit import sample
from rushes.dit.config import DiTConfig, EvalConfig, SampleConfig, TrainConfig
from rushes.dit.data import LatentClip, facts_of, parse, require_same
from rushes.dit.frechet import distances, diversity, frechet
from rushes.dit.index import Index, read_index
from rushes.dit.model import DiT, load, patchify
from rushes.dit.module import FlowModule
from rushes.dit.plan import Ticket, Windows, generator
from rushes.dit.predictors import Gaussian, Linear, Predictor, Zero
from rushes.dit.statistics import MEASURED_CLIPS, Statistics
from rushes.dit.text import TextEncoder
from rushes.dit.train import Clips, content_of
from rushes.filters import camera, embed, motion
from rushes.pipelines.store import storage
from rushes.tokenizer import codec as codecs
from rushes.tokenizer.codec import AnyTokenizer
from rushes.tokenizer.config import Tell, silent
from rushes.tokenizer.plots import Line, chart

TIMES = tuple(number / 20 for number in range(1, 20, 2))
"""Noise levels at which the loss is measured."""
AT_ONCE = 2
"""Frames that the network of features looks at together; more are slower on a core."""
STRIP_PX, SHOWN = 64, 8
"""Height of the pictures of strips, and generated clips that are shown at most."""
TICK_HZ, LUMA_PX = 15, 128
"""Pictures a second and their width, in which motion is measured, as in a scan."""
ASKED_STD = 2.0
"""How far a camera is asked to move, in standard deviations of the clips of the training."""
MOVES = ("pan", "tilt", "zoom")
LEAST_CLIPS = 4
"""For a Fréchet distance between halves."""
Frames = UInt8[np.ndarray, "t h w 3"]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is kept of a clip."""

    vector: Float[np.ndarray, " d"]
    """Mean of its frames' features, then root mean square of their steps."""
    shuffled: Float[np.ndarray, " d"]
    """The same of its frames in random order."""
    strip: Frames
    """Its frames, small."""

    @property
    def shown(self) -> Float[np.ndarray, " d"]:
        """What it shows, without how it changes."""
        return self.vector[: len(self.vector) // 2]


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Everything that looks at clips or makes them."""

    dit: DiT
    about: dict[str, Any]
    codec: AnyTokenizer
    text: TextEncoder
    features: embed.Lite0
    config: EvalConfig

    def real(self, clip: LatentClip) -> Seen:
        """Return what is seen of a clip of the latents."""
        planned = plan_of(clip)
        return self._seen(planned, clip.latents.float().to(self.dit.device), clip.key)

    def generated(self, planned: sample.Plan, seed: int, prompt: str, facts: dict[str, float]) -> Seen:
        """Return what is seen of a clip that is generated."""
        return self._seen(planned, self.latents(planned, seed, prompt, facts), f"{seed}")

    def latents(
        self, planned: sample.Plan, seed: int, prompt: str, facts: dict[str, float]
    ) -> Float[torch.Tensor, "l c h w"]:
        """Return latents that are generated."""
        config = self.config
        asked = SampleConfig(
            prompt=prompt, facts=facts, fps=planned.fps, steps=config.steps, sampler=config.sampler,
            guidance=config.guidance, shift=config.shift, seed=seed,
        )  # fmt: skip
        return sample.generate(self.dit, planned, sample.condition(asked, self.dit, self.text), asked)

    def _seen(self, planned: sample.Plan, latents: Float[torch.Tensor, "l c h w"], key: str) -> Seen:
        total = sum(planned.lengths)
        wanted = np.linspace(0, total - 1, min(self.config.frames, total)).round().astype(int)
        frames = _picked(sample.frames_of(self.codec, latents, planned), set(wanted.tolist()))
        found = [embed.look_lite0(self.features, frames[i : i + AT_ONCE])[0] for i in range(0, len(frames), AT_ONCE)]
        looked = np.concatenate(found)
        order = generator("shuffled", self.config.seed, key).permutation(len(looked))
        return Seen(vector=vector_of(looked), shuffled=vector_of(looked[order]), strip=_small(frames))


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
    index, settings = read_index(latents), _settings(folder, latents, dit.config)
    codec = codecs.load(tokenizer).to(device)
    trained = about.get("tokenizer_name", codecs.OURS), str(about["tokenizer"])
    require_same(folder, trained, (codecs.name_of(codec), codecs.fingerprint(codec)), f"{tokenizer} is")
    clips = Clips(index, settings, Path(storage.local_path(folder)) / "text", tell)
    clips.prepare_data()
    dit = dit.to(device)
    judge = Judge(
        dit=dit, about=about, codec=codec, text=TextEncoder(dit.config, device),
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


def _settings(folder: str, latents: str, model: DiTConfig) -> TrainConfig:
    """Return the settings of a training. Raises ValueError where it was trained on other latents."""
    try:
        record = json.loads(storage.read_bytes(f"{folder}/train.json"))
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no training (no train.json); train with `rushes dit train`") from error
    if record["latents"] != content_of(latents):
        raise ValueError(
            f"{folder} was trained on other latents than {latents}: nothing tells which of them are held out; "
            "give the run with its latents, or train again"
        )
    return TrainConfig(**{**record["train"], "model": model})


def losses(dit: DiT, clips: Clips, folder: str) -> dict[str, Any]:
    """Return the loss at each noise level of the network and of predictors that know nothing of pictures."""
    statistics = Statistics.from_json(json.loads(storage.read_bytes(f"{folder}/statistics.json")))
    module, batches = FlowModule(clips.config, statistics).to(dit.device), clips.validation()
    rows = _rows(clips.trained, MEASURED_CLIPS, clips.config.seed)
    tokens = (patchify(_read(clips, row).latents.float(), dit.config.patch) for row in rows)
    predictors: dict[str, Predictor] = {
        "network": dit, "zero": Zero(dit), "unit Gaussian": Gaussian(dit), "best linear": Linear(dit, tokens),
    }  # fmt: skip
    at = {name: list(module.validate(one, batches, TIMES).values()) for name, one in predictors.items()}
    return {
        "held_out": clips.held, "windows": sum(len(batch.tickets) for batch in batches), "times": list(TIMES),
        "mean": {name: float(np.mean(row)) for name, row in at.items()}, "at": at,
    }  # fmt: skip


def judged(judge: Judge, clips: Clips, out: str, tell: Tell) -> dict[str, Any]:
    """Return what is found of generated clips: distance, nearest training clips, diversity, camera."""
    config, seed = judge.config, judge.config.seed
    held = _rows(clips.held_out, config.clips, seed)
    rows = [*held, *_rows(clips.trained, config.clips - len(held), seed)]
    trained = _rows(clips.trained, config.trained, seed)
    moves = _moves(judge.dit)
    total = 2 * len(rows) + len(trained) + config.samples * (1 + 2 * len(moves))
    done = itertools.count(1)

    def told(seen: Iterable[Any]) -> list[Any]:
        found = []
        for one in seen:
            found.append(one)
            tell(next(done), total, "clips looked at", {})
        return found

    tell(0, total, "clips looked at", {})
    references = [_read(clips, row) for row in rows]
    references = [within(clip, config.seconds) for clip in references]
    real = told(judge.real(clip) for clip in references)
    made = told(
        judge.generated(plan_of(clip), seed + number, clip.caption, _facts(clip, judge.dit))
        for number, clip in enumerate(references)
    )
    known = told(judge.real(within(_read(clips, row), config.seconds)) for row in trained)
    first = references[0]
    same = told(
        judge.generated(plan_of(first), seed + 1000 + number, first.caption, {}) for number in range(config.samples)
    )
    storage.write_bytes(f"{out}/nearest.png", sheet(made, known))
    return {
        "sets": {"real": len(real), "of_them_held_out": len(held), "generated": len(made), "trained": len(known),
                 "of_trained": len(set(clips.trained.clip.tolist()))},
        "frechet": frechets(real, made),
        "nearest": nearest(real[: len(held)], made, known, [clips.index.key(row) for row in trained]),
        "diversity": {"prompt": first.caption, "samples": len(same), "of_samples": _diversity(same),
                      "of_real": _diversity(real)},
        "camera": cameras(judge, moves, told),
    }  # fmt: skip


def frechets(real: Sequence[Seen], made: Sequence[Seen]) -> dict[str, float] | None:
    """Return Fréchet distances of vectors of frames; None of too few.

    `real_generated` is that of both sets. The others are of halves, whose size they share, for a distance of few clips
    is too large: `floor` between the halves of the real set, `generated` from one to clips generated like the other,
    and `shuffled` to the other with its frames out of order, which must be further away than the floor.
    """
    half = len(real) // 2
    if len(real) < LEAST_CLIPS:
        return None
    one, other = (np.stack([clip.vector for clip in part]) for part in (real[:half], real[half : 2 * half]))
    return {
        "real_generated": frechet(np.stack([clip.vector for clip in real]), np.stack([clip.vector for clip in made])),
        "floor": frechet(one, other),
        "generated": frechet(one, np.stack([clip.vector for clip in made[half : 2 * half]])),
        "shuffled": frechet(one, np.stack([clip.shuffled for clip in real[half : 2 * half]])),
    }


def nearest(
    held: Sequence[Seen], made: Sequence[Seen], known: Sequence[Seen], keys: Sequence[str]
) -> dict[str, Any] | None:
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
        "each": [{"key": keys[row], "distance": float(table[i, row])} for i, row in enumerate(table.argmin(axis=1))],
    }


def cameras(judge: Judge, moves: Mapping[str, float], told: Any) -> dict[str, Any]:
    """Return for each direction of the camera how much of it was asked for, and what the generated clips do."""
    wanted = SampleConfig(seconds=judge.config.seconds)
    found = {}
    planned = sample.plan(sample.resolved(wanted, judge.about), judge.codec)
    for name, amount in moves.items():
        for sign, word in ((1, "+"), (-1, "-")):
            asked = {name: sign * amount}
            measured = told(
                camera_of(sample.frames_of(judge.codec, judge.latents(planned, seed, "", asked), planned), planned.fps)
                for seed in range(judge.config.seed, judge.config.seed + judge.config.samples)
            )
            values = [getattr(one, name) for one in measured]
            found[f"{word}{name}"] = {
                "asked": sign * amount, "measured": float(np.mean(values)), "samples": len(values),
                "right": float(np.mean([value * sign > 0 for value in values])),
            }  # fmt: skip
    right = [one["right"] for one in found.values()]
    return {"right": float(np.mean(right)) if right else None, "by_chance": 0.5, "directions": found}


def camera_of(frames: Iterable[UInt8[np.ndarray, "h w 3"]], fps: float) -> camera.Camera:
    """Return what the camera does in a clip, as a scan measures it: some 15 pictures a second, 128 pixels wide."""
    every, ticks, before = max(1, round(fps / TICK_HZ)), [], None
    for number, frame in enumerate(frames):
        if number % every:
            continue
        height, width = frame.shape[:2]
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        luma = cv2.resize(grey, (LUMA_PX, max(2, round(LUMA_PX * height / width))), interpolation=cv2.INTER_AREA)
        if before is not None:
            ticks.append(motion.between(before, luma.astype(np.uint8), every / fps))
        before = luma.astype(np.uint8)
    columns = {name: np.array([getattr(tick, name) for tick in ticks]) for name in ("pan", "tilt", "zoom", "roll")}
    return camera.camera(columns, np.full(len(ticks), every / fps), aspect=width / height)


def vector_of(looked: Float[np.ndarray, "t d"]) -> Float[np.ndarray, " 2*d"]:
    """Return mean and root mean square of the steps of the features of frames; of one frame no steps."""
    steps = np.diff(looked, axis=0) if len(looked) > 1 else np.zeros_like(looked)
    return np.concatenate([looked.mean(axis=0), np.sqrt(np.square(steps).mean(axis=0))]).astype(np.float64)


def plan_of(clip: LatentClip) -> sample.Plan:
    """Return what a clip of latents is made up of, for one to be generated like it, or to be decoded."""
    facts, (h, w) = clip.facts, clip.latents.shape[-2:]
    full_h, full_w = facts["latent_shape"][-2:]
    height, width = (-(-int(facts[name]) // side) for name, side in (("height", full_h), ("width", full_w)))
    return sample.Plan(
        lengths=tuple(int(length) for length in facts["lengths"][: len(clip.rates)]),
        height=min(int(facts["height"]), height * h), width=min(int(facts["width"]), width * w),
        fps=float(facts["fps"]), rates=clip.rates, counts=clip.counts, cells=(h, w),
    )  # fmt: skip


def within(clip: LatentClip, seconds: float) -> LatentClip:
    """Return the segments of a clip that begin within so many seconds."""
    begins = np.concatenate([[0], np.cumsum(clip.facts["lengths"])[:-1]]) / float(clip.facts["fps"])
    return clip.window(0, max(1, int((begins < seconds).sum())))


def sheet(made: Sequence[Seen], known: Sequence[Seen]) -> bytes:
    """Return a PNG of generated clips, each above the training clip nearest to it."""
    rows, edge = [], 4
    for clip in made[:SHOWN]:
        pair = [clip]
        if known:
            table = distances(clip.shown[None], np.stack([one.shown for one in known]))
            pair.append(known[int(table.argmin())])
        for one in pair:
            rows.append(np.concatenate(list(one.strip), axis=1))
        rows.append(np.full((edge, 1, 3), 255, np.uint8))
    width = max(row.shape[1] for row in rows)
    filled = [np.pad(row, ((0, 1), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(filled)).save(buffer, "png")
    return buffer.getvalue()


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """Return an evaluation as lines for the terminal."""
    loss, sets, far, near = found["loss"], found["sets"], found["frechet"], found["nearest"]
    whose = "held-out clips" if loss["held_out"] else "clips that were trained on, for none is held out"
    lines = [f"loss on {loss['windows']} windows of {whose}, t = {TIMES[0]:g} … {TIMES[-1]:g}"]
    for name, row in loss["at"].items():
        lines.append(f"  {name:<16}{loss['mean'][name]:>7.3f}   " + " ".join(f"{value:.3f}" for value in row))
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


def _rows(found: Windows, most: int, seed: int) -> list[int]:
    """Return some clips of windows, the same for a seed."""
    rows = np.unique(found.clip)
    return sorted(generator("evaluated", seed).permutation(rows)[: max(most, 0)].tolist())


def _read(clips: Clips, row: int) -> LatentClip:
    """Return a clip as large as those that are trained on."""
    index: Index = clips.index
    ticket = Ticket(seed=clips.config.seed, clip=index.key(row), epoch=-1, window=0)
    return parse(index.read(row), index.fingerprint).cropped(clips.config.max_cells, ticket)


def _facts(clip: LatentClip, dit: DiT) -> dict[str, float]:
    """Return the facts of a clip that the network takes."""
    given = facts_of([clip.facts], dit.config.facts)[0].tolist()
    return {name: value for name, value in zip(dit.config.facts, given, strict=True) if np.isfinite(value)}


def _moves(dit: DiT) -> dict[str, float]:
    """Return how much of each move of the camera is asked for; one that no clip makes cannot have been learned."""
    spread = dict(zip(dit.config.facts, dit.fact_std.tolist(), strict=True))
    return {name: ASKED_STD * spread[name] for name in MOVES if spread.get(name, 1.0) != 1.0}


def _diversity(seen: Sequence[Seen]) -> float | None:
    return diversity(np.stack([clip.shown for clip in seen])) if len(seen) > 1 else None


def _picked(frames: Iterable[UInt8[np.ndarray, "h w 3"]], wanted: set[int]) -> list[UInt8[np.ndarray, "h w 3"]]:
    return [frame for number, frame in enumerate(frames) if number in wanted]


def _small(frames: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Frames:
    height, width = frames[0].shape[:2]
    size = (max(1, round(STRIP_PX * width / height)), STRIP_PX)
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
