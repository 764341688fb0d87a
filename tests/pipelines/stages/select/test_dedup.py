from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest

from rushes.filters.hashes import phash
from rushes.filters.policy import MissingMeasure, load
from rushes.pipelines.stages.select import dedup
from rushes.pipelines.stages.select.measures import embeddings
from rushes.pipelines.stages.select.select import select
from rushes.pipelines.stages.shots.sketch import sketch
from rushes.pipelines.store.ledger import to_table
from tests.pipelines.clip_rows import EVERYTHING, NO_SCORES, clip, hashes


def jpeg(words: str) -> bytes:
    picture = np.full((180, 320), 190, np.uint8)
    cv2.putText(picture, words, (80, 96), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 20, 2, cv2.LINE_AA)
    return bytes(cv2.imencode(".jpg", picture)[1].tobytes())


def vectors(rows: dict[int, list[float]], model: str = "m") -> list[dict[str, Any]]:
    return [
        {"key": f"{n:016x}-000000000", "scorer": "embedding", "model": model, "value": 1.0, "vector": vector}
        for n, vector in rows.items()
    ]


def test_still_clips_are_copies_only_if_their_pictures_are() -> None:
    still = [clip(n, phash=hashes(5, 1) * 24) for n in (1, 2, 3)]
    table = to_table("clips", still)
    pictures = {row["key"]: jpeg(words) for row, words in zip(still, ("Part 1", "Part 2", "Part 1"), strict=True)}
    _, pairs = select(table, NO_SCORES, EVERYTHING, sketch(table, pictures))
    assert [(row["key"][15], row["kept_key"][15]) for row in pairs.to_pylist()] == [("3", "1")]
    assert not len(select(table, NO_SCORES, EVERYTHING)[1])  # unseen, they prove nothing


def test_kept_sketches_give_what_new_ones_give_whatever_their_order() -> None:
    table = to_table("clips", [clip(n, n % 5, bit_rate=1000 * (n % 3)) for n in range(20)])
    kept = sketch(table, {})
    fresh = select(table, NO_SCORES, EVERYTHING)
    for some in (kept, kept.take(list(range(19, -1, -1))), kept.slice(7), kept.slice(0, 0)):
        again = select(table, NO_SCORES, EVERYTHING, some)
        assert again[0].equals(fresh[0]) and again[1].equals(fresh[1]) and len(again[1])


def test_sketches_of_waves_together_are_those_of_all_clips_at_once() -> None:
    rows = [clip(n, n % 5) for n in range(12)]
    waves = [sketch(to_table("clips", some), {}) for some in (rows[:5], rows[5:])]
    assert pa.concat_tables(waves).equals(sketch(to_table("clips", rows), {}))


def test_sources_of_equal_bytes_are_paired_with_the_first_one() -> None:
    rows = [
        {"source_id": "a", "uri": "z.mp4", "wave": 0, "unit": "w0000-00000", "size_bytes": 7},
        {"source_id": "a", "uri": "b.mp4", "wave": 1, "unit": "w0001-00000", "size_bytes": 7},
        {"source_id": "c", "uri": "c.mp4", "wave": 0, "unit": "w0000-00000", "size_bytes": 9},
    ]
    for order in (rows, rows[::-1]):
        (pair,) = dedup.same_bytes(to_table("sources", order), EVERYTHING).to_pylist()
        assert (pair["level"], pair["uri"], pair["kept_uri"], pair["key"]) == ("bytes", "b.mp4", "z.mp4", None)


def test_clips_near_in_meaning_go_only_where_the_policy_asks() -> None:
    table = to_table("clips", [clip(1), clip(2, bit_rate=9), clip(3)])
    scores = to_table("scores", vectors({1: [1.0, 0.0], 2: [1.0, 0.05], 3: [0.0, 1.0]}))
    assert not len(select(table, scores, EVERYTHING)[1])
    near = load({"name": "near", "dedup": {"semantic": {"scorer": "embedding", "min_cosine": 0.99}}})
    (row,) = select(table, scores, near)[1].to_pylist()
    assert (row["key"][15], row["kept_key"][15], row["level"], row["unit"]) == ("2", "1", "semantic", "cosine")
    with pytest.raises(MissingMeasure, match="semantic"):
        select(table, NO_SCORES, near)


def test_balance_gives_the_kept_clips_weights_of_one_on_average() -> None:
    table = to_table("clips", [clip(n) for n in range(10)])
    scores = to_table("scores", vectors({n: [1.0, 0.001 * n] if n < 8 else [0.001 * n, 1.0] for n in range(10)}))
    by = load({"name": "even", "dedup": {"balance": {"scorer": "embedding", "clusters": 2}}})
    rows = select(table, scores, by)[0]
    assert rows["cluster"].to_pylist() == [0] * 8 + [1] * 2
    weight = np.array(rows["weight"].to_pylist())
    assert weight.mean() == pytest.approx(1) and weight[9] / weight[0] == pytest.approx(2)
    assert select(table, scores, EVERYTHING)[0]["weight"].null_count == 10


def test_vectors_of_two_models_are_refused() -> None:
    mixed = to_table("scores", vectors({1: [1.0, 0.0]}) + vectors({2: [1.0, 0.0, 0.0]}, "other"))
    keys = pa.array([f"{n:016x}-000000000" for n in (1, 2)])
    with pytest.raises(ValueError, match="vectors of several kinds"):
        embeddings(mixed, "embedding", keys)
    found = embeddings(to_table("scores", vectors({2: [3.0, 4.0]})), "embedding", keys)
    assert np.isnan(found[0]).all() and found[1].tolist() == [3.0, 4.0] and found.dtype == np.float32


