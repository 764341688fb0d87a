"""Videos beside or inside a table: a Hugging Face video folder, and Lance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rushes.pipelines.export import account
from rushes.pipelines.export.account import Item, batches
from rushes.pipelines.export.dialects.dialect import Dialect, Export
from rushes.pipelines.store import storage

ROWS, LANCE_ROWS = 4096, 16
"""Rows held at once: of facts, and of facts with their videos."""
LANCE, LANCE_OF = "clips.lance", "lance.json"
_FACTS = pa.schema(
    [
        ("text", pa.string()), ("key", pa.string()), ("frames", pa.int32()), ("fps", pa.float64()),
        ("width", pa.int32()), ("height", pa.int32()), ("duration_s", pa.float64()), ("has_audio", pa.bool_()),
        ("source", pa.string()), ("start_s", pa.float64()), ("licence", pa.string()), ("rights", pa.string()),
    ]
)  # fmt: skip


def _facts(item: Item) -> dict[str, Any]:
    return {
        "text": item.caption, "key": item.key, "frames": item.frames, "fps": item.fps, "width": item.width,
        "height": item.height, "duration_s": item.seconds, "has_audio": item.has_audio, "source": item.uri,
        "start_s": item.start_s, "licence": item.licence, "rights": item.rights,
    }  # fmt: skip


def _hf(export: Export) -> None:
    """Write `metadata.parquet`, whose `file_name` leads to the videos."""
    schema = pa.schema([pa.field("file_name", pa.string()), *_FACTS])
    with (
        storage.open_write(f"{export.folder}/metadata.parquet") as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for items in batches(export.items(), ROWS):
            rows = [{"file_name": item.file, **_facts(item)} for item in items]
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _front(videos: int, size_bytes: int) -> dict[str, Any]:
    """Return the card's configuration: its files, its columns, and its split with what it holds."""
    files = {"split": "train", "path": ["metadata.parquet", "videos/*.mp4"]}
    columns = [{"name": field.name, "dtype": _DTYPES.get(str(field.type), str(field.type))} for field in _FACTS]
    return {
        "configs": [{"config_name": "default", "data_files": [files], "default": True}],
        "dataset_info": {
            "features": [{"name": "video", "dtype": "video"}, *columns],
            "splits": [{"name": "train", "num_bytes": size_bytes, "num_examples": videos}],
            "download_size": size_bytes,
            "dataset_size": size_bytes,
        },
    }


_DTYPES = {"double": "float64"}  # as Hugging Face names what Arrow names otherwise


def _lance(export: Export) -> None:
    """Write `clips.lance`, a row for each video with its bytes, unless it is of this very account already.

    Lance names its files at random: two exports hold equal rows, not equal bytes.
    """
    try:
        import lance
    except ImportError as error:
        raise ValueError("the dialect lance needs its package: pip install 'rushes[lance]'") from error
    folder = Path(export.folder)
    made_of = {"account": account.digest(export.folder)}
    told = storage.read_if_there(str(folder / LANCE_OF))
    if told is not None and json.loads(told) == made_of and (folder / LANCE).is_dir():
        return
    storage.remove(str(folder / LANCE_OF))
    for stale in (folder / LANCE, folder / f".{LANCE}"):
        shutil.rmtree(stale, ignore_errors=True)
    # A blob is read by itself, lazily, so that a look at the captions does not go through the videos.
    video = pa.field("video", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    schema = pa.schema([*_FACTS, video])
    reader = pa.RecordBatchReader.from_batches(schema, _with_videos(export, schema))
    lance.write_dataset(reader, str(folder / f".{LANCE}"), schema=schema)
    (folder / f".{LANCE}").rename(folder / LANCE)
    storage.write_bytes(str(folder / LANCE_OF), (json.dumps(made_of) + "\n").encode())


def _with_videos(export: Export, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for items in batches(export.items(), LANCE_ROWS):
        rows = [{**_facts(item), "video": (Path(export.folder) / item.file).read_bytes()} for item in items]
        yield from pa.Table.from_pylist(rows, schema).to_batches()


HF = Dialect(
    name="hf",
    trainer="https://github.com/huggingface/datasets, its videofolder",
    version="datasets 5.2.0, packaged_modules/folder_based_builder",
    reads="metadata.parquet (file_name, text and what is known of the video), videos/; the card is README.md",
    drops="a row whose file is missing fails the whole, a video without a row is left out: neither is there",
    write=_hf,
    front=_front,
    loads='import datasets\n\nclips = datasets.load_dataset("DIR", split="train")\n'
    'clips = clips.cast_column("video", datasets.Video(decode=False))  # does without torchcodec: path and bytes',
)
LANCE_TABLE = Dialect(
    name="lance",
    trainer="https://github.com/lancedb/lance, for whoever trains from it",
    version="pylance 14.0.2 (the extra `lance`)",
    reads="clips.lance: text, facts and, as a blob, the video; videos/ are the same once more and may go when "
    "nothing is to be exported again",
    drops="nothing",
    write=_lance,
    loads='import lance\n\nclips = lance.dataset("DIR/clips.lance")\n'
    'print(clips.to_table(["key", "text"], limit=3), clips.take_blobs("video", indices=[0])[0].read()[:8])',
)
