"""Make a student of a trained diffusion transformer: `rushes dit distill RUN --out RUN/student`.

    OUT/distill.json      the resolved config, the teacher's fingerprint and the latents'
    OUT/paths/            the teacher's paths from noise to data, a file a pack, as float16
    OUT/metrics.jsonl     a line for every `log_every` steps
    OUT/checkpoint.ckpt   everything a resume needs
    OUT/model/            the averaged weights: what `rushes dit sample --dit OUT/model` reads

Packs, captions and facts are those of the teacher's training; of the latents themselves nothing is learned, but how
many there are and when. One process distils. The same command again resumes at the checkpoint as if it had never
stopped; memory holds a pack, and four networks.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from
from safetensors.torch import save as tensors_to

from rushes.dit import matching
from rushes.dit.causal import Row, row_of
from rushes.dit.config import DistillConfig
from rushes.dit.evaluate import settings_of
from rushes.dit.index import read_index
from rushes.dit.matching import Distillation
from rushes.dit.model import load, save
from rushes.dit.module import thinned
from rushes.dit.plan import asked
from rushes.dit.train import Clips, content_of
from rushes.pipelines import threads
from rushes.pipelines.store import storage
from rushes.tokenizer.config import Tell, silent

log = logging.getLogger(__name__)
FREE = ("steps", "log_every", "save_every", "device")
"""Settings that may change at a resume."""


def distill(config: DistillConfig, teacher: str, latents: str, out: str, tell: Tell = silent) -> Path:
    """Distil, or go on distilling, and return the folder of the student.

    Args:
        config: How to distil.
        teacher: Folder of a training, see `train`.
        latents: The latents that it was trained on.
        out: Local folder of the student.
        tell: Told of each path that is made, then of each step.

    Raises:
        ValueError: there is no teacher, it is a student itself or of a form that cannot have one, latents are not those
            of its training, or `out` belongs to another teacher or config.
        DivergenceError: a loss or gradient is no number; that step is not taken.
    """
    folder = storage.local_path(out)
    if not storage.is_local(out):
        raise ValueError(f"out={out} is not a local folder; distil to a local one and copy the model")
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    if config.device == "cuda" and device.type != "cuda":
        raise ValueError("device='cuda', but torch sees no GPU; use device='auto'")
    teacher = str(storage.local_path(teacher))
    net, about = load(f"{teacher}/model")
    if "student" in about:
        raise ValueError(f"{teacher}/model is a student itself; give the folder of the training that it was made of")
    if config.method == "causal" and (net.config.attention, net.config.streams) != ("joint", "cross"):
        raise ValueError(
            f"{teacher} has attention={net.config.attention} and streams={net.config.streams}; a causal student has "
            "joint attention and reads words across: train such a teacher, or give --method reflow"
        )
    settings = settings_of(teacher, latents, net.config)
    config = replace(config, shift=config.shift or settings.shift)
    if (folder / "train.json").exists():
        raise ValueError(f"{folder} holds a training; give another --out, such as {folder.parent}/student")
    _claim(folder, config, about["fingerprint"], latents)
    threads.warn_of_spinning(torch.get_num_threads())
    clips = Clips(read_index(latents), settings, Path(teacher) / "text", tell)
    clips.prepare_data()
    lessons = Lessons(clips, config.paths, device)
    teach = Paths(folder / "paths", lessons, net.to(device), config)
    work = Distillation(net, config, lessons, teach)
    _resume(work, folder / "checkpoint.ckpt", device)
    teach.make(tell if work.pairing else silent)
    _run(work, folder, _student(config, about), tell)
    return folder / "model"


def _student(config: DistillConfig, about: dict[str, Any]) -> dict[str, Any]:
    """Return what is saved with a student: what its teacher tells, and how it is to be asked."""
    known = 1.0 if config.method == "causal" else 0.0  # segments that are given stand in the cache; no other is known
    whose = {"method": config.method, "levels": matching.levels(config), "shift": config.shift}
    same = {name: value for name, value in about.items() if name not in ("kind", "model", "fingerprint")}
    return {
        **same,
        "known": known,
        "student": {**whose, "guidance": config.guidance, "teacher": about["fingerprint"]},
    }


def _claim(folder: Path, config: DistillConfig, teacher: str, latents: str) -> None:
    """Write the config to the folder, or make sure that it is the one that stands there."""
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    record = json.loads(json.dumps({"distill": settings, "teacher": teacher, "latents": content_of(latents)}))
    path = folder / "distill.json"
    found = json.loads(path.read_text()) if path.exists() else record
    if found != record and not (folder / "checkpoint.ckpt").exists():
        shutil.rmtree(folder / "paths", ignore_errors=True)  # of a try that ended before its first checkpoint
    elif found != record:
        if found["teacher"] != teacher:
            raise ValueError(
                f"{folder} holds a student of another teacher ({found['teacher']}, not {teacher}); "
                "use that one again, another --out, or remove that folder"
            )
        changed = [name for name in settings if found["distill"].get(name) != record["distill"][name]]
        changed += ["other latents"] if found["latents"] != record["latents"] else []
        if changed:
            raise ValueError(
                f"{folder} holds a student of other settings ({', '.join(changed)}); "
                "use those again, another --out, or remove that folder"
            )
    storage.write_bytes(str(path), (json.dumps(record, indent=2) + "\n").encode())


class Lessons:
    """What is told of the clips of packs, as the teacher's training planned them, some of it hidden as it was there."""

    def __init__(self, clips: Clips, first: int, device: torch.device):
        """Take the clips, and of how many packs, the first, one may ask again; the others come one after another."""
        self.packs, self.device, self.next = clips.packs(), device, first
        self.order = (one for one in asked(clips.trained, clips.config, (0, 0), 0, 1) if one.weight)
        self.first = list(islice(self.order, first))

    def __call__(self, number: int) -> Row:
        """Return what is told of a pack."""
        if number < len(self.first):
            wanted = self.first[number]
        else:
            wanted, self.next = next(islice(self.order, number - self.next, None)), number + 1
        batch = self.packs[wanted].to(self.device)
        known = replace(batch.condition, known=None)
        return row_of(batch.packed, thinned(known, self.packs.config.drop_condition, batch.uniforms[:, :-1]))


