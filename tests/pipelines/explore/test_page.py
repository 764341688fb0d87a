"""The page in a browser: limits moved, a policy saved, a clip played, a query asked; nothing of the data executed."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from rushes.pipelines.explore.workbench import Workbench
from rushes.pipelines.stages.select import select, selections, trial
from rushes.pipelines.store.ledger import Ledger

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
uvicorn = pytest.importorskip("uvicorn", reason="the extra `explore` is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("there is no chromium on this machine", allow_module_level=True)

EVIL = "<script>window.stolen = 1</script><img src=x onerror='window.stolen = 2'>\"'{{7*7}}${7*7}"


@pytest.fixture(scope="module")
def run(embedded: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small run, in which films and captions bear what would be executed if it were taken for markup."""
    folder = tmp_path_factory.mktemp("explored") / "run"
    shutil.copytree(embedded, folder)
    ledger = Ledger(str(folder))
    for table, column in (("captions", "long"), ("captions", "short"), ("clips", "uri"), ("pairs", "why")):
        for part in ledger.parts(table):
            rows = ledger.read_whole(table, part)
            named = [f"{text}/{EVIL}" if column == "uri" else EVIL for text in rows[column].to_pylist()]
            at, words = rows.schema.get_field_index(column), pa.array(named, pa.string())
            ledger.write(
                table,
                part.unit,
                rows.set_column(at, rows.field(column), words),
                part.fingerprint,
            )
    return str(folder)


