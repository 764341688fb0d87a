"""What ties a caption to its clip: a digest over both, made where the answer arrives and recomputed wherever they meet.

A caption that slipped to the clip beside it poisons training unseen, since the text is good and the video is good. So
no table is joined on trust: `bound` covers the clip (its key, its range of time, its source, what is seen in it) and
every word of the caption. It covers nothing that may rightly change later: no policy, no shard, no order, no path.

`KEY.json` repeats what is hashed, so that a shard is checked without its ledger.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rushes.filters.caption import FIELDS
from rushes.pipelines.store.ledger import Ledger

Row = Mapping[str, Any]
CLIP_COLUMNS = ("key", "source_id", "start_s", "end_s", "phash", "frame_s")
"""What `pictures` and `bind` read of a clip."""
_VERSION = "1"


def pictures(clip: Row) -> str:
    """Return 16 hex digits of what is seen in a clip: its perceptual hashes and the times of its frames."""
    found = hashlib.blake2b(digest_size=8)
    found.update(np.asarray(clip.get("phash") or [], "<u8").tobytes())
    found.update(np.asarray(clip.get("frame_s") or [], "<f8").tobytes())
    return found.hexdigest()


def bind(clip: Row, caption: Row) -> str:
    """Return 32 hex digits over a clip and its caption: rows of `clips` and of `captions`.

    Numbers count to 15 digits, as `KEY.json` holds them.
    """
    return _digest({**clip, "pictures": pictures(clip)}, {**caption, "long": _text(caption)})


def holds(clip: Row, caption: Row) -> bool:
    """Whether a caption is of this clip and its words are those that it was bound with."""
    return bool(caption.get("bound")) and caption["bound"] == bind(clip, caption)


def facts(caption: Row) -> dict[str, str]:
    """Return what `KEY.json` holds besides the caption's parts so that `holds_in_shard` can tell from it alone."""
    named = {"caption_short": "short", "caption_pictures": "pictures", "caption_bound": "bound"}
    return {name: caption.get(column) or "" for name, column in named.items()}


def holds_in_shard(facts: Row, txt: str) -> bool:
    """Whether the facts and the text of a sample are those that were bound: a check without the ledger."""
    if not facts.get("caption_bound") or facts.get("caption") != txt:
        return False
    caption = {**facts, "source": facts.get("caption_source"), "short": facts.get("caption_short"), "long": txt}
    clip = {**facts, "pictures": facts.get("caption_pictures")}
    return bool(facts["caption_bound"] == _digest(clip, caption))


def _digest(clip: Row, caption: Row) -> str:
    said = [caption.get(name) or "" for name in ("source", *FIELDS)]
    seen = [clip.get(name) or "" for name in ("key", "source_id", "pictures")]
    times = [f"{clip[name]:.15g}" if clip.get(name) is not None else "" for name in ("start_s", "end_s")]
    text = json.dumps([_VERSION, *seen, *times, *said], ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _text(caption: Row) -> str:
    return caption.get("long") or caption.get("short") or ""


# --------------------------------------------------------------------------------------------------------- what slipped


def wrong(ledger: Ledger) -> Iterator[tuple[str, str]]:
    """Yield the key and the reason of every caption in a ledger that is not bound to its clip, unit by unit."""
    for unit in sorted({part.unit for part in ledger.parts("captions")}):
        clips = {row["key"]: row for row in ledger.read_unit("clips", unit, list(CLIP_COLUMNS)).to_pylist()}
        for caption in ledger.read_unit("captions", unit).to_pylist():
            clip = clips.get(caption["key"])
            if clip is None:
                yield caption["key"], f"a caption in unit {unit}, which has no such clip"
            elif not holds(clip, caption):
                yield caption["key"], reason(ledger, caption)


def reason(ledger: Ledger, caption: Row) -> str:
    """Return in words what is wrong with a caption that is not bound to its clip, and whose it is where that shows."""
    if not caption.get("bound"):
        return "its caption was never bound to a clip"
    whose = owner(ledger, caption)
    of = f"is of clip {whose}" if whose else "is of another clip, or was changed after it was made"
    return f"its caption {of}: {_text(caption)[:60]!r}"


def owner(ledger: Ledger, caption: Row) -> str | None:
    """Return the key of the clip that a slipped caption belongs to: by its digest, or by its words; None if none fits.

    Reads the whole table of clips, which only an error is worth.
    """
    found = ledger.read("captions", columns=["key", "bound"])
    bound = dict(zip(found["key"].to_pylist(), found["bound"].to_pylist(), strict=True))
    for batch in ledger.batches("clips", columns=list(CLIP_COLUMNS)):
        for clip in batch.to_pylist():
            if clip["key"] in bound and bind(clip, caption) in (caption["bound"], bound[clip["key"]]):
                return str(clip["key"])
    return None


REMEDY = "remove the part files of ledger/captions that were changed and run the same command again"
