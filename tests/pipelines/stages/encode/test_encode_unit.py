"""Claims about encoding a unit: a clip is encoded once, whatever selections come and go. No Ray."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from rushes.pipelines.config import CurateConfig, PackConfig, ScanConfig
from rushes.pipelines.engine.line import Line
from rushes.pipelines.media import footage
from rushes.pipelines.stages.caption import caption
from rushes.pipelines.stages.encode import encode
from rushes.pipelines.stages.pack import pack
from rushes.pipelines.store import encoded, storage
from rushes.pipelines.store.clip import clip_key
from rushes.pipelines.store.ledger import Ledger
from tests.pipelines import at_work
from tests.pipelines.at_work import PROBED, UNIT

CONFIG = CurateConfig(pack=PackConfig(max_side_px=48))


@pytest.fixture
def run(tmp_path: Path, bikes: Path) -> str:
    """A run whose single source has six clips of half a second."""
    ledger = Ledger(str(tmp_path / "run"))
    ledger.create()
    source = {**footage.probe(str(bikes), ScanConfig()), "wave": 0, "unit": PROBED}
    clips = [
        {
            "key": clip_key(source["source_id"], 500 * n), "source_id": source["source_id"], "uri": str(bikes),
            "start_s": n / 2, "end_s": n / 2 + 0.5, "duration_s": 0.5, "unit": UNIT,
            "crop_left": 0.0, "crop_top": 0.0, "crop_right": 0.0, "crop_bottom": 0.0,
        }
        for n in range(6)
    ]  # fmt: skip
    ledger.write("sources", PROBED, [source], "sss")
    ledger.write("clips", UNIT, clips, "ccc")
    return ledger.run


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The starts of the clips that were cut rather than taken over."""
    found: list[float] = []

    def counted(uri: str, source: Any, start_s: float, *arguments: Any) -> Any:
        found.append(start_s)
        return real(uri, source, start_s, *arguments)

    real = encode.cut
    monkeypatch.setattr(encode, "cut", counted)
    return found


def keys(run: str) -> list[str]:
    return Ledger(run).read("clips", ["key"])["key"].to_pylist()


def keep(run: str, numbers: Iterable[int], made_by: str = "mmm") -> dict[str, str]:
    """Let the selection keep some clips; return under which fingerprints the unit is to be encoded."""
    chosen = sorted(numbers)
    at_work.keep(run, [keys(run)[n] for n in chosen])
    return {"print_": f"k{''.join(map(str, chosen))}{made_by}", "made_by": made_by}


def encoding(run: str, unit: dict[str, str]) -> dict[str, Any]:
    """Encode the unit; return what came of it."""
    return at_work.do(run, CONFIG, "encode", **unit)


def tars(run: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(run, "encoded").glob("*.tar")}


def test_another_selection_encodes_only_what_is_new(run: str, cuts: list[float]) -> None:
    encoding(run, keep(run, [0, 1, 4]))
    assert cuts == [0.0, 0.5, 2.0]
    before = {row["key"]: row for row in Ledger(run).read("encoded").to_pylist()}
    del cuts[:]
    unit = keep(run, [1, 2, 4, 5])
    encoding(run, unit)
    encoded.prune_encoded(run)
    assert cuts == [1.0, 2.5]
    after = {row["key"]: row for row in Ledger(run).read("encoded").to_pylist()}
    assert list(after) == [keys(run)[n] for n in (1, 2, 4, 5)]
    for key in before.keys() & after.keys():
        assert before[key] | {"offset": 0} == after[key] | {"offset": 0}
    assert list(tars(run)) == [f"{UNIT}.{unit['print_']}.tar"]


def test_what_was_taken_over_equals_what_is_encoded_afresh(run: str, cuts: list[float]) -> None:
    for numbers in ([0, 3], [0, 1, 2, 3, 4]):
        unit = keep(run, numbers)
        encoding(run, unit)
    grown = tars(run)[f"{UNIT}.{unit['print_']}.tar"], Ledger(run).read("encoded").to_pylist()
    Ledger(run).remove("encoded", UNIT)
    encoded.prune_encoded(run)
    encoding(run, unit)
    assert (tars(run)[f"{UNIT}.{unit['print_']}.tar"], Ledger(run).read("encoded").to_pylist()) == grown
    assert len(cuts) == 2 + 3 + 5


def test_other_settings_encode_everything_again(run: str, cuts: list[float]) -> None:
    encoding(run, keep(run, [0, 1]))
    encoding(run, keep(run, [0, 1], made_by="other"))
    assert cuts == [0.0, 0.5, 0.0, 0.5]
    assert set(Ledger(run).read("encoded")["made_by"].to_pylist()) == {"other"}


