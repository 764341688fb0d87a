"""Models look at the representative frames: table `scores`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from rushes.pipelines.config import ScoreConfig
from rushes.pipelines.models import eyes, score
from rushes.pipelines.stages.unit import Crashes, begun, clip_frames, finish, guard, status
from rushes.pipelines.store.ledger import Ledger

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

Row = dict[str, Any]


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


def _groups(clips: Iterator[Row]) -> Iterator[list[Row]]:
    while group := list(islice(clips, CLIPS_AT_ONCE)):
        yield group


def _where(clip: Row) -> Row:
    return {"uri": clip["uri"], "source_id": clip["source_id"], "key": clip["key"],
            "start_s": clip["start_s"], "seconds": clip["duration_s"]}  # fmt: skip
