"""Histograms of every measure, with the limits of the policy that decided on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pyarrow as pa
import yaml

from rushes.filters.caption import CERTAIN, CERTAIN_ALONE
from rushes.filters.tags import GROUPS
from rushes.pipelines.models.score import SCORERS
from rushes.pipelines.report.accounting import Books
from rushes.pipelines.report.charts import Histogram, Limit
from rushes.pipelines.stages.select.selections import settings
from rushes.pipelines.store import storage
from rushes.pipelines.store.tables import TABLES, told

BINS = 40
# Clip columns that are places, names or settings, not something one would draw.
_NOT_MEASURES = {
    "wave",
    "start_s",
    "end_s",
    "frames",
    "source_duration_s",
    "width",
    "height",
    "crop_left",
    "crop_right",
}
_ONLY_LIMITED = {"pixels", "bit_rate", "white", "crop_top", "crop_bottom"}  # drawn where the policy asks for them
_SHOWN_WIDTH, _SHOWN_HEIGHT = (
    f"{side} * (1 - coalesce({one}, 0) - coalesce({other}, 0))"
    for side, one, other in (("width", "crop_left", "crop_right"), ("height", "crop_top", "crop_bottom"))
)
DERIVED = {
    "min_side_px": f"round(least({_SHOWN_WIDTH}, {_SHOWN_HEIGHT}))",
    "pixels": f"round({_SHOWN_WIDTH} * {_SHOWN_HEIGHT})",
    "aspect": f"{_SHOWN_WIDTH} / ({_SHOWN_HEIGHT})",
}
_NAMED = {
    "duration_s": "Clip length",
    "motion": "Motion",
    "camera_speed": "Camera speed",
    "pan": "Pan",
    "tilt": "Tilt",
    "zoom": "Zoom",
    "roll": "Roll",
    "shake": "Shake",
    "object_speed": "Object speed",
    "object_area": "Moving area",
    "residual": "Motion left over",
    "black": "Black frames",
    "white": "White frames",
    "frozen": "Frozen",
    "duplicate_frames": "Duplicate frames",
    "cadence_fps": "New pictures",
    "luma_mean": "Brightness",
    "luma_std": "Contrast",
    "exposure": "Exposure",
    "clipped_dark": "Lost in the dark",
    "clipped_bright": "Burnt out",
    "flicker": "Flicker",
    "interlaced": "Interlaced",
    "blockiness": "Blockiness",
    "sharpness": "Sharpness",
    "cut_score": "Cut score",
    "bit_rate": "Bit rate",
    "fps": "Frame rate",
    "crop_top": "Bar at the top",
    "crop_bottom": "Bar at the bottom",
}
TITLES = {
    "min_side_px": ("Shorter side", "pixels inside the bars"),
    "pixels": ("Picture size", "pixels inside the bars"),
    "aspect": ("Aspect", "width by height"),
    **{name: (title, told(TABLES["clips"].field(name)).get("unit", "")) for name, title in _NAMED.items()},
    **{name: (kind.title, kind.unit) for name, kind in SCORERS.items() if name != "tags"},  # drawn with the mixture
}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure over all clips."""

    name: str
    title: str
    unit: str
    histogram: Histogram
    limits: list[Limit]


def measures(run: str, books: Books) -> list[Measure]:
    """Return the measures that tell clips apart, those with a limit first."""
    gather(books)
    drawn = list(limits(run, books))
    found = []
    for name, value in _columns(books):
        bounds = [limit for measure, limit in drawn if measure == name]
        title, unit = TITLES.get(name, (name.replace("_", " ").capitalize(), ""))
        data = histogram(books, value, [limit.value for limit in bounds], unit.startswith("share"))
        if data is not None and (bounds or name not in _ONLY_LIMITED):
            found.append(Measure(name=name, title=title, unit=unit, histogram=data, limits=bounds))
    return sorted(found, key=lambda measure: not measure.limits)


def drawable() -> list[str]:
    """Return the columns of the table `clips` that one would draw: numbers, but for places and settings."""
    kinds = {field.name: field.type for field in TABLES["clips"]}
    numeric = [name for name, kind in kinds.items() if pa.types.is_floating(kind) or pa.types.is_integer(kind)]
    return [name for name in numeric if name not in _NOT_MEASURES]


def _columns(books: Books) -> Iterator[tuple[str, str]]:
    """Yield the name of each measure and the relation that holds its (value, kept)."""
    query = "select distinct scorer from scored where value is not null and scorer != 'tags' order by 1"
    for (scorer,) in books.connection.execute(query).fetchall():
        quoted = scorer.replace("'", "''")
        yield scorer, f"(select value, kept from scored where scorer = '{quoted}')"
    for name in (*drawable(), *DERIVED):
        yield name, f"(select {name}::double as value, kept from measured)"


