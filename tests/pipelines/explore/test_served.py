"""The server answers this machine's own page: foreign hosts, forms and writers are refused; videos come by ranges."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import s3fs

from rushes.pipelines.explore.workbench import Workbench
from rushes.pipelines.store import storage
from rushes.pipelines.store.encoded import encoded_uri
from rushes.pipelines.store.ledger import Ledger

pytest.importorskip("starlette", reason="the extra `explore` is not installed")
pytest.importorskip("httpx2", reason="Starlette's test client needs httpx2")

from starlette.testclient import TestClient

from rushes.pipelines.explore.served import application

TOKEN = "of-the-session"


def test_a_run_in_a_bucket_is_looked_at_as_one_on_disk(undisturbed: str, s3: str) -> None:
    s3fs.S3FileSystem().put(undisturbed, f"{s3}/run", recursive=True)
    far = TestClient(application(Workbench(f"{s3}/run"), TOKEN), base_url="http://127.0.0.1:8000")
    clip = encoded(undisturbed)
    part = far.get(f"/api/video/{clip['key']}", headers={"range": "bytes=10-99"})
    assert part.status_code == 206 and part.content == clip["bytes"][10:100]
    assert far.get(f"/api/strip/{clip['key']}").content[8:12] == b"WEBP"
    assert far.post("/api/sql", json={"query": "from clips_all"}).json()["rows"]
    policy = {"name": "everything", "rules": []}
    assert far.post("/api/try", json={"policy": policy}).json()["kept"]["clips"] > 0
    saved = far.post("/api/save", json={"policy": policy}, headers={"x-rushes-token": TOKEN}).json()
    assert saved["path"] == f"{s3}/run/drafts/everything.yaml" and storage.exists(saved["path"])
    told = "".join(far.get(path).text for path in ("/", "/api/run", f"/api/clip/{clip['key']}"))
    assert "AWS" not in told and TOKEN not in told


@pytest.fixture(scope="module")
def client(undisturbed: str) -> TestClient:
    """A browser on this machine."""
    return TestClient(application(Workbench(undisturbed), TOKEN), base_url="http://127.0.0.1:8000")


def encoded(run: str) -> dict[str, Any]:
    ledger = Ledger(run)
    part = ledger.parts("encoded")[0]
    row = ledger.read_part(part, "encoded").to_pylist()[0]
    tar = encoded_uri(run, part.unit, part.fingerprint)
    return row | {"bytes": storage.read_range(tar, row["offset"], row["size_bytes"])}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example:8000", ""])
def test_a_foreign_host_is_refused(client: TestClient, host: str) -> None:
    for path in ("/", "/api/run"):
        assert client.get(path, headers={"host": host}).status_code == 421
    for known in ("localhost:8000", "[::1]:8000", "127.0.0.1"):
        assert client.get("/", headers={"host": known}).status_code == 200


def test_every_answer_forbids_what_the_page_does_not_need(client: TestClient) -> None:
    for path in ("/", "/explore.js", "/explore.css", "/api/run", "/api/clip/none", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
    for path in ("/served.py", "/..%2f..%2fpyproject.toml", "/api/clip/%2e%2e"):
        assert client.get(path).status_code == 404


def test_writing_takes_the_token_and_json(client: TestClient, undisturbed: str) -> None:
    body = {"policy": {"name": "mine", "rules": []}}
    for token in ({}, {"x-rushes-token": "another"}, {"x-rushes-token": "é"}):
        answer = client.post("/api/save", json=body, headers={k: v.encode() for k, v in token.items()})
        assert answer.status_code == 403 and "token" in answer.json()["error"]
        headers = {name: value.encode() for name, value in token.items()}
        said = client.post("/api/label", json={"key": "x", "label": "keep"}, headers=headers)
        assert said.status_code == 403 and not Ledger(undisturbed).parts("labels")
    form = client.post("/api/save", data={"policy": "x"}, headers={"x-rushes-token": TOKEN})
    assert form.status_code == 400 and not storage.exists(f"{undisturbed}/drafts/mine.yaml")
    assert TOKEN not in client.get("/").text + client.get("/api/run").text


def test_a_video_comes_by_ranges_out_of_its_tar(client: TestClient, undisturbed: str) -> None:
    clip = encoded(undisturbed)
    whole = client.get(f"/api/video/{clip['key']}")
    assert whole.status_code == 200 and whole.content == clip["bytes"]
    assert whole.headers["content-type"] == "video/mp4" and whole.headers["accept-ranges"] == "bytes"
    size = len(clip["bytes"])
    for asked, first, end in (
        ("0-99", 0, 100),
        ("100-", 100, size),
        ("-50", size - 50, size),
        ("5-999999999", 5, size),
    ):
        part = client.get(f"/api/video/{clip['key']}", headers={"range": f"bytes={asked}"})
        assert part.status_code == 206 and part.content == clip["bytes"][first:end], asked
        assert part.headers["content-range"] == f"bytes {first}-{end - 1}/{size}"
    assert client.get(f"/api/video/{clip['key']}", headers={"range": f"bytes={size}-"}).status_code == 416
    for odd in ("bytes=a-b", "lines=1-2", "bytes=0-1,4-5", "bytes=-"):
        assert client.get(f"/api/video/{clip['key']}", headers={"range": odd}).status_code == 200, odd


def test_a_dropped_clip_plays_from_its_source_and_both_have_strips(client: TestClient, undisturbed: str) -> None:
    kept = set(Ledger(undisturbed).read("encoded")["key"].to_pylist())
    clips = Ledger(undisturbed).read("clips", ["key", "uri"]).to_pylist()
    (dropped, *_) = [clip for clip in clips if clip["key"] not in kept]
    found = client.get(f"/api/clip/{dropped['key']}").json()
    assert not found["encoded"] and found["verdicts"][0]["kept"] is False and found["copies"]
    assert client.get(f"/api/video/{dropped['key']}").content == storage.read_bytes(dropped["uri"])
    row = next(clip for clip in Ledger(undisturbed).read("clips").to_pylist() if clip["key"] == dropped["key"])
    plays = client.get(f"/api/plays/{dropped['key']}").json()
    assert not plays["encoded"] and plays["start_s"] == pytest.approx(row["start_s"], abs=1e-3)
    assert plays["end_s"] == pytest.approx(row["end_s"], abs=1e-3)
    assert all(client.get(f"/api/plays/{key}").json()["encoded"] for key in kept)
    for key in (dropped["key"], *kept):
        assert client.get(f"/api/strip/{key}").content[8:12] == b"WEBP"
    assert client.get("/api/clip/0000000000000000-000000000").status_code == 404
    assert client.get("/api/video/nothing").status_code == 404


def test_the_map_is_made_for_who_has_the_token_and_looked_at_by_all(embedded: str, tmp_path: Path) -> None:
    shutil.copytree(embedded, tmp_path / "run")
    client = TestClient(application(Workbench(str(tmp_path / "run")), TOKEN), base_url="http://127.0.0.1:8000")
    asked = {"policy": {"name": "all"}, "width_px": 400, "height_px": 300, "colour": "motion"}
    assert client.post("/api/map", json=asked).status_code == 403
    assert (
        client.post("/api/clips", json={"policy": {"name": "all"}, "lasso": [[0, 0], [1, 0], [1, 1]]}).status_code
        == 400
    )
    for _ in range(100):
        found = client.post("/api/map", json=asked, headers={"x-rushes-token": TOKEN}).json()
        if "making" not in found:
            break
    assert client.post("/api/map", json=asked).json() == found
    clips = client.post("/api/clips", json={"policy": {"name": "all"}}).json()
    assert sum(found["stands_for"]) == clips["total"] and set(found["keys"]) <= {c["key"] for c in clips["clips"]}
    assert all(value is None or isinstance(value, float) for value in found["values"]) and all(found["meant"])
    left, bottom, right, top = found["view"]
    box = [[left, bottom], [right, bottom], [right, top], [left, top]]
    held = client.post("/api/clips", json={"policy": {"name": "all"}, "lasso": box}).json()
    assert held["total"] == clips["total"]


def test_the_frames_around_the_borders_come_as_pictures(client: TestClient, undisturbed: str) -> None:
    key = Ledger(undisturbed).read("clips", ["key"]).to_pylist()[0]["key"]
    found = client.get(f"/api/borders/{key}").json()
    assert found["told"] == "Frames from the source" and found["frames"]
    for number in range(len(found["frames"])):
        assert client.get(f"/api/borders/{key}/{number}").content[:2] == bytes.fromhex("ffd8")
    assert client.get(f"/api/borders/{key}/{len(found['frames'])}").status_code == 404
    assert client.get("/api/borders/none").status_code == client.get("/api/borders/none/0").status_code == 404


def test_a_query_of_the_page_only_reads(client: TestClient) -> None:
    found = client.post("/api/sql", json={"query": "select fate, clips from funnel"}).json()
    assert found["columns"] == ["fate", "clips"] and found["rows"] and not found["more"]
    many = client.post("/api/sql", json={"query": "select * from range(5000)"}).json()
    assert len(many["rows"]) == 1000 and many["more"]
    refused = ("create table a as select 1", "select 1; select 2", "drop view clips_all", "", "select * from nothing",
               "select * from read_text('/etc/hostname')", "copy (select 1) to '/tmp/x'", "attach 'x.db'")  # fmt: skip
    for query in refused:
        assert client.post("/api/sql", json={"query": query}).status_code == 400, query


def test_wrong_requests_get_one_sentence(client: TestClient) -> None:
    unknown = {"name": "a", "rules": [{"name": "b", "measure": "no", "min": 1}]}
    wrong = [
        ("/api/try", {}),
        ("/api/try", {"policy": {"name": "a", "rules": [{"name": "b"}]}}),
        ("/api/try", {"policy": unknown}),
        ("/api/clips", {"policy": {"name": "a"}, "order": "odd"}),
        ("/api/clips", {"policy": {"name": "a"}, "first": [1]}),
        ("/api/clips", {"policy": {"name": "a"}, "limit": "high"}),
        ("/api/clips", {"policy": {"name": "a"}, "fate": "odd"}),
        ("/api/clips", {"policy": {"name": "a"}, "ranges": [{"measure": "no", "low": 1}]}),
        ("/api/clips", {"policy": {"name": "a"}, "ranges": [{"measure": "motion", "low": "1"}]}),
        ("/api/clips", {"policy": {"name": "a"}, "lasso": [[0, 0], [1, 1]]}),
        ("/api/clips", {"policy": {"name": "a"}, "lasso": [[0, 0], [1, 1], [1]]}),
        ("/api/spread", {"policy": {"name": "a"}, "measures": "motion"}),
        ("/api/spread", {"policy": {"name": "a"}, "measures": ["motion; drop"]}),
    ]
    for path, body in wrong:
        answer = client.post(path, json=body)
        assert answer.status_code == 400 and answer.json()["error"], body
    assert client.post("/api/try", content=b"[1]", headers={"content-type": "application/json"}).status_code == 400
    assert client.post("/api/try", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    large = b'{"a": "' + b"x" * 1_100_000 + b'"}'
    assert client.post("/api/try", content=large, headers={"content-type": "application/json"}).status_code == 400
