"""Files in folders of the inputs that are not taken for their suffix: how many, and how to take them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

MOST = 50
"""Suffixes of a folder that are told apart; numbered files may have as many as there are files."""
LONGEST = 12
"""Characters of a suffix; what follows the last dot of a name may be anything."""
NAMED = 8
"""Suffixes that the line names."""
OTHERS = "others"
NONE = "none"


class PassedOver:
    """Counts of files by input folder and suffix; memory does not grow with the files."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, list[int]]] = {}

    def look_at(self, folder: str) -> None:
        """Begin with a folder; one that is given twice counts once."""
        self._counts[folder] = {}

    def add(self, folder: str, name: str, size_bytes: int | None) -> None:
        """Count one file."""
        suffix = PurePosixPath(name).suffix.lower() or NONE
        if len(suffix) > LONGEST or not suffix.lstrip(".").isalnum():
            suffix = OTHERS
        found = self._counts.setdefault(folder, {})
        if suffix not in found and len(found) >= MOST:
            suffix = OTHERS
        count = found.setdefault(suffix, [0, 0])
        count[0] += 1
        count[1] += size_bytes or 0

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Return rows of the table `passed_over` by folder, the most files first."""
        return {
            folder: [
                {"folder": folder, "suffix": suffix, "files": files, "size_bytes": size_bytes}
                for suffix, (files, size_bytes) in sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
            ]
            for folder, found in self._counts.items()
        }


def line(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return one line on what was passed over, empty where there is nothing."""
    files: dict[str, int] = {}
    for row in rows:
        files[row["suffix"]] = files.get(row["suffix"], 0) + row["files"]
    if not files:
        return ""
    ordered = sorted(files.items(), key=lambda item: (item[0] == OTHERS, -item[1], item[0]))
    named = ", ".join(f"{count} {suffix}" for suffix, count in ordered[:NAMED])
    more = sum(count for _, count in ordered[NAMED:])
    first = next((suffix for suffix, _ in ordered if suffix.startswith(".")), "")
    remedy = f"; take a suffix with --inputs.suffixes '[{first}]'" if first else "; name a file to take it"
    total = sum(files.values())
    number = "1 file of the folders was" if total == 1 else f"{total} files of the folders were"
    return f"{number} passed over by suffix: {named}{f', {more} more' if more else ''}{remedy}"
