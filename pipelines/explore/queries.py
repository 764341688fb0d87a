"""Ten questions that analysts ask of a run, with their SQL: `rushes sql RUN NAME` answers them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Query:
    """A documented query."""

    question: str
    sql: str


QUERIES: dict[str, Query] = {
    "funnel": Query(
        question="Where did the footage go?",
        sql="select fate, reason, round(hours, 4) as hours, clips, sources from funnel",
    ),
    "yield": Query(
        question="Which sources give least of what they cost?",
        sql="""select uri, round(duration_s, 1) as seconds, clips, kept_clips, round(kept_share, 3) as kept_share, code
from sources_all order by kept_share nulls first, seconds desc limit 20""",
    ),
    "near": Query(
        question="Which clips were dropped by a hair?",
        sql="""select key, reason, value, "limit", round(abs(value - "limit") / nullif(abs("limit"), 0), 3) as off
from clips_all where fate = 'dropped' and level is null and "limit" is not null order by off, key limit 20""",
    ),
    "bias": Query(
        question="Which kinds of things does the policy drop more than others?",
        sql="""select regexp_extract(tagged, '^(.*?) [0-9.]+(,|$)', 1) as tag, count(*) as clips,
  round(avg((fate = 'kept')::int), 3) as kept_share, round(sum(duration_s) / 3600, 4) as hours
from clips_all where tagged is not null group by tag order by clips desc, tag limit 20""",
    ),
    "buckets": Query(
        question="How many hours of which shape and rate are kept?",
        sql="""select bucket, count(*) as clips, round(sum(duration_s) / 3600, 4) as hours,
  sum(size_bytes) as size_bytes from clips_all where fate = 'kept' group by bucket order by hours desc""",
    ),
    "duplicates": Query(
        question="Who was dropped for whom?",
        sql="""select copy_of, count(*) as dropped, round(sum(duration_s), 2) as seconds,
  list(key order by key) as keys from clips_all where copy_of is not null
group by copy_of order by dropped desc, copy_of limit 20""",
    ),
    "deciles": Query(
        question="How is a measure spread, and what is kept of each tenth? (motion here)",
        sql="""select decile, min(motion) as low, max(motion) as high, count(*) as clips,
  round(avg((fate = 'kept')::int), 3) as kept_share
from (select motion, fate, ntile(10) over (order by motion, key) as decile from clips_all where motion is not null)
group by decile order by decile""",
    ),
    "failures": Query(
        question="What failed, and what helps?",
        sql="""select code, stage, count(*) as times, round(sum(seconds), 1) as seconds, any_value(uri) as such_as,
  any_value(remedy) as remedy from errors group by code, stage order by seconds desc, code""",
    ),
    "captions": Query(
        question="Who wrote the captions, and how long are they?",
        sql="""select source, model, count(*) as clips, round(avg(length("long")), 1) as letters,
  count(distinct "long") as different from captions group by source, model order by clips desc""",
    ),
    "camera": Query(
        question="What does the camera do in what is kept, and in what is not?",
        sql="""select camera, count(*) filter (fate = 'kept') as kept, count(*) filter (fate = 'dropped') as dropped,
  round(sum(duration_s) filter (fate = 'kept') / 3600, 4) as kept_hours
from clips_all group by camera order by kept desc, camera""",
    ),
}
