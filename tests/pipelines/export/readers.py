"""Readers of exports, one for each trainer, written from what its documentation and its data loader say.

Each returns, by the name of the video, what the trainer would learn from: its caption and how many of its frames. What
a trainer drops is missing here, so that a test sees it.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import imageio.v3
import pandas as pd
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
    """`full`: all frames, cut to max_frames and to 4n+1; a bucket that upscales nothing rounds sides down to 16."""
    told = tomllib.loads((out / "dataset.toml").read_text())
    general, (dataset,) = told["general"], told["datasets"]
    assert general["enable_bucket"] and general["bucket_no_upscale"] and dataset["frame_extraction"] == "full"
    area, taken = math.prod(general["resolution"]), {}
    for line in Path(dataset["video_jsonl_file"]).read_text().splitlines():
        record = json.loads(line)
        sizes = by_pyav(Path(record["video_path"]))
        frames = min(len(sizes), dataset["max_frames"])
        assert math.prod(sizes[0]) <= area and all(side % 16 == 0 for side in sizes[0])
        taken[Path(record["video_path"]).stem] = record["caption"], (frames - 1) // 4 * 4 + 1
    return taken


def diffusion_pipe(out: Path, framerate: int = 16) -> Taken:
    """Every file of the folder; frames counted by imageio, taken again at the model's rate, cut to a frame bucket."""
    told = tomllib.loads((out / "dataset.toml").read_text())
    taken: Taken = {}
    for path in sorted(Path(told["directory"][0]["path"]).glob("*")):
        if path.suffix in (".txt", ".npz", ".json", ".parquet"):
            continue
        frames = sum(1 for _ in imageio.v3.imiter(path, plugin="pyav"))
        buckets = [bucket for bucket in told["frame_buckets"] if 1 < bucket <= frames]
        if not path.with_suffix(".txt").exists() or not buckets:
            continue
        width, height = by_pyav(path)[0]
        ratios = [w / h for w, h in told["ar_buckets"]]
        assert min(abs(math.log(width / height / ratio)) for ratio in ratios) < 0.01
        with av.open(str(path)) as container:
            again = int(frames * framerate / float(container.streams.video[0].average_rate))
        taken[path.stem] = path.with_suffix(".txt").read_text().strip(), min(again, max(buckets))
    return taken


def ai_toolkit(out: Path) -> Taken:
    """num_frames spread evenly over the whole clip: as many as it has leave it as it is."""
    taken: Taken = {}
    for dataset in yaml.safe_load((out / "datasets.yaml").read_text())["datasets"]:
        for path in Path(dataset["folder_path"]).glob("*.mp4"):
            frames, rate = by_opencv(path)
            assert frames == dataset["num_frames"] and rate == dataset["fps"]
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
        for path in Path(dataset["instance_data_dir"]).glob("*.mp4"):
            (caption,) = path.with_suffix(".txt").read_text().splitlines()
            if video["min_frames"] <= by_opencv(path)[0] <= video["max_frames"]:
                taken[path.stem] = caption, video["num_frames"]
    return taken


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


def diffsynth(out: Path) -> Taken:
    """All frames up to num_frames, else as many as are 4n+1."""
    words = (out / "arguments.txt").read_text().split()
    told = dict(zip(words[::2], words[1::2], strict=True))
    taken: Taken = {}
    for row in pd.read_csv(told["--dataset_metadata_path"]).to_dict("records"):
        frames = len(by_pyav(Path(told["--dataset_base_path"]) / row[told["--data_file_keys"]]))
        frames = min(frames, int(told["--num_frames"]))
        while frames % 4 != 1:
            frames -= 1
        taken[Path(row["video"]).stem] = row["prompt"], frames
    return taken


def videox_fun(out: Path) -> Taken:
    records = json.loads((out / "metadata.json").read_text())
    assert all(record["type"] == "video" for record in records)
    return {Path(r["file_path"]).stem: (r["text"], by_opencv(out / r["file_path"])[0]) for r in records}


def fastvideo(out: Path) -> Taken:
    """Lengths within the tolerance; frames counted as seconds × rate, rounded up."""
    told = yaml.safe_load((out / "preprocess_t2v.yaml").read_text())["preprocess"]
    taken: Taken = {}
    for record in json.loads((out / "videos2caption.json").read_text()):
        frames = math.ceil(record["fps"] * record["duration"])
        assert frames == record["num_frames"] == by_opencv(out / "videos" / record["path"])[0]
        longest_s = told["video_length_tolerance_range"] * told["num_frames"] / told["train_fps"]
        long_enough = math.ceil(frames / (record["fps"] / told["train_fps"])) >= told["num_frames"]
        if frames / record["fps"] <= longest_s and long_enough:
            taken[Path(record["path"]).stem] = record["cap"][0], frames
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


READERS: dict[str, Callable[[Path], Taken]] = {
    "folder": folder, "musubi": musubi, "diffusion-pipe": diffusion_pipe, "ai-toolkit": ai_toolkit,
    "simpletuner": simpletuner, "ltx": ltx, "diffsynth": diffsynth, "videox-fun": videox_fun, "fastvideo": fastvideo,
    "open-sora": open_sora,
}  # fmt: skip
