"""What is taken down leaves a run to the last picture, and the run is that of one which never had it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rushes.pipelines.cli.main import main
from rushes.pipelines.config import InputConfig, LatentsConfig, SelectConfig
from rushes.pipelines.engine import curate, encode_latents
from rushes.pipelines.engine.removal import Takedown
from rushes.pipelines.export import account, export
from rushes.pipelines.export.settings import ExportConfig
from rushes.pipelines.progress import Reporter
from rushes.pipelines.report import accounting, summary
from rushes.pipelines.stages.pack import verify
from rushes.pipelines.store import shards, storage, takedowns
from rushes.pipelines.store.ledger import Ledger
from rushes.tokenizer import model
from rushes.tokenizer.config import TokenizerConfig
from tests.pipelines.one_process import in_one_process
from tests.pipelines.small_run import ALL, CONFIG, content
from tests.tokenizer.conftest import excerpt

TOGETHER = replace(CONFIG, inputs=InputConfig(units_per_wave=1))
WHEN = "2026-11-29"


@pytest.fixture(scope="module", autouse=True)
def without_ray() -> Iterator[None]:
    with in_one_process():
        yield


@pytest.fixture(scope="module")
def run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run, all its films in one unit, so that one of them can be taken from the others."""
    found = tmp_path_factory.mktemp("together") / "run"
    go(found, inputs)
    return found


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def go(run: Path, *inputs: Path, **takedown: Any) -> None:
    takedown = {"date": WHEN, **takedown}
    listed = [str(one) for one in inputs]
    curate.curate(listed, str(run), TOGETHER, takedown=Takedown(**takedown), reporter=Reporter(live=False))


def listed(folder: Path, *names: str | Path) -> str:
    file = folder / f"list-{len(list(folder.glob('list-*')))}.txt"
    file.write_text("\n".join(map(str, names)))
    return str(file)


def clips(run: Path, film: str) -> dict[str, dict[str, Any]]:
    rows = Ledger(str(run)).read("clips", ["key", "uri", "source_id", "start_s", "end_s", "duration_s"]).to_pylist()
    return {row["key"]: row for row in rows if row["uri"].endswith(f"/{film}")}


def packed(run: Path, kind: str = "shards") -> set[str]:
    root = f"{run}/{kind}/default"
    tables = [shards.read_sidecar(root, info) for info in shards.read_manifest(root).shards]
    return {key for table in tables for key in table["key"].to_pylist()}


def exported(run: Path, to: str, out: Path) -> set[str]:
    """Export and return the clips that are in it then, proved by `rushes verify`."""
    export.run(str(run), str(out), to, ExportConfig(link=True), reporter=Reporter(live=False))
    assert main(["verify", str(run), "--export", str(out)]) == 0
    return {row["key"] for row in account.rows(str(out)) if row["pieces"]}


def told(run: Path) -> dict[tuple[str, str], tuple[float, int, int]]:
    account = accounting.account(str(run))
    account.check()
    return {(e.fate, e.reason): (pytest.approx(e.seconds, abs=1e-6), e.clips, e.sources) for e in account.entries}


def test_a_film_leaves_everything_and_the_run_is_the_one_that_never_read_it(
    copy: Path, inputs: Path, tmp_path: Path
) -> None:
    gone, before = clips(copy, "bikes.mp4"), packed(copy)
    assert set(gone) & before, "it was packed"
    go(copy, listed=listed(tmp_path, inputs / "bikes.mp4"))
    assert not clips(copy, "bikes.mp4") and packed(copy) == before - set(gone) != set()
    assert verify.verify(str(copy), full=True) == []
    assert told(copy)["dropped", "takedown"] == (20.0, 0, 2), "the film, and its bytes under another name"
    never = tmp_path / "never"
    go(never, inputs, listed=listed(tmp_path, inputs / "bikes.mp4"))
    assert content(copy, *ALL) == content(never, *ALL)


