"""Trainers that are told of their data in TOML: musubi-tuner and diffusion-pipe."""

from __future__ import annotations

from rushes.pipelines.export.dialects.dialect import Dialect, Export, toml, write_jsonl, write_lines


def _musubi(export: Export) -> None:
    """Write `metadata.jsonl`, a line for each video, and `dataset.toml`, which takes all frames of each."""
    write_jsonl(
        export, "metadata.jsonl", lambda item: {"video_path": f"{export.folder}/{item.file}", "caption": item.caption}
    )
    lengths = export.shapes.lengths()
    settings = {
        "[general]": {
            "resolution": list(export.shapes.largest),
            "batch_size": 1,
            "enable_bucket": True,
            "bucket_no_upscale": True,
        },
        "[[datasets]]": {
            "video_jsonl_file": f"{export.folder}/metadata.jsonl",
            "cache_directory": f"{export.folder}/cache",
            "frame_extraction": "full",
            "target_frames": lengths[-1:],
            "max_frames": lengths[-1] if lengths else 1,
        },
    }
    _write_toml(export, settings)


def _diffusion_pipe(export: Export) -> None:
    """Write `dataset.toml`, with buckets of aspect and of length that fit the videos."""
    settings = {
        "": {
            "resolutions": [list(export.shapes.largest)],
            "enable_ar_bucket": True,
            "ar_buckets": [list(size) for size in export.shapes.sizes()],
            "frame_buckets": [1, *(frames for frames in export.shapes.lengths() if frames > 1)],
            "skip_empty_caption": False,
        },
        "[[directory]]": {"path": f"{export.folder}/videos", "num_repeats": 1},
    }
    _write_toml(export, settings)


def _write_toml(export: Export, settings: dict[str, dict[str, object]]) -> None:
    blocks = [
        "".join([f"{head}\n" if head else "", *(f"{name} = {toml(value)}\n" for name, value in values.items())])
        for head, values in settings.items()
    ]
    write_lines(export, "dataset.toml", ["\n".join(blocks)])


MUSUBI = Dialect(
    name="musubi",
    trainer="https://github.com/kohya-ss/musubi-tuner",
    version="commits 01d5904, docs/dataset_config.md, and 0061e6e, src/musubi_tuner/dataset/image_video_dataset.py",
    reads="metadata.jsonl (video_path, caption); dataset.toml for --dataset_config",
    drops="with frame_extraction head, chunk or slide a video shorter than target_frames gives nothing, without a "
    "word; full takes each as it is. source_fps would drop frames: it is not set, since the rate is right",
    write=_musubi,
)
DIFFUSION_PIPE = Dialect(
    name="diffusion-pipe",
    trainer="https://github.com/tdrussell/diffusion-pipe",
    version="commits 0784ca8, utils/dataset.py, and 0467b63, models/base.py",
    reads="videos/KEY.mp4 and KEY.txt; dataset.toml as `dataset` of a training's configuration",
    drops="every file in the folder that is no text counts as a video, so nothing else stands there. A video "
    "shorter than the shortest of frame_buckets is skipped (“because it is too short”); longer ones are cut to the "
    "bucket below: the buckets are the lengths of these videos. Frames are picked again by the ratio of the model's "
    "rate to the header's, cut off to a whole number: a header of 16.0001 makes 64 of 65, here it is exact",
    write=_diffusion_pipe,
    txt=True,
)
