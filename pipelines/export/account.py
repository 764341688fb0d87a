"""What became of every clip of a selection in an export: `export.jsonl`, a row per clip, in the order of its shards.

    DIR/export.jsonl                        the account, written when all shards are done
    DIR/.rushes/<bucket>/NAME-000000.jsonl  its rows while they come, a line for each clip that is done
    DIR/.rushes/finished.json               the digest of the account that everything else in the folder agrees with

A line stands in a journal only when all pieces of its clip stand under their names. A killed export goes on behind the
last whole line; clips that failed have no line, so that the same command tries them again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rushes.pipelines.progress import counted
from rushes.pipelines.store import storage

ACCOUNT, JOURNALS = "export.jsonl", ".rushes"
FINISHED = f"{JOURNALS}/finished.json"
PARTLY = 0.9
"""A video that shows less than this share of its clip is counted: its caption may tell of what it does not show."""
VIDEOS = ("videos", "data")
"""Folders of videos; FiftyOne wants the second name."""
OWN = {**dict.fromkeys(VIDEOS, (".mp4", ".txt")), "shards": (".tar", ".json"), JOURNALS: (".jsonl",)}
"""What an export puts into which folder. Trainers put their caches beside it."""
NAMED = 50
"""Clips that were refused or failed and are named on the terminal; the account has all."""
Row = dict[str, Any]
Thing = TypeVar("Thing")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One video of an export, as its dialect lists it."""

    key: str
    """Key of the clip that it is of."""
    file: str
    """Its path below the export's folder."""
    caption: str
    frames: int
    width: int
    height: int
    fps: float
    size_bytes: int
    has_audio: bool
    start_s: float
    """Where it begins in its source, in seconds."""
    uri: str
    """The source, without credentials."""
    licence: str
    rights: str

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.frames / self.fps


@dataclass
class Shapes:
    """What shapes the videos of an export have, for the configuration files of trainers."""

    counts: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    """How many have each width, height and number of frames."""
    fps: Counter[float] = field(default_factory=Counter)
    """How many have each frame rate."""

    def add(self, item: Item) -> None:
        """Count one more video."""
        self.counts[item.width, item.height, item.frames] += 1
        self.fps[item.fps] += 1

    @property
    def largest(self) -> tuple[int, int]:
        """Width and height of the one with most pixels."""
        return max(((w, h) for w, h, _ in self.counts), key=lambda size: (size[0] * size[1], size), default=(0, 0))

    @property
    def rate(self) -> float:
        """The frame rate that most have."""
        return max(self.fps, key=lambda fps: (self.fps[fps], fps), default=0.0)

    def every_length(self) -> list[int]:
        """Return the numbers of frames that there are, rising."""
        return sorted({frames for _, _, frames in self.counts})

    def every_size(self) -> list[tuple[int, int]]:
        """Return the widths and heights that there are, rising."""
        return sorted({(width, height) for width, height, _ in self.counts})

    def lengths(self, most: int = 8, size: tuple[int, int] | None = None) -> list[int]:
        """Return numbers of frames, rising, `most` at most, the shortest and the longest among them.

        Args:
            most: How many.
            size: Width and height of those videos that count, all if not given.
        """
        there = sorted({frames for *of, frames in self.counts if size is None or tuple(of) == size})
        if len(there) <= most:
            return there
        return sorted({there[round(place * (len(there) - 1) / (most - 1))] for place in range(most)})

    def sizes(self, most: int = 16) -> list[tuple[int, int]]:
        """Return one width and height for each aspect, the commonest first, `most` at most."""
        aspects: dict[float, Counter[tuple[int, int]]] = {}
        for (width, height, _), count in self.counts.items():
            aspects.setdefault(round(width / height, 2), Counter())[width, height] += count
        ranked = sorted(aspects.values(), key=lambda sizes: (-sum(sizes.values()), min(sizes)))
        return [max(sizes, key=lambda size: (sizes[size], size)) for sizes in ranked[:most]]


def items_of(row: Mapping[str, Any]) -> Iterator[Item]:
    """Yield the videos of one row of the account."""
    shared = {name: row[name] for name in ("key", "caption", "uri", "licence", "rights")}
    for piece in row["pieces"]:
        own = {name: piece[name] for name in ("file", "frames", "width", "height", "fps", "size_bytes", "has_audio")}
        yield Item(**shared, **own, start_s=round(row["start_s"] + piece["start_s"], 6))


def rows(folder: str) -> Iterator[Row]:
    """Yield the rows of an export's account."""
    with (Path(folder) / ACCOUNT).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def items(folder: str) -> Iterator[Item]:
    """Yield the videos of an export in the order of its account."""
    for row in rows(folder):
        yield from items_of(row)


def files(folder: Path) -> Iterator[Path]:
    """Yield the files of an export and of trainers in it; of folders that lead elsewhere only its own are entered."""
    for top in folder.iterdir():
        if top.is_dir() and (top.name in OWN or not top.is_symlink()):
            yield from (path for path in top.rglob("*") if path.is_file())
        elif top.is_file():
            yield top


