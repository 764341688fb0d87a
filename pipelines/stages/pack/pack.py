"""From encoded clips to shards: buckets, the order in a shard, what a sample holds. No Ray: stages call this.

    RUN/encoded/<unit>.<fingerprint>.tar   the clips that one unit encoded, KEY.mp4 each; table `encoded` says where
    RUN/shards/<selection>/<bucket>/NAME-000000.tar    the same clips shuffled over units, with facts and captions

Cutting and packing are two steps, so that another caption, order or shard size cuts nothing again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rushes.filters.caption import FIELDS
from rushes.pipelines.config import PackConfig
from rushes.pipelines.store import archive, binding, storage
from rushes.pipelines.store.encoded import ENCODED, PackError, encoded_uri
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.shards import Sample, ShardInfo, plan_shards, write_shard
from rushes.pipelines.store.storage import redact
from rushes.pipelines.store.tables import TABLES

TEXT_BYTES = 8192
"""Set aside in a shard for the facts and the caption of each sample, which are not known while shards are planned."""

_FACTS = [f for f in TABLES["clips"] if not pa.types.is_list(f.type) and f.name not in ("caption", "unit")]
_BALANCE = [f for f in TABLES["selection"] if f.name in ("cluster", "weight")]
_CAPTION = [TABLES["captions"].field(name) for name in FIELDS if name not in ("short", "long")]
_BOUND = [name for name in binding.CLIP_COLUMNS if TABLES["clips"].field(name) not in _FACTS]


def order(keys: Iterable[str], seed: int) -> list[str]:
    """Return the keys shuffled, the same way whatever order they come in and wherever it happens."""
    return sorted(keys, key=lambda key: (hashlib.blake2b(f"{seed} {key}".encode(), digest_size=16).digest(), key))


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """One shard to be made."""

    bucket: str
    """Its bucket."""
    index: int
    """Its number in the bucket."""
    keys: list[str]
    """Its clips, in order."""


def shard_plan(encoded: pa.Table, selection: pa.Table, pack: PackConfig) -> list[ShardPlan]:
    """Return the shards to make of the encoded clips that the selection keeps.

    In each bucket the waves follow one another and a wave begins a new shard, so that adding inputs to a run leaves
    the shards before alone; inside a wave clips are shuffled. Numbers are continuous in a bucket.
    """
    kept = set(selection.filter(selection["kept"])["key"].to_pylist())
    groups: dict[tuple[str, int], dict[str, int]] = {}
    for row in encoded.select(["key", "bucket", "wave", "size_bytes"]).to_pylist():
        if row["key"] in kept:
            groups.setdefault((row["bucket"], row["wave"]), {})[row["key"]] = row["size_bytes"]
    plans: list[ShardPlan] = []
    for (bucket, _), sizes in sorted(groups.items()):
        start = plans[-1].index + 1 if plans and plans[-1].bucket == bucket else 0
        for index, keys in enumerate(_split(order(sizes, pack.seed), sizes, int(pack.shard_mb * 10**6)), start):
            plans.append(ShardPlan(bucket=bucket, index=index, keys=keys))
    return plans


def _split(keys: Sequence[str], sizes: Mapping[str, int], limit_bytes: int) -> Iterator[list[str]]:
    text = TEXT_BYTES + 2 * archive.BLOCK
    yield from plan_shards([(key, archive.member_bytes(sizes[key]) + text) for key in keys], limit_bytes)


# ----------------------------------------------------------------------------------------------------------- the sample


def facts_of(
    clip: Mapping[str, Any],
    encoded: Mapping[str, Any],
    caption: Mapping[str, Any],
    scores: Iterable[Mapping[str, Any]] = (),
    balance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what `KEY.json` holds: flat, each field of one type for ever, without null; absent is what is not known.

    Size, rate and length are those of the encoded clip. A score stands under its scorer's name, its label as
    `<scorer>_label`, the source of the caption as `caption_source`. `weight` and `cluster` are there where the policy
    balances.

    Where it comes from and what may be done with it: `uri` (without passwords), `source_id` and `digest` of the
    source's content, `start_s` and `end_s` in its seconds, `licence`, `rights` and `extra` (JSON) as the list of inputs
    gave them, empty where it gave none. The samples of latents hold the same.
    """
    clip = {**clip, "uri": redact(clip.get("uri") or "")}  # shards are handed on, passwords in a URI must not be
    facts = _typed(_FACTS, clip) | _typed(ENCODED, encoded) | _typed(_CAPTION, caption)
    facts |= {"caption": _text(caption), "caption_source": caption.get("source") or ""}
    facts |= {f"caption_{name}": caption.get(name) or "" for name in ("model", "prompt", "checks")}
    facts |= binding.facts(caption)
    for score in sorted(scores, key=lambda row: row["scorer"]):
        facts |= _typed([pa.field("value", pa.float32())], score, f"{score['scorer']}")
        facts |= {f"{score['scorer']}_label": score["label"]} if score.get("label") else {}
    return facts | _typed(_BALANCE, balance or {})


