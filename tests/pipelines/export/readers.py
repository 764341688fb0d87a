"""Readers of exports, one for each trainer, written from what its documentation and its data loader say.

Each returns, by the name of the video, what the trainer would learn from: its caption and how many of its frames. What
a trainer drops is missing here, so that a test sees it.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import imageio.v3
import numpy as np
import pandas as pd
import pytest
import yaml

Taken = dict[str, tuple[str, int]]


def by_pyav(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(frame.width, frame.height) for frame in container.decode(video=0)]


def by_opencv(path: Path) -> tuple[int, float]:
    """Frames decoded and the header's rate; the header's count must be the same."""
    capture, frames = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        frames += 1
    assert frames == int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return frames, capture.get(cv2.CAP_PROP_FPS)


def folder(out: Path) -> Taken:
    return {
        path.stem: (path.with_suffix(".txt").read_text(), len(by_pyav(path))) for path in out.glob("videos/*.mp4")
    }  # fmt: skip


def musubi(out: Path) -> Taken:
    """`full`: all frames, cut to max_frames and to 4n+1, brought to a bucket.

    Which bucket is twofold: until September 2026 videos went to the nearest of the area of `resolution` whatever the
    file said, since then `bucket_no_upscale` counts. What stands here is right for both.
    """
    told = tomllib.loads((out / "dataset.toml").read_text())
    general, taken = told["general"], {}
    assert general["enable_bucket"] and general["bucket_no_upscale"]
    assert len({one["cache_directory"] for one in told["datasets"]}) == len(told["datasets"]) > 0
    for dataset in told["datasets"]:
        assert dataset["frame_extraction"] == "full"
        for path in Path(dataset["video_directory"]).glob("*.mp4"):
            sizes = by_pyav(path)
            assert _musubi_bucket(*dataset["resolution"], sizes[0]) == sizes[0] == _no_upscale(*sizes[0])
            assert math.prod(sizes[0]) <= math.prod(dataset["resolution"])
            frames = (min(len(sizes), dataset["max_frames"]) - 1) // 4 * 4 + 1
            taken[path.stem] = path.with_suffix(general["caption_extension"]).read_text().strip(), frames
    return taken


def _musubi_bucket(width: int, height: int, size: tuple[int, int]) -> tuple[int, int]:
    area, side = width * height, int(math.sqrt(width * height))
    buckets: set[tuple[int, int]] = set()
    for short in range(side // 2 // 16 * 16, side + 16, 16):
        buckets |= {(short, area // short // 16 * 16), (area // short // 16 * 16, short)}
    return min(sorted(buckets), key=lambda bucket: abs(bucket[0] / bucket[1] - size[0] / size[1]))


def _no_upscale(width: int, height: int) -> tuple[int, int]:
    return width // 16 * 16, height // 16 * 16


def diffusion_pipe(out: Path, framerate: int = 16) -> Taken:
    """Every file of a folder goes to the bucket nearest in aspect, of those the longest that it is long enough for.

    Frames are counted by imageio, taken again at the model's rate, and cut to those of the bucket.
    """
    told = tomllib.loads((out / "dataset.toml").read_text())
    taken: Taken = {}
    for directory in told["directory"]:
        buckets = sorted(directory["size_buckets"], key=lambda bucket: bucket[-1], reverse=True)
        for path in sorted(Path(directory["path"]).glob("*")):
            if path.suffix in (".txt", ".npz", ".json", ".parquet"):
                continue
            frames, (width, height) = sum(1 for _ in imageio.v3.imiter(path, plugin="pyav")), by_pyav(path)[0]
            nearest = sorted(buckets, key=lambda bucket: abs(math.log(width / height * bucket[1] / bucket[0])))
            fit = [bucket for bucket in nearest if 1 < bucket[-1] <= frames]
            if not path.with_suffix(".txt").exists() or not fit:
                continue
            assert tuple(fit[0][:2]) == (width, height) and width % 16 == height % 16 == 0
            with av.open(str(path)) as container:
                again = int(frames * framerate / float(container.streams.video[0].average_rate))
            taken[path.stem] = path.with_suffix(".txt").read_text().strip(), min(again, fit[0][-1])
    return taken


def ai_toolkit(out: Path) -> Taken:
    """num_frames spread evenly over the whole clip: as many as it has leave it as it is. More pixels than the square of
    `resolution` are scaled down, fewer are left alone."""
    taken: Taken = {}
    for dataset in yaml.safe_load((out / "datasets.yaml").read_text())["datasets"]:
        for path in Path(dataset["folder_path"]).glob("*.mp4"):
            frames, rate = by_opencv(path)
            assert frames == dataset["num_frames"] and rate == dataset["fps"]
            assert math.prod(by_pyav(path)[0]) <= dataset["resolution"][0] ** 2
            taken[path.stem] = path.with_suffix(f".{dataset['caption_ext']}").read_text(), frames
    return taken


def simpletuner(out: Path) -> Taken:
    """Each line is a caption; num_frames are taken, at most min_frames; what has fewer frames than that is skipped."""
    *videos, texts = json.loads((out / "multidatabackend.json").read_text())
    assert texts["dataset_type"] == "text_embeds" and texts["default"]
    assert len({one["id"] for one in videos}) == len(videos)
    taken: Taken = {}
    for dataset in videos:
        video = dataset["video"]
        assert dataset["dataset_type"] == "video" and video["min_frames"] >= video["num_frames"]
        assert dataset["resolution_type"] == "pixel_area" and isinstance(dataset["resolution"], int)
        for path in Path(dataset["instance_data_dir"]).glob("*.mp4"):
            (caption,) = path.with_suffix(".txt").read_text().splitlines()
            if video["min_frames"] <= by_opencv(path)[0] <= video["max_frames"]:
                assert _simpletuner_size(dataset["resolution"], *by_pyav(path)[0]) == by_pyav(path)[0]
                taken[path.stem] = caption, video["num_frames"]
    return taken


def _simpletuner_size(side: int, width: int, height: int, align: int = 16) -> tuple[int, int]:
    """The area is that of the square, the aspect is rounded to two digits, the sides to the model's alignment."""
    edge, aspect = round(side / align) * align, math.sqrt(round(width / height, 2))
    return round(edge * aspect / align) * align, round(edge / aspect / align) * align


