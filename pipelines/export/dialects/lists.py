"""Trainers that read one JSON list: VideoX-Fun and FastVideo."""

from __future__ import annotations

import math
from typing import Any

from rushes.pipelines.export.account import Item
from rushes.pipelines.export.dialects.dialect import Dialect, Export, write_json_list, write_lines


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
    version="0.2.1, fastvideo/dataset/preprocessing_datasets.py, and commit 4117696, docs/training/data_preprocess.md",
    reads="videos2caption.json (path, cap and what is known of the video), videos/; preprocess_t2v.yaml for its "
    "preprocessing",
    drops="a video whose rate or duration is not in the list is dropped, as is one that is much longer than num_frames "
    "or, by drop_short_ratio, shorter: num_frames is the shortest of these videos, and the tolerance reaches to the "
    "longest. All are cropped to max_height × max_width, the commonest size here. Versions before 0.2 drop shapes far "
    "from it, too",
    write=_fastvideo,
    audio=False,
)
