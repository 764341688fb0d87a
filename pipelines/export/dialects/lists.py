"""Trainers that read one JSON list: VideoX-Fun and FastVideo."""

from __future__ import annotations

import math
from typing import Any

from rushes.pipelines.export.account import Item
from rushes.pipelines.export.dialects.dialect import Dialect, Export, write_json_list, write_lines
from rushes.pipelines.export.rules import Piece, Refusal

SHAPES = (8 / 16, 17 / 16)
"""The heights that FastVideo takes, in widths."""
APART = 1.5
"""By which factor a shape may differ from the one that FastVideo trains on."""


def _videox_fun(export: Export) -> None:
    """Write `metadata.json`."""
    write_json_list(
        export,
        "metadata.json",
        lambda item: {
            "file_path": item.file, "text": item.caption, "type": "video", "width": item.width, "height": item.height,
        },
    )  # fmt: skip


def _fastvideo(export: Export) -> None:
    """Write `videos2caption.json`, and `preprocess_t2v.yaml`, which takes the length that every video has."""
    write_json_list(export, "videos2caption.json", _fastvideo_row)
    width, height = export.shapes.commonest
    lengths = export.shapes.lengths() or [1]
    lines = [
        "# model_path: Wan-AI/Wan2.1-T2V-1.3B-Diffusers\n",
        "pipeline:\n  workload_type: t2v\n",
        "preprocess:\n",
        "  dataset_type: merged\n",
        f"  dataset_path: {export.folder}\n",
        f"  dataset_output_dir: {export.folder}/cache\n",
        "  video_loader_type: torchvision\n",
        f"  max_height: {height}\n  max_width: {width}\n",
        f"  num_frames: {lengths[0]}\n",
        f"  train_fps: {export.shapes.rate:g}\n",
        f"  video_length_tolerance_range: {math.ceil(lengths[-1] / lengths[0]) + 1}\n",
    ]
    write_lines(export, "preprocess_t2v.yaml", lines)


def _fastvideo_row(item: Item) -> dict[str, Any]:
    return {
        "path": item.file.removeprefix("videos/"),
        "cap": [item.caption],
        "resolution": {"width": item.width, "height": item.height},
        "size": item.size_bytes,
        "fps": item.fps,
        # Its frames are counted as the seconds times the rate, rounded up: a hair less than they last.
        "duration": math.floor(item.seconds * 1e6) / 1e6 - (1e-6 if item.frames > 1 else 0.0),
        "num_frames": item.frames,
    }


def _fastvideo_refuses(piece: Piece, common: tuple[int, int]) -> Refusal | None:
    """Return why FastVideo would drop a piece: its shape is not one it takes, or too far from the one trained on."""
    shape, trained = piece.height / piece.width, common[1] / common[0]
    low, high = max(SHAPES[0], trained / APART), min(SHAPES[1], trained * APART)
    if low <= shape <= high:
        return None
    limit = low if shape < low else high
    return Refusal(
        rule="fastvideo_shape", value=round(shape, 4), limit=round(limit, 4),
        reason=f"{piece.width}×{piece.height} is {shape:.3f} as high as wide; FastVideo takes {low:.3f} to {high:.3f} "
        f"beside {common[0]}×{common[1]}",
    )  # fmt: skip


VIDEOX_FUN = Dialect(
    name="videox-fun",
    trainer="https://github.com/aigc-apps/VideoX-Fun",
    version="commit fda54ed, videox_fun/data/dataset_image_video.py",
    reads="metadata.json (file_path, text, type) as --train_data_meta, this folder as --train_data_dir",
    drops="a video that cannot be read, or is too short for --video_sample_stride, is replaced by another drawn at "
    "random, with a line in the log: give --video_sample_stride=1, since the rate is right",
    write=_videox_fun,
    audio=False,
)
FASTVIDEO = Dialect(
    name="fastvideo",
    trainer="https://github.com/hao-ai-lab/FastVideo",
    version="commits 4117696, docs/training/data_preprocess.md, and 07766ab, "
    "fastvideo/dataset/preprocessing_datasets.py",
    reads="videos2caption.json (path, cap and what is known of the video), videos/; preprocess_t2v.yaml for its "
    "preprocessing",
    drops="a shape that is 1.5 times higher or wider than max_height × max_width, or not between 0.5 and 1.06 as "
    "high as wide, is dropped: here it is refused by the rule fastvideo_shape. So is what is much longer or shorter "
    "than num_frames: that is the shortest of these videos, and the tolerance reaches to the longest",
    write=_fastvideo,
    audio=False,
    refuses=_fastvideo_refuses,
)