@pytest.fixture(scope="module")
def address(run: str) -> Iterator[str]:
    """Where the page is served, with the token."""
    from rushes.pipelines.explore.served import application

    config = uvicorn.Config(application(Workbench(run), "secret"), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/#token=secret"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser."""
    with sync_api.sync_playwright() as player:
        opened = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, open; it fails where anything was executed or an error was thrown."""
    opened = browser.new_page()
    thrown: list[str] = []
    opened.on("pageerror", lambda error: thrown.append(str(error)))
    opened.goto(address)
    opened.wait_for_selector("#kept[data-settled=true]")
    yield opened
    assert opened.evaluate("window.stolen") is None and not thrown
    opened.close()


def kept(page: Any) -> int:
    return int(page.get_attribute("#kept", "data-clips"))


def until(page: Any, is_so: str) -> None:
    """Wait for what the page comes to; Playwright's own way evaluates a string, which the page forbids."""
    for _ in range(200):
        if page.evaluate(is_so):
            return
        page.wait_for_timeout(50)
    raise AssertionError(is_so)


def test_a_moved_slider_and_a_saved_policy_count_what_select_counts(page: Any, run: str) -> None:
    before = kept(page)
    page.select_option("#add-measure", "luma_mean")
    page.click("#add button")
    slider = page.locator(".rule", has_text="my_luma_mean").locator("input[type=range]")
    slider.wait_for()
    slider.evaluate("one => { one.value = 220; one.dispatchEvent(new Event('input')); }")
    until(page, f"document.getElementById('kept').dataset.clips < {before}")
    page.wait_for_selector("#kept[data-settled=true]")
    page.fill("#save-name", "default")
    page.click("#save button")
    page.wait_for_selector("#saved.refused")
    page.fill("#save-name", "brighter")
    assert page.inner_text("#saved") == ""
    page.click("#save button")
    page.wait_for_selector("#saved[data-path]")
    dry = trial.trial(run, page.get_attribute("#saved", "data-path"))
    assert dry["kept"]["clips"] == kept(page) < before
    assert str(dry["against"]["newly_dropped"]["clips"]) in page.inner_text("#lost-title")
    assert page.locator("#lost button").count() == min(6, dry["against"]["newly_dropped"]["clips"])
    page.reload()
    page.wait_for_selector("#kept[data-settled=true]")
    assert kept(page) == dry["kept"]["clips"] and "1 change" in page.inner_text("#opened")
    page.locator(".rule", has_text="my_luma_mean").locator("h3 input").uncheck()
    until(page, f"document.getElementById('kept').dataset.clips == {before}")


def test_a_draft_is_opened_and_a_clip_is_kept_by_the_limit_that_its_dialog_finds(page: Any, run: str) -> None:
    at = next(row for row in Workbench(run).given["rules"] if row["name"] == "flat")
    rules = [{**at, "min": 10_000}, {"name": "dark", "measure": "luma_mean", "min": 300}]
    Workbench(run).save({"name": "steep", "rules": rules, "dedup": {"enabled": False}})
    page.reload()
    page.wait_for_selector("#kept[data-settled=true]")
    page.select_option("#open select", "draft:steep")
    page.click("#open button")
    until(page, "document.getElementById('kept').dataset.clips == 0")
    page.click("nav button[data-view=clips]")
    page.locator("#grid .card").first.click()
    for rule in ("flat", "dark"):
        page.click(f"#verdict button[aria-label='{rule}: limit that keeps it']")
        until(page, f"!document.querySelector('#verdict button[aria-label^={rule}]')")
    until(page, "document.querySelector('#verdict tr:last-child .fate-kept') !== null")
    page.keyboard.press("Escape")
    page.click("nav button[data-view=policy]")
    assert kept(page) >= 1
    page.fill("#save-name", "mended")
    page.click("#save button")
    page.wait_for_selector("#saved[data-path]")
    flat, _ = select.read_policy(page.get_attribute("#saved", "data-path")).rules
    assert flat.min is not None and flat.min < 10_000
    assert flat.basis == "ours" and flat.source == "set in rushes explore; steep has at least 10000"


def test_a_selection_made_meanwhile_is_offered_and_taken_up(page: Any, run: str) -> None:
    selections.make(run, Workbench(run).save({"name": "all_of_it", "rules": []}, replace=True)["path"])
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    page.wait_for_selector("#news button")
    assert "all_of_it" in page.inner_text("#news")
    page.click("#news button")
    page.locator("#open option", has_text="selection all_of_it").wait_for(state="attached")
    page.wait_for_selector("#news", state="hidden")


def test_a_clip_plays_and_what_it_is_called_is_text(page: Any, run: str) -> None:
    page.click("nav button[data-view=clips]")
    page.select_option("select[name=fate]", "kept")
    page.locator("#grid .fate-dropped").first.wait_for(state="detached")
    page.locator("#grid .card").first.click()
    page.wait_for_selector("dialog[open] #clip-facts td")
    assert "<script>window.stolen" in page.inner_text("#clip-where")
    assert "{{7*7}}" in page.inner_text("#clip-facts")
    light = page.evaluate(
        """async () => {
          const video = document.querySelector("dialog video");
          await video.play();
          await new Promise((done) => { video.requestVideoFrameCallback(done); });
          const canvas = document.createElement("canvas");
          canvas.width = canvas.height = 16;
          const pen = canvas.getContext("2d");
          pen.drawImage(video, 0, 0, 16, 16);
          return Math.max(...pen.getImageData(0, 0, 16, 16).data.filter((_, at) => at % 4 !== 3));
        }"""
    )
    assert light > 30


def test_a_duplicate_plays_beside_the_one_that_stands_for_it(page: Any) -> None:
    page.click("nav button[data-view=clips]")
    page.select_option("select[name=rule]", "duplicate")
    page.locator("#grid .fate-kept").first.wait_for(state="detached")
    page.locator("#grid .card").first.click()
    page.wait_for_selector("dialog[open] figure")
    until(page, "document.querySelectorAll('#players figure').length === 2")
    page.wait_for_selector("#clip-facts td")
    assert EVIL in page.inner_text("#clip-facts")


def test_a_query_is_answered_as_a_table(page: Any) -> None:
    page.click("nav button[data-view=sql]")
    page.select_option("#queries", "funnel")
    page.wait_for_selector("#answer td")
    assert "kept" in page.inner_text("#answer")
    page.fill("#query", "select long, '<b>bold</b>' as bold from captions")
    page.press("#query", "Control+Enter")
    until(page, "document.getElementById('answer').innerText.includes('<b>bold</b>')")
    assert EVIL in page.inner_text("#answer")
    page.fill("#query", "drop view clips_all")
    page.press("#query", "Control+Enter")
    page.wait_for_selector("#error:not([hidden])")
    assert "only reads" in page.inner_text("#error")


def drag(page: Any, where: str, *places: tuple[float, float]) -> None:
    """Drag over an element, by places in shares of its sides."""
    box = page.locator(where).bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=4)
    page.mouse.up()