class Paths:
    """The teacher's paths for the first packs, each made once."""

    def __init__(self, folder: Path, lessons: Callable[[int], Row], teacher: Any, config: DistillConfig):
        self.folder, self.lessons, self.teacher, self.config = folder, lessons, teacher, config

    def make(self, tell: Tell) -> None:
        """Make those that are not there yet."""
        count = self.config.paths
        for number in range(count):
            if not self._file(number).exists():
                points = matching.path(self.teacher, self.lessons(number), self.config, number)
                storage.write_bytes(str(self._file(number)), tensors_to({"points": points.half().cpu()}))
            tell(number + 1, count, "paths", {})

    def __call__(self, number: int) -> tuple[Row, matching.Path]:
        """Return what is told of the clips of a pack, and its paths. Raises ValueError for a file that is damaged."""
        row, path = self.lessons(number), self._file(number)
        try:
            points = tensors_from(path.read_bytes())["points"]
        except (OSError, KeyError, SafetensorError) as error:
            raise ValueError(f"{path} is damaged ({error}); remove it, and it is made again") from error
        if points.shape[1] != len(row.rates):
            raise ValueError(
                f"{path} is of {points.shape[1]} tokens, its pack of {len(row.rates)}; remove {self.folder}"
            )
        return row, points.float().to(row.rates.device)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"


def _resume(work: Distillation, path: Path, device: torch.device) -> None:
    if path.exists():
        try:
            work.resume(torch.load(path, map_location=device, weights_only=True))
        except (RuntimeError, OSError, EOFError, KeyError, ValueError, UnpicklingError) as error:
            raise ValueError(f"{path} is damaged or no checkpoint ({error}); remove it to start anew") from error


def _run(work: Distillation, folder: Path, about: dict[str, Any], tell: Tell) -> None:
    """Take the steps that are left, and write what is due."""
    metrics, config, found = folder / "metrics.jsonl", work.config, {}
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= work.step]
    storage.write_bytes(str(metrics), "".join(kept).encode())  # later lines are written again
    if work.step >= config.steps and not (folder / "model" / "config.json").exists():
        save(work.average, str(folder / "model"), {**about, "step": work.step})
    while work.step < config.steps:
        phase = "paths" if work.pairing else "matching"
        found = work.advance()
        saving = work.step == config.steps or work.step % config.save_every == 0
        if saving or work.step % config.log_every == 0:
            with metrics.open("a") as file:
                file.write(json.dumps({"step": work.step, "phase": phase, **found}) + "\n")
        if saving:
            part = folder / ".checkpoint.ckpt.part"
            torch.save(work.state(), part)
            save(work.average, str(folder / "model"), {**about, "step": work.step})
            part.replace(folder / "checkpoint.ckpt")  # behind the model: it never stands beside an older one
        tell(work.step, config.steps, "steps", found)
