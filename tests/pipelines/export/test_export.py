"""Every clip stands once in the account; a killed export ends in the same bytes; what left the selection leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rushes.pipelines.cli import shards as command
from rushes.pipelines.cli.main import main
from rushes.pipelines.export import account, export
from rushes.pipelines.export.dialects.registry import DIALECTS
from rushes.pipelines.export.settings import ExportConfig, ExportError
from rushes.pipelines.progress import Reporter
from rushes.pipelines.store import shards, storage
from rushes.pipelines.store.shards import Sample, ShardError
from tests.pipelines.export.conftest import CLIPS, KEYS, key_of, write
from tests.pipelines.small_run import content


def made(run: str, out: Path, to: str = "diffusion-pipe", preset: str = "wan", **settings) -> dict:
    return export.run(
        run, str(out), to, ExportConfig(**settings), preset=preset, reporter=Reporter(live=False)
    )  # fmt: skip


def rows(out: Path) -> dict[str, dict]:
    found = list(account.rows(str(out)))
    assert len({row["key"] for row in found}) == len(found)
    return {name: next(row for row in found if row["key"] == key) for name, key in KEYS.items()}


def test_every_clip_is_exported_or_refused_by_a_rule_that_is_named(shot: str, tmp_path: Path) -> None:
    found, told = made(shot, tmp_path / "out"), rows(tmp_path / "out")
    assert len(list(account.rows(str(tmp_path / "out")))) == len(CLIPS)
    fates = {"exact": "exported", "long": "exported", "mute": "exported", "short": "refused", "wordless": "refused"}
    assert {name: row["fate"] for name, row in told.items()} == fates
    assert [(told["short"][name]) for name in ("rule", "value", "limit")] == ["frames", 3, 5]
    assert told["wordless"]["rule"] == "caption"
    assert [piece["frames"] for name in ("exact", "long", "mute") for piece in told[name]["pieces"]] == [41, 81, 29]
    assert found["clips"] == {"exported": 3, "refused": 2, "failed": 0} and found["refused"] == {
        "frames": 1,
        "caption": 1,
    }
    assert found["problems"] == [] and {row["key"] for row in found["named"]} == {KEYS["short"], KEYS["wordless"]}
    assert abs(sum(found["seconds"].values()) - sum(row["seconds"] for row in told.values())) < 1e-3
    text = "\n".join(account.lines(found))
    assert f"{KEYS['short']}: refused: frames: 3 frames at 16 fps, at least 5 are needed" in text
    assert "2 clips refused" in text and "3 videos of 3 clips" in text


def test_no_video_is_there_that_the_account_lacks(shot: str, tmp_path: Path) -> None:
    made(shot, tmp_path / "out")
    files = {piece["file"] for row in account.rows(str(tmp_path / "out")) for piece in row["pieces"]}
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.mp4")}
    assert files == there and all((tmp_path / "out" / file).with_suffix(".txt").exists() for file in files)


def test_a_split_clip_becomes_several_and_is_counted_once(shot: str, tmp_path: Path) -> None:
    found = made(shot, tmp_path / "out", split=True)
    (pieces,) = (row["pieces"] for row in account.rows(str(tmp_path / "out")) if row["key"] == KEYS["long"])
    assert [(piece["frames"], piece["start_s"]) for piece in pieces] == [(81, 0.0), (33, 81 / 16)]
    assert found["clips"]["exported"] == 3 and found["videos"] == 4


class Killed(BaseException):
    """As a signal would: nothing catches it."""


@pytest.mark.parametrize("after", [0, 1, 2, 4, 6])
def test_a_killed_export_goes_on_and_ends_in_the_same_bytes(
    shot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    out, other = tmp_path / "a" / "out", tmp_path / "b" / "out"
    write_bytes, left = storage.write_bytes, [after]

    def kill(uri: str, data: bytes) -> None:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        write_bytes(uri, data)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(storage, "write_bytes", kill)
        made(shot, out, workers=1)
    assert not (out / account.ACCOUNT).exists()
    made(shot, out)
    monkeypatch.chdir(tmp_path)
    made(shot, other)
    first, second = content(out, "."), content(other, ".")
    assert {name for name in first if first[name] != second[name]} == {"dataset.toml"}  # which holds the folder's path
    assert set(first) == set(second)


def test_a_line_that_a_kill_cut_short_is_no_row(shot: str, tmp_path: Path) -> None:
    made(shot, tmp_path / "out")
    before, journal = content(tmp_path / "out", "."), tmp_path / "out" / account.JOURNALS / "b" / "clips-000000.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(lines[0] + lines[1][:40])
    (tmp_path / "out" / account.ACCOUNT).unlink()
    made(shot, tmp_path / "out")
    assert content(tmp_path / "out", ".") == before


def test_a_finished_export_is_made_again_without_a_decoder(
    shot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(shot, tmp_path / "out")
    before = content(tmp_path / "out", ".")
    monkeypatch.setattr(export.clips, "pieces", lambda *_: pytest.fail("a clip was made again"))
    made(shot, tmp_path / "out")
    assert content(tmp_path / "out", ".") == before


def test_other_settings_into_the_same_folder_are_refused(shot: str, tmp_path: Path) -> None:
    made(shot, tmp_path / "out")
    with pytest.raises(ExportError, match=r"by other settings \(fps '16', not '24'"):
        made(shot, tmp_path / "out", preset="hunyuan")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("two years")
    with pytest.raises(ExportError, match="holds other things"):
        made(shot, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_what_left_the_selection_leaves_the_export_and_what_came_comes(
    shot: str, samples: dict[str, Sample], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    write(run, [samples["exact"], samples["mute"]])
    made(str(run), tmp_path / "out")
    shutil.rmtree(run)
    write(run, [samples["long"], samples["mute"], samples["short"]])
    made(str(run), tmp_path / "out")
    there = {path.stem for path in (tmp_path / "out" / "videos").iterdir()}
    assert there == {KEYS["long"], KEYS["mute"]}
    assert not list((tmp_path / "out").rglob(f"*{KEYS['exact']}*"))


def test_what_a_trainer_keeps_beside_the_videos_stays(shot: str, tmp_path: Path) -> None:
    made(shot, tmp_path / "out")
    caches = [tmp_path / "out" / name for name in ("videos/cache/wan/a.txt", "videos/b.txt", "cache/c.mp4")]
    for cache in caches:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text("hours of work")
    stale = tmp_path / "out" / "videos" / f"{key_of(99)}.mp4"
    stale.write_text("of a clip that is gone")
    made(shot, tmp_path / "out")
    assert all(cache.exists() for cache in caches) and not stale.exists()


def test_a_new_caption_is_written_and_no_video_is_made_again(
    samples: dict[str, Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    write(run, [samples["exact"], samples["mute"]])
    made(str(run), tmp_path / "out")
    members = dict(samples["exact"].members)
    facts = json.dumps({**json.loads(members["json"]), "caption": "Another view."}).encode()
    again = Sample(KEYS["exact"], [("mp4", members["mp4"]), ("json", facts), ("txt", b"Another view.")])
    shutil.rmtree(run)
    write(run, [again, samples["mute"]])
    monkeypatch.setattr(export.clips, "pieces", lambda *_: pytest.fail("a clip was made again"))
    made(str(run), tmp_path / "out")
    assert (tmp_path / "out" / "videos" / f"{KEYS['exact']}.txt").read_text() == "Another view."


def broken(samples: dict[str, Sample], run: Path) -> None:
    members = dict(samples["exact"].members)
    spoilt = Sample(KEYS["exact"], [("mp4", members["mp4"][:900]), *list(members.items())[1:]])
    write(run, [spoilt, samples["mute"], samples["long"]])


def test_a_clip_that_cannot_be_written_is_a_failure_and_the_others_go_on(
    samples: dict[str, Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(samples, tmp_path / "run")
    words = ["export", str(tmp_path / "run"), "--to", "folder", "--out", str(tmp_path / "out"), "--for", "wan"]
    assert main(words) == 3
    assert f"{KEYS['exact']}: failed: " in (said := capsys.readouterr().out) and "1 clips failed" in said
    shutil.rmtree(tmp_path / "run")
    write(tmp_path / "run", [samples["exact"], samples["mute"], samples["long"]])
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clips"] == {"exported": 3, "refused": 0, "failed": 0}


def test_a_clip_whose_facts_are_no_facts_or_of_other_bytes_is_a_failure(
    samples: dict[str, Sample], tmp_path: Path
) -> None:
    members = dict(samples["exact"].members)
    facts = json.loads(members["json"])
    for number, wrong in enumerate(({"frames": None}, {"sha256": "0" * 64})):
        spoilt = [("mp4", members["mp4"]), ("json", json.dumps({**facts, **wrong}).encode()), ("txt", b"A street.")]
        write(tmp_path / str(number), [samples["mute"], Sample(KEYS["exact"], spoilt)])
        found = made(str(tmp_path / str(number)), tmp_path / f"out{number}", to="folder", preset="")
        assert found["clips"] == {"exported": 1, "refused": 0, "failed": 1} and found["named"][0]["reason"]
        assert not list((tmp_path / f"out{number}").rglob(f"{KEYS['exact']}.*"))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda video: video.write_bytes(video.read_bytes()[:500]), "cannot be read"),
        (
            lambda video: shutil.copy(next(p for p in video.parent.glob("*.mp4") if p != video), video),
            "the account says",
        ),
        (lambda video: video.with_suffix(".txt").write_text("another"), "is not the caption of"),
    ],
    ids=["cut short", "another's", "caption"],
)
def test_what_is_changed_afterwards_is_named(
    shot: str, tmp_path: Path, spoil: Callable[[Path], object], told: str
) -> None:
    made(shot, tmp_path / "out")
    out, dialect = str(tmp_path / "out"), DIALECTS["diffusion-pipe"]
    rules = export._rules(dialect, ExportConfig(), "wan")
    assert export.verify.problems(out, dialect, rules) == []
    video = tmp_path / "out" / "videos" / f"{KEYS['long']}.mp4"
    spoil(video)
    (problem,) = export.verify.problems(out, dialect, rules)
    assert told in problem and KEYS["long"] in problem and "run the same command again" in problem


def test_credentials_of_a_source_stay_out(shot: str, tmp_path: Path) -> None:
    made(shot, tmp_path / "out", to="hf")
    texts = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert texts and not any(b"secret" in text for text in texts)


def test_shards_of_an_object_store_are_exported_to_a_local_folder_only(
    s3: str, samples: dict[str, Sample], tmp_path: Path
) -> None:
    root = f"{s3}/run/shards/day"
    infos = [shards.write_shard(root, "b", "clips", 0, [samples["exact"]])]
    shards.write_manifest(root, infos, kind="clips", fingerprint="abc")
    assert made(f"{s3}/run", tmp_path / "out")["videos"] == 1
    with pytest.raises(ExportError, match="trainers read folders"):
        export.run(f"{s3}/run", f"{s3}/out", "folder", ExportConfig())


def test_a_run_without_shards_says_so(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"manifest\.json is missing"):
        made(str(tmp_path / "none"), tmp_path / "out")


def test_the_command_line_knows_every_dialect() -> None:
    assert list(command.DIALECTS) == list(DIALECTS)
