"""Trainers that read a row for each video, of JSON lines or CSV: LTX, DiffSynth-Studio, Open-Sora."""

from __future__ import annotations

from rushes.pipelines.export.account import Item
from rushes.pipelines.export.dialects.dialect import (
    Dialect,
    Export,
    write_arguments,
    write_csv,
    write_jsonl,
    write_lines,
)

BUCKETS = 64
"""Most buckets of width × height × frames that LTX is given."""


def _ltx(export: Export) -> None:
    """Write `dataset.jsonl` and `resolution-buckets.txt`, the argument of the trainer's own preprocessing."""
    write_jsonl(export, "dataset.jsonl", lambda item: {"video": item.file, "caption": item.caption})
    shapes = sorted(export.shapes.counts)
    if len(shapes) > BUCKETS:
        shapes = [(*size, frames) for size in export.shapes.sizes(8) for frames in export.shapes.lengths()]
    write_lines(export, "resolution-buckets.txt", [";".join(f"{w}x{h}x{frames}" for w, h, frames in shapes) + "\n"])


def _diffsynth(export: Export) -> None:
    """Write `metadata.jsonl` and `arguments.txt`, what its training script is told of the data."""
    write_jsonl(export, "metadata.jsonl", lambda item: {"video": item.file, "prompt": item.caption})
    width, height = export.shapes.largest
    told = {
        "dataset_base_path": export.folder,
        "dataset_metadata_path": f"{export.folder}/metadata.jsonl",
        "data_file_keys": "video",
        "num_frames": (export.shapes.lengths() or [1])[-1],
        "max_pixels": width * height,
    }
    write_arguments(export, told)


def _open_sora(export: Export) -> None:
    """Write `dataset.csv` with the columns that its data tools write."""
    columns = ("path", "text", "num_frames", "height", "width", "aspect_ratio", "resolution", "fps")

    def row(item: Item) -> tuple[object, ...]:
        size = item.height, item.width, item.height / item.width, item.height * item.width
        return (f"{export.folder}/{item.file}", item.caption, item.frames, *size, item.fps)

    write_csv(export, "dataset.csv", columns, row)


LTX = Dialect(
    name="ltx",
    trainer="https://github.com/Lightricks/LTX-2 (packages/ltx-trainer) and "
    "https://github.com/Lightricks/LTX-Video-Trainer",
    version="LTX-2 commits 94a2c9a, docs/dataset-preparation.md, and 29aff0b, scripts/process_videos.py; "
    "LTX-Video-Trainer commit e080f25, scripts/process_videos.py",
    reads="dataset.jsonl (video, caption); sound out of the video itself; scripts/process_dataset.py dataset.jsonl "
    "--resolution-buckets with what stands in resolution-buckets.txt",
    drops="a video with fewer frames than the shortest bucket is skipped with a warning, a longer one is cut to a "
    "bucket: the buckets are the shapes of these videos. Of two sizes of one aspect and length the larger bucket is "
    "taken, so that the smaller videos are scaled up. Several buckets need a batch size of 1. A column `audio` would "
    "replace the sound of the video, so there is none",
    write=_ltx,
)
DIFFSYNTH = Dialect(
    name="diffsynth",
    trainer="https://github.com/modelscope/DiffSynth-Studio",
    version="2.1.12, diffsynth/core/data, and commits 030ebe6 and 006372b of the same",
    reads="metadata.jsonl (video, prompt), the videos below --dataset_base_path; arguments.txt for the training "
    "script, by xargs",
    drops="nothing is skipped; a video longer than --num_frames loses its end, a shorter one is cut to 4n+1, and all "
    "are resized to one size where --width and --height are given: they are not, so that each keeps its own. For "
    "LTX-2 frames are counted as the seconds, rounded to hundredths, times 24: 25, 49, 97 and 121 frames become 17, "
    "41, 89 and 113",
    write=_diffsynth,
    any_rate=False,
)
OPEN_SORA = Dialect(
    name="open-sora",
    trainer="https://github.com/hpcaitech/Open-Sora",
    version="commits 16f0972, opensora/datasets/datasets.py, and c552c6a, opensora/datasets/bucket.py",
    reads="dataset.csv (path, text, num_frames, height, width, aspect_ratio = height / width, resolution = height × "
    "width, fps)",
    drops="a video that is smaller than every bucket of the training's bucket_config, or not longer than its shortest "
    "(as many frames are too few), is left out, and one that cannot be read is replaced by another drawn at random or "
    "left out: give buckets that reach down to the smallest of these",
    write=_open_sora,
    audio=False,
)
