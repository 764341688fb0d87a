"""What a run costs at an object store: requests of a whole command, of a source, of a unit, and of a command with
nothing to do.

Targets: at most 15 requests a source, 150 a unit, and 60 where nothing is to do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
import s3fs
import yaml

from tests.bench.requests import KINDS, Log, by_place, counted

REPO = Path(__file__).parents[2]
UNITS = 2
FEW, MANY = 12, 24
PICTURES, STEP = 60, 9
"""Of a film, and from the beginning of one to that of the next."""
ALL_KEPT = {"name": "all", "about": "keeps whatever was found", "rules": [], "dedup": {"enabled": False}}
FLAGS = ["--score.scorers", "[quality]", "--pack.max_side_px", "144", "--inputs.units_per_wave", str(UNITS)]


def gather(bikes: Path, folder: Path, count: int) -> None:
    """Cut films of two seconds out of traffic, each from another picture on."""
    with av.open(str(bikes)) as source:
        shown = [frame.reformat(320, 136, "yuv420p") for frame in source.decode(video=0)]
    for number in range(count):
        begin = number * STEP % (len(shown) - PICTURES)
        with av.open(str(folder / f"film{number:02d}.mp4"), "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 320, 136, "yuv420p"
            for at, frame in enumerate(shown[begin : begin + PICTURES]):
                frame.pts, frame.time_base, frame.pict_type = at, Fraction(1, 25), 0
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))


def curate(bucket: str, footage: str, run: str, policy: Path) -> None:
    """Run the command, from bucket to bucket, and fail where it fails."""
    command = [sys.executable, "-m", "rushes.pipelines.cli.main", "curate", f"{bucket}/{footage}/", "--out",
               f"{bucket}/{run}", "--select.policy", str(policy), *FLAGS]  # fmt: skip
    done = subprocess.run(command, cwd=REPO, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.bench
def test_requests_of_a_run(s3: str, s3_log: Log, bikes: Path, tmp_path: Path, show: Callable[..., None]) -> None:
    policy = tmp_path / "all.yaml"
    policy.write_text(yaml.safe_dump(ALL_KEPT))
    gather(bikes, tmp_path, MANY)
    made, again, raw = {}, {}, {}
    for count in (FEW, MANY):
        for film in sorted(tmp_path.glob("*.mp4"))[:count]:
            s3fs.S3FileSystem().put(str(film), f"{s3}/footage{count}/{film.name}")
        for title, found in ("first", made), ("again", again):
            with s3_log.during() as asked:
                curate(s3, f"footage{count}", f"{count}/run", policy)
            asked = [type(one)(one.kind, one.key.removeprefix(f"{count}/")) for one in asked]
            found[count] = counted(asked)
            raw[f"{title}, {count} films"] = {place: dict(kinds) for place, kinds in by_place(asked).items()}
    rows = [
        _row(f"{MANY} films", made[MANY]),
        _row(f"{FEW} films", made[FEW]),
        _row("a film", _share(made)),
        _row("a unit, what no film is charged with", _scaled(made[MANY], _share(made))),
        _row(f"again, {MANY} films", again[MANY]),
        _row(f"again, {FEW} films", again[FEW]),
    ]
    show(f"Requests of a run in {UNITS} units, from bucket to bucket", ["of", "all", *KINDS], rows, raw=raw)
    for title in ("first", "again"):
        places = raw[f"{title}, {MANY} films"]
        show(f"Requests by place, {title}, {MANY} films", ["place", "all", *KINDS],
             [_row(name, Counter(kinds)) for name, kinds in places.items()])  # fmt: skip
    assert made[MANY].total() > made[FEW].total() > again[FEW].total() > 0
    film = _share(made)
    assert sum(film.values()) <= 15 and sum(_scaled(made[MANY], film).values()) <= 150 and again[MANY].total() <= 60


def _share(made: dict[int, Counter[str]]) -> dict[str, float]:
    """Return the requests of one more film."""
    return {kind: (made[MANY][kind] - made[FEW][kind]) / (MANY - FEW) for kind in KINDS}


def _scaled(made: Counter[str], share: dict[str, float]) -> dict[str, float]:
    """Return the requests of a unit without its films."""
    return {kind: (made[kind] - MANY * share[kind]) / UNITS for kind in KINDS}


def _row(name: str, kinds: Counter[str] | dict[str, float]) -> list[str]:
    return [name, f"{sum(kinds.values()):.4g}", *(f"{kinds.get(kind, 0):.4g}" for kind in KINDS)]
