"""Workers that score: built once a process, called with one unit after another. No Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow.dataset as ds

from pipelines import eyes, score, storage
from pipelines.config import ScoreConfig
from pipelines.ledger import Ledger
from pipelines.work import Crashes, begun, clip_frames, guard, signals_of, status, write_errors

Row = dict[str, Any]
CLIPS_AT_ONCE = 32  # clips whose frames stand in memory together
_CLIP = [
    "key",
    "source_id",
    "uri",
    "start_s",
    "duration_s",
    "frame_s",
    "crop_left",
    "crop_top",
    "crop_right",
    "crop_bottom",
]


class ScoreActor:
    """Scores the clips of units: table `scores`."""

    def __init__(self, run: str, config: ScoreConfig, crashes: Crashes | None = None):
        self.run, self.config, self.crashes = run, config, crashes
        self.scorer: score.Scorer | None = None  # built at the first unit, whose row can say what is wrong with it

    def __call__(self, unit: Row) -> Row:
        """Score one unit; a clip that cannot be scored becomes an error row and the others go on.

        A model that cannot be loaded is fatal instead: then no clip is to blame.
        """
        try:
            scorer = self.scorer = self.scorer or self._load()
        except ValueError as error:
            return {**status(unit, 0, 0.0, 0), "fatal": f"scores: {error}", "note": ""}
        done = self._score(unit, scorer)
        notes, scorer.notes = scorer.notes, []
        return {**done, "note": "; ".join(notes)}

    def _load(self) -> score.Scorer:
        eyes.one_thread()
        return score.Scorer(self.config)

    def _score(self, unit: Row, scorer: score.Scorer) -> Row:
        ledger, name = Ledger(self.run), unit["unit"]
        clips = ledger.read_unit("clips", name, _CLIP).to_pylist()
        rows: list[Row] = []
        errors: list[Row] = []
        for group in _groups(clip_frames(ledger, name, clips)):
            rows.extend(self._group(scorer, group, errors))
        return finish(ledger, "score", "scores", unit, clips, rows, errors)

    def _group(self, scorer: score.Scorer, group: list[Row], errors: list[Row]) -> list[Row]:
        found: list[Row] = []
        failed: list[Row] = []
        item = f"{group[0]['key']} and {len(group) - 1} more"
        with guard(failed), begun(self.crashes, item, group[0]["uri"], "looking at"):
            found = scorer(group)
        if failed and len(group) > 1:  # one clip spoils its batch: find out which
            return [row for clip in group for row in self._group(scorer, [clip], errors)]
        errors.extend({**_where(clip), **error} for clip, error in zip(group, failed, strict=False))
        return found


class WitnessActor:
    """Looks at the doubtful windows of units: table `witness`."""

    def __init__(self, run: str, crashes: Crashes | None = None):
        from pipelines import witness  # brings torch, which neither the driver nor a worker that captions needs

        self.run, self.witness, self.crashes = run, witness.Witness(), crashes

    def __call__(self, unit: Row) -> Row:
        """Look at one unit; a source that cannot be looked at becomes an error row, and is decided without it."""
        ledger, name = Ledger(self.run), unit["unit"]
        rows: list[Row] = []
        errors: list[Row] = []
        for source, spans in signals_of(ledger, unit):
            of = ds.field("source_id") == source["source_id"]
            uri, where = source["uri"], {"source_id": source["source_id"], "start_s": 0.0, "seconds": 0.0}
            with guard(errors, uri=uri, **where), begun(self.crashes, uri, uri, "looking at cuts in"):
                kept = ledger.read_unit("windows", name, ["time_s", "jpeg"], where=of)
                pictures = dict(zip(kept["time_s"].to_pylist(), kept["jpeg"].to_pylist(), strict=True))
                rows.extend(self.witness(spans, pictures))
        try:
            write_errors(ledger, "witness", unit, errors)
            ledger.write("witness", name, rows, unit["fingerprint"])
        except storage.StorageError as error:
            return {**status(unit, 0, 0.0, 0), "fatal": str(error)}
        return status(unit, len(rows), 0.0, len(errors))


def _groups(clips: Iterator[Row]) -> Iterator[list[Row]]:
    while group := list(islice(clips, CLIPS_AT_ONCE)):
        yield group


def _where(clip: Row) -> Row:
    return {"uri": clip["uri"], "source_id": clip["source_id"], "key": clip["key"],
            "start_s": clip["start_s"], "seconds": clip["duration_s"]}  # fmt: skip


def finish(
    ledger: Ledger, stage: str, table: str, unit: Row, clips: Sequence[Row], rows: list[Row], errors: list[Row]
) -> Row:
    """Write a unit's errors, then its rows, and return its status; what cannot be written is fatal."""
    try:
        write_errors(ledger, stage, unit, errors)
        ledger.write(table, unit["unit"], rows, unit["fingerprint"])
    except storage.StorageError as error:
        return {**status(unit, 0, 0.0, 0), "fatal": str(error)}
    return status(unit, len(clips) - len(errors), sum(clip["duration_s"] for clip in clips), len(errors))