def test_a_clip_leaves_with_its_pictures_and_the_clips_beside_it_stay_to_the_byte(
    copy: Path, inputs: Path, tmp_path: Path
) -> None:
    film, before = clips(copy, "bikes.mp4"), packed(copy)
    key = sorted(set(film) & before)[1]
    go(copy, listed=listed(tmp_path, key))
    assert packed(copy) == before - {key} and set(clips(copy, "bikes.mp4")) == set(film) - {key}
    assert verify.verify(str(copy), full=True) == []
    start_s, end_s = film[key]["start_s"], film[key]["end_s"]
    frames = Ledger(str(copy)).read("frames", ["source_id", "time_s"]).to_pylist()
    own = [row["time_s"] for row in frames if row["source_id"] == film[key]["source_id"]]
    assert own and not [time_s for time_s in own if start_s <= time_s < end_s]
    assert told(copy)["dropped", "takedown"] == (end_s - start_s, 1, 1)
    never = tmp_path / "never"
    go(never, inputs, listed=listed(tmp_path, key))
    assert content(copy, *ALL) == content(never, *ALL)


def test_nothing_is_decoded_again_and_the_same_command_does_nothing(
    copy: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("a film was read")

    monkeypatch.setattr("rushes.pipelines.stages.scan.scan.scan_span", decoded)
    monkeypatch.setattr("rushes.pipelines.stages.encode.encode.cut", decoded)
    names = listed(tmp_path, inputs / "car_distorted.mp4")
    go(copy, listed=names)
    assert not [row for row in summary.of(str(copy))["failures"] if row["stage"] in ("scan", "encode")]
    files = {file: file.stat().st_mtime_ns for file in copy.rglob("*") if file.is_file() and file.name != "config.yaml"}
    go(copy, listed=names, date="2027-01-01")
    assert {file: file.stat().st_mtime_ns for file in files} == files


def test_what_is_given_back_is_as_it_was(run: Path, copy: Path, inputs: Path, tmp_path: Path) -> None:
    key = sorted(clips(copy, "car.mp4"))[0]
    names = listed(tmp_path, inputs / "same_bytes.mp4", key)
    go(copy, listed=names)
    assert not clips(copy, "bikes.mp4") and key not in packed(copy)
    go(copy, withdrawn=names)
    after = content(copy, *ALL)
    (part,) = (name for name in after if "takedowns" in name)
    assert {name: value for name, value in after.items() if name != part} == content(run, *ALL)
    rows = takedowns.read(Ledger(str(copy)))
    assert {(row["since"], row["until"], row["applied"]) for row in rows} == {(WHEN, WHEN, False)}
    assert verify.verify(str(copy)) == []


def test_content_that_comes_in_later_under_another_name_stays_out_and_is_not_decoded(
    copy: Path, bunny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, later = packed(copy), tmp_path / "later"
    later.mkdir()
    go(copy, listed=listed(tmp_path, later / "bunny.mp4", "s3://films/none.mp4"))
    assert summary.of(str(copy))["takedowns"]["matched_nothing"] == [str(later / "bunny.mp4"), "s3://films/none.mp4"]
    shutil.copy(bunny, later / "bunny.mp4")
    shutil.copy(bunny, later / "another name.mp4")
    monkeypatch.setattr("rushes.pipelines.stages.scan.scan.scan_span", lambda *_: pytest.fail("a film was read"))
    go(copy, later / "another name.mp4", later / "bunny.mp4")
    assert packed(copy) == before and not clips(copy, "bunny.mp4") and not clips(copy, "another name.mp4")
    seconds, _, sources = told(copy)["dropped", "takedown"]
    assert sources == 2 and seconds == pytest.approx(2 * 5.28, abs=0.1)
    assert summary.of(str(copy))["takedowns"]["matched_nothing"] == ["s3://films/none.mp4"]


def test_clips_that_resemble_are_named_and_go_where_that_is_asked(copy: Path, inputs: Path, tmp_path: Path) -> None:
    (pristine,), (distorted,) = clips(copy, "car.mp4"), clips(copy, "car_distorted.mp4")
    names = listed(tmp_path, inputs / "car.mp4")
    go(copy, listed=names)
    found = summary.of(str(copy))["takedowns"]
    uri = str(inputs / "car_distorted.mp4")
    assert found["similar"] == [{"key": distorted, "uri": uri, "resembles": pristine, "kept": True}]
    assert distorted in packed(copy), "nobody asked for it"
    go(copy, similar=True)
    assert distorted not in packed(copy) and not clips(copy, "car_distorted.mp4")
    assert verify.verify(str(copy)) == [] and told(copy)["dropped", "takedown"][2] == 2
    go(copy, withdrawn=names)
    assert {pristine, distorted} <= {*clips(copy, "car.mp4"), *clips(copy, "car_distorted.mp4")}


class Killed(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("moments", [range(0, 12, 2), range(12, 24, 2), range(25, 55, 5)])
def test_killed_at_any_moment_it_ends_in_the_same_bytes(
    copy: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moments: range
) -> None:
    names = listed(tmp_path, inputs / "bikes.mp4", *sorted(clips(copy, "car.mp4"))[:1])
    whole = Path(shutil.copytree(copy, tmp_path / "whole"))
    go(whole, listed=names)
    for moment in moments:
        killed = Path(shutil.copytree(copy, tmp_path / f"killed-{moment}"))
        with monkeypatch.context() as patch:
            _kill_after(moment, patch)
            with pytest.raises(Killed):
                go(killed, listed=names)
        go(killed, listed=names)
        assert content(killed, *ALL) == content(whole, *ALL), f"killed at change {moment}"
        shutil.rmtree(killed)


def _kill_after(changes: int, patch: pytest.MonkeyPatch) -> None:
    """Let the run die at a change of its files: before one gets its name, or before some are removed."""
    left = [changes]

    def counted(do: Any) -> Any:
        def inner(what: Any, *arguments: Any) -> Any:
            left[0] -= bool(what)  # nothing is often what there is to be removed
            if left[0] < 0:
                raise Killed
            return do(what, *arguments)

        return inner

    patch.setattr(Path, "replace", counted(Path.replace))
    patch.setattr(storage, "remove_many", counted(storage.remove_many))


def test_what_is_left_anywhere_is_a_problem(run: Path, copy: Path, inputs: Path, tmp_path: Path) -> None:
    names = listed(tmp_path, inputs / "bikes.mp4")
    source = next(iter(clips(copy, "bikes.mp4").values()))["source_id"]
    go(copy, listed=names)
    for place in ("ledger/frames", "ledger/windows", "ledger/strips", "ledger/captions", "ledger/scores", "encoded"):
        file = next((run / place).iterdir())
        put = copy / place / file.name.replace("part-w0000", "part-w0009")
        shutil.copy(file, put)
        problems = [problem for problem in verify.verify(str(copy)) if source in problem.reason]
        assert [problem.where.removeprefix(f"{copy}/").split(".")[0] for problem in problems] == [
            place if place.startswith("ledger") else f"encoded/{file.name.split('.')[0]}"
        ], place
        assert all(
            "holds what was taken down" in problem.reason and "rushes pack" in problem.remedy for problem in problems
        )
        put.unlink()
    shutil.rmtree(copy / "shards" / "default")
    shutil.copytree(run / "shards" / "default", copy / "shards" / "old")  # of another selection
    assert any(source in problem.reason and "shards/old" in problem.where for problem in verify.verify(str(copy)))
    assert verify.verify(str(run)) == []


def test_the_latents_follow_their_shards_and_nothing_stays_where_nothing_is_left(
    copy: Path, inputs: Path, tmp_path: Path
) -> None:
    model.save(model.Tokenizer(TokenizerConfig(rates=(4, 8))), str(copy / "tokenizer" / "model"))
    exports = {to: tmp_path / to for to in ("webshart", "fastvideo", "fiftyone")}

    def encode() -> None:
        encode_latents.run(str(copy), str(copy / "tokenizer" / "model"), LatentsConfig(side_px=32, share=0.6),
                           TOGETHER.ray, Reporter(live=False))  # fmt: skip
        looked_at = set(Ledger(str(copy)).read("rates")["key"].to_pylist())
        assert looked_at == packed(copy, "latents")

    encode()
    for to, out in exports.items():
        assert exported(copy, to, out) == packed(copy) == packed(copy, "latents")
    go(copy, listed=listed(tmp_path, inputs / "bikes.mp4"))
    problems = {problem.where.removeprefix(f"{copy}/"): problem for problem in verify.verify(str(copy))}
    assert any("latents" in where for where in problems) and "rushes latents" in problems["ledger/rates"].remedy
    encode()
    assert packed(copy, "latents") == packed(copy) and verify.verify(str(copy)) == []
    for to, out in exports.items():
        assert any(".tar" in one or ".mp4" in one for one in export.verify.of_run(str(copy), str(out)))
        assert exported(copy, to, out) == packed(copy)
    go(copy, listed=listed(tmp_path, inputs / "car.mp4", inputs / "car_distorted.mp4"))
    assert summary.of(str(copy))["takedowns"]["similar"] == [], "it is taken down itself"
    assert summary.of(str(copy))["policy"] == "default", "which kept nothing"
    encode()
    for to, out in exports.items():
        assert exported(copy, to, out) == set() and not [*out.rglob("*.tar"), *out.rglob("*.mp4")]
    assert packed(copy, "latents") == packed(copy) == set() and verify.verify(str(copy)) == []
    assert not list((copy / "latents").rglob("*.tar")) and not list((copy / "shards").rglob("*.tar"))


def test_a_sample_says_where_it_comes_from_and_what_it_may_be_used_for(bikes: Path, tmp_path: Path) -> None:
    free, other = tmp_path / "free.mp4", tmp_path / "other.mp4"
    free.write_bytes(excerpt(bikes, 0, 30, 320, 136))
    shutil.copy(bikes.parent / "carphone_pristine.mp4", other)
    rows = f"uri,licence,rights,shelf\n{free},CC-BY-3.0,Blender Foundation,7\n{other},,,8\n"
    (tmp_path / "list.csv").write_text(rows)
    (tmp_path / "all.yaml").write_text("name: all\ndedup: {enabled: false}\n")
    config = replace(TOGETHER, select=SelectConfig(policy=str(tmp_path / "all.yaml")))
    curate.curate([str(tmp_path / "list.csv")], str(tmp_path / "run"), config, reporter=Reporter(live=False))
    model.save(model.Tokenizer(TokenizerConfig(rates=(4, 8))), str(tmp_path / "model"))
    small = LatentsConfig(side_px=32, share=0.0)
    encode_latents.run(str(tmp_path / "run"), str(tmp_path / "model"), small, TOGETHER.ray, Reporter(live=False))
    sources = {row["uri"]: row for row in Ledger(str(tmp_path / "run")).read("sources").to_pylist()}
    for kind in ("shards", "latents"):
        root = f"{tmp_path}/run/{kind}/all"
        found = [json.loads(sample["json"]) for info in shards.read_manifest(root).shards
                 for sample in shards.read_shard(f"{root}/{info.path}", ("json",))]  # fmt: skip
        assert {facts["uri"] for facts in found} == {str(free), str(other)}
        for facts in found:
            source = sources[facts["uri"]]
            assert (facts["source_id"], facts["digest"]) == (source["source_id"], source["digest"])
            assert 0 <= facts["start_s"] < facts["end_s"] <= source["duration_s"] + 0.1
            given = ("CC-BY-3.0", "Blender Foundation", '{"shelf": "7"}')
            expected = given if facts["uri"] == str(free) else ("", "", '{"shelf": "8"}')
            assert (facts["licence"], facts["rights"], facts["extra"]) == expected
    by_licence = {row["licence"]: row for row in summary.of(str(tmp_path / "run"))["licences"]}
    assert by_licence.keys() == {"CC-BY-3.0", None}
    assert sum(row["seconds"] for row in by_licence.values()) == pytest.approx(
        summary.of(str(tmp_path / "run"))["input_s"]
    )


def test_the_command_tells_what_would_go_and_then_takes_it_down_by_the_runs_own_settings(
    copy: Path, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text(f"uri,reason\n{inputs}/bikes.mp4,asked for by letter\nnone.mp4,\n")
    command = ["curate", "--out", str(copy), "--takedown", str(tmp_path / "list.csv"), "--takedown-date", WHEN]
    before = content(copy, "ledger", "shards", "encoded")
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert (
        "taken down: 2 names, 1 source and 0 clips of this run" in said
        and f"nothing here is {tmp_path}/none.mp4" in said
    )
    assert content(copy, "ledger", "shards", "encoded") == before
    assert main(command) == 3, "a text among the films is no video, as before"
    assert "taken down: 2 names" in (out := capsys.readouterr().out) and "takedown" in out
    assert {row["reason"] for row in takedowns.read(Ledger(str(copy)))} == {"asked for by letter", None}
    assert verify.verify(str(copy)) == [] and "asked for by letter" in (copy / "report/index.html").read_text()
    assert main([*command[:-1], "yesterday"]) == 2 and "write it like 2026-11-29" in capsys.readouterr().err