def keys(page: Any) -> set[str]:
    return set(page.evaluate("[...document.querySelectorAll('#grid .card')].map((one) => one.dataset.key)"))


def test_a_lasso_on_the_map_leaves_its_clips_in_the_grid_and_a_click_opens_one(page: Any, run: str) -> None:
    page.click("nav button[data-view=map]")
    page.wait_for_selector("#canvas[data-dots]", timeout=60_000)
    at = {row["key"]: (row["x"], row["y"]) for row in Ledger(run).read("projection").to_pylist()}
    assert page.get_attribute("#canvas", "data-dots") == str(len(at))
    left, bottom, right, top = json.loads(page.get_attribute("#canvas", "data-view"))
    share = {key: ((x - left) / (right - left), (top - y) / (top - bottom)) for key, (x, y) in at.items()}
    middle = sorted(x for x, _ in share.values())[len(share) // 2] - 0.001
    drag(page, "#canvas", (0.02, 0.02), (middle, 0.02), (middle, 0.98), (0.02, 0.98))
    page.wait_for_selector("#chosen[data-clips]")
    inside = {key for key, (x, _) in share.items() if x < middle}
    assert int(page.get_attribute("#chosen", "data-clips")) == len(inside) < len(at)
    page.click("#map-chips .show")
    until(page, f"document.getElementById('total').dataset.clips == {len(inside)}")
    assert keys(page) == inside
    page.click("#chips .chip")
    until(page, f"document.getElementById('total').dataset.clips == {len(at)}")
    page.click("nav button[data-view=map]")
    page.select_option("#mapped select[name=colour]", "motion")
    until(page, "document.querySelector('#legend .scale') !== null")
    key, (x, y) = next(iter(share.items()))
    box = page.locator("#canvas").bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.wait_for_selector("dialog[open] #clip-facts td")
    assert key in page.inner_text("#clip-where")


def test_a_range_brushed_on_a_histogram_leaves_its_clips_in_the_grid(page: Any) -> None:
    page.click("nav button[data-view=clips]")
    page.select_option("select[name=measure]", "luma_mean")
    page.wait_for_selector("#histograms [data-measure=luma_mean] rect")
    every = len(keys(page))
    drag(page, "#histograms [data-measure=luma_mean] svg", (0.01, 0.5), (0.5, 0.5))
    until(page, f"document.getElementById('total').dataset.clips < {every}")
    until(page, "document.querySelectorAll('#histograms [data-measure=luma_mean] .ends input')[1].value !== ''")
    below = float(page.input_value("#histograms [data-measure=luma_mean] .ends input >> nth=1"))
    values = [float(text.rsplit("·", 1)[1]) for text in page.locator("#grid .card").all_inner_texts()]
    assert values and max(values) < below * 1.001
    stay, whole = (
        f"[...document.querySelectorAll('#histograms [data-measure=luma_std] .{part}')]"
        ".reduce((sum, one) => sum + +one.getAttribute('height'), 0)"
        for part in ("stay", "all")
    )
    until(page, f"{stay} < {whole}")
    page.click("#chips .chip")
    until(page, f"document.getElementById('total').dataset.clips == {every}")
    page.click("nav button[data-view=policy]")
    drag(page, "#rules .rule:first-child svg", (0.3, 0.5), (0.6, 0.5))
    page.wait_for_selector("#policy-chips .show")


def test_the_frames_around_the_borders_of_a_clip_are_shown(page: Any) -> None:
    page.click("nav button[data-view=clips]")
    page.locator("#grid .card").first.click()
    page.wait_for_selector("#borders img")
    told = page.inner_text("#borders")  # under their evil names the films are not in the ledger
    assert "It begins with" in told and "nearest frames that the run keeps, since the source is out of reach" in told


def test_an_answer_is_drawn_as_what_suits_it(page: Any) -> None:
    page.click("nav button[data-view=sql]")
    line = "select date '2026-01-01' + i::int as day, i * i as squares, i as ones from range(9) t(i)"
    points = "select motion, luma_mean, key from clips_all, range(4)"
    for query, shapes in (
        (line, {"path": 2, "circle": 0}),
        (points, {"path": 0}),
        ("from funnel", {"path": 0, "circle": 0}),
    ):
        page.fill("#query", query)
        page.press("#query", "Control+Enter")
        until(page, "document.getElementById('answered').textContent.includes(' rows')")
        for shape, number in shapes.items():
            until(page, f"document.querySelectorAll('#chart {shape}').length === {number}")
    page.fill("#query", points)
    page.press("#query", "Control+Enter")
    page.locator("#chart circle").first.wait_for()


def test_clips_are_labelled_by_keyboard(page: Any, run: str) -> None:
    page.click("nav button[data-view=clips]")
    page.locator("#grid .card").first.click()
    page.wait_for_selector("dialog[open] #labels button")
    page.keyboard.press("d")
    page.wait_for_selector("#labels button[data-letter=d][aria-pressed=true]")
    page.keyboard.press("k")
    page.wait_for_selector("#labels button[data-letter=k][aria-pressed=true]")
    first = page.inner_text("#clip-where")
    page.keyboard.press("n")
    until(page, f"!['', {json.dumps(first)}].includes(document.getElementById('clip-where').textContent)")
    page.wait_for_selector("#labels button")
    page.keyboard.press("w")
    page.wait_for_selector("#labels button[data-letter=w][aria-pressed=true]")
    rows = Ledger(run).read("labels").to_pylist()
    assert sorted(row["label"] for row in rows) == ["keep", "wrong_caption"] and len({row["key"] for row in rows}) == 2


def test_sources_lead_to_their_clips_and_policies_are_compared(page: Any) -> None:
    page.click("nav button[data-view=sources]")
    page.wait_for_selector("#source-rows td")
    assert "notes.mp4" in page.inner_text("#source-rows")
    page.click("#source-rows button >> text=bikes.mp4")
    page.locator("#grid .card").first.wait_for()
    page.click("nav button[data-view=compare]")
    page.select_option("#pair select[name=second]", "default")
    page.click("#pair button")
    page.wait_for_selector("#moved td")
    assert "duplicate" in page.inner_text("#both") and "kept by both" in page.inner_text("#compared")
    page.select_option("#pair select[name=second]", "svd-pretrain")
    page.click("#pair button")
    page.wait_for_selector("#error:not([hidden])")
    assert "which no clip has" in page.inner_text("#error")


def test_it_is_used_by_keyboard_and_fits_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.view") == "policy"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#grid .card").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] #verdict td")
    page.wait_for_selector("#clip-facts td")
    assert page.evaluate("(one => one.scrollWidth <= one.clientWidth)(document.querySelector('dialog'))")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog:not([open])", state="attached")
    for view in ("policy", "clips", "map", "sources", "compare", "sql"):
        page.click(f"nav button[data-view={view}]")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    unnamed = page.evaluate(
        """[...document.querySelectorAll("input, select, textarea, button")].filter((one) =>
             !one.labels?.length && !one.getAttribute("aria-label") && !one.textContent.trim()).length"""
    )
    assert unnamed == 0
