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
from rushes.pipelines.store import shards, storage, takedowns
from rushes.pipelines.store.ledger import Ledger
from rushes.pipelines.store.shards import Sample, ShardError
from tests.pipelines.export.conftest import CLIPS, KEYS, key_of, write
from tests.pipelines.small_run import content


def made(run: str, out: Path, to: str = "folder", preset: str = "wan", **settings) -> dict:
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


@pytest.mark.parametrize("after", [0, 1, 2, 4, 6, 7, 9, 11])
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
        made(shot, out, "diffusion-pipe", workers=1)
    assert (out / account.ACCOUNT).exists() is (after > 6) and not account.is_finished(str(out))
    made(shot, out, "diffusion-pipe")
    assert account.is_finished(str(out))
    monkeypatch.chdir(tmp_path)
    made(shot, other, "diffusion-pipe")
    first, second = content(out, "."), content(other, ".")
    assert {name for name in first if first[name] != second[name]} == {"dataset.toml"}  # which holds the folder's path
    assert set(first) == set(second)


def test_what_is_no_finished_export_of_the_run_is_not_proved_to_be_one(
    undisturbed: str, shot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, prove = str(tmp_path / "out"), export.verify.of_run
    with pytest.raises(ExportError, match="holds no export"):
        prove(undisturbed, out)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(export.card, "write", lambda *_: (_ for _ in ()).throw(Killed))
        made(undisturbed, tmp_path / "out", multiple=2)
    assert [problem.rpartition(" was left")[0] for problem in prove(undisturbed, out)] == [out]
    made(undisturbed, tmp_path / "out", multiple=2)
    assert prove(undisturbed, out) == []
    next((tmp_path / "out" / "videos").glob("*.txt")).write_text("another")
    assert len(prove(undisturbed, out)) == 1
    with pytest.raises(ExportError, match=r"holds an export of .*, not of "):
        prove(shot, out)


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
    shutil.copytree(shot, tmp_path / "another")
    with pytest.raises(ExportError, match=r"of another run \(run '.*shot.*', not '.*another'"):
        made(str(tmp_path / "another"), tmp_path / "out")
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
    own = [f"cache/{KEYS['exact']}_00000-041_0096x0064_wan.safetensors", f"videos/cache/{KEYS['long']}.pt"]
    names = ("videos/cache/wan/a.txt", "videos/b.txt", "cache/c.mp4", f"cache/{KEYS['exact']}7.pt", *own)
    caches = [tmp_path / "out" / name for name in names]
    gone = [
        tmp_path / "out" / f"{place}/{key_of(99)}{end}" for place, end in (("videos", ".mp4"), ("cache", "_wan.pt"))
    ]
    for file in [*caches, *gone]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("hours of work")
    (note,) = made(shot, tmp_path / "out")["notes"]
    assert all(cache.exists() for cache in caches) and not any(file.exists() for file in gone)
    assert note.startswith("2 files of clips that are no longer exported were removed; 4 files that others keep")
    assert made(shot, tmp_path / "out")["notes"] == []
    (tmp_path / "out" / "videos" / "holiday.mp4").write_text("of somebody else")
    (note,) = made(shot, tmp_path / "out")["notes"]
    assert note.startswith("videos/holiday.mp4 in ") and (tmp_path / "out" / "videos" / "holiday.mp4").exists()


def test_a_folder_that_leads_elsewhere_is_left_alone_unless_it_is_the_exports_own(shot: str, tmp_path: Path) -> None:
    made(shot, out := tmp_path / "out")
    for name in ("videos", "cache"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{key_of(99)}.mp4").write_text("of a clip that is gone")
    shutil.copytree(out / "videos", tmp_path / "videos", dirs_exist_ok=True)
    shutil.rmtree(out / "videos")
    for name in ("videos", "cache"):
        (out / name).symlink_to(tmp_path / name)
    made(shot, out)
    assert (tmp_path / "cache" / f"{key_of(99)}.mp4").exists()
    assert {path.stem for path in (tmp_path / "videos").iterdir()} == {KEYS[name] for name in ("exact", "long", "mute")}


def test_what_was_taken_down_and_is_in_a_shard_still_is_refused(shot: str, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(shot, run)
    ledger = Ledger(str(run))
    ledger.create()
    rows = takedowns.resolved(ledger, takedowns.noted([], [takedowns.Entry(named=KEYS["long"])], "2026-11-29"))
    takedowns.write(ledger, rows)
    found = made(str(run), out)
    assert found["refused"] == {"caption": 1, "frames": 1, "takedown": 1}
    assert export.verify.of_run(str(run), str(out)) == []
    assert not [path for path in out.rglob("*") if path.is_file() and b"bikes;" in path.read_bytes()]
    with pytest.raises(ExportError, match=f"holds {KEYS['long']}, which was taken down; pack the run again"):
        made(str(run), tmp_path / "webshart", "webshart", "")


def test_clips_that_are_kept_and_were_never_packed_are_told(shot: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(shot, run)
    ledger = Ledger(str(run))
    ledger.create()
    verdicts = [{"policy": "day", "key": key_of(number), "kept": number != 6} for number in range(8)]
    ledger.write("selection", "day", verdicts, "0" * 12)
    (note,) = made(str(run), tmp_path / "out")["notes"]
    assert note.startswith("2 clips that the selection keeps are in no shard")


@pytest.mark.parametrize(("to", "preset", "told"), [("musubi", "", 1), ("musubi", "wan", 0), ("hf", "", 0)])
def test_rates_that_a_trainer_takes_for_the_models_are_told(
    shot: str, tmp_path: Path, to: str, preset: str, told: int
) -> None:
    notes = made(shot, tmp_path / "out", to, preset)["notes"]
    assert len([note for note in notes if "(25 fps), and musubi takes each for the model's own" in note]) == told


def test_one_export_at_a_time_works_in_a_folder(shot: str, tmp_path: Path) -> None:
    with storage.alone(str(tmp_path / "out")), pytest.raises(storage.StorageError, match="out"):
        made(shot, tmp_path / "out")


def test_a_card_that_was_filled_in_by_hand_is_kept(shot: str, tmp_path: Path) -> None:
    assert made(shot, tmp_path / "out")["notes"] == []
    card, anew = tmp_path / "out" / "README.md", tmp_path / "out" / "README.new.md"
    written = card.read_text()
    card.write_text(filled := written.replace("*to be filled in by the provider*", "Rushes Ltd"))
    (note,) = made(shot, tmp_path / "out")["notes"]
    assert card.read_text() == filled and anew.read_text() == written and str(anew) in note
    card.write_text(written)
    assert made(shot, tmp_path / "out")["notes"] == [] and not anew.exists()


def test_pieces_that_show_too_little_of_their_clip_are_counted_and_refused_where_that_is_asked(
    shot: str, tmp_path: Path
) -> None:
    found = made(shot, tmp_path / "a", split=True)
    shown = {Path(p["file"]).stem: p["shown"] for row in account.rows(str(tmp_path / "a")) for p in row["pieces"]}
    assert shown[f"{KEYS['long']}-00"] == round(81 / 115, 6) and shown[f"{KEYS['long']}-01"] == round(33 / 115, 6)
    assert shown[KEYS["exact"]] == round(41 / 42, 6) and found["partly"] == 2
    assert "2 of the videos have the caption of their whole clip and show less than 90% of it" in "\n".join(
        account.lines(found)
    )
    assert "4 of\n  4 videos, 2 of which show less than 90% of their" in (tmp_path / "a" / "README.md").read_text()
    found = made(shot, tmp_path / "b", split=True, min_shown=0.5)
    assert found["videos"] == 3 and found["refused"] == {"frames": 1, "caption": 1}
    found = made(shot, tmp_path / "c", split=True, min_shown=0.9)
    assert found["refused"] == {"frames": 1, "caption": 1, "shown": 1} and found["videos"] == 2
    (named,) = (row for row in found["named"] if row["rule"] == "shown")
    assert (named["key"], named["value"], named["limit"]) == (KEYS["long"], 0.704, 0.9)


@pytest.mark.parametrize("to", sorted(DIALECTS))
def test_an_export_from_which_all_was_taken_is_empty(samples: dict[str, Sample], tmp_path: Path, to: str) -> None:
    if to == "lance":
        pytest.importorskip("lance")
    run, preset = tmp_path / "run", "" if to == "webshart" else "wan"
    write(run, [samples["exact"], samples["mute"]])
    made(str(run), tmp_path / "out", to, preset=preset)
    shutil.rmtree(run)
    shards.write_manifest(str(run / "shards" / "day"), [], kind="clips", fingerprint="abc")
    found = made(str(run), tmp_path / "out", to, preset=preset)
    assert found["clips"] == {"exported": 0, "refused": 0, "failed": 0} and found["problems"] == []
    texts = {str(path): path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert not [
        path for path, text in texts.items() if any(key in path or key.encode() in text for key in KEYS.values())
    ]
    assert not [path for path, text in texts.items() if b"A portrait of a street." in text]


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
    assert f"{KEYS['exact']}: failed: " in (said := capsys.readouterr().out) and "1 clip failed" in said
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
    out, dialect = str(tmp_path / "out"), DIALECTS["folder"]
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
