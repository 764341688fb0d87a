from __future__ import annotations

from rushes.pipelines.models.score import SCORERS
from rushes.pipelines.report.measures import TITLES, drawable
from rushes.pipelines.stages.select.measures import DERIVED


def test_every_measure_that_can_be_drawn_has_a_title_and_a_unit() -> None:
    named = {*drawable(), *DERIVED, *SCORERS} - {"tags"}  # a sureness of what the label says, drawn with the mixture
    assert named - TITLES.keys() == set() and TITLES.keys() - named == set()
    assert all(title and unit for title, unit in TITLES.values())


def test_what_may_be_negative_is_no_share() -> None:
    """A share is drawn from 0 to 1."""
    assert not [name for name in ("pan", "tilt", "zoom", "roll", "exposure") if TITLES[name][1].startswith("share")]
