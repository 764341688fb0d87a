"""Trainers that read a folder of videos with a text of the same name beside each."""

from __future__ import annotations

import json
import math

from rushes.pipelines.export.dialects.dialect import Dialect, Export, write_lines
from rushes.pipelines.export.rules import Piece


def _nothing(export: Export) -> None:
    """Write nothing: the folder says it all."""


def _by_length(piece: Piece, key: str) -> str:
    return f"videos/{piece.frames:04d}f/{piece.name(key)}.mp4"


def _side(export: Export) -> int:
    """Return the side of a square that has as many pixels as the largest video, on a grid of 16."""
    width, height = export.shapes.largest
    return max(16, round(math.sqrt(width * height) / 16) * 16)


def _ai_toolkit(export: Export) -> None:
    """Write `datasets.yaml`, the part of a job's configuration that names the data: an entry for each length."""
    lines = ["# goes under config.process[0] of a job of ai-toolkit\n", "datasets:\n"]
    for frames in sorted({frames for _, _, frames in export.shapes.counts}):
        lines += [
            f"  - folder_path: {json.dumps(f'{export.folder}/videos/{frames:04d}f')}\n",
            '    caption_ext: "txt"\n',
            f"    num_frames: {frames}\n",
            f"    fps: {export.shapes.rate:g}\n",
            "    shrink_video_to_frames: true\n",
            f"    resolution: [{_side(export)}]\n",
        ]
    write_lines(export, "datasets.yaml", lines)


def _simpletuner(export: Export) -> None:
    """Write `multidatabackend.json`: a video dataset for each length and a cache for the embedded captions."""
    lengths = sorted({frames for _, _, frames in export.shapes.counts})
    videos = [
        {
            "id": f"rushes-{frames:04d}f",
            "type": "local",
            "dataset_type": "video",
            "instance_data_dir": f"{export.folder}/videos/{frames:04d}f",
            "caption_strategy": "textfile",
            "disable_multiline_split": True,
            "metadata_backend": "discovery",
            "crop": False,
            "resolution": _side(export),
            "resolution_type": "pixel_area",
            "minimum_image_size": 0,
            "cache_dir_vae": f"{export.folder}/cache/vae/{frames:04d}f",
            "repeats": 0,
            "video": {"num_frames": frames, "min_frames": frames, "max_frames": frames},
        }
        for frames in lengths
    ]
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
    version="commit 01c9f83, config/examples/train_lora_wan22_14b_24gb.yaml and its data loader's settings",
    reads="videos/0081f/KEY.mp4 and KEY.txt; datasets.yaml has an entry for each length",
    drops="num_frames are spread over the whole clip whatever its rate, which makes slow motion of a short clip and "
    "a hyperlapse of a long one: so each length has a folder and an entry of its own",
    write=_ai_toolkit,
    txt=True,
    place=_by_length,
)
SIMPLETUNER = Dialect(
    name="simpletuner",
    trainer="https://github.com/bghira/SimpleTuner",
    version="3.1.6, helpers/data_backend/config, and commit 04265fc, documentation/DATALOADER.md",
    reads="videos/0081f/KEY.mp4 and KEY.txt; multidatabackend.json, for --data_backend_config, has a dataset for each "
    "length",
    drops="a video shorter than min_frames is skipped, and min_frames may not be less than num_frames, which is five "
    "seconds where it is not set: so each length has a folder and a dataset of its own, and none is skipped or cut. "
    "(One dataset with buckets of lengths would be rounded down to multiples of frame_interval: 4 makes 64 of 65 "
    "frames, then 61.) Each line of a text is a caption of its own: each has one",
    write=_simpletuner,
    txt=True,
    place=_by_length,
)