def test_a_damaged_clip_is_not_taken_over(run: str, cuts: list[float]) -> None:
    first = keep(run, [0, 1])
    encoding(run, first)
    path = Path(run, "encoded", f"{UNIT}.{first['print_']}.tar")
    data = bytearray(path.read_bytes())
    data[Ledger(run).read("encoded")["offset"].to_pylist()[1] + 100] ^= 1
    path.write_bytes(data)
    del cuts[:]
    encoding(run, keep(run, [0, 1, 2]))
    assert cuts == [0.5, 1.0]


@pytest.mark.parametrize("stop", ["in the tar", "before the ledger"])
def test_stopped_at_any_moment_it_goes_on_from_the_old_tar(
    run: str, cuts: list[float], monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    encoding(run, keep(run, [0, 1]))
    old, unit = tars(run), keep(run, [0, 1, 2])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if stop == "in the tar":
            patch.setattr(encode, "cut", interrupted)
        else:
            patch.setattr(Ledger, "write", interrupted)
        encoding(run, unit)
    assert old.items() <= tars(run).items() and len(Ledger(run).read("encoded")) == 2
    encoded.prune_encoded(run)  # as the next try's stage before would
    assert tars(run) == old
    del cuts[:]
    encoding(run, unit)
    assert cuts == [1.0] and len(Ledger(run).read("encoded")) == 3


def interrupted(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_a_full_disk_is_one_sentence_and_leaves_no_half_tar(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = keep(run, [0, 1, 2])
    monkeypatch.setattr("rushes.pipelines.store.archive.Writer.add", full)
    row = encoding(run, unit)
    assert "cannot write" in row["fatal"] and "no space left; free some space" in row["fatal"]
    assert list(Path(run, "encoded").iterdir()) == [] and not Ledger(run).parts("encoded")


def full(*_: Any) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def captions(ledger: Ledger, wanted: list[str]) -> list[dict[str, Any]]:
    """Rows of captions bound to their clips."""
    clips = ledger.read("clips").to_pylist()
    return [caption.row_of(clip, "endpoint", "m", {"long": "A clip."}) for clip in clips if clip["key"] in wanted]


def test_a_full_disk_while_packing_leaves_no_half_shard(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding(run, keep(run, [0, 1, 2]))
    ledger = Ledger(run)
    ledger.write("captions", UNIT, captions(ledger, keys(run)), "ppp")
    plan = {"bucket": "b", "index": 0, "keys": keys(run)[:3]}
    shard = {"unit": "b-000000", "plan": plan, "fingerprint": "fff"}
    group = {
        "unit": "group-000000",
        "todo": ["pack"],
        "policy": "p",
        "shards": [shard],
        "units": [UNIT],
        "prints": {},
        "stale": {},
    }
    real = pack.write_shard.__globals__["archive"].Writer.add
    with monkeypatch.context() as patch:
        written: list[str] = []

        def fills_up(writer: Any, name: str, data: bytes) -> int:
            written.append(name)
            return full() if len(written) > 4 else real(writer, name, data)

        patch.setattr("rushes.pipelines.store.archive.Writer.add", fills_up)
        row = at_work.through(Line(run, CONFIG, ["pack"]), group)
    assert "no space left; free some space and run the same command again" in row["fatal"]
    assert not storage.list_files(f"{run}/shards", recursive=True) and not ledger.parts("packed")
    assert not list(Path(run, "shards").rglob("*.part"))
    done = at_work.through(Line(run, CONFIG, ["pack"]), group)
    assert "fatal" not in done and [row["items"] for row in done["did"]] == [3] and len(ledger.read("packed")) == 3


def test_weights_reach_the_samples_of_the_policy_that_gave_them(run: str) -> None:
    encoding(run, keep(run, [0, 1]))
    ledger, (one, two) = Ledger(run), keys(run)[:2]
    ledger.write("captions", UNIT, captions(ledger, [one, two]), "ppp")
    rows = [{"key": one, "policy": "p", "kept": True, "cluster": 3, "weight": 0.25}]
    ledger.write("selection", "p", [*rows, {"key": two, "policy": "p", "kept": True}], "www")
    ledger.write("selection", "q", [{"key": one, "policy": "q", "kept": True, "weight": 9.0}], "www")
    joined = pack.join(ledger, [one, two], "p")
    assert joined[one].balance == {"cluster": 3, "weight": 0.25} and joined[two].balance == {}
    facts = pack.facts_of(joined[one].clip, joined[one].encoded, joined[one].caption, [], joined[one].balance)
    assert (facts["cluster"], facts["weight"]) == (3, 0.25) and "made_by" not in facts
    assert "weight" not in pack.facts_of(joined[two].clip, joined[two].encoded, joined[two].caption)
    assert pack.join(ledger, [one], "q")[one].balance["weight"] == 9.0
