"""FiftyOne's own format on disk, `FiftyOneDataset`: what it knows of samples, as documents of its database.

    DIR/metadata.json    the dataset: the name, type and meaning of every field
    DIR/samples.json     {"samples": [...]}, a document a line
    DIR/data/            the videos, which documents name by their path from DIR

Documents are MongoDB's extended JSON. Ids are made of what they name, so that the same export gives the same bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from rushes.filters import tags
from rushes.pipelines.export import account
from rushes.pipelines.export.account import Item
from rushes.pipelines.export.dialects.dialect import Dialect, Export, JsonList
from rushes.pipelines.export.rules import Piece
from rushes.pipelines.report.measures import TITLES
from rushes.pipelines.store import shards, storage

VERSION = "1.0.0"
"""The version of FiftyOne whose documents these are; later ones bring them up to themselves."""
_FIELDS = "fiftyone.core.fields"
_OF_ARROW = {pa.string(): "StringField", pa.float64(): "FloatField", pa.int64(): "IntField", pa.bool_(): "BooleanField"}
_OWN = {
    "key": ("StringField", "key of the clip: its content and its start"),
    "caption": ("StringField", "as a trainer gets it"),
    "verdict": ("StringField", "what the selection says of it"),
    "selection": ("StringField", "which selection"),
    "source": ("StringField", "where the footage lies"),
    "start_s": ("FloatField", "where the video begins in its source, seconds"),
    "end_s": ("FloatField", "where it ends there, seconds"),
    "shown": ("FloatField", "share of its clip that it shows"),
    "licence": ("StringField", "as the list of inputs gave it"),
    "rights": ("StringField", "as the list of inputs gave it"),
}
"""What every sample says, beside what was measured: type and meaning."""
_LEFT_OUT = frozenset(
    {"offset", "size_bytes", "mp4_offset", "mp4_bytes", "json_offset", "json_bytes", "txt_offset", "txt_bytes",
     "sha256", "uri", "width", "height", "fps", "frames", "duration_s", "codec", "has_audio", "copied", "wave",
     "caption_bound", "caption_pictures", "caption_prompt", "tags", "tags_label"}
)  # fmt: skip
"""Facts of a clip that say nothing of its picture here: places in a tar, what `metadata` says of the video, and what
stands elsewhere; `tags` is FiftyOne's own name."""
_TAKEN = frozenset(
    {"id", "filepath", "metadata", "created_at", "last_modified_at", "seen", "support", "dataset", "copy"}
)
"""Names that FiftyOne, or this module, has for something else; a scorer of such a name gets a mark behind it."""


def _place(piece: Piece, key: str) -> str:
    return f"data/{piece.name(key)}.mp4"


def _write(export: Export) -> None:
    """Write `metadata.json` and `samples.json`."""
    selection = export.shards.rstrip("/").rsplit("/", 1)[-1]
    columns: dict[str, pa.DataType] = {}
    with storage.open_write(f"{export.folder}/samples.json") as file:
        file.write(b'{"samples": ')
        listed = JsonList(file)
        for row, facts in _rows(export, columns):
            for item, piece in zip(account.items_of(row), row["pieces"], strict=True):
                listed.add(_sample(item, piece, facts, selection))
        listed.end()
        file.write(b"}\n")
    told = {
        "version": VERSION,
        "media_type": "video",
        "info": {"made_by": "rushes export", "selection": selection},
        "sample_fields": list(_sample_fields(columns)),
        "frame_fields": list(_frame_fields()),
    }
    storage.write_bytes(f"{export.folder}/metadata.json", (json.dumps(told, indent=1) + "\n").encode())