def ltx(out: Path) -> Taken:
    """Of the buckets that a video is long enough for, the one nearest in aspect, then the longest, then the largest."""
    text = (out / "resolution-buckets.txt").read_text().strip()
    buckets = [tuple(map(int, bucket.split("x"))) for bucket in text.split(";")]
    assert all(w % 32 == h % 32 == 0 and frames % 8 == 1 for w, h, frames in buckets)
    taken: Taken = {}
    for line in (out / "dataset.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert set(record) == {"video", "caption"}
        sizes = by_pyav(out / record["video"])
        fit = [bucket for bucket in buckets if bucket[2] <= len(sizes)]
        if fit:
            width, height = sizes[0]
            best = min(fit, key=lambda b: (abs(math.log(width / height * b[1] / b[0])), -b[2], -b[0] * b[1]))
            assert best[:2] == (width, height)
            taken[Path(record["video"]).stem] = record["caption"], best[2]
    return taken


def arguments(out: Path) -> dict[str, str]:
    """As xargs takes them from the file."""
    words = shlex.split((out / "arguments.txt").read_text())
    return dict(zip(words[::2], words[1::2], strict=True))


def diffsynth(out: Path) -> Taken:
    """All frames up to num_frames, else as many as are 4n+1; what has more than max_pixels is scaled down."""
    told = arguments(out)
    taken: Taken = {}
    for line in Path(told["--dataset_metadata_path"]).read_text().splitlines():
        row = json.loads(line)
        sizes = by_pyav(Path(told["--dataset_base_path"]) / row[told["--data_file_keys"]])
        assert math.prod(sizes[0]) <= int(told["--max_pixels"])
        frames = min(len(sizes), int(told["--num_frames"]))
        while frames % 4 != 1:
            frames -= 1
        taken[Path(row["video"]).stem] = row["prompt"], frames
    return taken


def videox_fun(out: Path) -> Taken:
    """Every stride-th frame, as many as are asked for at most."""
    told = arguments(out)
    records = json.loads(Path(told["--train_data_meta"]).read_text())
    assert all(record["type"] == "video" for record in records)
    stride, most = int(told["--video_sample_stride"]), int(told["--video_sample_n_frames"])
    paths = {Path(told["--train_data_dir"]) / record["file_path"]: record["text"] for record in records}
    return {path.stem: (text, min(most, by_opencv(path)[0] // stride)) for path, text in paths.items()}


def fastvideo(out: Path) -> Taken:
    """In each folder what is not too long or too short, cropped to one size and cut to one length."""
    taken: Taken = {}
    for config in out.glob("videos/*/preprocess_t2v.yaml"):
        told = yaml.safe_load(config.read_text())["preprocess"]
        root = Path(told["dataset_path"])
        records = json.loads((root / "videos2caption.json").read_text())
        assert len(records) == len(list((root / "videos").iterdir())) > 0
        for record in records:
            path = root / "videos" / record["path"]
            frames = math.ceil(record["fps"] * record["duration"])
            assert frames == record["num_frames"] == by_opencv(path)[0]
            indices = np.arange(0, frames, record["fps"] / told["train_fps"]).astype(int)[: told["num_frames"]]
            if frames / record["fps"] <= 2 * told["num_frames"] / told["train_fps"] and told["drop_short_ratio"] == 0:
                assert by_pyav(path)[0] == (told["max_width"], told["max_height"])
                taken[path.stem] = record["cap"][0], len(indices)
    return taken


def open_sora(out: Path) -> Taken:
    taken: Taken = {}
    for row in pd.read_csv(out / "dataset.csv").to_dict("records"):
        sizes = by_pyav(Path(row["path"]))
        assert (len(sizes), *sizes[0]) == (row["num_frames"], row["width"], row["height"])
        assert row["resolution"] == row["width"] * row["height"] and row["fps"] == by_opencv(Path(row["path"]))[1]
        assert row["aspect_ratio"] == row["height"] / row["width"]
        taken[Path(row["path"]).stem] = row["text"], row["num_frames"]
    return taken


FIFTYONE_TYPES = {
    "StringField": str, "FloatField": (float, int), "IntField": int, "BooleanField": bool, "ListField": list,
    "EmbeddedDocumentField": dict, "ObjectIdField": dict,
}  # fmt: skip


def fiftyone(out: Path) -> Taken:
    """What its importer does: documents go into the database as they are, paths are taken from the folder.

    What the database then refuses or the App cannot show, such as a value of another type than its field's, fails here.
    """
    dataset, samples = (json.loads((out / name).read_text()) for name in ("metadata.json", "samples.json"))
    assert dataset["media_type"] == "video" and int(dataset["version"].split(".")[0]) >= 1
    fields = {field["db_field"]: field for field in dataset["sample_fields"]}
    assert len({sample["_id"]["$oid"] for sample in samples["samples"]}) == len(samples["samples"])
    taken: Taken = {}
    for sample in samples["samples"]:
        _of_fiftyone(sample, fields)
        path, told = out / sample["filepath"], sample["metadata"]
        frames, rate = by_opencv(path)
        assert (told["frame_width"], told["frame_height"]) == by_pyav(path)[0] and told[
            "size_bytes"
        ] == path.stat().st_size
        assert (told["total_frame_count"], told["frame_rate"]) == (frames, pytest.approx(rate))
        assert sample["end_s"] - sample["start_s"] == pytest.approx(told["duration"], abs=1e-5) and sample["tags"] == []
        taken[path.stem] = sample["caption"], frames
    return taken


def _of_fiftyone(document: dict[str, Any], fields: dict[str, Any]) -> None:
    """Every value of a document has a field of its type, in documents inside it as well."""
    if "_id" in document:
        assert re.fullmatch("[0-9a-f]{24}", document["_id"]["$oid"])
    for name, value in document.items():
        if name == "_cls":
            continue
        field = fields[name]
        assert isinstance(value, FIFTYONE_TYPES[field["ftype"].rsplit(".", 1)[-1]]), (name, value)
        inner = {one["db_field"]: one for one in field["fields"]}
        for one in value if isinstance(value, list) else [value] if inner else []:
            if inner:
                assert one["_cls"] == field["embedded_doc_type"].rsplit(".", 1)[-1]
                _of_fiftyone(one, inner)


READERS: dict[str, Callable[[Path], Taken]] = {
    "folder": folder, "musubi": musubi, "diffusion-pipe": diffusion_pipe, "ai-toolkit": ai_toolkit,
    "simpletuner": simpletuner, "ltx": ltx, "diffsynth": diffsynth, "videox-fun": videox_fun, "fastvideo": fastvideo,
    "open-sora": open_sora, "fiftyone": fiftyone,
}  # fmt: skip
