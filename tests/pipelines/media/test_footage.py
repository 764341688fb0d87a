"""Claims about inputs: what is footage, what the row of a source says, and what is refused with which words."""

from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rushes.pipelines.config import InputConfig, ScanConfig
from rushes.pipelines.media import footage as room
from rushes.pipelines.store import objects, storage
from rushes.pipelines.store.ledger import to_table
from rushes.pipelines.store.tables import TABLES
from tests.bench.requests import Log, counted

SCAN, INPUTS = ScanConfig(), InputConfig()


def film(path: Path, times: list[int] | None = None, size: tuple[int, int] = (64, 48), **stream: object) -> Path:
    """Write grey pictures with the given timestamps in milliseconds."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "0"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        for name, value in stream.items():
            setattr(video.codec_context, name, value)
        for number, time in enumerate(times or range(0, 400, 40)):
            frame = av.VideoFrame.from_ndarray(np.full((size[1] * 3 // 2, size[0]), 20 + number, np.uint8), "yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def test_the_row_of_a_source_fits_the_table_and_tells_shape_time_and_sound(bunny: Path) -> None:
    row = room.probe(str(bunny), SCAN)
    to_table("sources", [row])
    left = set(TABLES["sources"].names) - set(row)
    assert left == {"wave", "unit", "caption", "licence", "rights", "extra"}
    assert (row["width"], row["height"], row["video_codec"], row["audio_codec"]) == (1280, 720, "h264", "aac")
    assert row["duration_s"] == pytest.approx(5.28) and row["fps"] == 25 and not row["variable_fps"] and not row["hdr"]


def test_content_decides_and_the_name_does_not(tmp_path: Path) -> None:
    real = film(tmp_path / "a.mp4")
    odd = tmp_path / "a.txt"
    odd.write_bytes(real.read_bytes())
    ours, theirs = room.probe(str(real), SCAN), room.probe(str(odd), SCAN)
    assert ours["source_id"] == theirs["source_id"] and ours["digest_full"] == theirs["digest_full"]


def test_names_with_colons_dashes_and_percents_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mp4", "-i.mp4", "50%d of #1 ü.mp4"):
        film(tmp_path / "plain.mp4").rename(tmp_path / name)
        assert room.probe(name, SCAN)["width"] == 64


def test_display_size_follows_sample_aspect(tmp_path: Path) -> None:
    row = room.probe(str(film(tmp_path / "wide.mp4", sample_aspect_ratio=Fraction(3, 2))), SCAN)
    assert (row["width"], row["height"], row["coded_width"], row["sample_aspect"]) == (96, 48, 64, 1.5)


def test_a_variable_frame_rate_is_seen(tmp_path: Path) -> None:
    assert room.probe(str(film(tmp_path / "v.mp4", [0, 40, 80, 300, 310, 400, 900])), SCAN)["variable_fps"]
    assert not room.probe(str(film(tmp_path / "c.mkv", list(range(0, 2000, 40)))), SCAN)["variable_fps"]


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("hello\n" * 100)


def _noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def _picture(path: Path) -> None:
    Image.new("RGB", (64, 64)).save(path, "PNG")


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n")


def _headless(path: Path) -> None:
    data = film(path).read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


def _spoken(path: Path) -> None:
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        frame.rate = 48000
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))


def _locked(path: Path) -> None:
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "0" * 31 + "1", "encryption_kid": "0" * 31 + "2"}
    plain = film(path.with_name("plain.mp4"))
    with av.open(str(plain)) as source, av.open(str(path), "w", options=keys) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)


@pytest.mark.parametrize(
    ("code", "spoil"),
    [
        ("empty", _empty),
        ("not_video", _text),
        ("not_video", _noise),
        ("still_picture", _picture),
        ("no_index", _headless),
        ("no_video_stream", _spoken),
        ("encrypted", _locked),
        ("missing", lambda path: None),
        ("not_video", Path.mkdir),
    ],
)
def test_what_is_no_footage_is_refused_with_reason_and_remedy(
    tmp_path: Path, code: str, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / "clip.mp4"
    spoil(path)
    with pytest.raises(room.FootageError) as caught:
        room.probe(str(path), SCAN)
    error = caught.value
    assert error.code == code and str(error) == f"{path}: {error.reason}; {error.remedy}" and error.remedy
    assert str(pickle.loads(pickle.dumps(error))) == str(error), "errors travel between processes"


def test_a_playlist_in_disguise_opens_nothing_beyond_itself(tmp_path: Path) -> None:
    path = tmp_path / "clip.m3u8"
    _playlist(path)
    with pytest.raises(room.FootageError) as caught:
        room.probe(str(path), SCAN)
    assert caught.value.code in {"playlist", "not_video", "unreadable"}


def test_frames_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(room.FootageError, match=r"64×48, the limit is 32 a side; raise scan\.max_side_px"):
        room.probe(str(film(tmp_path / "big.mp4")), ScanConfig(max_side_px=32))


@given(st.floats(0, 1e5), st.floats(60, 1e4))
def test_spans_tile_all_time_and_none_is_long(duration_s: float, span_s: float) -> None:
    found = room.spans(duration_s, ScanConfig(span_s=span_s))
    assert found[0][0] == 0 and found[-1][1] == math.inf
    assert all(a[1] == b[0] and a[0] < a[1] for a, b in pairwise(found))
    assert all(b - a <= 1.5 * span_s + 1e-6 for a, b in [*found[:-1], (found[-1][0], max(duration_s, found[-1][0]))])


def test_every_labelled_file_gives_a_row_or_a_named_failure(footage: Path) -> None:
    labels = json.loads((footage / "labels.json").read_text())["files"]
    refused = {}
    for name, label in labels.items():
        try:
            row = room.probe(str(footage / name), SCAN)
        except room.FootageError as error:
            refused[name] = error.code
            continue
        if label.get("probe"):
            same = row["duration_s"] == pytest.approx(label["probe"]["dur"], abs=0.1)
            assert same or label.get("expected") or row["variable_fps"], name
            assert row["variable_fps"] == label["probe"]["vfr"], name
    assert refused == {
        "derived__text_named.mp4": "not_video",
        "media__sample_audio_only.mp4": "no_video_stream",
        "mediabunny__multiple-aac-tracks.mp4": "no_video_stream",
        "moviepy__result.webm": "empty",
        "shaka-player__s1.mp4": "no_index",
        "streamio-ffmpeg__broken.mp4": "no_index",
    }


def test_phones_turned_in_the_hand_give_upright_sizes(footage: Path) -> None:
    rows = {turn: room.probe(str(footage / f"decord__video_{turn}.mov"), SCAN) for turn in (0, 90, 180, 270)}
    assert all(row["rotation_deg"] == turn for turn, row in rows.items())
    assert [rows[turn]["width"] for turn in (0, 90, 180, 270)] == [568, 320, 568, 320]


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.MOV", "deep/c.webm", "notes.md", ".hidden.mp4", "list.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def uris(*inputs: object, config: InputConfig = INPUTS) -> list[str]:
    return [row["uri"] for row in room.expand([str(i) for i in inputs], config)]


def test_a_folder_gives_its_videos_in_order_and_nothing_else(shelf: Path) -> None:
    assert uris(shelf) == [str(shelf / "a.MOV"), str(shelf / "b.mp4"), str(shelf / "deep" / "c.webm")]


def test_globs_and_names_take_what_they_name_and_each_file_once(shelf: Path) -> None:
    assert uris(shelf / "*.mp4", shelf / "notes.md", shelf) == [
        str(shelf / name) for name in ("b.mp4", "notes.md", "a.MOV", "deep/c.webm")
    ]
    assert uris(shelf / "**" / "*.webm") == [str(shelf / "deep" / "c.webm")]


def test_a_changed_file_has_another_version(shelf: Path) -> None:
    (before,) = room.expand([str(shelf / "b.mp4")], INPUTS)
    (shelf / "b.mp4").write_bytes(b"xyz")
    (after,) = room.expand([str(shelf / "b.mp4")], INPUTS)
    assert before["version"] != after["version"] and (before["size_bytes"], after["size_bytes"]) == (1, 3)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_lists_carry_their_columns_along(shelf: Path, suffix: str) -> None:
    records = [
        {"uri": "b.mp4", "caption": "a cat, asleep", "licence": "CC0", "rights": None, "camera": "A7"},
        {"uri": "s3://bucket/far.mp4", "caption": None, "licence": None, "rights": "me", "camera": None},
    ]
    path = shelf / f"inputs.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, records)))
    else:
        path.write_text('uri,caption,licence,rights,camera\nb.mp4,"a cat, asleep",CC0,,A7\ns3://bucket/far.mp4,,,me,\n')
    near, far = room.expand([str(path)], INPUTS)
    assert near["uri"] == str(shelf / "b.mp4") and near["size_bytes"] == 1
    assert (near["caption"], near["licence"], near["rights"]) == ("a cat, asleep", "CC0", None)
    assert json.loads(near["extra"]) == {"camera": "A7"}
    assert far["uri"] == "s3://bucket/far.mp4" and far["rights"] == "me" and far["caption"] is None
    assert set(near) == set(far) == set(TABLES["plan"].names) - {"wave", "unit"}


def test_a_wrong_column_name_is_met_with_the_names_there_are(shelf: Path) -> None:
    (shelf / "inputs.csv").write_text("path,text\nb.mp4,x\n")
    with pytest.raises(ValueError, match=r"no column 'uri'; it has path, text; set inputs\.uri_column"):
        uris(shelf / "inputs.csv")
    assert uris(shelf / "inputs.csv", config=InputConfig(uri_column="path")) == [str(shelf / "b.mp4")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"uri": "x"\n', "cannot be read as JSON lines"),
        ("a.jsonl", b"[1]\n", "cannot be read as JSON lines"),
        ("a.csv", b"uri\n\xff\xfe\n", "cannot be read as CSV"),
        ("a.parquet", b"no parquet", "cannot be read as Parquet"),
        ("b.csv", b"uri,x\n ,1\n", "names no video"),
        ("c.csv", b"", r"is empty; a list begins with a row of names, such as: uri,caption"),
        ("c.csv", b"uri,caption\n", "lists no video: it has no row"),
        ("c.jsonl", b"\n", "lists no video: it has no row"),
        ("d.csv", b"uri,x,uri\na.mp4,1,b.mp4\n", "several columns named 'uri'; give each a name of its own"),
        ("d.jsonl", b'{"uri": "a.mp4", "uri": "b.mp4"}\n', "a name stands twice in one object"),
        ("e.csv", b"uri\ns3://me:pass@bucket/a.mp4\n", "s3://…@bucket/a.mp4: credentials do not belong into a URI"),
        ("e.csv", b"uri\nhttps://host/a.mp4\n", "https:// is not read or written; download the file"),
    ],
)
def test_an_unreadable_list_is_one_clear_sentence(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        uris(tmp_path / name)
    assert name.startswith("e") or str(tmp_path / name) in str(caught.value)


def test_a_parquet_list_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a.mp4"]), pa.array(["b.mp4"])], names=["uri", "uri"])
    pq.write_table(table, tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match=r"twice\.parquet has several columns named 'uri'"):
        uris(tmp_path / "twice.parquet")


def test_missing_inputs_and_empty_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        uris(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no video"):
        uris(tmp_path)
    with pytest.raises(ValueError, match="holds no video"):
        uris(tmp_path / "*.mp4")


def test_objects_are_found_probed_and_read_like_files(s3: str, tmp_path: Path) -> None:
    data = film(tmp_path / "a.mp4").read_bytes()
    for name in ("x/a.mp4", "x/deep/b.mp4", "x/readme.md", "x/deep/.c.mp4"):
        storage.write_bytes(f"{s3}/{name}", data)
    assert uris(f"{s3}/x") == uris(f"{s3}/x/") == [f"{s3}/x/a.mp4", f"{s3}/x/deep/b.mp4"]
    assert uris(f"{s3}/x/*.mp4") == [f"{s3}/x/a.mp4"]
    far, near = room.probe(f"{s3}/x/a.mp4", SCAN), room.probe(str(tmp_path / "a.mp4"), SCAN)
    assert {**far, "uri": ""} == {**near, "uri": ""}
    with pytest.raises(room.FootageError, match="no such file"):
        room.probe(f"{s3}/none.mp4", SCAN)
    storage.write_bytes(f"{s3}/empty.mp4", b"")
    with pytest.raises(room.FootageError) as empty:
        room.probe(f"{s3}/empty.mp4", SCAN)
    assert empty.value.code == "empty"


def test_a_bucket_is_listed_page_by_page_and_none_of_its_objects_asked_for(
    s3: str, s3_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    names = [f"{s3}/many/{number % 3}/{number:04d}.mp4" for number in range(12)]
    s3fs.S3FileSystem().pipe(dict.fromkeys(names, b"."))
    with s3_log.during() as asked:
        rows = list(room.expand([f"{s3}/many/"], INPUTS))
    assert counted(asked) == {"HEAD": 1, "LIST": 3}  # it is no object, it is a folder, and two pages
    assert {row["uri"] for row in rows} == set(names)
    assert all(row["size_bytes"] == 1 and row["version"] for row in rows)


def test_a_small_object_is_probed_by_one_get(s3: str, s3_log: Log, bikes: Path) -> None:
    storage.write_bytes(f"{s3}/a.mp4", bikes.read_bytes())
    with s3_log.during() as asked:
        room.probe(f"{s3}/a.mp4", SCAN)
    assert counted(asked) == {"GET": 1}
    with s3_log.during() as asked:
        room.probe(f"{s3}/a.mp4", SCAN)
    assert counted(asked) == {"GET": 1}


def test_a_large_object_is_not_read_whole_to_be_probed(
    s3: str, s3_log: Log, bunny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PIECE_BYTES", 100_000)
    monkeypatch.setattr(objects, "JUMP_BYTES", 50_000)
    storage.write_bytes(f"{s3}/a.mp4", bunny.read_bytes())
    with s3_log.during() as asked:
        far = room.probe(f"{s3}/a.mp4", SCAN)
    assert {**far, "uri": ""} == {**room.probe(str(bunny), SCAN), "uri": ""}
    assert set(counted(asked)) == {"GET"} and len(asked) <= 15, len(asked)
    with s3_log.during() as asked:
        room.check_unchanged(far)
    assert counted(asked) == {"GET": 1}  # the version of the digest


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(room.FootageError, match="a pipe or a device"):
        room.probe(str(tmp_path / "pipe.mp4"), SCAN)


def test_other_content_under_the_same_name_is_noticed(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    source = room.probe(str(path), SCAN)
    room.check_unchanged(source)
    film(path, list(range(0, 800, 40)))
    with pytest.raises(room.FootageError) as changed:
        room.check_unchanged(source)
    path.unlink()
    with pytest.raises(room.FootageError) as missing:
        room.check_unchanged(source)
    assert (changed.value.code, missing.value.code) == ("changed", "missing")


def test_other_content_of_the_same_object_is_noticed(s3: str, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    storage.write_bytes(f"{s3}/a.mp4", path.read_bytes())
    source = room.probe(f"{s3}/a.mp4", SCAN)
    room.check_unchanged(source)
    storage.write_bytes(f"{s3}/a.mp4", film(path, list(range(0, 800, 40))).read_bytes())
    with pytest.raises(room.FootageError) as changed:
        room.check_unchanged(source)
    assert room.probe(f"{s3}/a.mp4", SCAN)["digest"] != source["digest"]
    storage.remove(f"{s3}/a.mp4")
    with pytest.raises(room.FootageError) as missing:
        room.check_unchanged(source)
    assert (changed.value.code, missing.value.code) == ("changed", "missing")
