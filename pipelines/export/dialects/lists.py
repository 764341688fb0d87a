"""Trainers that read one JSON list: VideoX-Fun and FastVideo."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rushes.pipelines.export.account import Item, batches
from rushes.pipelines.export.dialects.dialect import (
    Dialect,
    Export,
    JsonList,
    of_shape,
    write_arguments,
    write_json_list,
    write_lines,
)
from rushes.pipelines.export.rules import Piece
from rushes.pipelines.store import storage

AT_ONCE = 128
"""Lists that are open together; the account is read once for as many."""
LIST, CONFIG = "videos2caption.json", "preprocess_t2v.yaml"


def _videox_fun(export: Export) -> None:
    """Write `metadata.json` and `arguments.txt`, what its training script is told of the data."""
    write_json_list(
        export,
        "metadata.json",
        lambda item: {
            "file_path": item.file, "text": item.caption, "type": "video", "width": item.width, "height": item.height,
        },
    )  # fmt: skip
    told = {
        "train_data_dir": export.folder,
        "train_data_meta": f"{export.folder}/metadata.json",
        "video_sample_stride": 1,
        "video_sample_n_frames": (export.shapes.lengths() or [1])[-1],
    }
    write_arguments(export, told)


def _place(piece: Piece, key: str) -> str:
    """Return the path of a piece where each shape has a folder of the kind that FastVideo is told of."""
    return f"{of_shape(piece.width, piece.height, piece.frames)}/videos/{piece.name(key)}.mp4"


def _fastvideo(export: Export) -> None:
    """Write for each shape `videos2caption.json`, and `preprocess_t2v.yaml`, which takes its videos as they are."""
    shapes = sorted(export.shapes.counts)
    for name in (LIST, CONFIG):
        for path in Path(export.folder).glob(f"videos/*/{name}"):
            if f"videos/{path.parent.name}" not in {of_shape(*shape) for shape in shapes}:
                path.unlink()  # else captions of what left the export would stay
    for some in batches(iter(shapes), AT_ONCE):
        with ExitStack() as stack:
            uris = {shape: f"{export.folder}/{of_shape(*shape)}/{LIST}" for shape in some}
            lists = {shape: JsonList(stack.enter_context(storage.open_write(uri))) for shape, uri in uris.items()}
            for item in export.items():
                if one := lists.get((item.width, item.height, item.frames)):
                    one.add(_fastvideo_row(item))
            for one in lists.values():
                one.end()
    for shape in shapes:
        write_lines(export, f"{of_shape(*shape)}/{CONFIG}", _preprocessing(export, *shape))


def _preprocessing(export: Export, width: int, height: int, frames: int) -> list[str]:
    place = of_shape(width, height, frames)
    cache = place.replace("videos", "cache", 1)
    return [
        "# model_path: Wan-AI/Wan2.1-T2V-1.3B-Diffusers\n",
        "pipeline:\n  workload_type: t2v\n",
        "preprocess:\n",
        "  dataset_type: merged\n",
        f"  dataset_path: {json.dumps(f'{export.folder}/{place}')}\n",
        f"  dataset_output_dir: {json.dumps(f'{export.folder}/{cache}')}\n",
        "  video_loader_type: torchvision\n",
        f"  max_height: {height}\n  max_width: {width}\n",
        f"  num_frames: {frames}\n  train_fps: {max(1, round(export.shapes.rate))}\n",
        "  drop_short_ratio: 0.0\n  preprocess_video_batch_size: 1\n",
    ]


def _fastvideo_row(item: Item) -> dict[str, Any]:
    return {
        "path": item.file.rpartition("/")[2],
        "cap": [item.caption],
        "resolution": {"width": item.width, "height": item.height},
        "size": item.size_bytes,
        "fps": item.fps,
        # Its frames are counted as the seconds times the rate, rounded up: a hair less than they last.
        "duration": math.floor(item.seconds * 1e6) / 1e6 - (1e-6 if item.frames > 1 else 0.0),
        "num_frames": item.frames,
    }


VIDEOX_FUN = Dialect(
    name="videox-fun",
    trainer="https://github.com/aigc-apps/VideoX-Fun",
    version="commit fda54ed, videox_fun/data/dataset_image_video.py",
    reads="metadata.json (file_path, text, type) as --train_data_meta, this folder as --train_data_dir; arguments.txt "
    "for the training script, by xargs",
    drops="a video that cannot be read, or is too short for --video_sample_stride, is replaced by another drawn at "
    "random, with a line in the log: the stride is 1, since the rate is right. Of a longer one than "
    "--video_sample_n_frames a stretch is drawn: that is the longest of these. 1 caption of 10 is left out, as "
    "--text_drop_ratio says",
    write=_videox_fun,
    any_rate=False,
    audio=False,
)
FASTVIDEO = Dialect(
    name="fastvideo",
    trainer="https://github.com/hao-ai-lab/FastVideo",
    version="0.2.1, fastvideo/workflow/preprocess and fastvideo/dataset, and commit 4117696, "
    "docs/training/data_preprocess.md",
    reads="in videos/0832x0480x0081, a folder for each shape, videos2caption.json (path, cap and what is known of the "
    "video) and videos/; preprocess_t2v.yaml there is for its preprocessing",
    drops="a preprocessing crops every video to one size and cuts it to one length, and drops what is shorter: so each "
    "shape has a folder with settings of its own, in which nothing is cropped, cut or dropped. A training takes one "
    "length: --frames 81 makes one, and names what it refuses. Versions before 0.2 want the list in merge.txt, and "
    "drop sizes far from max_height × max_width",
    write=_fastvideo,
    audio=False,
    place=_place,
)
