"""Each trainer takes every video of its export, whole and with its caption."""

from __future__ import annotations

import io
import json
from pathlib import Path

import datasets
import pytest

from rushes.pipelines.export import account, clips, export
from rushes.pipelines.export.account import Item, Shapes
from rushes.pipelines.export.dialects.registry import DIALECTS
from rushes.pipelines.export.settings import ExportConfig
from rushes.pipelines.progress import Reporter
from rushes.pipelines.store import shards
from rushes.pipelines.store.shards import Sample
from tests.pipelines.export.conftest import KEYS, write
from tests.pipelines.export.readers import READERS, Taken

REPO = Path(__file__).parents[3]


def made(run: str, out: Path, to: str, **settings) -> dict:
    preset = settings.pop("preset", "")
    found = export.run(run, str(out), to, ExportConfig(**settings), preset=preset, reporter=Reporter(live=False))
    assert found["problems"] == []
    return found


def told(out: Path) -> Taken:
    """What the account says of the videos."""
    return {Path(item.file).stem: (item.caption, item.frames) for item in account.items(str(out))}


@pytest.mark.parametrize("split", [False, True], ids=["trimmed", "split"])
@pytest.mark.parametrize("to", sorted(READERS))
def test_a_trainer_takes_every_video_whole_and_with_its_caption(
    shot: str, tmp_path: Path, to: str, split: bool
) -> None:
    preset, out = "ltx" if to == "ltx" else "wan", tmp_path / "it's 100 %, #1: “out” ünd [a]"
    found = made(shot, out, to, preset=preset, split=split)
    taken = READERS[to](out)
    assert taken == told(out) and len(taken) == found["videos"] > 0
    assert all(caption and "\n" not in caption for caption, _ in taken.values())


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_loads_every_video_with_its_caption(
    shot: str, tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    found, out = made(shot, tmp_path / "out", "hf", preset="wan"), str(tmp_path / "out")
    for name in ("videofolder", out):  # by its builder, and as the card describes it
        data = {"data_dir": out} if name == "videofolder" else {}
        loaded = datasets.load_dataset(
            name, split="train", streaming=streaming, cache_dir=str(tmp_path / "cache"), **data
        ).cast_column("video", datasets.Video(decode=False))  # fmt: skip
        rows = list(loaded)
        assert len(rows) == found["videos"] == 3
        assert {Path(row["video"]["path"]).stem: (row["text"], row["frames"]) for row in rows} == told(tmp_path / "out")
        assert {row["licence"] for row in rows} == {"CC-BY-4.0"}


def test_lance_holds_every_video_with_its_bytes(shot: str, tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    found, out = made(shot, tmp_path / "out", "lance", preset="wan"), tmp_path / "out"
    table = lance.dataset(str(out / "clips.lance"))
    assert table.count_rows() == found["videos"] == 3
    items = list(account.items(str(out)))
    assert table.to_table(["key", "text", "frames"]).to_pylist() == [
        {"key": item.key, "text": item.caption, "frames": item.frames} for item in items
    ]
    for item, blob in zip(items, table.take_blobs("video", indices=list(range(3))), strict=True):
        assert blob.read() == (out / item.file).read_bytes()


def test_lance_without_its_package_says_what_to_install(
    shot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lance", None)
    with pytest.raises(ValueError, match=r"pip install 'rushes\[lance\]'"):
        made(shot, tmp_path / "out", "lance")


@pytest.mark.parametrize("link", [False, True])
def test_webshart_finds_every_clip_in_the_shards_as_they_are(
    shot: str, samples: dict[str, Sample], tmp_path: Path, link: bool
) -> None:
    found, out = made(shot, tmp_path / "out", "webshart", link=link), tmp_path / "out"
    assert found["refused"] == {"caption": 1} and found["videos"] == 4
    videos, entries = {name: dict(sample.members)["mp4"] for name, sample in samples.items()}, {}
    for info in shards.read_manifest(f"{shot}/shards/day").shards:
        tar, source = out / "shards" / info.path.replace("/", "-"), Path(shot) / "shards" / "day" / info.path
        assert tar.samefile(source) is link and tar.read_bytes() == source.read_bytes()
        index = json.loads(tar.with_suffix(".json").read_text())
        assert index["filesize"] == info.size_bytes and index["includes_image_geometry"]
        for name, entry in index["files"].items():
            video = tar.read_bytes()[entry["offset"] :][: entry["length"]]
            entries[name.removesuffix(".mp4")] = video, entry["captions"]
            film = clips.film_of(io.BytesIO(video))
            assert (film.width, film.height) == (entry["width"], entry["height"])
    by_key = {
        KEYS[name]: (video, json.loads(dict(samples[name].members)["json"])["caption"])
        for name, video in videos.items()
    }
    del by_key[KEYS["wordless"]]
    assert entries == {key: (video, " ".join(caption.split())) for key, (video, caption) in by_key.items()}


@pytest.mark.parametrize("setting", [{"preset": "wan"}, {"fps": 16}, {"multiple": 32}, {"max_frames": 9}])
def test_webshart_refuses_rules_that_would_cut_what_it_takes_as_it_is(shot: str, tmp_path: Path, setting: dict) -> None:
    with pytest.raises(ValueError, match="takes shards as they are"):
        made(shot, tmp_path / "out", "webshart", **setting)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", sorted(DIALECTS))
def test_an_export_of_which_all_is_refused_is_empty_and_says_so(
    samples: dict[str, Sample], tmp_path: Path, to: str
) -> None:
    if to == "lance":
        pytest.importorskip("lance")
    write(tmp_path / "run", [samples["wordless"], samples["wordless"]])
    found = made(str(tmp_path / "run"), tmp_path / "out", to)
    assert found["clips"] == {"exported": 0, "refused": 2, "failed": 0} and not list((tmp_path / "out").rglob("*.mp4"))


@pytest.mark.parametrize("to", sorted(DIALECTS))
def test_every_dialect_names_its_trainer_the_version_that_was_read_and_what_is_dropped(to: str) -> None:
    dialect = DIALECTS[to]
    assert dialect.trainer and dialect.version and dialect.reads and dialect.drops
    assert to == "folder" or "https://github.com/" in dialect.trainer
    assert f"| {to} | {dialect.version} |" in (REPO / "pipelines" / "README.md").read_text()


def test_buckets_are_bounded_and_reach_down_to_the_shortest() -> None:
    shapes = Shapes()
    for number in range(300):
        shapes.add(_item(width=64 + 16 * (number % 40), frames=5 + 4 * (number % 60)))
    lengths = shapes.lengths()
    assert (
        len(lengths) == 8
        and lengths[0] == 5
        and lengths[-1] == 5 + 4 * 59
        and set(lengths) <= {5 + 4 * n for n in range(60)}
    )
    assert len(shapes.sizes()) == 16 and shapes.largest == (64 + 16 * 39, 64)


def _item(width: int, frames: int) -> Item:
    return Item(
        key="k", file="videos/k.mp4", caption="c", frames=frames, width=width, height=64, fps=16.0, size_bytes=1,
        has_audio=False, start_s=0.0, uri="", licence="", rights="",
    )  # fmt: skip
