"""Models look at the representative frames: table `scores`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from rushes.pipelines.config import CurateConfig
from rushes.pipelines.models import eyes, score
from rushes.pipelines.stages.stage import Stage
from rushes.pipelines.stages.unit import Tally, Unit, clip_frames, guard

Row = dict[str, Any]
CLIPS_AT_ONCE = 32  # clips whose frames stand in memory together
_CLIP = (
    "key", "source_id", "uri", "start_s", "duration_s", "frame_s", "crop_left", "crop_top", "crop_right", "crop_bottom",
)  # fmt: skip


class Scoring:
    """Scores the clips of units with the models of the settings."""

    def __init__(self, config: CurateConfig):
        eyes.one_thread()
        self.scorer = score.Scorer(config.score)

    def __call__(self, unit: Unit) -> Tally:
        """Score one unit; a clip that cannot be scored becomes an error row and the others go on."""
        clips = unit.read("clips", _CLIP).to_pylist()
        rows, errors = list[Row](), list[Row]()
        for group in _groups(clip_frames(unit, clips)):
            rows.extend(self._group(unit, group, errors))
        unit.write_errors(errors)
        unit.write("scores", rows)
        notes, self.scorer.notes = self.scorer.notes, []
        seconds = sum(clip["duration_s"] for clip in clips)
        return Tally(items=len(clips) - len(errors), seconds=seconds, errors=len(errors), note="; ".join(notes))

    def _group(self, unit: Unit, group: list[Row], errors: list[Row]) -> list[Row]:
        found, failed = list[Row](), list[Row]()
        item = f"{group[0]['key']} and {len(group) - 1} more"
        with guard(failed), unit.begun(item, group[0]["uri"], "looking at"):
            found = self.scorer(group)
        if failed and len(group) > 1:  # one clip spoils its batch: find out which
            return [row for clip in group for row in self._group(unit, [clip], errors)]
        errors.extend({**_where(clip), **error} for clip, error in zip(group, failed, strict=False))
        return found


def _groups(clips: Iterator[Row]) -> Iterator[list[Row]]:
    while group := list(islice(clips, CLIPS_AT_ONCE)):
        yield group


def _where(clip: Row) -> Row:
    return {"uri": clip["uri"], "source_id": clip["source_id"], "key": clip["key"],
            "start_s": clip["start_s"], "seconds": clip["duration_s"]}  # fmt: skip


STAGE = Stage(
    name="score",
    reads=("clips", "frames"),
    writes=("scores",),
    follows="shots",
    settings=lambda config: (
        sorted(config.score.scorers), config.score.clip_model, config.score.clip_weights, config.score.aesthetic_head,
    ),
    where=lambda config: "model",
    workers=lambda config: config.score.actors,
    worker=Scoring,
    check=lambda config: score.check(config.score),
)  # fmt: skip
