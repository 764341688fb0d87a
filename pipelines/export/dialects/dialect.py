"""What a dialect is: whose it is, what of it was read, and how the videos of an export are listed in it."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from rushes.pipelines.export import account
from rushes.pipelines.export.account import Item, Shapes
from rushes.pipelines.export.rules import Piece
from rushes.pipelines.store import storage


@dataclass(frozen=True, kw_only=True)
class Export:
    """A finished set of videos that a dialect lists."""

    folder: str
    """Absolute path of the export."""
    shapes: Shapes
    """What shapes the videos have."""
    shards: str
    """Where the shards are that the clips come from."""

    def items(self) -> Iterator[Item]:
        """Yield the videos."""
        return account.items(self.folder)


def flat(piece: Piece, key: str) -> str:
    """Return the path of a piece where all videos stand in one folder, away from every other file."""
    return f"videos/{piece.name(key)}.mp4"


def by_length(piece: Piece, key: str) -> str:
    """Return the path of a piece where each length has a folder: a trainer is told of one length for each."""
    return f"videos/{piece.frames:04d}f/{piece.name(key)}.mp4"


def by_size(piece: Piece, key: str) -> str:
    """Return the path of a piece where each size has a folder: a trainer is told of one size for each."""
    return f"{of_size(piece.width, piece.height)}/{piece.name(key)}.mp4"


def by_shape(piece: Piece, key: str) -> str:
    """Return the path of a piece where each size and length has a folder."""
    return f"{of_shape(piece.width, piece.height, piece.frames)}/{piece.name(key)}.mp4"


def of_size(width: int, height: int) -> str:
    """Return the folder of the videos of a size."""
    return f"videos/{width:04d}x{height:04d}"


def of_shape(width: int, height: int, frames: int) -> str:
    """Return the folder of the videos of a size and a length."""
    return f"{of_size(width, height)}x{frames:04d}"


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one trainer wants its data."""

    name: str
    """As `--to` takes it."""
    trainer: str
    """Who reads it."""
    version: str
    """Which version was read, for what stands here."""
    reads: str
    """What the trainer reads."""
    drops: str
    """What the trainer drops or changes without stopping, and what is done about it here."""
    write: Callable[[Export], None]
    """Writes the lists and the trainer's own configuration."""
    txt: bool = False
    """Whether each video has its caption beside it, `KEY.txt`."""
    any_rate: bool = True
    """Whether the trainer reads the frame rate of each video, rather than taking it for that of its model."""
    audio: bool = True
    """Whether the trainer reads sound."""
    place: Callable[[Piece, str], str] = flat
    """Where a piece stands in the folder."""
    whole_shards: Callable[[str], str] | None = None
    """For a dialect that takes shards as they are, rather than videos: where one stands, told its path."""
    front: Callable[[int, int], dict[str, Any]] | None = None
    """What the front matter of the card says besides, told the number of videos and their bytes."""
    loads: str = ""
    """Python that loads an export in the folder `DIR`."""


def write_lines(export: Export, name: str, lines: Iterable[str]) -> None:
    """Write a text file of an export whole or not at all, line by line."""
    with storage.open_write(f"{export.folder}/{name}") as file:
        for line in lines:
            file.write(line.encode())


def write_jsonl(export: Export, name: str, record: Callable[[Item], Mapping[str, Any]]) -> None:
    """Write a JSON object a line for each video."""
    write_lines(export, name, (_json(record(item)) + "\n" for item in export.items()))


class JsonList:
    """One JSON list in a file that grows, an object a line."""

    def __init__(self, file: BinaryIO):
        self.file, self.before = file, "["

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one object."""
        self.file.write(f"{self.before}\n{_json(record)}".encode())
        self.before = ","

    def end(self) -> None:
        """Close the list."""
        self.file.write(b"[]\n" if self.before == "[" else b"\n]\n")


def write_json_list(export: Export, name: str, record: Callable[[Item], Mapping[str, Any]]) -> None:
    """Write one JSON list with an object for each video, a line each."""
    with storage.open_write(f"{export.folder}/{name}") as file:
        one = JsonList(file)
        for item in export.items():
            one.add(record(item))
        one.end()


def write_arguments(export: Export, told: Mapping[str, object]) -> None:
    """Write `arguments.txt`, arguments of a training script a line each, quoted: `xargs -a arguments.txt COMMAND`."""
    lines = (f"--{name} {shlex.quote(str(value))}\n" for name, value in told.items())
    write_lines(export, "arguments.txt", lines)


def write_csv(
    export: Export, name: str, columns: Sequence[str], record: Callable[[Item], Sequence[object]]
) -> None:  # fmt: skip
    """Write a CSV with a header, everything in quotes that may be taken for something else."""

    def lines() -> Iterator[str]:
        for row in itertools.chain([columns], map(record, export.items())):
            text = io.StringIO()
            csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerow(row)
            yield text.getvalue()

    write_lines(export, name, lines())


def toml(value: Any) -> str:
    """Return a value as TOML writes it: text, numbers, booleans and lists of these."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False)
