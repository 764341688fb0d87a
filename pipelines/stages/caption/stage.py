"""The worker that captions units, and what it does so that no caption is paid for twice. No Ray.

A caption of a model costs time or money. So a unit begins with what it already has: rows of its table made by the same
settings and still bound to their clips, whatever selection or run of the command made them, and the journal that a
killed worker left. Only clips without one are asked about. What came of every `CLIPS_AT_ONCE` clips is put into the
journal, so a kill costs the captions of one such group at most, and a server that dies costs none.

Captions made of facts cost nothing and are composed anew, so that a run's history leaves no trace in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rushes.pipelines.config import CaptionConfig
from rushes.pipelines.media.footage import FootageError
from rushes.pipelines.stages.caption import caption, sources
from rushes.pipelines.stages.caption.caption import Captioner, CaptionError, Captions, failed
from rushes.pipelines.stages.unit import Crashes, begun, clip_frames, finish, kept_keys, status
from rushes.pipelines.store import binding, storage
from rushes.pipelines.store.ledger import TABLES, Ledger, to_table

Row = dict[str, Any]
CLIPS_AT_ONCE = 32
"""Clips whose frames stand in memory together (twice the requests under way, if these are more): what a killed worker
may have to ask for again."""


class CaptionActor:
    """Captions the kept clips of units: table `captions`."""

    def __init__(self, run: str, config: CaptionConfig, made_by: str, actors: int = 1, crashes: Crashes | None = None):
        """Remember the settings; the model is made when the first clip needs it.

        Args:
            run: the run's folder.
            config: the settings.
            made_by: `caption.made_by` of them, which marks captions that need not be made again.
            actors: how many of these are at work and share the rate of requests.
            crashes: counts clips that are begun; only a model in this process can kill it by what it is shown.
        """
        self.run, self.config, self.made_by, self.actors = run, config, made_by, actors
        self.crashes = crashes if config.source == "transformers" else None
        self._captioner: Captioner | None = None

    def __call__(self, unit: Row) -> Row:
        """Caption one unit; a clip that gets no caption becomes an error row and the others go on.

        A model that can answer nobody is fatal instead: then no clip is to blame.
        """
        ledger, name = Ledger(self.run), unit["unit"]
        journal = Journal(self.run, name, self.made_by)
        clips = {clip["key"]: clip for clip in ledger.read_unit("clips", name).to_pylist()}
        had = self._had(ledger, name, clips, journal)
        kept = [clips[key] for key in kept_keys(ledger, name) if key in clips]
        errors: list[Row] = []
        try:
            made = self._made(ledger, name, [clip for clip in kept if clip["key"] not in had], journal, errors)
        except CaptionError as error:
            return {**status(unit, 0, 0.0, 0), "fatal": f"captions: {error}"}
        except storage.StorageError as error:
            return {**status(unit, 0, 0.0, 0), "fatal": str(error)}
        rows = had | made
        durations = {clip["key"]: clip["duration_s"] for clip in kept}
        lost = [{**error, "seconds": durations[error["key"]]} for error in errors]  # it cannot be packed without one
        done = finish(ledger, "caption", "captions", unit, kept, [rows[key] for key in clips if key in rows], lost)
        if not done["fatal"]:
            journal.clear()
        return done

    def _had(self, ledger: Ledger, unit: str, clips: Mapping[str, Row], journal: Journal) -> dict[str, Row]:
        """Return the captions that a unit has, of clips kept now or once, under these settings and still bound."""
        if self.config.source not in caption.FRAMED:
            return {}
        rows = [*ledger.read_unit("captions", unit).to_pylist(), *journal.rows()]
        same = (row for row in rows if row["made_by"] == self.made_by and row["key"] in clips)
        return {row["key"]: row for row in same if _still(clips[row["key"]], row)}

    def _made(self, ledger: Ledger, unit: str, clips: list[Row], journal: Journal, errors: list[Row]) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        if clips and self._captioner is None:
            self._captioner = sources.captioner(self.config, self.actors)
        framed = self.config.source in caption.FRAMED
        clips = _with_scores(ledger, unit, clips)
        at_once = max(CLIPS_AT_ONCE, 2 * self.config.concurrency if self.config.source == "endpoint" else 0)
        for group in _groups(clip_frames(ledger, unit, clips) if framed else clips, at_once):
            done = self._ask(group)
            found = [{**row, "made_by": self.made_by} for row in done.rows]
            if framed and found:
                journal.add(found)
            rows |= {row["key"]: row for row in found}
            errors.extend(done.errors)
            if done.fatal:
                raise done.fatal
        return rows

    def _ask(self, group: list[Row]) -> Captions:
        """Return the captions of a group; one that killed its worker twice is asked about clip by clip."""
        assert self._captioner is not None
        item = f"{group[0]['key']} and {len(group) - 1} more"
        try:
            with begun(self.crashes, item, group[0]["uri"], "captioning"):
                return self._captioner.caption(group)
        except FootageError as error:
            if len(group) == 1:
                return Captions(errors=[failed(group[0], CaptionError(error.code, error.reason, error.remedy))])
        done = Captions()
        for clip in group:
            one = self._ask([clip])
            done.rows, done.errors, done.fatal = done.rows + one.rows, done.errors + one.errors, one.fatal
            if done.fatal:
                break
        return done


def _still(clip: Row, row: Row) -> bool:
    """Whether a caption may stay: it is bound to this clip, and a given one is still the one that is given."""
    now = (clip.get("caption") or "").strip()
    return binding.holds(clip, row) and ((row["long"] if row["source"] == "given" else "") == now)


def _with_scores(ledger: Ledger, unit: str, clips: list[Row]) -> list[Row]:
    """Return clips with their scores by scorer."""
    scores: dict[str, dict[str, Row]] = {clip["key"]: {} for clip in clips}
    for row in ledger.read_unit("scores", unit, ["key", "scorer", "model", "value", "label"]).to_pylist():
        if row["key"] in scores:
            scores[row["key"]][row["scorer"]] = row
    return [{**clip, "scores": scores[clip["key"]]} for clip in clips]


def _groups(clips: Iterable[Row], size: int) -> Iterator[list[Row]]:
    clips = iter(clips)
    while group := list(islice(clips, size)):
        yield group


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
        for uri in storage.list_files(self.folder, self.begin):
            storage.remove(uri)
