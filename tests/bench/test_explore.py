"""What moving a limit costs on large runs, and starting, and a grid of strips, in the server of `rushes explore`.

Targets: a slider to new counts within 50 ms at 10⁵, 100 ms at 10⁶ and 800 ms at 10⁷ clips; first counts within 5 s and
2 GB at 10⁶; a grid of 60 strips within 0.3 s, words in captions within 0.5 s; the first frame of a clip on the page
within 0.2 s from disk and 0.5 s from a bucket. Counts while a slider moves are those of the limits, as are the first;
duplicates follow once it rests. The server's figures are CPU time of all its threads, from the start of the process;
frames are seen by a browser, in wall time. `RUSHES_EXPLORE_CLIPS=10000000` adds a ledger of so many clips, without
strips, which takes 12 GB of disk and twenty minutes of CPU time to make.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import s3fs

from rushes.pipelines.explore import served
from rushes.pipelines.explore.workbench import Workbench
from rushes.pipelines.stages.match import stage as match
from tests.bench import ledgers
from tests.bench.test_select import measured

SIZES = (100_000, 1_000_000)
MORE = tuple(int(clips) for clips in os.environ.get("RUSHES_EXPLORE_CLIPS", "").split())
FRAMES = 15
"""Clips whose first frame is waited for."""
MS = ("limits_ms", "settled_ms", "grid_ms", "linked_ms", "tile_ms", "lasso_ms", "text_ms", "verdict_ms")
WORK = """
import json
import numpy as np
from rushes.filters import policy as policies
from rushes.pipelines.explore.clip import Looks, verdict
from rushes.pipelines.explore.workbench import Filter, Workbench

def ms(call, *given):
    begun = time.process_time()
    call(*given)
    return 1000 * (time.process_time() - begun)

bench = Workbench(sys.argv[1])
bench.outcome(bench.policy, False)
found = {"ready_s": time.process_time(), "kept": bench.outcome(bench.policy)["kept"]["clips"]}
def moved(at):
    rules = [dict(rule) for rule in bench.given["rules"]]
    next(rule for rule in rules if rule["name"] == "flat")["min"] = 6 + at
    return policies.load({**bench.given, "rules": rules})
for name, settled, turns in (("limits_ms", False, range(11)), ("settled_ms", True, range(20, 25))):
    found[name] = sorted(ms(bench.outcome, moved(turn), settled) for turn in turns)
bench.listed(bench.policy, measure="motion", order="spread")
looks = Looks(bench)
def grid(order):
    for clip in bench.listed(bench.policy, measure="motion", order=order, limit=0.1)["clips"]:
        if bench.ledger.parts("strips"):
            looks.strip(clip["key"])
found["grid_ms"] = [ms(grid, order) for order in ("highest", "lowest", "nearest")]
dark = Filter(ranges=(("luma_mean", 0, 90),))
bench.spread(bench.policy, dark, ["motion", "luma_mean"])
names = [rule.measure for rule in bench.policy.rules if rule.measure != "still_picture"]
found["linked_ms"] = [ms(bench.spread, bench.policy, dark, names) for turn in range(5)]
at = np.random.default_rng(0).normal(size=(len(bench.keys), 2))
order = np.argsort(at[:, 1])
bench.map._at, bench.map._by_height = at, (order, at[order, 1])  # dots anywhere: what is timed is drawing, not places
circle = [(np.cos(turn), np.sin(turn)) for turn in np.linspace(0, 6.28, 300)]
def drawn():
    bench.map.tile(None, 1352, 510, bench.meant(bench.policy, Filter(fate="kept")))
