"""The card tells what a run knows of its data and leaves open, by name, what it cannot know."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import yaml

from rushes.pipelines.export import account, export
from rushes.pipelines.export.settings import ExportConfig
from rushes.pipelines.progress import Reporter
from rushes.pipelines.report import summary


def card_of(run: str, out: Path, **settings) -> tuple[dict, str, dict]:
    found = export.run(run, str(out), "hf", ExportConfig(**settings), preset="wan", reporter=Reporter(live=False))
    _, front, body = (out / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), body, found


def test_the_front_matter_is_what_hugging_face_reads(shot: str, tmp_path: Path) -> None:
    front, _, _ = card_of(shot, tmp_path / "out")
    assert front["license"] == "cc-by-4.0" and front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": ["metadata.parquet", "videos/*.mp4"]}]
    (split,) = front["dataset_info"]["splits"]
    assert split["num_examples"] == 3
    assert split["num_bytes"] == sum(path.stat().st_size for path in (tmp_path / "out" / "videos").iterdir())
    table = pq.read_schema(tmp_path / "out" / "metadata.parquet")
    assert [one["name"] for one in front["dataset_info"]["features"]] == ["video", *table.names[1:]]


def test_the_card_has_hours_licences_places_removal_and_the_template(shot: str, tmp_path: Path) -> None:
    _, body, found = card_of(shot, tmp_path / "out", contact="data@example.org")
    assert f"{found['video_s'] / 3600:.3f} hours" in body and "| CC-BY-4.0 | 3 |" in body and "| somebody | 3 |" in body
    assert "| s3://…@films/day/ | 3 | 3 |" in body and "secret" not in body
    assert "Write to data@example.org" in body
    sections = [line[2:5] for line in body.rpartition("EU template)")[2].splitlines() if line[2:3].isdigit()]
    assert list(dict.fromkeys(sections)) == [
        f"{part}.{n}" for part, count in ((1, 3), (2, 6), (3, 3)) for n in range(1, count + 1)
    ]
    assert 'datasets.load_dataset("DIR", split="train")' in body and "for\nwhoever publishes this to decide" in body
    assert "less than 10 000 hours" in body and "*to be filled in by the provider*" in body
    assert "| frames | 1 |" in body and "| caption | 1 |" in body


def test_of_a_whole_run_it_tells_the_way_from_the_footage(undisturbed: str, tmp_path: Path) -> None:
    _, body, _ = card_of(undisturbed, tmp_path / "out")
    told = summary.of(undisturbed)
    policy = (Path(undisturbed) / "policies" / f"{told['policy']}.yaml").read_text().strip()
    assert f"```yaml\n{policy}\n```" in body
    assert f"{told['inputs']} inputs" in body and "| clips found |" in body and "`tags` are composed" in body
    for entry in told["account"]:
        if entry["fate"] != "kept":
            assert f"| {entry['fate']} | {entry['reason']} | {entry['seconds']:.1f} |" in body


def test_a_whole_run_is_exported_clip_by_clip(undisturbed: str, tmp_path: Path) -> None:
    _, _, found = card_of(undisturbed, tmp_path / "out")
    packed = summary.of(undisturbed)["shards"]["samples"]
    assert sum(found["clips"].values()) == packed == len(list(account.rows(str(tmp_path / "out")))) > 0
    assert found["clips"]["failed"] == 0 and found["clips"]["exported"] > 0
