"""Trainers that are told of their data in TOML: musubi-tuner and diffusion-pipe.

Both would bring every video to one area of pixels, which blows the small ones up: so each size has a folder and an
entry of its own, in which nothing is resized.
"""

from __future__ import annotations

from rushes.pipelines.export.dialects.dialect import Dialect, Export, by_size, of_size, toml, write_lines

LENGTHS = 32
"""Most buckets of frames for each size: as many as 4n+1 has up to 129, so that no length of a preset lies between."""


def _musubi(export: Export) -> None:
    """Write `dataset.toml`: an entry for each size, which takes all frames of each of its videos."""
    blocks: list[tuple[str, dict[str, object]]] = [
        (
            "[general]",
            {"caption_extension": ".txt", "batch_size": 1, "enable_bucket": True, "bucket_no_upscale": True},
        )
    ]
    for width, height in export.shapes.every_size():
        longest = export.shapes.lengths(size=(width, height))[-1]
        entry = {
            "resolution": [width, height],
            "video_directory": f"{export.folder}/{of_size(width, height)}",
            "cache_directory": f"{export.folder}/cache/{width:04d}x{height:04d}",
            "frame_extraction": "full",
            "target_frames": [longest],
            "max_frames": longest,
        }
        blocks.append(("[[datasets]]", entry))
    _write_toml(export, blocks)


def _diffusion_pipe(export: Export) -> None:
    """Write `dataset.toml`: an entry for each size, with buckets of the lengths that its videos have."""
    blocks: list[tuple[str, dict[str, object]]] = [("", {"skip_empty_caption": False})]
    for width, height in export.shapes.every_size():
        lengths = export.shapes.lengths(LENGTHS, (width, height))
        entry = {
            "path": f"{export.folder}/{of_size(width, height)}",
            "num_repeats": 1,
            "size_buckets": [[width, height, frames] for frames in lengths],
        }
        blocks.append(("[[directory]]", entry))
    _write_toml(export, blocks)


def _write_toml(export: Export, blocks: list[tuple[str, dict[str, object]]]) -> None:
    texts = [
        "".join([f"{head}\n" if head else "", *(f"{name} = {toml(value)}\n" for name, value in values.items())])
        for head, values in blocks
    ]
    write_lines(export, "dataset.toml", ["\n".join(texts)])


MUSUBI = Dialect(
    name="musubi",
    trainer="https://github.com/kohya-ss/musubi-tuner",
    version="commits 01d5904, docs/dataset_config.md, 00bd97a, dataset/datasources.py, 6247ca9, dataset/bucket.py, and "
    "0061e6e, dataset/image_video_dataset.py; pull request 1100 of September 2026",
    reads="videos/0832x0480/KEY.mp4 and KEY.txt; dataset.toml for --dataset_config has an entry for each size",
    drops="with frame_extraction head, chunk or slide a video shorter than target_frames gives nothing, without a "
    "word; full takes each as it is. Before September 2026 videos were brought to the area of `resolution` whatever "
    "bucket_no_upscale said: each size has an entry, whose area is its own. source_fps would drop frames: it is not "
    "set, since the rate is right. It trains on whatever stands in its cache: what leaves an export leaves that, too",
    write=_musubi,
    any_rate=False,
    txt=True,
    place=by_size,
)
DIFFUSION_PIPE = Dialect(
    name="diffusion-pipe",
    trainer="https://github.com/tdrussell/diffusion-pipe",
    version="commits 0784ca8, utils/dataset.py, 0467b63, models/base.py, and 5145971, examples/dataset.toml",
    reads="videos/0832x0480/KEY.mp4 and KEY.txt; dataset.toml as `dataset` of a training's configuration has an entry "
    "for each size",
    drops="every file in a folder that is no text counts as a video, so nothing else stands there. A video shorter "
    "than the shortest bucket is skipped (“because it is too short”), longer ones are cut to the bucket below: the "
    f"buckets are the lengths of these videos, {LENGTHS} for each size at most. Of each bucket only whole batches are "
    "taken, and a bucket with fewer videos than a batch over all GPUs is left out: keep "
    "micro_batch_size_per_gpu at 1, or the buckets few. Frames are picked again by the ratio of the model's rate to "
    "the header's, cut off to a whole number: a header of 16.0001 makes 64 of 65, here it is exact, if the rate is the "
    "model's (16; 24 for Wan 2.2 5B, HunyuanVideo and LTX-2)",
    write=_diffusion_pipe,
    txt=True,
    place=by_size,
)
