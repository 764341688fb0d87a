"""Trainers that read a folder of videos with a text of the same name beside each."""

from __future__ import annotations

import json
import math

from rushes.pipelines.export.dialects.dialect import Dialect, Export, by_length, by_shape, of_shape, write_lines


def _nothing(export: Export) -> None:
    """Write nothing: the folder says it all."""


def _side(width: int, height: int) -> int:
    """Return the side of the smallest square with at least as many pixels: a smaller one would scale them down."""
    return math.isqrt(max(width * height - 1, 0)) + 1


def _ai_toolkit(export: Export) -> None:
    """Write `datasets.yaml`, the part of a job's configuration that names the data: an entry for each length."""
    lines = ["# goes under config.process[0] of a job of ai-toolkit\n", "datasets:\n"]
    for frames in export.shapes.every_length():
        lines += [
            f"  - folder_path: {json.dumps(f'{export.folder}/videos/{frames:04d}f')}\n",
            '    caption_ext: "txt"\n',
            f"    num_frames: {frames}\n",
            f"    fps: {export.shapes.rate:g}\n",
            "    shrink_video_to_frames: true\n",
            f"    resolution: [{_side(*export.shapes.largest)}]\n",
        ]
    write_lines(export, "datasets.yaml", lines)


def _simpletuner(export: Export) -> None:
    """Write `multidatabackend.json`: a video dataset for each shape and a cache for the embedded captions."""
    videos = []
    for width, height, frames in sorted(export.shapes.counts):
        name = of_shape(width, height, frames).rpartition("/")[2]
        videos.append(
            {
                "id": f"rushes-{name}",
                "type": "local",
                "dataset_type": "video",
                "instance_data_dir": f"{export.folder}/{of_shape(width, height, frames)}",
                "caption_strategy": "textfile",
                "disable_multiline_split": True,
                "metadata_backend": "discovery",
                "crop": False,
                "resolution": _side(width, height),
                "resolution_type": "pixel_area",
                "minimum_image_size": 0,
                "cache_dir_vae": f"{export.folder}/cache/vae/{name}",
                "repeats": 0,
                "video": {"num_frames": frames, "min_frames": frames, "max_frames": frames},
            }
        )
    texts = {
        "id": "text-embeds",
        "type": "local",
        "dataset_type": "text_embeds",
        "default": True,
        "cache_dir": f"{export.folder}/cache/text",
    }
    write_lines(export, "multidatabackend.json", [json.dumps([*videos, texts], indent=1) + "\n"])


FOLDER = Dialect(
    name="folder",
    trainer="whoever reads a folder, such as OneTrainer",
    version="no one's in particular",
    reads="videos/KEY.mp4 and its caption, videos/KEY.txt",
    drops="a video without a text is often skipped: none is without",
    write=_nothing,
    txt=True,
)
AI_TOOLKIT = Dialect(
    name="ai-toolkit",
    trainer="https://github.com/ostris/ai-toolkit",
    version="commit 01c9f83, config/examples/train_lora_wan22_14b_24gb.yaml, and toolkit/dataloader_mixins.py and "
    "toolkit/buckets.py of 2026",
    reads="videos/0081f/KEY.mp4 and KEY.txt; datasets.yaml has an entry for each length",
    drops="num_frames are spread over the whole clip whatever its rate, which makes slow motion of a short clip and "
    "a hyperlapse of a long one: so each length has a folder and an entry of its own. Nothing is scaled up, and what "
    "has more pixels than the square of `resolution` is scaled down: that is the square above the largest of these",
    write=_ai_toolkit,
    any_rate=False,
    txt=True,
    place=by_length,
)
SIMPLETUNER = Dialect(
    name="simpletuner",
    trainer="https://github.com/bghira/SimpleTuner",
    version="3.1.6, helpers/data_backend/config, helpers/metadata/backends and helpers/multiaspect, and commit "
    "04265fc, documentation/DATALOADER.md",
    reads="videos/0832x0480x0081/KEY.mp4 and KEY.txt; multidatabackend.json, for --data_backend_config, has a dataset "
    "for each shape",
    drops="a video shorter than min_frames is skipped, and min_frames may not be less than num_frames, which is five "
    "seconds where it is not set; all videos of a dataset are brought to its area. So each shape has a folder and a "
    "dataset of its own, and none is skipped, cut or blown up; sides are rounded as the model's alignment wants it. "
    "(One dataset with buckets of lengths would be rounded down to multiples of frame_interval: 4 makes 64 of 65 "
    "frames, then 61.) A bucket with fewer videos than a batch is removed with a line in the log, or stops the "
    "training: give train_batch_size 1, or repeats. Each line of a text is a caption of its own: each has one",
    write=_simpletuner,
    any_rate=False,
    txt=True,
    place=by_shape,
)