found["tile_ms"] = [ms(drawn) for turn in range(5)]
found["lasso_ms"] = [ms(bench.listed, bench.policy, Filter(lasso=tuple(circle))) for turn in range(5)]
found["text_ms"] = [ms(bench.listed, bench.policy, Filter(text=text)) for text in ("tilt", "medium light", "zebra")]
keys = [key.decode() for key in bench.keys[:: max(1, len(bench.keys) // 9)].tolist()]
found["verdict_ms"] = [ms(verdict, bench, bench.policy, key) for key in keys]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo's footage, curated."""
    return ledgers.small_run(tmp_path_factory.mktemp("real"))


@pytest.mark.bench
def test_a_limit_is_moved_in_a_blink(tmp_path: Path, real: str, show: Any) -> None:
    rows, raw = [], {}
    for clips in (*SIZES, *MORE):
        is_more = clips in MORE
        ledger = ledgers.make(
            str(tmp_path / str(clips)), clips, real, per_part=10_000 if is_more else 1000, strips=not is_more
        )
        match.run(ledger)
        raw[clips] = cost = measured(WORK, ledger.run)
        said = cost["said"]
        times = [f"{median(said[name]):.0f}" for name in MS]
        rows.append([f"{clips:,}", f"{said['ready_s']:.1f}", *times, f"{cost['memory_gb']:.2f}"])
    show("rushes explore: CPU time of a slider, the start, a grid of 60 strips, linked histograms and the map",
         ["clips", "first counts, s", "limits, ms", "settled, ms", "grid, ms", "8 linked histograms, ms", "map, ms",
          "lasso to clips, ms", "words, ms", "verdict, ms", "memory, GB"], rows, raw=raw)  # fmt: skip
    largest = raw[SIZES[-1]]
    assert largest["said"]["ready_s"] <= 5 and largest["memory_gb"] <= 2
    for clips, most_ms in {100_000: 50, 1_000_000: 100, **dict.fromkeys(MORE, 800)}.items():
        assert median(raw[clips]["said"]["limits_ms"]) <= most_ms
    assert median(largest["said"]["grid_ms"]) <= 300 and median(largest["said"]["text_ms"]) <= 500


FIRST_FRAME = """async (key) => {
  const begun = performance.now();
  document.querySelector(`#grid [data-key="${key}"]`).click();
  const seen = await new Promise((done) => new MutationObserver((_, watching) => {
    const video = document.querySelector("#players video");
    if (!video) return;
    watching.disconnect();
    video.requestVideoFrameCallback(done);
    setTimeout(() => done(Infinity), 20000);
  }).observe(document.getElementById("players"), { childList: true }));
  return seen - begun;
}"""


@pytest.mark.bench
def test_the_first_frame_of_a_clip_is_there_at_once(real: str, s3: str, show: Any) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or pytest.skip("there is no chromium on this machine")
    s3fs.S3FileSystem().put(real, f"{s3}/run", recursive=True)
    rows, raw = [], {}
    with sync_api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for where, run in (("disk", real), ("moto", f"{s3}/run")):
            with serving(run) as address:
                page = browser.new_page()
                page.goto(address)
                page.click("nav button[data-view=clips]")
                page.wait_for_selector("#grid .card", timeout=120_000)
                page.select_option("select[name=fate]", "kept")
                page.locator("#grid .fate-dropped").first.wait_for(state="detached")
                keys = page.evaluate("[...document.querySelectorAll('#grid .card')].map((one) => one.dataset.key)")
                raw[where] = []
                for key in keys[:FRAMES]:
                    raw[where].append(page.evaluate(FIRST_FRAME, key))
                    page.locator("#borders", has_text="Frames from").wait_for()  # which the server decodes
                    page.keyboard.press("Escape")
                page.close()
            rows.append([where, len(raw[where]), f"{median(raw[where]):.0f}", f"{max(raw[where]):.0f}"])
        browser.close()
    show("rushes explore: from a click to the first frame of a clip, wall time",
         ["run on", "clips", "median, ms", "most, ms"], rows, raw=raw)  # fmt: skip
    assert median(raw["disk"]) <= 200 and median(raw["moto"]) <= 500


@contextmanager
def serving(run: str) -> Iterator[str]:
    """Serve a run's page; yields its address."""
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(served.application(Workbench(run), "bench"), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/#token=bench"
    server.should_exit = True
    thread.join()
