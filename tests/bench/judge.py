"""Trains the judge of cuts: `python -m tests.bench.judge FOOTAGE WORK` writes `filters/judge.npz`.

It learns from films of each kind of footage that makes false cuts, takes with pieces taken out, the same takes whole,
and labelled films: those of the tuning half alone. Each is made, scanned and looked at by the witness once; its numbers
stand in a file below WORK, so that the command can be stopped and given again. About two hours on one core.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rushes.filters import cuts, judge, transitions
from rushes.filters.steps import evidence
from rushes.pipelines.config import ShotsConfig
from tests.bench import jump_cuts, kinds
from tests.bench.test_cuts import NEAR_FRAMES, Scanned, labels

FILMS = {"limited animation": 30, "screens": 16, "stutter": 16, "occluders": 16}
"""Films of kinds, of which it takes many to learn what they have in common; of the others there are `FEWER`."""
FEWER = 10
WAYS = (("whole", "good"), ("whole", "poor"), ("pan", "good"), ("noise", "poor"), ("dropped", "good"),
        ("repeated", "poor"), ("pan", "old"))  # fmt: skip
"""How takes are changed before pieces are taken out of them, and encoded."""
HIDDEN, NETWORKS, STEPS, RATE = 32, 8, 1500, 1e-2
LIMIT = 2.5
"""Spreads from the mean beyond which a number tells no more: footage is not always what anybody thought of."""
JUMPS = 2.0
"""What a jump cut weighs in training, by any other step."""
DECAY, NOISE, UNASKED, DOUBT = 2e-4, 0.1, 0.25, 0.01
"""Weight of the squares of weights, noise on numbers, how often nobody asks the witness, and how wrong labels are."""

Film = tuple[Path, Sequence[int], Sequence[Sequence[int]], dict[str, Any] | None]
"""Where it is, the frames of its cuts, ranges that do not count, and its label where it has one."""
Steps = tuple[list[dict[str, float]], NDArray[np.float64], NDArray[np.float64]]
"""Numbers of steps, what the witness says of each, and whether it is a cut."""


def films(footage: Path, folder: Path) -> Iterator[tuple[str, Callable[[], Film]]]:
    """Yield the name of each film, and what makes it."""
    for kind in kinds.KINDS:
        for seed in range(FILMS.get(kind, FEWER)):
            yield f"{kind}-{seed}".replace(" ", "_"), partial(_of_kind, footage, folder, kind, seed)
    for take in (take for take in jump_cuts.takes(footage) if take.is_tuning):
        name = take.name.replace("/", "__")
        for encoder in jump_cuts.ENCODERS:
            yield f"{name}-jumps-{encoder}", partial(_jumped, footage, folder, take, encoder)
        for seed in range(len(WAYS)):
            yield f"{name}-jumps-{seed}", partial(_changed, footage, folder, take, seed)
        ways = [*(("whole", encoder) for encoder in jump_cuts.ENCODERS), *((way, "good") for way in jump_cuts.VARIANTS)]
        for way, encoder in ways:
            yield f"{name}-{way}-{encoder}", partial(_continuous, footage, folder, take, way, encoder)
    for name, label in sorted(labels(footage).items()):
        if label["cuts_exhaustive"] and zlib.crc32(name.encode()) % 2 == 0:
            yield f"labelled-{name.replace('/', '__')}", partial(_labelled, footage / name, label)


def _of_kind(footage: Path, folder: Path, kind: str, seed: int) -> Film:
    made = kinds.make(footage, folder, kind, seed, is_tuning=True)
    return made.path, made.cuts, [], None


def _jumped(footage: Path, folder: Path, take: jump_cuts.Take, encoder: str) -> Film:
    return _written(jump_cuts.jumped(take, *jump_cuts.read(footage, take), encoder), folder)


def _changed(footage: Path, folder: Path, take: jump_cuts.Take, seed: int) -> Film:
    frames, fps = jump_cuts.read(footage, take)
    way, encoder = WAYS[seed]
    again = replace(take, first=take.first + 100_000 * (seed + 1))  # other joins
    changed = _in_a_way(frames, way, np.random.default_rng([zlib.crc32(take.name.encode()), seed]))
    return _written(jump_cuts.jumped(again, changed, fps, encoder), folder)


def _continuous(footage: Path, folder: Path, take: jump_cuts.Take, way: str, encoder: str) -> Film:
    frames, fps = jump_cuts.read(footage, take)
    changed = _in_a_way(frames, way, np.random.default_rng(zlib.crc32(f"{take.name} {way}".encode())))
    return _written(jump_cuts.Made(take=take, variant=way, frames=changed, fps=fps, encoder=encoder), folder)


def _in_a_way(frames: Sequence[jump_cuts.Frames], way: str, rng: np.random.Generator) -> Sequence[jump_cuts.Frames]:
    return frames if way == "whole" else jump_cuts.VARIANTS[way](frames, rng)


def _written(made: jump_cuts.Made, folder: Path) -> Film:
    unseen = [(at - NEAR_FRAMES, at + NEAR_FRAMES) for at in made.unseen]
    return jump_cuts.write(made, folder), made.cuts, unseen, None


def _labelled(path: Path, label: dict[str, Any]) -> Film:
    unsure = [*(label.get("uncertain") or []), *(t["frames"] for t in label.get("transitions") or [])]
    return path, [cut["frame"] for cut in label["cuts"]], unsure, label


def steps_of(film: Film) -> Steps:
    """Return the steps of a film that may be cuts; those in a gradual transition are left out."""
    path, truth, unsure, label = film
    scanned, rules = Scanned(path, everywhere=True), ShotsConfig()
    signals = scanned.witnessed()
    known, time_s = cuts.candidates(signals, rules), signals["time_s"]
    ranges = [np.searchsorted(time_s, (b.start_s, b.end_s)) for b in transitions.gradual(signals, rules)]
    steps = known.steps.tolist()
    counted = dict(zip(steps, scanned.as_labelled(label, steps) if label else steps, strict=True))
    free = [
        at for at in steps
        if not any(a <= counted[at] <= b for a, b in unsure) and not any(a < at < b for a, b in ranges)
    ]  # fmt: skip
    is_cut = [any(abs(counted[at] - cut) <= NEAR_FRAMES for cut in truth) for at in free]
    return [evidence(signals, at, known) for at in free], cuts.asked(signals)[free], np.array(is_cut, np.float64)


class Network(nn.Module):
    """One hidden layer; gives log odds, and how much the log odds of the witness count."""

    def __init__(self, numbers: int):
        super().__init__()
        self.into, self.out = nn.Linear(numbers, HIDDEN), nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor, witness: Tensor) -> Tensor:
        """Return the log odds that each step is a cut."""
        odds, weight = self.out(torch.tanh(self.into(x))).unbind(1)
        return odds + nn.functional.softplus(weight) * witness


def trained(steps: Steps, counts: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Return the weights of `rushes.filters.judge.Judge`; each step counts in training as it is told."""
    numbers, said, is_cut = steps
    names = sorted(numbers[0])
    missing = [name for name in names if np.mean([np.isnan(step[name]) for step in numbers]) > 0.002]
    x = judge.compressed(numbers, names, missing)
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    inputs = [np.clip((x - mean) / spread, -LIMIT, LIMIT), judge.log_odds(said), is_cut, counts]
    found = [_fitted([torch.tensor(part, dtype=torch.float32) for part in inputs], seed) for seed in range(NETWORKS)]
    into, out = [net.into for net in found], [net.out for net in found]
    layers = {
        "into": [layer.weight.T for layer in into], "offset": [layer.bias for layer in into],
        "out": [layer.weight.T for layer in out], "base": [layer.bias for layer in out],
    }  # fmt: skip
    weights = {name: torch.stack(parts).detach().numpy().astype(np.float32) for name, parts in layers.items()}
    return weights | {"names": np.array(names), "missing": np.array(missing), "mean": mean.astype(np.float32),
                      "spread": spread.astype(np.float32), "limit": np.array(LIMIT)}  # fmt: skip


