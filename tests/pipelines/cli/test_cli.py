"""Claims about what a user's mistakes meet on the command line: one sentence, nothing changed. No Ray."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import s3fs

from rushes.pipelines.cli.main import main
from rushes.pipelines.store import shards, storage
from rushes.pipelines.store.ledger import Ledger


@pytest.fixture
def movie(bikes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(bikes, tmp_path / "bikes.mp4"))


def says(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run the command line; return the exit code and its one line on stderr."""
    code = main([str(argument) for argument in arguments])
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return code, lines[0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("missing.mp4", "there is no such file"),
        ("empty", "holds no video"),
        ("list.csv", "has no column 'uri'.*inputs.uri_column"),
        ("broken.parquet", "cannot be read as Parquet"),
        ("broken.jsonl", "cannot be read as JSON lines"),
        ("nothing.csv", "nothing.csv is empty"),
        ("header.csv", "header.csv lists no video"),
        ("twice.csv", "twice.csv has several columns named 'uri'"),
    ],
)
def test_a_wrong_input_is_one_sentence_and_leaves_no_run(
    wrong: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("video\na.mp4\n")
    (tmp_path / "nothing.csv").write_text("")
    (tmp_path / "header.csv").write_text("uri\n")
    (tmp_path / "twice.csv").write_text("uri,uri\na.mp4,b.mp4\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    (tmp_path / "broken.jsonl").write_text('{"uri": ')
    code, line = says(capsys, "curate", tmp_path / wrong, "--out", tmp_path / "run")
    assert code == 2
    assert re.search(words, line), line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://IDSECRET:PWSECRET@bucket/a.mp4?X-Amz-Signature=SIGSECRET", "AWS_ACCESS_KEY_ID.*in the environment"),
        ("s3://IDSECRET:PW/SECRET@bucket/a.mp4", "s3://…@bucket/a.mp4.*: credentials do not belong into a URI"),
        ("s3://bucket/a.mp4?X-Amz-Signature=SIGSECRET", "a signed link is no name of an object"),
        ("https://me:PWSECRET@host/a.mp4?token=SIGSECRET", r"https:// is not read or written; download the file"),
        ("foo://me:PWSECRET@host/a.mp4", "credentials do not belong into a URI"),
        ("gs://bucket/a.mp4", "neither a path nor an s3:// URI"),
    ],
)
def test_a_uri_that_cannot_be_read_is_refused_and_its_secrets_are_never_said(
    uri: str, words: str, movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    for arguments in (["curate", uri, "--out", out], ["curate", movie, "--out", uri], ["verify", uri], ["report", uri]):
        code, line = says(capsys, *arguments)
        assert code == 2 and re.search(words, line), line
        assert not re.search("(ID|PW|SIG)SECRET", line)
    assert not out.exists()


def test_a_word_that_is_no_option_is_said_without_its_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = says(capsys, "report", "run", "s3://id:PWSECRET@bucket/run")
    assert code == 2 and "PWSECRET" not in line


def test_a_wrong_input_leaves_the_settings_of_a_run_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    (run / "ledger").mkdir(parents=True)
    (run / "ledger" / "version.json").write_text('{"rushes_schema": 2}')
    (run / "config.yaml").write_text("# as it was\n")
    code, _ = says(capsys, "curate", tmp_path / "missing.mp4", "--out", run, "--pack.crf", "30")
    assert (code, (run / "config.yaml").read_text()) == (2, "# as it was\n")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("bogus: 1", "bogus"),
        ("scan: {bogus: 1}", "'scan' does not accept option 'bogus'"),
        ("scan: {tick_hz: fast}", "scan.tick_hz"),
        ("scan: 5", "scan holds width_px.* not one value: 5"),
        ("scan: {tick_hz: -3}", "scan.tick_hz is -3"),
        ("shots: {min_clip_s: 30}", "no clip could be that long"),
        ("shots: {cut_likely: 50}", "shots.cut_likely is 50.0; it must be from 0 to 1"),
        ("pack: {codec: vp9}", "pack.codec"),
        ("pack: {name: a/b}", "pack.name"),
        ("select: {policy: nobody}", "there is no preset 'nobody'"),
        ("a: [", "parsing config"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_runs(
    settings: str, words: str, movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(settings)
    out = tmp_path / "run"
    for more in ([], ["--dry-run"]):
        code, line = says(capsys, "curate", movie, "--out", out, "--config", tmp_path / "config.yaml", *more)
        assert code == 2
        assert re.search(words, line), line
    assert not out.exists()


@pytest.mark.parametrize("command", ["latents", "tokenizer train", "tokenizer reconstruct", "dit train", "verify"])
def test_a_selection_that_is_not_there_is_named_with_those_that_are(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Ledger(str(tmp_path)).create()
    for kind in ("shards", "latents"):
        for name in ("a", "b"):
            shards.write_manifest(f"{tmp_path}/{kind}/{name}", [], kind="clips", fingerprint="")
    storage.write_bytes(f"{tmp_path}/model/config.json", b'{"fingerprint": "x"}')
    tokenizer = ["--tokenizer", str(tmp_path / "model")] if command == "latents" else []
    missing = "'c' has selected nothing in .*: a, b" if command == "verify" else "no selection 'c': a, b"
    for chosen, words in ((["--selection", "c"], missing), ([], "several selections: a, b")):
        code, line = says(capsys, *command.split(), tmp_path, *tokenizer, *chosen)
        assert code == 2 and re.search(words, line)


@pytest.mark.parametrize(
    "command",
    [
        "verify RUN",
        "report RUN",
        "select --out RUN --dry-run",
        "select --out RUN",
        "latents RUN",
        "pack --out RUN",
        "tokenizer train RUN",
        "dit train RUN",
    ],
)
def test_a_folder_that_is_no_run_of_ours_meets_the_same_words_everywhere(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command.replace("RUN", str(tmp_path)).split()
    code, line = says(capsys, *arguments)
    assert code == 2 and f"{tmp_path} is no run of rushes; " in line
    storage.write_bytes(f"{tmp_path}/ledger/version.json", b'{"rushes_schema": 1}')
    storage.write_bytes(f"{tmp_path}/config.yaml", b"")
    code, line = says(capsys, *arguments)
    assert code == 2 and f"{tmp_path} was written with ledger schema 1, this version writes" in line


def test_a_place_where_no_folder_can_be_is_one_sentence_with_a_remedy(
    movie: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = says(capsys, "curate", movie, "--out", "/proc/none")
    assert code == 1 and line.endswith("cannot write /proc/none: no folder can be made there; choose another --out")


def test_a_dry_run_writes_nothing_and_its_json_parses(
    movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["curate", str(movie), "--out", str(tmp_path / "run"), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["new"] == 1
    assert not (tmp_path / "run").exists()


def test_a_second_driver_on_one_run_is_refused(movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with storage.alone(str(tmp_path / "run")):
        code, line = says(capsys, "curate", movie, "--out", tmp_path / "run")
    assert code == 1
    assert "another process is at work on" in line


def test_a_target_that_cannot_be_written_fails_with_one_sentence(
    movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    code, line = says(capsys, "curate", movie, "--out", tmp_path / "file" / "run")
    assert code == 1
    assert "a file stands where a folder should be; choose another --out" in line


def test_another_schema_is_refused_and_left_alone(
    movie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "run" / "ledger" / "version.json"
    marker.parent.mkdir(parents=True)
    marker.write_text('{"rushes_schema": 99}')
    code, line = says(capsys, "curate", movie, "--out", tmp_path / "run")
    assert code == 2
    assert "ledger schema 99" in line
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["ledger", "version.json"]


def test_a_name_that_is_not_text_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad\udcff.mp4").touch()
    code, line = says(capsys, "curate", tmp_path, "--out", tmp_path / "run")
    assert code == 2
    assert "not UTF-8" in line


def test_a_store_that_cannot_be_asked_is_one_sentence(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    for source, out in ((f"{s3}/in", tmp_path / "run"), (tmp_path, f"{s3}/run")):
        code, line = says(capsys, "curate", source, "--out", out)
        assert code == 1
        assert f"cannot reach {s3}" in line and "AWS_ENDPOINT_URL" in line


def test_credentials_that_may_not_are_one_sentence(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("moto.core.responses.ActionAuthenticatorMixin.request_count", 0)
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0)
    for source, out in ((f"{s3}/in", tmp_path / "run"), (tmp_path, f"{s3}/run")):
        code, line = says(capsys, "curate", source, "--out", out)
        assert code == 1
        assert f"no access to {s3}" in line and "credentials" in line
