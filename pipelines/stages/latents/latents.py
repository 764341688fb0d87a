"""Clip shards through the tokenizer's encoder into latent shards, one for one. No Ray here: a shard is a unit of work.

A latent shard has the name and the keys of its clip shard; a sample is `KEY.npy` (float16 `[n, C, h, w]`), `KEY.json`
with rate and frames of each segment, the time in seconds of each latent, their shape and whose latents they are beside
the clip's own facts, and `KEY.txt`, the caption.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, repeat, tee
from typing import Any

import numpy as np
import torch

from rushes.pipelines.stages.unit import guard
from rushes.pipelines.store import shards
from rushes.tokenizer.codec import AnyTokenizer, fingerprint, load, name_of, predicts, segments, stream_encode
from rushes.tokenizer.config import Allocation, Budget
from rushes.tokenizer.data import ClipError, begins_with_picture
from rushes.tokenizer.model import Latents
from rushes.tokenizer.plan import Segment, plan
from rushes.tokenizer.rates import latent_times, plainest


@torch.no_grad()
def encode_shard(
    root: str,
    shard: str,
    out_root: str,
    model: str,
    budget: Budget | None = None,
    *,
    side_px: int = 0,
    allocation: Allocation = "auto",
    rates: Mapping[str, Sequence[int]] | None = None,
    pictures: float = 0.0,
) -> tuple[shards.ShardInfo | None, list[dict[str, Any]]]:
    """Write the latent shard of one clip shard; return what the manifest needs and a record of each failed clip.

    Where not one clip can be encoded there is no shard, and None in its place.

    Args:
        root: Root of the clip shards.
        shard: Path of the shard below it, `<bucket>/NAME-000000.tar`.
        out_root: Root of the latent shards.
        model: A tokenizer's name, see `codec.load`.
        budget: Latents that each clip may have, or their price; with none every segment takes one rate and nothing is
            measured.
        side_px: Clips are shrunk so that the shorter side has this many pixels; 0 keeps their size.
        allocation: Whether what a segment loses at each rate is measured or predicted by the model's linear code; auto
            predicts where it has one.
        rates: In place of a budget the rates of the segments of each clip, by its key.
        pictures: Share of the clips whose first frame is a segment of its own, see `begins_with_picture`.

    Raises:
        ShardError: The shard is damaged.
        ValueError: There is no such tokenizer, it cannot predict, or it has not the rate.
    """
    tokenizer = load(model).to("cuda" if torch.cuda.is_available() else "cpu")
    predict = rates is None and predicts(tokenizer, allocation)
    print_ = fingerprint(tokenizer)
    failed: list[dict[str, Any]] = []
    budget = budget or Budget()
    budget.rate_of(tokenizer.config.rates)

    def samples() -> Iterator[shards.Sample]:
        for sample in shards.read_shard(f"{root.rstrip('/')}/{shard}", ("mp4", "json", "txt")):
            done: list[shards.Sample] = []
            with guard(failed, key=sample["__key__"]):
                own = None if rates is None else rates.get(sample["__key__"], ())
                lone = begins_with_picture(sample["__key__"], pictures)
                done.append(encode_clip(tokenizer, print_, sample, budget, side_px, own, predict=predict, lone=lone))
            yield from done

    encoded = samples()
    first = next(encoded, None)
    if first is None:
        return None, failed
    bucket, file = shard.split("/", 1)
    name, _, number = file.removesuffix(".tar").rpartition("-")
    return shards.write_shard(out_root, bucket, name, int(number), chain([first], encoded)), failed


@torch.no_grad()
def encode_clip(
    tokenizer: AnyTokenizer,
    fingerprint_: str,
    sample: Mapping[str, Any],
    budget: Budget,
    side_px: int = 0,
    given: Sequence[int] | None = None,
    *,
    predict: bool = False,
    lone: bool = False,
) -> shards.Sample:
    """Return the latents of one clip as a sample; see `plan` for how often its frames are read.

    Where its rates are `given`, one for each segment, there is no budget. With `lone` its first frame is a segment of
    its own. Raises ClipError where the clip has no
    frames, or not as many segments as rates, and BudgetError where the budget is below the clip's minimum.
    """
    device = tokenizer.latent_mean.device

    def read() -> Iterator[Segment]:
        return ((times, video.to(device)) for times, video in segments(tokenizer, sample["mp4"], side_px, lone))

    chosen: Iterable[int] = repeat(budget.rate_of(tokenizer.config.rates)) if given is None else given
    chunks = read()
    if budget.limited and given is None:
        chosen, _, chunks = plan(tokenizer, read, budget, predict=predict)
    rates, lengths, times_s, found, shape = [], [], [], [], (0, 0)
    told = (
        (plainest(tokenizer.config.rates, len(chunk[0]), rate), chunk)
        for rate, chunk in zip(chosen, chunks, strict=False)  # one rate repeats for ever
    )
    shown, coded = tee(told)
    latents = stream_encode(tokenizer, ((video, rate) for rate, (_, video) in coded))
    for (rate, (times, video)), z in zip(shown, latents, strict=True):
        rates.append(rate)
        found.append(z[0].half().cpu())
        times_s += times
        lengths.append(len(times))
        shape = (video.shape[-2], video.shape[-1])
    if given is not None and (len(found) != len(given) or next(chunks, None)):
        raise ClipError(f"clip {sample['__key__']} has not the {len(given)} segments for which rates were chosen")
    if not found:
        raise ClipError(f"clip {sample['__key__']} has no frames")
    joined = torch.cat(found).numpy()
    facts = json.loads(sample["json"]) | {
        "key": sample["__key__"],
        "frames": len(times_s),
        "fps": (len(times_s) - 1) / (times_s[-1] - times_s[0]) if len(times_s) > 1 else 1.0,
        "height": shape[0],
        "width": shape[1],
        "rates": rates,
        "lengths": lengths,
        "times_s": latent_times(times_s, rates, lengths),
        "latent_shape": list(joined.shape),
        "tokenizer": name_of(tokenizer),
        "latents_mean": tokenizer.latent_mean.tolist(),
        "latents_std": tokenizer.latent_std.tolist(),
        "fingerprint": fingerprint_,
        "caption": sample["txt"].decode(),
    }
    return pack(sample["__key__"], joined, facts)


def pack(key: str, z: np.ndarray, facts: Mapping[str, Any]) -> shards.Sample:
    """Return latents and facts as a sample of a latent shard."""
    data = io.BytesIO()
    np.save(data, z, allow_pickle=False)
    text = json.dumps(facts, sort_keys=True).encode()
    caption = str(facts["caption"]).encode()
    return shards.Sample(key, [("npy", data.getvalue()), ("json", text), ("txt", caption)])


def unpack(sample: Mapping[str, Any]) -> tuple[Latents, dict[str, Any]]:
    """Return the latents of a sample of a latent shard, as a tokenizer decodes them, and its facts.

    Nothing is unpickled. Raises ValueError for what is no sample of a latent shard.

        for sample in shards.pipeline("RUN/latents", members=("npy", "json")):
            latents, facts = unpack(sample)
    """
    try:
        z, facts = np.load(io.BytesIO(sample["npy"]), allow_pickle=False), json.loads(sample["json"])
        rates, lengths = tuple(facts["rates"]), tuple(facts["lengths"])
        height, width = int(facts["height"]), int(facts["width"])
    except (KeyError, TypeError, ValueError) as error:
        name = sample.get("__key__", "what was given")
        raise ValueError(f"{name} is no sample of a latent shard ({error!r}); `rushes latents` makes them") from error
    latents = torch.from_numpy(z)[None].float()
    return Latents(z=latents, height=height, width=width, rates=rates, lengths=lengths), facts
