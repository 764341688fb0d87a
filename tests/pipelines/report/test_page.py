"""The page of a run: self-contained, escaped, the same for the same ledger, and there before the run is done."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rushes.pipelines.report import accounting, facts, write
from rushes.pipelines.store import shards, storage
from rushes.pipelines.store.ledger import Ledger

REPO = Path(__file__).parents[3]
EVIL = "<script>alert('x')</script>\"& holiday.mp4"
A, B = "a" * 16, "b" * 16


def _strip() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (96, 16), (20, 120, 140)).save(sink, "WEBP")
    return sink.getvalue()


def _clip(source: str, start_s: float, end_s: float, **facts: Any) -> dict[str, Any]:
    key = f"{source}-{round(start_s * 1000):09d}"
    base = {"key": key, "unit": "u", "source_id": source, "uri": EVIL if source == A else "s3://bucket/b.mp4"}
    base |= {"start_s": start_s, "end_s": end_s, "duration_s": end_s - start_s, "width": 640, "height": 360}
    return base | {"fps": 25.0, "camera": "pan", "motion": 0.1 + start_s / 10, "luma_mean": 90 - start_s * 20} | facts


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small finished run with one of everything."""
    ledger = Ledger(str(tmp_path / "run"))
    ledger.create()
    clips = [_clip(A, 0, 2), _clip(A, 2, 4, camera="static"), _clip(B, 0, 3)]
    keys = [clip["key"] for clip in clips]
    verdict = {"policy": "default", "kept": False}
    tables: dict[str, list[dict[str, Any]]] = {
        "sources": [
            {"source_id": A, "uri": EVIL, "wave": 0, "unit": "u", "duration_s": 5.0, "video_codec": "h264"},
            {"source_id": B, "uri": "s3://bucket/b.mp4", "wave": 0, "unit": "u", "duration_s": 4.0},
        ],
        "signals": [{"source_id": A, "covered_s": 5.0}, {"source_id": B, "covered_s": 3.0}],
        "clips": clips,
        "trims": [{"source_id": A, "uri": EVIL, "start_s": 4.0, "end_s": 5.0, "reason": "too_short"}],
        "scores": [{"key": key, "scorer": "quality", "value": 10.0 * i} for i, key in enumerate(keys)],
        "selection": [
            {"key": keys[0], "policy": "default", "kept": True},
            {"key": keys[1], "stage": "limits", "rule": "too_dark", "value": 50.0, "limit": 60.0, **verdict},
            {"key": keys[2], "stage": "duplicates", "rule": "duplicate", "detail": EVIL, **verdict},
        ],
        "pairs": [
            {"policy": "default", "key": keys[2], "kept_key": keys[0], "level": "copy", "distance": 2.5, "why": "more"}
        ],
        "captions": [{"key": keys[0], "short": "A street <b>at dusk</b>.", "source": "tags"}],
        "packed": [{"key": keys[0], "policy": "default", "bucket": "16x9", "shard": "16x9/clips-000000.tar"}],
        "strips": [{"key": key, "webp": _strip()} for key in keys[:2]],
        "errors": [
            {"stage": "scan", "uri": "s3://bucket/b.mp4", "source_id": B, "start_s": 3.0, "seconds": 1.0,
             "code": "truncated", "reason": "it breaks off <here>", "remedy": "fetch it again"},
        ],
    }  # fmt: skip
    for table, rows in tables.items():
        ledger.write(table, "default" if table == "selection" else "u", rows, "0" * 12)
    root = tmp_path / "run"
    (root / "policies").mkdir()
    (root / "policies" / "default.yaml").write_text(
        "name: default\nrules:\n- {name: too_dark, measure: luma_mean, min: 60}\n"
        "- {name: shaky, measure: camera, not_in: [shake]}\n"
    )
    shard = {"path": "16x9/clips-000000.tar", "samples": 1, "size_bytes": 20480, "sha256": "0" * 64}
    (root / "shards" / "default").mkdir(parents=True)
    (root / "shards" / "default" / "manifest.json").write_text(json.dumps({"samples": 1, "shards": [shard]}))
    (root / "tokenizer").mkdir()
    lines = [json.dumps({"step": step, "loss": 1 / (step + 1), "elapsed_s": step}) for step in range(30)]
    (root / "tokenizer" / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 30, "lo')
    (root / "dit").mkdir()
    (root / "dit" / "sample.mp4").write_bytes(b"\0" * 100)
    return root


class _Checker(HTMLParser):
    """Every tag is closed in order; collects ids, links and what is loaded from where."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("img", "meta", "input", "br", "hr"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")
            if name == "src":
                self.loads.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _page(run: Path) -> tuple[str, _Checker]:
    uri = write(str(run))
    page = Path(uri).read_text(encoding="utf-8")
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    return page, checker


def test_the_page_loads_nothing_and_every_link_leads_somewhere_on_it(run: Path) -> None:
    page, checker = _page(run)
    assert checker.loads and all(source.startswith("data:") for source in checker.loads)
    assert len(set(checker.ids)) == len(checker.ids)
    assert {link.removeprefix("#") for link in checker.links} <= set(checker.ids)
    assert not re.search(r"url\(|@import|https?://", page.replace("http-equiv", ""))


def test_strangers_text_is_never_markup(run: Path) -> None:
    page, _ = _page(run)
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "<b>at dusk" not in page and "breaks off &lt;here&gt;" in page
    assert page.count("<script>") == 1


def test_the_page_shows_numbers_limits_reasons_pairs_failures_and_models(run: Path) -> None:
    page, checker = _page(run)
    wanted = {
        "account",
        "funnel",
        "measures",
        "clips",
        "duplicates",
        "failures",
        "sources",
        "shards",
        "tokenizer",
        "dit",
    }
    assert wanted <= set(checker.ids)
    for text in ("Every second is accounted for", "keep ≥ 60", "camera is not shake", "50 against 60", "<b>more</b>",
                 "fetch it again", "16x9", "video/mp4", "A street"):  # fmt: skip
        assert text in page, text
    assert page.count("data:image/webp") == 3  # two cards, and the one of the pair that has a strip


def test_several_selections_are_compared_and_the_one_shown_is_named(run: Path) -> None:
    page, checker = _page(run)
    assert "selections" not in checker.ids, "one selection has nothing to be compared with"
    ledger = Ledger(str(run))
    keys = [row["key"] for row in ledger.read("clips").to_pylist()]
    lax = [{"key": key, "policy": "lax", "kept": key != keys[1], "duration_s": 2.0} for key in keys]
    lax[1] |= {"rule": "best", "value": 50.0, "limit": 55.0}
    ledger.write("selection", "lax", lax, "0" * 12)
    (run / "policies" / "lax.yaml").write_text(
        "name: lax\nrules: [{name: best, measure: luma_mean, keep_highest: 0.5}]\n"
    )
    (run / "config.yaml").write_text("select: {policy: default}\n")
    page, checker = _page(run)
    assert "selections" in checker.ids and "Shared with default" in page and "shown on this page" in page
    assert "1 · 50\u00a0%" in page and "made of an older ledger" in page and "not packed" in page
    page = Path(write(str(run), policy="lax")).read_text(encoding="utf-8")
    assert "Shared with lax" in page and "luma_mean among the highest 50 %" in page and "best: kept where ≥ 55" in page


def test_the_same_ledger_gives_the_same_page(run: Path) -> None:
    assert _page(run)[0] == _page(run)[0]


def test_clips_are_grouped_by_the_tag_that_is_sure_not_by_the_whole_line(run: Path) -> None:
    ledger, keys = Ledger(str(run)), [_clip(A, 0, 2)["key"], _clip(A, 2, 4)["key"], _clip(B, 0, 3)["key"]]
    lines = ["dog 0.71, web site 0.02", "dog 0.55, bridge 0.20", "bird 0.07, dog 0.04"]
    tags = [{"key": key, "scorer": "tags", "label": line} for key, line in zip(keys, lines, strict=True)]
    ledger.write("scores", "tags", tags, "0" * 12)
    books = accounting.open_books(str(run))
    found = {row["label"]: row["clips"] for row in facts.mixture(books)["Likely content"]}
    assert found == {"dog": 2, "nothing sure": 1}


def test_seconds_that_are_missing_are_said_to_be_missing(run: Path) -> None:
    Ledger(str(run)).remove("trims", "u")
    page, _ = _page(run)
    assert "1.000 s of 1 input are missing (+) or counted twice" in page
    assert "holiday.mp4 +1.000 s" in page and "unaccounted" in page and "remux the file" in page


@pytest.mark.parametrize("done", [(), ("sources",), ("sources", "signals"), ("sources", "signals", "clips", "trims")])
def test_a_run_that_is_not_finished_has_a_page_too(run: Path, done: tuple[str, ...]) -> None:
    ledger = Ledger(str(run))
    for table in ("plan", "sources", "signals", "clips", "trims", "scores", "selection", "pairs", "captions", "packed"):
        if table not in done:
            ledger.remove(table, "default" if table == "selection" else "u")
    ledger.remove("errors", "u")
    page, _ = _page(run)
    assert "nothing is selected yet" in page


def test_a_sample_of_many_clips_is_bounded_and_shows_every_reason(tmp_path: Path) -> None:
    from rushes.pipelines.report import accounting, facts

    ledger = Ledger(str(tmp_path))
    ledger.create()
    clips = [_clip(A, start, start + 1) for start in range(900)]
    rules = [None, None, "too_dark", "too_still", "rare"]
    selection = [
        {"key": clip["key"], "policy": "p", "kept": (rule := "rare" if i == 7 else rules[i % 4]) is None, "rule": rule}
        for i, clip in enumerate(clips)
    ]
    ledger.write("clips", "u", clips, "0" * 12)
    ledger.write("selection", "p", selection, "0" * 12)
    cards = facts.cards(accounting.open_books(str(tmp_path)), facts.Strips(str(tmp_path)))
    assert len(cards) == facts.CARDS
    reasons = [card.reason for card in cards]
    assert reasons.count("rare") == 1 and reasons.count("too_dark") > 20 and reasons.count("kept") > 100


def test_strips_stop_when_the_page_would_become_too_heavy(run: Path) -> None:
    from rushes.pipelines.report import facts

    strips = facts.Strips(str(run), left_bytes=1)
    keys = Ledger(str(run)).read("strips", ["key"])["key"].to_pylist()
    assert strips.of(keys[0], "u") is not None and strips.of(keys[1], "u") is None
    assert facts.Strips(str(run)).of("../../secret", "u") is None


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no run of rushes"):
        write(str(tmp_path))


def test_the_report_needs_neither_ray_nor_torch(run: Path) -> None:
    code = (
        "import sys; from rushes.pipelines.report import write; write(sys.argv[1]); "
        "sys.exit(', '.join({'ray', 'torch', 'cv2', 'av', 'scenedetect'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_tells_licences_and_what_was_taken_down_as_text(run: Path) -> None:
    ledger = Ledger(str(run))
    plan = [{"uri": EVIL, "licence": "<b>CC0</b>"}, {"uri": "s3://bucket/b.mp4", "licence": None}]
    ledger.write("plan", "w0000", plan, "0" * 12)
    row = {
        "named": "s3://user:secret@bucket/c.mp4",
        "kind": "uri",
        "reason": EVIL,
        "since": "2026-11-29",
        "dropped": True,
    }
    ledger.write("takedowns", "all", [row, row | {"named": "gone", "until": "2026-12-01"}], "0" * 12)
    page = Path(write(str(run))).read_text()
    assert "&lt;b&gt;CC0&lt;/b&gt;" in page and "not given" in page and "secret" not in page
    assert 'href="#licences"' in page and 'href="#takedowns"' in page
    assert "nothing here so far; it binds what comes in later" in page and "until 2026-12-01" in page


def test_the_page_tells_where_the_latents_went_and_shows_who_got_most_and_least(run: Path) -> None:
    assert 'id="latents"' not in _page(run)[0], "there are none"
    root, gone = f"{run}/latents/default", f"{'c' * 16}-000000000"
    infos = []
    for index, clips in enumerate([{f"{A}-000000000": [2, 8], f"{B}-000000000": [16, 16]}, {gone: [4, 16]}]):
        samples = []
        for key, rates in clips.items():
            own = {"key": key, "rates": rates, "lengths": [16, 9], "frames": 25, "fps": 25.0}
            samples.append(shards.Sample(key, [("npy", b""), ("json", json.dumps(own).encode()), ("txt", b"")]))
        infos.append(shards.write_shard(root, "16x9", "clips", index, samples))
    price = {"lam": 0.0123456, "budget": 18}
    shards.write_manifest(root, infos, kind="latents", fingerprint="test", extra=price)
    page, checker = _page(run)
    assert "17 latents for 75 frames, of a budget of 18 for all clips together (94" in page
    assert "save, is 0.01235" in page
    assert "rate 16" in page and "3 segments, 50" in page and "rate 2<" in page and "1 segment, 17" in page
    most, least = page.index("Most latents a second"), page.index("Fewest latents a second")
    assert most < page.index("10 latents a second, 10 in all; rates 2 8") < least
    assert page.index("2 latents a second, 2 in all; rates 16 16", least) > least
    assert gone not in page and "#latents" in checker.links
    storage.remove(f"{root}/{infos[0].sidecar}")
    assert "5 latents for 25 frames" in _page(run)[0], "what is damaged is left out"
