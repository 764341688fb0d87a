"""Lists of what is taken down."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rushes.pipelines.media import lists

KEY = "0123456789abcdef-000001000"


def test_a_text_names_one_thing_a_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"# asked for by letter\n\n  s3://films/a film.mp4 \n{KEY}\n")
    assert list(lists.named(str(tmp_path / "list.txt"))) == [("s3://films/a film.mp4", None), (KEY, None)]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_names_by_one_column_and_keeps_the_reason(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"key": KEY, "reason": "a face, unasked", "who": "me"},
        {"key": KEY[:-4] + "2000", "reason": None, "who": "me"},
    ]
    path = tmp_path / f"list.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text(f'key,reason,who\n{KEY},"a face, unasked",me\n{KEY[:-4]}2000,,me\n')
    assert list(lists.named(str(path))) == [(KEY, "a face, unasked"), (KEY[:-4] + "2000", None)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"# nothing\n", r"a\.txt names nothing; write a URI, source id, digest or clip key"),
        ("a.csv", b"uri,reason\n", "names nothing"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read as a text of names"),
        ("a.csv", b"key,uri\n%b,b.mp4\n" % KEY.encode(), "row 0 has uri and key; it must name .* by one of"),
        ("a.jsonl", b'{"path": "b.mp4"}\n', "row 0 has none of them"),
    ],
)
def test_a_list_that_leaves_open_what_it_names_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        list(lists.named(str(tmp_path / name)))


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.txt cannot be read"):
        list(lists.named(str(tmp_path / "none.txt")))