def _typed(fields: Iterable[pa.Field], row: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields:
        value = row.get(field.name)
        if pa.types.is_string(field.type):
            found[name or field.name] = value or ""
        elif value is None or (isinstance(value, float) and not math.isfinite(value)):
            continue
        elif pa.types.is_floating(field.type):
            digits = 7 if field.type == pa.float32() else 15
            rounded = float(f"{value:.{digits}g}")
            found[name or field.name] = rounded if math.isfinite(rounded) else float(value)  # the largest rounds up
        else:
            found[name or field.name] = bool(value) if pa.types.is_boolean(field.type) else int(value)
    return found


def _text(caption: Mapping[str, Any]) -> str:
    return caption.get("long") or caption.get("short") or ""


def sample_of(
    clip: Mapping[str, Any],
    caption: Mapping[str, Any],
    encoded: Mapping[str, Any],
    mp4: bytes,
    scores: Iterable[Mapping[str, Any]] = (),
    balance: Mapping[str, Any] | None = None,
) -> Sample:
    """Return the sample of one clip: mp4, json, txt. Raises PackError where the rows or the bytes are not of one clip.

    A caption that slipped to the clip beside it would poison training unseen, so keys are compared, not trusted, and
    its digest is computed again from the clip and the words.
    """
    key = clip["key"]
    if not key == caption["key"] == encoded["key"]:
        raise PackError(f"rows of different clips: {key}, caption {caption['key']}, encoded {encoded['key']}")
    if not binding.holds(clip, caption):
        raise PackError(f"{key}: the caption joined to it was not bound to this clip, or was changed; {binding.REMEDY}")
    scores = list(scores)
    if strange := [row["key"] for row in scores if row["key"] != key]:
        raise PackError(f"a score of {strange[0]} was joined to {key}")
    if len(mp4) != encoded["size_bytes"] or hashlib.sha256(mp4).hexdigest() != encoded["sha256"]:
        raise PackError(
            f"{key}: the encoded clip is gone or not the one that the ledger describes; remove the file "
            f"ledger/encoded/part-{encoded['unit']}.*.parquet of the run and run the same command again: it cuts anew"
        )
    facts = facts_of(clip, encoded, caption, scores, balance)
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return Sample(key, [("mp4", mp4), ("json", text.encode()), ("txt", _text(caption).encode())])


@dataclass(frozen=True, kw_only=True)
class Joined:
    """All that the ledger knows of one clip."""

    clip: dict[str, Any]
    caption: dict[str, Any]
    encoded: dict[str, Any]
    scores: list[dict[str, Any]]
    balance: dict[str, Any]
    """`cluster` and `weight` by the policy that the shard is of, where it balances."""
    tar: str
    """URI of the tar that holds its mp4."""


def balance_of(ledger: Ledger, policy: str) -> dict[str, dict[str, Any]]:
    """Return `cluster` and `weight` by clip where a policy balances what it keeps."""
    own = (pc.field("policy") == policy) & pc.field("kept") & ~pc.field("weight").is_null()
    rows = ledger.read("selection", ["key", *(field.name for field in _BALANCE)], where=own).to_pylist()
    return {row.pop("key"): row for row in rows}


def join(ledger: Ledger, keys: Iterable[str], policy: str = "") -> dict[str, Joined]:
    """Return the rows of the given clips from clips, captions, encoded, scores and selection, each table read once.

    Read the rows of many shards at once: every call goes through the whole tables. Raises PackError for a clip that
    one of clips, captions and encoded does not have, and for a caption that is another clip's, naming both.
    """
    wanted = pa.array(list(keys), pa.string())
    clips = _by_key(ledger, "clips", [field.name for field in _FACTS] + _BOUND, wanted)
    captions = _by_key(ledger, "captions", TABLES["captions"].names, wanted)
    encoded = _by_key(ledger, "encoded", TABLES["encoded"].names, wanted)
    scores: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(ledger, "scores", ["key", "scorer", "value", "label"], wanted):
        scores.setdefault(row["key"], []).append(row)
    tars = {part.unit: encoded_uri(ledger.run, part.unit, part.fingerprint) for part in ledger.parts("encoded")}
    joined, balance = {}, balance_of(ledger, policy)
    for key in wanted.to_pylist():
        for table, rows in (("clips", clips), ("captions", captions), ("encoded", encoded)):
            if key not in rows:
                raise PackError(f"{key} is in no row of table {table}; run the same command again to complete it")
        if not binding.holds(clips[key], captions[key]):
            raise PackError(f"{key}: {binding.reason(ledger, captions[key])}; {binding.REMEDY}")
        joined[key] = Joined(
            clip=clips[key], caption=captions[key], encoded=encoded[key], scores=scores.get(key, []),
            balance=balance.get(key, {}), tar=tars[encoded[key]["unit"]],
        )  # fmt: skip
    return joined


def _rows(ledger: Ledger, table: str, columns: list[str], keys: pa.Array) -> list[dict[str, Any]]:
    return ledger.read(table, columns=columns, where=pc.field("key").isin(keys)).to_pylist()


def _by_key(ledger: Ledger, table: str, columns: list[str], keys: pa.Array) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in _rows(ledger, table, columns, keys)}