def _rows(export: Export, columns: dict[str, pa.DataType]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the rows of the account with their clips' facts, a shard at a time; their types come into `columns`."""
    infos = {info.path: info for info in shards.read_manifest(export.shards).shards}
    for shard, rows in itertools.groupby(account.rows(export.folder), key=lambda row: row["shard"]):
        table = shards.read_sidecar(export.shards, infos[shard])
        kept = [name for name in table.column_names if name not in _LEFT_OUT and name not in _OWN]
        columns |= {_named(name): table.schema.field(name).type for name in kept}
        read = {facts["key"]: facts for facts in table.select(["key", *kept, *_also(table)]).to_pylist()}
        for row in rows:
            yield row, read[row["key"]]


def _also(table: pa.Table) -> list[str]:
    return [name for name in ("tags_label",) if name in table.column_names]


def _named(name: str) -> str:
    return f"{name}_" if name in _TAKEN else name


def _sample(item: Item, piece: Mapping[str, Any], facts: Mapping[str, Any], selection: str) -> dict[str, Any]:
    """Return the document of one video; what is not known is left out."""
    own = {
        "key": item.key, "caption": item.caption, "verdict": "kept", "selection": selection, "source": item.uri,
        "start_s": item.start_s, "end_s": round(item.start_s + item.seconds, 6), "shown": piece["shown"],
        "licence": item.licence, "rights": item.rights,
    }  # fmt: skip
    measured = {_named(name): value for name, value in facts.items() if name not in _LEFT_OUT and name not in _OWN}
    return {
        "_id": _id(item.file),
        "_media_type": "video",
        "_rand": int(hashlib.sha256(item.file.encode()).hexdigest()[24:32], 16) / 2**32,
        "filepath": item.file,
        "tags": [],
        "metadata": {
            "_cls": "VideoMetadata", "size_bytes": item.size_bytes, "mime_type": "video/mp4",
            "frame_width": item.width, "frame_height": item.height, "frame_rate": item.fps,
            "total_frame_count": item.frames, "duration": item.seconds,
        },
        **_seen(item, facts.get("tags_label") or ""),
        **{name: value for name, value in {**measured, **own}.items() if value not in (None, "")},
    }  # fmt: skip


def _seen(item: Item, line: str) -> dict[str, Any]:
    found = [
        {"_id": _id(f"{item.file} {tag.name}"), "_cls": "Classification", "tags": [], "label": tag.name,
         "confidence": tag.probability}
        for tag in tags.parse(line)
    ]  # fmt: skip
    return {"seen": {"_cls": "Classifications", "classifications": found}} if found else {}


def _id(text: str) -> dict[str, str]:
    return {"$oid": hashlib.sha256(text.encode()).hexdigest()[:24]}


# ----------------------------------------------------------------------------------------------------------- the schema


def _field(name: str, kind: str, about: str = "", **more: Any) -> dict[str, Any]:
    """Return the document of a field; when it was made is for FiftyOne to say."""
    told: dict[str, Any] = {"name": name, "ftype": f"{_FIELDS}.{kind}", "embedded_doc_type": None, "subfield": None}
    told |= {"fields": [], "db_field": name, "description": about or None, "info": None, "read_only": False}
    return told | more


def _embedded(name: str, kind: str, fields: list[dict[str, Any]], about: str = "") -> dict[str, Any]:
    return _field(name, "EmbeddedDocumentField", about, embedded_doc_type=kind, fields=fields)


def _list(name: str, of: str, **more: Any) -> dict[str, Any]:
    return _field(name, "ListField", subfield=f"{_FIELDS}.{of}", **more)


def _sample_fields(columns: Mapping[str, pa.DataType]) -> Iterator[dict[str, Any]]:
    numbers = {"size_bytes": "IntField", "mime_type": "StringField", "frame_width": "IntField",
               "frame_height": "IntField", "frame_rate": "FloatField", "total_frame_count": "IntField",
               "duration": "FloatField"}  # fmt: skip
    yield from _every("id")
    yield from (_field("filepath", "StringField"), _list("tags", "StringField"))
    yield _embedded("metadata", "fiftyone.core.metadata.VideoMetadata", [_field(*one) for one in numbers.items()])
    yield from (_field("_media_type", "StringField"), _field("_rand", "FloatField"))
    label = [_field("id", "ObjectIdField", db_field="_id"), _list("tags", "StringField"),
             _field("label", "StringField"), _field("confidence", "FloatField")]  # fmt: skip
    kinds = _list("classifications", "EmbeddedDocumentField", fields=label,
                  embedded_doc_type="fiftyone.core.labels.Classification")  # fmt: skip
    yield _embedded("seen", "fiftyone.core.labels.Classifications", [kinds], "the five likeliest tags, by a classifier")
    yield from (_field(name, kind, about) for name, (kind, about) in _OWN.items())
    for name, kind in sorted(columns.items()):
        if kind in _OF_ARROW:
            title, unit = TITLES.get(name, ("", ""))
            yield _field(name, _OF_ARROW[kind], ", ".join(filter(None, (title, unit))))


def _frame_fields() -> Iterator[dict[str, Any]]:
    yield from _every("id")
    yield from (_field("frame_number", "FrameNumberField"), _field("_sample_id", "ObjectIdField"))


def _every(name: str) -> Iterator[dict[str, Any]]:
    """Yield the fields that all documents of FiftyOne have."""
    yield _field(name, "ObjectIdField", db_field="_id")
    yield _field("_dataset_id", "ObjectIdField")
    yield from (_field(when, "DateTimeField", read_only=True) for when in ("created_at", "last_modified_at"))


FIFTYONE = Dialect(
    name="fiftyone",
    trainer="https://github.com/voxel51/fiftyone, to look at a selection",
    version="fiftyone 1.22.1, fiftyone/utils/data/importers.py and exporters.py, and fiftyone/migrations",
    reads="samples.json and metadata.json, in which measures, caption, tags, times and source are fields, and data/",
    drops="nothing; it reads samples.json whole, and looks for the videos where the folder was when it was read",
    write=_write,
    loads="import fiftyone\n\nkind = fiftyone.types.FiftyOneDataset\n"
    'dataset = fiftyone.Dataset.from_dir(dataset_dir="DIR", dataset_type=kind, name="rushes", persistent=True)\n'
    "fiftyone.launch_app(dataset).wait()",
    place=_place,
)