def _fitted(inputs: Sequence[Tensor], seed: int) -> Network:
    x, witness, is_cut, counts = inputs
    torch.manual_seed(seed)
    net = Network(x.shape[1])
    optimizer = torch.optim.Adam(net.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    weights = [net.into.weight, net.out.weight]
    for _ in range(STEPS):
        asked = (torch.rand(len(x)) >= UNASKED).float()
        odds = net(x + NOISE * torch.randn(x.shape), asked * witness)
        loss = nn.functional.binary_cross_entropy_with_logits(odds, is_cut * (1 - 2 * DOUBT) + DOUBT, weight=counts)
        loss = loss + DECAY * sum((weight**2).sum() for weight in weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net


def main(footage: Path, work: Path) -> None:
    """Make what is not made yet, train and write the weights."""
    work.mkdir(parents=True, exist_ok=True)
    numbers: list[dict[str, float]] = []
    said, is_cut, counts = list[float](), list[float](), list[float]()
    for name, make in films(footage, work):
        kept = work / f"{name}.npz"
        if not kept.exists():
            film = make()
            found, heard, truth = steps_of(film)
            names = sorted(found[0]) if found else []
            rows = np.array([[step[name] for name in names] for step in found], np.float64)
            np.savez(kept, names=names, rows=rows, said=heard, is_cut=truth)
            if film[0].parent == work:
                film[0].unlink()
            print(name, int(truth.sum()), "of", len(truth), "steps are cuts", flush=True)
        with np.load(kept, allow_pickle=False) as all_:
            numbers += [dict(zip(all_["names"].tolist(), row, strict=True)) for row in all_["rows"].tolist()]
            said += all_["said"].tolist()
            is_cut += (truth := all_["is_cut"].tolist())
            counts += [JUMPS if is_one and "-jumps-" in name else 1.0 for is_one in truth]
    weights = trained((numbers, np.array(said), np.array(is_cut)), np.array(counts))
    np.savez(Path(cuts.__file__).with_name(judge.WEIGHTS), **weights)
    print(len(numbers), "steps,", int(sum(is_cut)), "cuts:", judge.WEIGHTS, "written")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