def test_quality_counts_only_where_it_was_measured() -> None:
    same = {"bit_rate": 1000, "duration_s": 4.0}
    table = to_table("clips", [clip(1, 9, **same), clip(2, 9, **same)])
    assert select(table, NO_SCORES, EVERYTHING)[1]["kept_key"].to_pylist() == [f"{1:016x}-000000000"]
    measured = [{"key": f"{n:016x}-000000000", "scorer": "quality", "model": "m", "value": 10.0 * n} for n in (1, 2)]
    rows = select(table, to_table("scores", measured), EVERYTHING)[1]
    assert rows["kept_key"].to_pylist() == [f"{2:016x}-000000000"]


ALIKE = {
    "PySceneDetect__counter.mp4",
    "sample-videos__again.mkv",
    "sample-videos__help.mkv",
    "sample-videos__yes.mkv",
    "sample-videos__bottle-detection.mp4",
    "sample-videos__car-detection.mp4",
    "torchcodec__nasa_13013.mp4",
}
"""Still cameras, one person in one room, numbered cards: no file of these shows what another shows."""


Tick = tuple[float, int, np.ndarray]


def ticks(path: Path) -> Iterator[Tick]:
    """Time, hash and luma of the pictures at 6 Hz, as the scan measures them."""
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        start, tick = None, 0
        try:
            for frame in container.decode(stream):
                start = frame.time if start is None else start
                at = frame.time - start
                if at >= tick / 6 - 1e-6:
                    tick = int((at + 1e-6) * 6) + 1
                    luma = frame.reformat(width=128, height=max(2, 128 * frame.height // frame.width), format="gray")
                    yield at, phash(luma.to_ndarray()), luma.to_ndarray()
        except av.error.InvalidDataError:
            return  # a broken file gives what it has


def shots(name: str, label: dict[str, Any], rows: list[Tick], number: int) -> list[dict[str, Any]]:
    """Clips of a file, cut where the label says."""
    end = rows[-1][0] + 1 / 6
    edges = [0.0, *(cut["time"] for cut in label.get("cuts", [])), end]
    found = []
    for start, stop in itertools.pairwise(edges):
        inside = [(at - start, value, luma) for at, value, luma in rows if start - 0.01 <= at < stop - 0.01]
        if stop - start >= 1 and inside:
            std = float(np.mean([row[2].std() for row in inside]))
            facts = {"key": f"{number:016x}-{round(start * 1000):09d}", "phash_s": [row[0] for row in inside]}
            clip_ = clip(number, phash=[row[1] for row in inside], duration_s=stop - start, luma_std=std)
            found.append(clip_ | facts | {"uri": name, "picture": inside[len(inside) // 2][2]})
    return found


@pytest.fixture(scope="module")
def labelled(footage: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Clips of the labelled groups and of files that look alike but are not the same, and the labels by file."""
    cv2.setNumThreads(1)
    labels = json.loads((footage / "labels.json").read_text())["files"]
    clips: list[dict[str, Any]] = []
    for number, (name, label) in enumerate(sorted(labels.items())):
        if "dup_group" not in label and name not in ALIKE:
            continue
        rows = list(ticks(footage / name))
        facts = {"width": label["probe"]["w"], "height": label["probe"]["h"]}
        clips += [row | facts for row in shots(name, label, rows, number)] if rows else []
    return clips, labels


def chosen(clips: list[dict[str, Any]]) -> tuple[pa.Table, pa.Table]:
    """Select among clips with their pictures, as the ledger keeps them in `sketches`."""
    table = to_table("clips", [{name: row[name] for name in row if name != "picture"} for row in clips])
    jpegs = {row["key"]: cv2.imencode(".jpg", row["picture"])[1].tobytes() for row in clips}
    return select(table, NO_SCORES, EVERYTHING, sketch(table, jpegs))


def test_the_labelled_duplicates_are_found_and_nothing_else_is_merged(
    labelled: tuple[list[dict[str, Any]], dict[str, Any]],
) -> None:
    clips, labels = labelled
    selection, pairs = chosen(clips)
    names = {row["key"]: row["uri"] for row in clips}
    merged = {(names[row["key"]], names[row["kept_key"]]) for row in pairs.to_pylist()}
    group = {name: label.get("dup_group") for name, label in labels.items()}
    wrong = [(a, b) for a, b in merged if group[a] is None or group[a] != group[b]]
    assert not wrong
    kept: dict[str, set[str]] = {}
    for row in selection.to_pylist():
        if row["kept"]:
            kept.setdefault(group[names[row["key"]]] or "", set()).add(names[row["key"]])
    single_shots = {"lego_small", "mdn_crystal", "mdn_elf", "mdn_frog", "mdn_rabbit", "mdn_flower", "p5_fingers"}
    assert {name: len(kept[name]) for name in single_shots | {"carphone"}} == dict.fromkeys(
        single_shots | {"carphone"}, 1
    )
    touched = {name for pair in merged for name in pair}
    assert {name for name, found in group.items() if found} <= touched
    for name in ("sample-videos__again.mkv", "sample-videos__help.mkv", "sample-videos__yes.mkv"):
        assert name in kept[""]


def test_labelled_excerpts_are_found_with_their_offset(labelled: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    clips, labels = labelled
    for name, label in labels.items():
        if "subclip_of" not in label or label.get("cuts"):
            continue
        whole = label["subclip_of"]["file"]
        start_s = label["subclip_of"]["first_frame"] / float(labels[whole]["probe"]["avg"])
        two = [row for row in clips if row["uri"] in (name, whole)]
        _, pairs = chosen(two)
        (row,) = [row for row in pairs.to_pylist() if row["level"] == "excerpt"]
        assert row["offset_s"] == pytest.approx(start_s, abs=1 / 6), name
