"""The shards as they are, with the index beside each that webshart reads: SimpleTuner's backend `webshart`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

from rushes.pipelines.export import account
from rushes.pipelines.export.dialects.dialect import Dialect, Export
from rushes.pipelines.store import shards, storage


def _beside_one_another(shard: str) -> str:
    """Return where a shard stands: all in one folder, for webshart before 0.5 looks into no folder below."""
    return f"shards/{shard.replace('/', '-')}"


def _webshart(export: Export) -> None:
    """Write an index for each shard: where the videos stand in it, their sizes and captions.

    What was refused stands in the tar and not in the index, so no reader of the index meets it.
    """
    by_shard = itertools.groupby(account.rows(export.folder), key=lambda row: row["shard"])
    infos = {info.path: info for info in shards.read_manifest(export.shards).shards}
    for shard, rows in by_shard:
        info, place = infos[shard], _beside_one_another(shard)
        places = shards.read_sidecar(export.shards, info).select(["key", "mp4_offset", "mp4_bytes"]).to_pylist()
        of_key = {row["key"]: row for row in places}
        index = {
            "path": place.rsplit("/", 1)[-1],
            "filesize": info.size_bytes,
            "hash": info.sha256,
            "includes_image_geometry": True,
            "files": {f"{row['key']}.mp4": _entry(row, of_key[row["key"]]) for row in rows if row["pieces"]},
        }
        text = json.dumps(index, indent=1, ensure_ascii=False) + "\n"
        storage.write_bytes(f"{export.folder}/{place.removesuffix('.tar')}.json", text.encode())


def _entry(row: Mapping[str, Any], place: Mapping[str, Any]) -> dict[str, Any]:
    piece = row["pieces"][0]
    return {
        "offset": place["mp4_offset"],
        "length": place["mp4_bytes"],
        "width": piece["width"],
        "height": piece["height"],
        "aspect": round(piece["width"] / piece["height"], 6),
        "captions": row["caption"],
    }


WEBSHART = Dialect(
    name="webshart",
    trainer="https://github.com/bghira/webshart, for SimpleTuner",
    version="webshart 0.4.6, commits 00f9fc5, README.md, and 52003a3, src/metadata.rs",
    reads="shards/<bucket>-NAME-000000.tar and, beside it, the index of the same name in JSON; `source` is the "
    "folder shards",
    drops="files larger than max_file_size are left out. Nothing is cut or timed anew: shards are taken as they "
    "are, so --fps, --frames, --multiple, --split and --max_frames have no place here",
    write=_webshart,
    whole_shards=_beside_one_another,
)
