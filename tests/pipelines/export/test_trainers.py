"""Trainers' own classes take every video of an export: of those that install from a package, where they are installed.

Their packages want much that we do not: without it this does, for it is only what these classes import.

    pip install webshart && pip install --no-deps diffsynth==2.1.12 fastvideo==0.2.1 imageio-ffmpeg modelscope \
        modelscope_hub peft ftfy wcwidth accelerate remote_pdb torchdata

FiftyOne (`pip install fiftyone`) wants a MongoDB as well, whose address it takes from `FIFTYONE_DATABASE_URI`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipelines.export.conftest import KEYS
from tests.pipelines.export.readers import Taken, arguments
from tests.pipelines.export.test_dialects import made, told

pytestmark = pytest.mark.filterwarnings("default")


def test_webshart_lists_and_reads_every_clip(shot: str, tmp_path: Path) -> None:
    webshart = pytest.importorskip("webshart")
    made(shot, tmp_path / "out", "webshart")
    dataset = webshart.discover_dataset(source=str(tmp_path / "out" / "shards"))
    loader, taken = webshart.TarDataLoader(dataset), {}
    for shard in range(dataset.num_shards):
        for sample in range(dataset.get_shard_sample_count(shard)):
            entry = loader.load_sample(shard, sample)
            taken[entry.path.removesuffix(".mp4")] = entry.captions, len(entry.data)
    clips = {row["key"]: (row["caption"], row["pieces"][0]["size_bytes"]) for row in rows(tmp_path / "out")}
    assert taken == clips and set(clips) == set(KEYS.values()) - {KEYS["wordless"]}


def rows(out: Path) -> list[dict[str, Any]]:
    from rushes.pipelines.export import account

    return [row for row in account.rows(str(out)) if row["pieces"]]


def test_diffsynth_takes_every_video_as_its_training_script_does(shot: str, tmp_path: Path) -> None:
    data = pytest.importorskip("diffsynth.core.data.unified_dataset")
    made(shot, tmp_path / "out", "diffsynth", preset="wan", split=True)
    args = arguments(tmp_path / "out")
    base, most = args["--dataset_base_path"], int(args["--num_frames"])
    dataset = data.UnifiedDataset(
        base_path=base, metadata_path=args["--dataset_metadata_path"], repeat=1, data_file_keys=("video",),
        main_data_operator=data.UnifiedDataset.default_video_operator(
            base_path=base, max_pixels=int(args["--max_pixels"]), height=None, width=None, num_frames=most,
        ),
    )  # fmt: skip
    paths = [Path(row["video"]) for row in dataset.data]
    taken: Taken = {path.stem: (one["prompt"], len(one["video"])) for path, one in zip(paths, dataset, strict=False)}
    assert taken == told(tmp_path / "out") and len(taken) == 4


@pytest.mark.parametrize("split", [False, True])
def test_fastvideo_takes_every_video_by_both_of_its_ways(shot: str, tmp_path: Path, split: bool) -> None:
    workflow = pytest.importorskip("fastvideo.workflow.preprocess.components")
    from fastvideo.configs.configs import DatasetType, PreprocessConfig, VideoLoaderType
    from fastvideo.dataset import getdataset

    made(shot, tmp_path / "out", "fastvideo", preset="wan", split=split)
    taken: Taken = {}
    for path in (tmp_path / "out").glob("videos/*/preprocess_t2v.yaml"):
        own = yaml.safe_load(path.read_text())["preprocess"]
        kinds = {"dataset_type": DatasetType.MERGED, "video_loader_type": VideoLoaderType.TORCHVISION}
        config = PreprocessConfig(**own | kinds)
        checks = ("max_height", "max_width", "num_frames", "train_fps", "speed_factor", "drop_short_ratio")
        validator = workflow.PreprocessingDataValidator(**{name: getattr(config, name) for name in checks})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workflow, "get_world_size", lambda: 1)
            patch.setattr(workflow, "get_world_rank", lambda: 0)
            for item in workflow.build_dataset(config, "train", validator):
                assert item["num_frames"] == config.num_frames
                taken[Path(item["video"]).stem] = item["caption"][0], item["num_frames"]
        (tmp_path / "merge.txt").write_text(f"{path.parent}/videos,{path.parent}/videos2caption.json\n")
        args = argparse.Namespace(
            **own, data_merge_path=str(tmp_path / "merge.txt"), do_temporal_sample=False, speed_factor=1, seed=0,
            video_length_tolerance_range=2.0, model_path=str(tmp_path), cache_dir=None,
        )  # fmt: skip
        older = getdataset(args)
        assert [batch.sample_num_frames for batch in older.processed_batches] == [own["num_frames"]] * len(older)
        assert {Path(batch.path).stem for batch in older.processed_batches} <= taken.keys() and len(older)
    assert taken == told(tmp_path / "out") and len(taken) == (4 if split else 3)


def test_fiftyone_takes_every_video_with_all_that_is_known_of_it(shot: str, tmp_path: Path) -> None:
    fiftyone = pytest.importorskip("fiftyone")
    made(shot, tmp_path / "out", "fiftyone", preset="wan", split=True)
    kind = fiftyone.types.FiftyOneDataset
    dataset = fiftyone.Dataset.from_dir(dataset_dir=str(tmp_path / "out"), dataset_type=kind, progress=False)
    try:
        taken: Taken = {
            Path(one.filepath).stem: (one.caption, one.metadata.total_frame_count) for one in dataset.iter_samples()
        }
        assert taken == told(tmp_path / "out") and len(taken) == 4 and dataset.media_type == "video"
        assert all(map(Path.exists, map(Path, dataset.values("filepath"))))
        assert set(dataset.values("licence")) == {"CC-BY-4.0"} and dataset.count_values("verdict") == {"kept": 4}
        assert len(dataset.match(fiftyone.ViewField("start_s") > 5)) == 1, "the second piece of the long clip"
        assert dataset.get_field_schema()["shown"].description == "share of its clip that it shows"
    finally:
        dataset.delete()
