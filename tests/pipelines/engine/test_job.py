"""Which steps run together, and what is to be done of each unit. No Ray, no video."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rushes.pipelines.config import CaptionConfig, CurateConfig, PackConfig, ScanConfig, ScoreConfig, ShotsConfig
from rushes.pipelines.engine import job
from rushes.pipelines.engine.plan import WorkUnit
from rushes.pipelines.stages import stage as stages
from rushes.pipelines.store.ledger import Ledger

LEG = ("scan", "witness", "shots", "score")
STAGES = {"sources", *LEG, "caption", "encode", "pack"}
"""Of these the tests speak; there may be more."""
CONFIG = CurateConfig()
NO_WITNESS = CurateConfig(shots=ShotsConfig(witness="none"))
ENDPOINT = CurateConfig(caption=CaptionConfig(source="endpoint", endpoint="http://127.0.0.1:9/v1", model="m"))
LOCAL = CurateConfig(caption=CaptionConfig(source="transformers", model="here"))
NAMES = ("w0000-00000-000", "w0000-00000-001", "w0000-00000-002")
LENGTHS = {NAMES[0]: (300.0, 1), NAMES[1]: (1800.0, 3), NAMES[2]: (600.0, 1)}
UNITS = [
    WorkUnit(
        name=name, wave=0, probed_in="w0000-00000", uris=[f"{name}.mp4"], seconds=seconds, chunks=chunks, print=name
    )
    for name, (seconds, chunks) in LENGTHS.items()
]


# --- what runs together -------------------------------------------------------------------------------------------


def test_without_a_gpu_one_process_takes_a_unit_from_footage_to_scores() -> None:
    assert job.segments(LEG, CONFIG, gpus=0) == [("cpu", ["scan", "witness", "shots", "score"], 0)]
    assert job.segments(LEG, NO_WITNESS, gpus=0) == [("cpu", ["scan", "witness", "shots", "score"], 0)]


def test_with_a_gpu_the_scan_is_apart_from_the_models_and_what_costs_little_goes_beside_them() -> None:
    assert job.segments(LEG, CONFIG, gpus=1) == [("cpu", ["scan"], 0), ("gpu", ["witness", "shots", "score"], 0)]
    assert job.segments(LEG, NO_WITNESS, gpus=8) == [
        ("cpu", ["scan", "witness", "shots"], 0),
        ("gpu", ["score"], 0),
    ]


def test_captions_of_a_server_wait_on_no_core_and_others_go_where_their_model_is() -> None:
    assert job.segments(job.KEPT, ENDPOINT, gpus=0) == [("cpu", ["encode"], 0), ("wait", ["caption"], 0)]
    assert job.segments(job.KEPT, ENDPOINT, gpus=4) == [("cpu", ["encode"], 0), ("wait", ["caption"], 0)]
    assert job.segments(job.KEPT, CONFIG, gpus=4) == [("cpu", ["encode", "caption"], 0)]
    assert job.segments(job.KEPT, LOCAL, gpus=0) == [("cpu", ["encode", "caption"], 0)]
    assert job.segments(job.KEPT, LOCAL, gpus=1) == [("cpu", ["encode"], 0), ("gpu", ["caption"], 0)]


def test_the_settings_say_how_many_processes_hold_models_or_ask_a_server() -> None:
    three = replace(CONFIG, score=ScoreConfig(actors=3))
    assert job.segments(LEG, three, gpus=1)[-1] == ("gpu", ["witness", "shots", "score"], 3)
    asking = replace(ENDPOINT, caption=replace(ENDPOINT.caption, actors=5))
    assert job.segments(job.KEPT, asking, gpus=0)[-1] == ("wait", ["caption"], 5)


@pytest.mark.parametrize("gpus", [0, 1])
@pytest.mark.parametrize("config", [CONFIG, NO_WITNESS, ENDPOINT, LOCAL])
@pytest.mark.parametrize("leg", [("sources",), job.FOUND, job.KEPT, ("pack",)])
def test_a_leg_loses_no_step_keeps_their_order_and_has_one_stretch_on_cores(
    leg: tuple[str, ...], config: CurateConfig, gpus: int
) -> None:
    found = job.segments(leg, config, gpus)
    assert [name for _, names, _ in found for name in names] == list(leg)
    assert sum(place == "cpu" for place, _, _ in found) <= 1, "two of them would starve each other"


# --- what a step depends on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({"scan": ScanConfig(tick_hz=7.0)}, {"scan", "witness", "shots", "score", "caption", "encode", "pack"}),
        ({"scan": ScanConfig(max_side_px=99)}, STAGES),
        ({"shots": ShotsConfig(min_clip_s=2.5)}, {"shots", "score", "caption", "encode", "pack"}),
        ({"shots": ShotsConfig(cut_likely=0.4)}, {"witness", "shots", "score", "caption", "encode", "pack"}),
        ({"score": ScoreConfig(scorers=["quality", "tags"])}, {"score", "caption"}),
        ({"caption": ENDPOINT.caption}, {"caption"}),
        ({"pack": PackConfig(crf=31)}, {"encode", "pack"}),
        ({"pack": PackConfig(name="other")}, {"pack"}),
        ({"score": ScoreConfig(actors=3, batch_frames=2)}, set[str]()),
    ],
)
def test_another_setting_does_again_what_depends_on_it_and_nothing_else(changes: Any, again: set[str]) -> None:
    before, after = job.fingerprints(CONFIG), job.fingerprints(replace(CONFIG, **changes))
    assert {name for name in STAGES if before[name] != after[name]} == again and set(before) == set(job.ON_UNITS)


@pytest.mark.parametrize("config", [CONFIG, NO_WITNESS])
def test_other_weights_of_the_judge_find_cuts_again_but_read_no_video(
    config: CurateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = job.fingerprints(config)
    for step in ("witness", "shots"):
        monkeypatch.setattr(f"rushes.pipelines.stages.{step}.stage.digest", lambda: "other weights")
    after = job.fingerprints(config)
    asked = {"witness"} if config is CONFIG else set[str]()
    again = {name for name in before if before[name] != after[name]}
    assert again == {*asked, "shots", "score", "caption", "encode", "pack"}


# --- what is to be done -------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "run"))


def prints(mark: str = "now") -> dict[str, dict[str, str]]:
    """By unit, the fingerprint of each stage."""
    return {name: {step: f"{step}-{mark}" for step in ("sources", *LEG)} for name in NAMES}


def write(ledger: Ledger, step: str, unit: WorkUnit, mark: str = "now", without: int | None = None) -> None:
    """Write all that a step writes of a unit, but for one of its chunks."""
    stage = stages.load(step)
    for number, name in enumerate(job.part_names(stage, unit.name, unit.chunks)):
        for table in stage.writes:
            if number != without:
                ledger.write(table, name, [], f"{step}-{mark}")


def tasks(ledger: Ledger, mark: str = "now") -> list[dict[str, Any]]:
    return job.tasks(LEG, UNITS, job.Index(ledger.snapshot()), prints(mark))


def test_the_longest_unit_goes_first_so_that_none_is_left_alone_with_it(ledger: Ledger) -> None:
    found = tasks(ledger)
    assert [(task["unit"], task["chunk"]) for task in found] == [
        (NAMES[1], 0), (NAMES[1], 1), (NAMES[1], 2), (NAMES[2], None), (NAMES[0], None),
    ]  # fmt: skip
    assert all(task["todo"] == list(LEG) and task["stale"] == {} for task in found)


def test_a_task_is_plain_values_and_tells_the_fingerprint_of_every_table_it_reads_or_writes(ledger: Ledger) -> None:
    for task in tasks(ledger):
        assert json.loads(json.dumps(task)) == task
        stands = {table for name in LEG for table in (*stages.load(name).reads, *stages.load(name).writes)}
        assert stands <= task["prints"].keys()
        assert {task["prints"][table] for table in ("frames", "windows", "signals")} == {"scan-now"}
        assert task["prints"]["errors"] == {step: f"{step}-now" for step in ("sources", *LEG)}


def test_a_unit_with_nothing_to_do_gives_no_task(ledger: Ledger) -> None:
    for unit in UNITS:
        for step in LEG:
            write(ledger, step, unit)
    assert tasks(ledger) == []


def test_only_the_steps_that_a_unit_lacks_are_to_be_done(ledger: Ledger) -> None:
    for unit in UNITS:
        for step in LEG:
            if (unit.name, step) not in {(NAMES[0], "shots"), (NAMES[2], "score")}:
                write(ledger, step, unit)
    assert [(task["unit"], task["todo"]) for task in tasks(ledger)] == [(NAMES[2], ["score"]), (NAMES[0], ["shots"])]


def test_a_step_is_lacking_until_the_last_table_that_it_writes_is_there(ledger: Ledger) -> None:
    for unit in UNITS:
        for step in ("scan", "witness", "score"):
            write(ledger, step, unit)
        for table in ("strips", "trims", "sketches"):
            ledger.write(table, unit.name, [], "shots-now")
    assert [task["todo"] for task in tasks(ledger)] == [["shots"]] * 3


def test_each_chunk_that_is_lacking_gives_a_task_and_a_film_whose_chunks_are_all_there_one(ledger: Ledger) -> None:
    _, film, _ = UNITS
    write(ledger, "scan", film, without=1)
    found = [task for task in tasks(ledger) if task["unit"] == film.name]
    assert [(task["chunk"], task["chunks"], task["todo"]) for task in found] == [(1, 3, list(LEG))]
    write(ledger, "scan", film)
    found = [task for task in tasks(ledger) if task["unit"] == film.name]
    assert [(task["chunk"], task["todo"]) for task in found] == [(None, ["witness", "shots", "score"])]


def test_what_another_configuration_made_is_to_be_done_again_and_named_as_stale(ledger: Ledger) -> None:
    first, film, _ = UNITS
    for unit in (first, film):
        for step in LEG:
            write(ledger, step, unit, "before" if step == "shots" else "now")
    for name in (f"shots-{first.name}", f"score-{first.name}", f"shots-{film.name}"):
        ledger.write("errors", name, [], "e")
    found = {task["unit"]: task for task in tasks(ledger)}
    assert found[first.name]["todo"] == found[film.name]["todo"] == ["shots"]
    stale = found[first.name]["stale"]
    own = {table: [first.name] for table in ("strips", "trims", "sketches", "clips")}
    named = {table: [part["unit"] for part in parts] for table, parts in stale.items()}
    assert named == {**own, "errors": [f"shots-{first.name}"]}
    assert {part["fingerprint"] for part in stale["clips"]} == {"shots-before"}


def test_a_chunk_knows_its_own_stale_parts_of_the_scan_and_those_of_its_film_beyond_it(ledger: Ledger) -> None:
    _, film, _ = UNITS
    write(ledger, "scan", film, "before")
    write(ledger, "shots", film, "before")
    found = [task for task in tasks(ledger) if task["unit"] == film.name]
    names = [f"{film.name}-{chunk:03d}" for chunk in range(3)]
    assert [task["chunk"] for task in found] == [0, 1, 2]
    assert [[part["unit"] for part in task["stale"]["signals"]] for task in found] == [[name] for name in names]
    assert all([part["unit"] for part in task["stale"]["clips"]] == [film.name] for task in found)


def test_a_stage_reads_what_stages_before_it_wrote_and_a_table_is_written_by_one():
    written: list[str] = ["plan"]
    for name in (*job.ON_UNITS[: len(job.FOUND) + 1], "caption", "encode"):
        stage = stages.load(name)
        assert set(stage.reads) <= set(written), f"{name} reads what nobody before it wrote"
        assert not set(stage.writes) & set(written)
        written += stage.writes
