"""Whether what stands in an export is what its account says and its rules allow, and nothing that was taken down."""

from __future__ import annotations

import functools
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av.error
import pyarrow as pa

from rushes.pipelines.export import account
from rushes.pipelines.export.clips import Film, film_of
from rushes.pipelines.export.dialects.dialect import Dialect
from rushes.pipelines.export.dialects.registry import DIALECTS
from rushes.pipelines.export.rules import Rules
from rushes.pipelines.export.settings import ExportError, read, rules_in
from rushes.pipelines.stages.pack import removed
from rushes.pipelines.store import storage, takedowns
from rushes.pipelines.store.clip import clip_key, is_key
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.takedowns import Down

ROWS = 4096
"""Keys that are looked up together."""
NAMED = 50
"""Problems that are named; more are only counted."""
AGAIN = "run the same export again"


def of_run(run: str, folder: str) -> list[str]:
    """Return what is wrong with an export of a run: of its videos, and what is left of footage that was taken down.

    Args:
        run: The run with its ledger.
        folder: The export.

    Raises:
        ExportError: If that is no export of the run.
    """
    folder = storage.absolute(folder)
    made = read(folder)
    if made is None:
        raise ExportError(f"{folder} holds no export; give the folder that was --out of `rushes export`")
    if (own := storage.redact(storage.absolute(run))) != made.get("run"):
        raise ExportError(f"{folder} holds an export of {made.get('run')}, not of {own}")
    left = _named(_left(Path(folder), takedowns.now(takedowns.read(Ledger(run)))))
    if not account.is_finished(folder):
        return [f"{folder} was left unfinished, or its account was changed; {AGAIN}", *left]
    return left + problems(folder, DIALECTS[made["dialect"]], rules_in(made))


def _left(folder: Path, down: Down) -> Iterator[str]:
    """Yield where a clip that was taken down is left: in the account, in a tar, or as a file that bears its key."""
    for some in account.batches(_keyed(folder) if down else iter(()), ROWS):
        gone = down.keys(pa.array([key for _, key in some], pa.string())).to_pylist()
        for (where, key), is_gone in zip(some, gone, strict=True):
            if is_gone:
                yield f"{folder / where} holds {key}, which was taken down; {AGAIN}"


def _keyed(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what bears or names the key of a clip, and the key."""
    if (folder / account.ACCOUNT).exists():
        yield from ((account.ACCOUNT, row["key"]) for row in account.rows(str(folder)) if row["pieces"])
    for path in account.files(folder):
        keys = dict.fromkeys(removed.members(str(path)).to_pylist()) if path.suffix == ".tar" else [path.name]
        names = (name[: len(clip_key("0" * 16, 0.0))] for name in keys)
        yield from ((path.relative_to(folder).as_posix(), name) for name in names if is_key(name))


def _named(found: Iterator[str]) -> list[str]:
    """Return the first `NAMED` of some problems, and how many more there are."""
    first = list(itertools.islice(found, NAMED))
    more = sum(1 for _ in found)
    return first + ([f"… and {more} more problems"] if more else [])


def problems(folder: str, dialect: Dialect, rules: Rules) -> list[str]:
    """Return what is wrong with an export, each with what to do: the first `NAMED`, then how many more there are.

    Every video's packets are read and its header is compared with them; what was encoded was decoded before.
    """
    _index.cache_clear()
    return _named(
        f"{problem}; remove the file and run the same command again"
        for row in account.rows(folder)
        for problem in _of_row(Path(folder), row, dialect, rules)
    )


def _of_row(folder: Path, row: dict[str, Any], dialect: Dialect, rules: Rules) -> Iterator[str]:
    for piece in row["pieces"]:
        path = folder / piece["file"]
        try:
            film = film_of(io.BytesIO(_in_shard(folder, row)) if dialect.whole_shards else str(path))
        except (av.error.FFmpegError, OSError, IndexError, KeyError) as error:
            yield f"{path} of {row['key']} cannot be read ({error})"
            continue
        for problem in _of_film(film, piece, rules):
            yield f"{path} {problem}"
        text = path.with_suffix(".txt")
        if dialect.txt and storage.read_if_there(str(text)) != row["caption"].encode():
            yield f"{text} is not the caption of {row['key']}"


def _in_shard(folder: Path, row: dict[str, Any]) -> bytes:
    """Return a video out of a whole shard, by the index beside it."""
    piece = row["pieces"][0]
    entry = _index((folder / piece["file"]).with_suffix(".json"))[f"{row['key']}.mp4"]
    return storage.read_range(str(folder / piece["file"]), entry["offset"], entry["length"])


@functools.lru_cache(maxsize=1)
def _index(path: Path) -> dict[str, dict[str, int]]:
    """Return the index of a shard; rows come shard by shard."""
    files: dict[str, dict[str, int]] = json.loads(path.read_bytes())["files"]
    return files


def _of_film(film: Film, piece: dict[str, Any], rules: Rules) -> Iterator[str]:
    told = piece["frames"], piece["width"], piece["height"]
    if (film.frames, film.width, film.height) != told:
        said = f"the account says {told[0]} of {told[1]}×{told[2]}"
        yield f"holds {film.frames} frames of {film.width}×{film.height}, {said}"
    if rules.fps is not None and film.frames > 1 and film.rate != rules.fps:
        yield f"is not at a constant {float(rules.fps):g} fps"
    if not rules.frames.allows(film.frames) or (rules.most and film.frames > rules.most):
        yield f"holds {film.frames} frames, which {rules.frames} up to {rules.most or 'any'} does not allow"
    if film.width % rules.multiple or film.height % rules.multiple:
        yield f"is {film.width}×{film.height}, no multiples of {rules.multiple}"
