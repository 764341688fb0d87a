"""What a dialect is: whose it is, what of it was read, and how the videos of an export are listed in it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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
    audio: bool = True
    """Whether the trainer reads sound."""
    place: Callable[[Piece, str], str] = flat
    """Where a piece stands in the folder."""
    whole_shards: Callable[[str], str] | None = None
    """For a dialect that takes shards as they are, rather than videos: where one stands, told its path."""


def write_lines(export: Export, name: str, lines: Iterable[str]) -> None:
    """Write a text file of an export whole or not at all, line by line."""
    with storage.open_write(f"{export.folder}/{name}") as file:
        for line in lines:
            file.write(line.encode())


def write_jsonl(export: Export, name: str, record: Callable[[Item], Mapping[str, Any]]) -> None:
    """Write a JSON object a line for each video."""
    write_lines(export, name, (_json(record(item)) + "\n" for item in export.items()))


def write_json_list(export: Export, name: str, record: Callable[[Item], Mapping[str, Any]]) -> None:
    """Write one JSON list with an object for each video, a line each."""

    def lines() -> Iterator[str]:
        before = "["
        for item in export.items():
            yield f"{before}\n{_json(record(item))}"
            before = ","
        yield "[]\n" if before == "[" else "\n]\n"

    write_lines(export, name, lines())


def write_csv(export: Export, name: str, record: Callable[[Item], Mapping[str, Any]]) -> None:
    """Write a CSV with a header, everything in quotes that may be taken for something else."""

    def lines() -> Iterator[str]:
        for number, item in enumerate(export.items()):
            row, text = record(item), io.StringIO()
            writer = csv.DictWriter(text, list(row), quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
            if number == 0:
                writer.writeheader()
            writer.writerow(row)
            yield text.getvalue()

    write_lines(export, name, lines())


def toml(value: Any) -> str:
    """Return a value as TOML writes it: text, numbers, booleans and lists of these."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False)
