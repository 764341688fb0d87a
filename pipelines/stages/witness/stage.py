"""The witness of shots at work on a unit: table `witness`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rushes.filters.judge import digest
from rushes.pipelines.config import CurateConfig
from rushes.pipelines.models import weights
from rushes.pipelines.stages.stage import Stage
from rushes.pipelines.stages.unit import Pictures, Tally, Unit, guard

Row = dict[str, Any]


class Looking:
    """Looks at the doubtful frames of units; at none where the settings ask for no witness."""

    def __init__(self, config: CurateConfig):
        self.witness: Any = None
        if config.shots.witness != "none":
            from rushes.pipelines.models import eyes  # brings torch, which the driver does not need
            from rushes.pipelines.stages.witness import witness

            eyes.one_thread()
            self.witness = witness.Witness(config.shots)

    def __call__(self, unit: Unit) -> Tally:
        """Look at one unit; a source that cannot be looked at becomes an error row, and is decided without it."""
        rows, errors = list[Row](), list[Row]()
        for source, spans in unit.spans() if self.witness else ():
            uri, where = source["uri"], {"source_id": source["source_id"], "start_s": 0.0, "seconds": 0.0}
            with guard(errors, uri=uri, **where), unit.begun(uri, uri, "looking at cuts in"):
                rows.extend(self.witness(spans, Pictures(unit, "windows", source["source_id"])))
        unit.write_errors(errors)
        unit.write("witness", rows)
        return Tally(items=len(rows), errors=len(errors))


def check(config: CurateConfig) -> None:
    """Raise MissingModel where the network's weights are not here."""
    if config.shots.witness != "none":
        weights.transnet()


AFTERWARDS = {"min_clip_s", "max_clip_s", "trim_s", "frames_per_clip", "strip_frames"}
"""Settings of shots that matter only when all boundaries are found."""


def _settings(config: CurateConfig) -> Any:
    """Return what the witness depends on: all that says where its word counts."""
    if config.shots.witness == "none":
        return "none"
    limits = {name: value for name, value in asdict(config.shots).items() if name not in AFTERWARDS}
    return limits, digest()


STAGE = Stage(
    name="witness",
    reads=("sources", "signals", "windows"),
    writes=("witness",),
    follows="scan",
    settings=_settings,
    where=lambda config: "either" if config.shots.witness == "none" else "model",
    worker=Looking,
    check=check,
)