def shards_root(run: str, policy: str) -> str:
    """Return the folder of a selection's shards."""
    return f"{run.rstrip('/')}/shards/{policy}"


def shard_unit(policy: str, bucket: str = "", index: int | None = None) -> str:
    """Return the unit of table `packed` for a shard of a selection, or what all of them begin with.

    The dot can stand in neither a policy's name nor a bucket's, so no selection's units begin like another's.
    """
    return f"{policy}." if index is None else f"{policy}.{bucket}-{index:06d}"


def assemble(
    run: str, plan: ShardPlan, pack: PackConfig, policy: str, joined: Mapping[str, Joined] | None = None
) -> ShardInfo:
    """Make one shard of a selection under `RUN/shards/<policy>` from the encoded tars; return its manifest entry.

    Memory is bounded by one clip. `joined` spares reading the ledger again for each of many shards.
    """
    rows = join(Ledger(run), plan.keys) if joined is None else joined
    samples = (_sample(rows[key]) for key in plan.keys)
    return write_shard(shards_root(run, policy), plan.bucket, pack.name, plan.index, samples)


def _sample(row: Joined) -> Sample:
    try:
        mp4 = storage.read_range(row.tar, row.encoded["offset"], row.encoded["size_bytes"])
    except FileNotFoundError:
        mp4 = b""
    return sample_of(row.clip, row.caption, row.encoded, mp4, row.scores, row.balance)


def packed_rows(plan: ShardPlan, info: ShardInfo, joined: Mapping[str, Joined], policy: str) -> list[dict[str, Any]]:
    """Return the rows of table `packed` for a shard; `index` is the place in the shard, `sha256` that of the mp4."""
    return [
        {"key": key, "policy": policy, "bucket": plan.bucket, "shard": info.path, "index": place,
         "sha256": joined[key].encoded["sha256"]}
        for place, key in enumerate(plan.keys)
    ]  # fmt: skip
