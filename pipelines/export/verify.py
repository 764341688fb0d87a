"""Whether what stands in an export is what its account says and its rules allow."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av.error

from rushes.pipelines.export import account
from rushes.pipelines.export.clips import Film, film_of
from rushes.pipelines.export.dialects.dialect import Dialect
from rushes.pipelines.export.rules import Rules
from rushes.pipelines.store import storage

NAMED = 50
"""Problems that are named; more are only counted."""


def problems(folder: str, dialect: Dialect, rules: Rules) -> list[str]:
    """Return what is wrong with an export, each with what to do: the first `NAMED`, then how many more there are.

    Every video's packets are read and its header is compared with them; what was encoded was decoded before.
    """
    _index.cache_clear()
    found: list[str] = []
    more = 0
    for row in account.rows(folder):
        for problem in _of_row(Path(folder), row, dialect, rules):
            if len(found) < NAMED:
                found.append(f"{problem}; remove the file and run the same command again")
            else:
                more += 1
    return found + ([f"… and {more} more problems"] if more else [])


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
