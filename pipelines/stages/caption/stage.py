"""Captions of the kept clips, table `captions`, and how none is paid for twice.

A caption of a model costs time or money. So a unit begins with what it already has: rows of its table made by the same
settings and still bound to their clips, whatever selection or run of the command made them, and the journal that a
killed worker left. Only clips without one are asked about. What came of every `CLIPS_AT_ONCE` clips is put into the
journal, so a kill costs the captions of one such group at most, and a server that dies costs none.

Captions made of facts cost nothing and are composed anew, so that a run's history leaves no trace in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rushes.pipelines.config import CaptionConfig, CurateConfig
from rushes.pipelines.media.footage import FootageError
from rushes.pipelines.stages.caption import caption, sources
from rushes.pipelines.stages.caption.caption import Captioner, CaptionError, Captions, failed
from rushes.pipelines.stages.stage import Stage, Where
from rushes.pipelines.stages.unit import Tally, Unit, clip_frames
from rushes.pipelines.store import binding, storage
from rushes.pipelines.store.ledger import to_table
from rushes.pipelines.store.tables import TABLES

Row = dict[str, Any]
CLIPS_AT_ONCE = 32
"""Clips whose frames stand in memory together (twice the requests under way, if these are more): what a killed worker
may have to ask for again."""


class Captioning:
    """Captions the kept clips of units."""

    def __init__(self, config: CurateConfig):
        """Remember the settings; the model is made when the first clip needs it."""
        self.config = config.caption
        self.framed = self.config.source in caption.FRAMED
        self._captioner: Captioner | None = None

    def __call__(self, unit: Unit) -> Tally:
        """Caption one unit; a clip that gets no caption becomes an error row and the others go on.

        Raises CaptionsStop where the model can answer nobody: then no clip is to blame.
        """
        journal = Journal(unit.run, unit.name, unit.task["made_by"]["caption"]) if self.framed else None
        clips = {clip["key"]: clip for clip in unit.read("clips").to_pylist()} if unit.task["keys"] else {}
        had = self._had(unit, clips, journal) if journal else {}
        kept = [clips[key] for key in unit.task["keys"] if key in clips]
        errors: list[Row] = []
        try:
            made = self._made(unit, [clip for clip in kept if clip["key"] not in had], journal, errors)
        except CaptionError as error:
            raise CaptionsStop(f"captions: {error}") from error
        rows = had | made
        durations = {clip["key"]: clip["duration_s"] for clip in kept}
        unit.write_errors([{**error, "seconds": durations[error["key"]]} for error in errors])  # not packed without one
        unit.write("captions", [rows[key] for key in clips if key in rows])
        if journal:
            journal.clear()
        return Tally(items=len(kept) - len(errors), seconds=sum(durations.values()), errors=len(errors))

    def _had(self, unit: Unit, clips: Mapping[str, Row], journal: Journal) -> dict[str, Row]:
        """Return the captions that a unit has, of clips kept now or once, under these settings and still bound."""
        before = [unit.ledger.read_whole("captions", part).to_pylist() for part in unit.stale("captions")]
        rows = [*(row for part in before for row in part), *journal.rows()]
        same = (row for row in rows if row["made_by"] == unit.task["made_by"]["caption"] and row["key"] in clips)
        return {row["key"]: row for row in same if _still(clips[row["key"]], row)}

    def _made(self, unit: Unit, clips: list[Row], journal: Journal | None, errors: list[Row]) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        if clips and self._captioner is None:
            self._captioner = sources.captioner(self.config, workers_of(self.config))
        clips = _with_scores(unit, clips) if clips else []
        at_once = max(CLIPS_AT_ONCE, 2 * self.config.concurrency if self.config.source == "endpoint" else 0)
        for group in _groups(clip_frames(unit, clips) if self.framed else clips, at_once):
            done = self._ask(unit, group)
            found = [{**row, "made_by": unit.task["made_by"]["caption"]} for row in done.rows]
            if journal and found:
                journal.add(found)
            rows |= {row["key"]: row for row in found}
            errors.extend(done.errors)
            if done.fatal:
                raise done.fatal
        return rows

    def _ask(self, unit: Unit, group: list[Row]) -> Captions:
        """Return the captions of a group; one that killed its worker twice is asked about clip by clip."""
        assert self._captioner is not None
        if self.config.source != "transformers":  # only a model in this process can kill it by what it is shown
            return self._captioner.caption(group)
        try:
            with unit.begun(f"{group[0]['key']} and {len(group) - 1} more", group[0]["uri"], "captioning"):
                return self._captioner.caption(group)
        except FootageError as error:
            if len(group) == 1:
                return Captions(errors=[failed(group[0], CaptionError(error.code, error.reason, error.remedy))])
        done = Captions()
        for clip in group:
            one = self._ask(unit, [clip])
            done.rows, done.errors, done.fatal = done.rows + one.rows, done.errors + one.errors, one.fatal
            if done.fatal:
                break
        return done


class CaptionsStop(storage.StopsTheRun, ValueError):
    """The model or the server is to be looked at, not the clips."""


def workers_of(config: CaptionConfig) -> int:
    """Return how many processes ask a server and share the rate of requests; one if the settings say nothing."""
    return config.actors or 1


def _still(clip: Row, row: Row) -> bool:
    """Whether a caption may stay: it is bound to this clip, and a given one is still the one that is given."""
    now = (clip.get("caption") or "").strip()
    return binding.holds(clip, row) and ((row["long"] if row["source"] == "given" else "") == now)


def _with_scores(unit: Unit, clips: list[Row]) -> list[Row]:
    """Return clips with their scores by scorer."""
    scores: dict[str, dict[str, Row]] = {clip["key"]: {} for clip in clips}
    for row in unit.read("scores", ("key", "scorer", "model", "value", "label")).to_pylist():
        if row["key"] in scores:
            scores[row["key"]][row["scorer"]] = row
    return [{**clip, "scores": scores[clip["key"]]} for clip in clips]


def _groups(clips: Iterable[Row], size: int) -> Iterator[list[Row]]:
    clips = iter(clips)
    while group := list(islice(clips, size)):
        yield group


def forget_journals(run: str, made_by: str, units: Set[str]) -> None:
    """Remove what a stopped run with other settings, or of units that are no more, had captioned; nobody would ask."""
    there = {uri: uri.rsplit("/", 1)[-1].split(".") for uri in storage.list_files(f"{run}/captions")}
    storage.remove_many([uri for uri, of in there.items() if of[0] not in units or of[1:2] != [made_by]])


class Journal:
    """The captions of a unit under way, a file for every group: `RUN/captions/<unit>.<made_by>.<first key>.parquet`.

    No reader of the ledger sees them; they go when the unit's part is there.
    """

    def __init__(self, run: str, unit: str, made_by: str):
        self.folder, self.begin = f"{run.rstrip('/')}/captions", f"{unit}.{made_by}."

    def add(self, rows: list[Row]) -> None:
        """Keep rows of the table `captions`; the file is there whole or not at all."""
        with storage.open_write(f"{self.folder}/{self.begin}{rows[0]['key']}.parquet") as file:
            pq.write_table(to_table("captions", rows), pa.PythonFile(file, mode="w"), compression="zstd")

    def rows(self) -> Iterator[Row]:
        """Yield all rows that were kept."""
        for uri in storage.list_files(self.folder, self.begin):
            with storage.open_read(uri) as file:
                yield from pq.read_table(file, schema=TABLES["captions"]).to_pylist()

    def clear(self) -> None:
        """Forget all rows."""
        storage.remove_many(storage.list_files(self.folder, self.begin))


def _where(config: CurateConfig) -> Where:
    places: dict[str, Where] = {"endpoint": "wait", "transformers": "model"}
    return places.get(config.caption.source, "either")


STAGE = Stage(
    name="caption",
    reads=("clips", "scores", "frames"),
    writes=("captions",),
    follows="score",
    settings=lambda config: sources.made_by(config.caption, config.score.scorers),
    where=_where,
    workers=lambda config: config.caption.actors,
    worker=Captioning,
    check=lambda config: sources.check(config.caption),
)