def gather(books: Books) -> None:
    """Read what clips are measured by into the tables `measured` and `scored` of the books, once for all questions."""
    names = ", ".join(name for name in drawable() if name != "duration_s")
    derived = ", ".join(f"{formula} as {name}" for name, formula in DERIVED.items())
    books.connection.execute(
        f"""
        create temp table if not exists measured as
        select f.fate = 'kept' as kept, f.duration_s, width, height, camera, {names}, {derived}
        from fates f join clips c using (key)
        """
    )
    books.connection.execute(
        f"""
        create temp table if not exists scored as
        select f.fate, f.fate = 'kept' as kept, f.duration_s, s.scorer, s.value,
               if(s.scorer = 'tags', {_SUREST}, null) as sure
        from scores s join fates f using (key)
        """
    )


# Of a line of tags such as `dog 0.71, bridge 0.04`, the first, which is the most probable, if a caption would say it.
_FIRST = "regexp_extract(label, '^(.*?) [0-9.]+(,|$)', 1)"
_LIMIT = f"if({_FIRST} in ({', '.join(repr(name) for name in sorted(GROUPS))}), {CERTAIN}, {CERTAIN_ALONE})"
_SUREST = f"""
case when coalesce(label, '') = '' then null
     when try_cast(regexp_extract(label, ' ([0-9.]+)(,|$)', 1) as double) >= {_LIMIT} then {_FIRST}
     else 'nothing sure' end
"""


def histogram(books: Books, values: str, limits: list[float], share: bool) -> Histogram | None:
    """Return the histogram of a relation of (value, kept), on a logarithmic scale where it is long-tailed.

    None where there is no value or but one.

    Args:
        books: whose connection knows the relation.
        values: the relation, as SQL.
        limits: values that must lie on it.
        share: whether it goes from 0 to 1.
    """
    ask = books.connection.execute
    quantiles, least = ask(
        f"""select quantile_cont(value, [0.005, 0.5, 0.995]), min(value) filter (value > 0)
            from {values} where isfinite(value)"""
    ).fetchall()[0]
    if not quantiles or quantiles[0] is None or quantiles[0] == quantiles[2]:
        return None
    low, middle, high = map(float, quantiles)
    low, high = min([low, *limits]), max([high, *limits])
    if share:
        low, high = 0.0, 1.0
    log = not share and least is not None and low >= 0 and high > 12 * max(middle, least)
    if log:
        low = max(low, least, high / 1e4)
    scale, first, last = ("ln", math.log(low), math.log(high)) if log else ("", low, high)
    step = (last - first) / BINS
    cell = f"least(greatest(floor(({scale}({'greatest(value, ?)' if log else 'value'}) - ?) / ?), 0), {BINS - 1})"
    kept, dropped = [0] * BINS, [0] * BINS
    rows = ask(
        f"select {cell}::int as cell, kept, count(*) from {values} where isfinite(value) group by all",
        [*([low] if log else []), first, step],
    ).fetchall()
    for cell_, is_kept, number in rows:
        (kept if is_kept else dropped)[cell_] += number
    edges = [first + step * index for index in range(BINS + 1)]
    return Histogram(edges=[math.exp(e) for e in edges] if log else edges, kept=kept, dropped=dropped, log=log)


def limits(run: str, books: Books) -> Iterator[tuple[str, Limit]]:
    """Yield the measure and limit of every rule of the policy, and of those that dropped something, if it is gone."""
    named, shares = set(), {}
    for rule in rules(run, books.policy):
        measure = str(rule.get("measure", ""))
        name = str(rule.get("name") or measure)
        for bound, above in (("min", True), ("max", False)):
            if isinstance(rule.get(bound), int | float):
                named.add(name)
                yield measure, Limit(float(rule[bound]), above, name)
        if {"keep_highest", "keep_lowest"} & set(rule):
            shares[name] = measure, rule.get("keep_highest") is not None
    known = {name for name, _ in _columns(books)}
    query = """
        select rule, "limit", bool_and(value < "limit") from selection
        where policy = getvariable('policy') and not kept and "limit" is not null and value is not null
        group by rule, "limit" order by rule, "limit"
    """
    for name, value, below in books.connection.execute(query).fetchall():
        gone = name if name in known else name.rpartition("_")[0]
        measure, above = shares.get(name, (gone, below))  # what a share came to stands in the verdicts
        if name not in named and measure in known:
            yield measure, Limit(value, above, name)


def rules(run: str, policy: str | None) -> list[Mapping[str, Any]]:
    """Return the rules of a policy in the order in which they are tried; none if its text is not to be found."""
    for source in policy_texts(run, policy):
        found = yaml.safe_load(source)
        rules = found.get("rules", []) if isinstance(found, dict) else []
        return [rule for rule in rules if isinstance(rule, dict)]
    return []


def policy_texts(run: str, policy: str | None) -> Iterator[bytes]:
    """Yield the policy's text from where it may stand: the run itself, the configured path, the presets."""
    configured = str((settings(run).get("select") or {}).get("policy", ""))
    for uri in (f"{run.rstrip('/')}/policies/{policy}.yaml", f"{run.rstrip('/')}/policy.yaml", configured):
        if uri.endswith((".yaml", ".yml")) and storage.exists(uri):
            yield storage.read_bytes(uri)
    preset = resources.files("rushes.filters") / "presets" / f"{policy}.yaml"
    if preset.is_file():
        yield preset.read_bytes()