def digest(folder: str) -> str:
    """Return the digest of an export's account, empty where there is none."""
    path = Path(folder) / ACCOUNT
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finish(folder: str) -> None:
    """Note that all lists, the card and what was removed agree with the account, which no killed export does."""
    storage.write_bytes(f"{folder}/{FINISHED}", (json.dumps({"account": digest(folder)}) + "\n").encode())


def is_finished(folder: str) -> bool:
    """Whether the last export into a folder came to its end."""
    told = storage.read_if_there(f"{folder}/{FINISHED}")
    return told is not None and json.loads(told) == {"account": digest(folder)}


def batches(found: Iterator[Thing], size: int) -> Iterator[list[Thing]]:
    """Yield lists of so many things, the last perhaps of fewer."""
    while batch := list(itertools.islice(found, size)):
        yield batch


def line_of(row: Row) -> str:
    """Return a row of the account as it stands in the file."""
    return json.dumps(row, ensure_ascii=False, sort_keys=True, allow_nan=False) + "\n"


class Journal:
    """The rows of one shard's clips, as they become done."""

    def __init__(self, folder: str, shard: str):
        self.path = Path(folder) / JOURNALS / f"{shard.removesuffix('.tar')}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def done(self) -> dict[str, Row]:
        """Return the rows that stand in it by key; a last line that was cut short is taken off."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            storage.write_bytes(str(self.path), whole)
        return {row["key"]: row for row in map(json.loads, whole.decode().splitlines())}

    def add(self, row: Row) -> None:
        """Append a row of a clip that is done; at once, so that no kill loses it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line_of(row))


@dataclass
class Totals:
    """An account in numbers."""

    clips: Counter[str] = field(default_factory=Counter)
    """Clips by fate: exported, refused, failed."""
    seconds: Counter[str] = field(default_factory=Counter)
    """Their seconds."""
    rules: Counter[str] = field(default_factory=Counter)
    """Refused clips by rule."""
    made: Counter[str] = field(default_factory=Counter)
    """Videos by how they were made."""
    videos: int = 0
    video_s: float = 0.0
    partly: int = 0
    """Videos that show only a part of their clip, and have the caption of all of it."""
    named: list[Row] = field(default_factory=list)
    """The first of those that were refused or failed."""

    def add(self, row: Row) -> None:
        """Count one row."""
        self.clips[row["fate"]] += 1
        self.seconds[row["fate"]] += row["seconds"]
        if row["fate"] == "exported":
            self.videos += len(row["pieces"])
            self.video_s += sum(piece["seconds"] for piece in row["pieces"])
            self.partly += sum(piece["shown"] < PARTLY for piece in row["pieces"])
            self.made.update(piece["how"] for piece in row["pieces"])
            return
        if row["fate"] == "refused":
            self.rules[row["rule"]] += 1
        if len(self.named) < NAMED:
            self.named.append(
                {name: row[name] for name in ("key", "fate", "rule", "value", "limit", "reason", "remedy")}
            )

    def record(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        fates = ("exported", "refused", "failed")
        return {
            "clips": {fate: self.clips[fate] for fate in fates},
            "seconds": {fate: round(self.seconds[fate], 3) for fate in fates},
            "videos": self.videos,
            "video_s": round(self.video_s, 3),
            "partly": self.partly,
            "trimmed_s": max(0.0, round(self.seconds["exported"] - self.video_s, 3)),  # lengths are rounded
            "made": dict(sorted(self.made.items())),
            "refused": dict(sorted(self.rules.items())),
            "named": self.named,
        }


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return what an export came to as lines for a terminal."""
    clips, seconds = found["clips"], found["seconds"]
    text = [
        f"{counted(found['videos'], 'video')} of {counted(clips['exported'], 'clip')}, {found['video_s']:.1f} s "
        f"({', '.join(f'{count} {how}' for how, count in found['made'].items()) or 'none'}), in {found['folder']}"
    ]
    if found["trimmed_s"] >= 0.05:
        text.append(f"{found['trimmed_s']:.1f} s of these clips are beyond what the rules allow and were trimmed")
    if found["partly"]:
        text.append(
            f"{found['partly']} of the videos have the caption of their whole clip and show less than {PARTLY:.0%} "
            f"of it (`shown` in {ACCOUNT}; --min_shown refuses them)"
        )
    if clips["refused"]:
        rules = ", ".join(f"{count} by {rule}" for rule, count in found["refused"].items())
        text.append(f"{counted(clips['refused'], 'clip')} refused, {seconds['refused']:.1f} s ({rules}):")
    if clips["failed"]:
        text.append(
            f"{counted(clips['failed'], 'clip')} failed, {seconds['failed']:.1f} s; the same command tries them again:"
        )
    for row in found["named"]:
        text.append(
            f"  {row['key']}: {row['fate']}: {row['rule']}: {row['reason']}{'; ' * bool(row['remedy'])}{row['remedy']}"
        )
    left = clips["refused"] + clips["failed"] - len(found["named"])
    if left > 0:
        text.append(f"  … and {left} more, in {found['folder']}/{ACCOUNT}")
    return text + found["notes"] + [f"{problem}" for problem in found["problems"]]
