"""Clips laid out by what they show: which of them a screen has room for, and which lie inside a line around them.

found = Map(bench.run, bench.ledger, bench.clips["key"], bench.there)
found.start(); found.wait(60)
found.tile((-1, -1, 1, 1), 800, 600, meant)     # a clip for each cell of the screen
found.inside(((0, 0), (1, 0), (1, 1)))           # one truth a clip
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rushes.pipelines.explore import projection
from rushes.pipelines.store import storage
from rushes.pipelines.store.columns import flat
from rushes.pipelines.store.ledger import Ledger

DOTS = 15_000
"""Drawn at most."""
CELL_PX = 3.0
"""Side of the square in which a dot stands for all clips, at least."""
MARGIN = 0.04
"""Of the width, around all clips."""

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]
View = tuple[float, float, float, float]
"""Left, bottom, right, top."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """What a screen shows of the map."""

    view: View
    rows: Ints
    """The clip that stands for each cell with any, by its number; one that is meant where there is one."""
    stands_for: Ints
    """How many clips lie in each cell."""
    clips: int
    """In view."""
    cell_px: float


class Map:
    """The map of a run; it is read, or made where there is none, beside whatever else goes on."""

    def __init__(self, run: str, ledger: Ledger, keys: pa.ChunkedArray, there: Set[str]):
        """Take a snapshot of a run's ledger, the keys of its clips in order, and the measures that there are."""
        self.run, self.ledger, self.keys = run, ledger, keys
        self.scorer = next((name for name in projection.SCORERS if name in there), None)
        self.share = 0.0
        """How much of it is made."""
        self.explained = 0.0
        """Share of the variance of the embeddings that it shows."""
        self._at: Numbers | None = None
        self._by_height: tuple[Ints, Numbers] | None = None
        self._error: Exception | None = None
        self._work: threading.Thread | None = None
        self._starting = threading.Lock()

    @property
    def is_made(self) -> bool:
        """Whether it stands in the ledger, and need only be read."""
        return self.scorer is not None and projection.is_current(self.ledger, self.scorer)

    def start(self) -> None:
        """Begin to read or make it, unless that was begun. Raises ValueError where no clip has an embedding."""
        if self.scorer is None:
            raise ValueError(projection.NONE.format(run=self.run))
        with self._starting:
            if self._work is None or self._error:
                self._error = None
                self._work = threading.Thread(target=self._bring, args=(self.scorer,), daemon=True)
                self._work.start()

    def wait(self, seconds: float) -> bool:
        """Wait until it is there, some seconds at most; return whether it is. Raises what kept it from being made."""
        if self._work:
            self._work.join(seconds)
        if self._error:
            raise self._error
        return self._at is not None

    def _bring(self, scorer: str) -> None:
        def say(share: float) -> None:
            self.share = share

        try:
            rows = projection.bring(self.ledger, scorer, say)
            places = pc.index_in(flat(self.keys), value_set=flat(rows["key"]))
            taken = rows.select(["x", "y"]).take(places)  # null where a clip has no embedding
            sides = [flat(taken[name]).fill_null(math.nan).to_numpy().astype(np.float64) for name in "xy"]
            order = np.argsort(sides[1], kind="stable")
            order = order[: np.isfinite(sides[1]).sum()]  # NaN is last
            self._by_height = order, sides[1][order]
            self.explained = rows["explained"][0].as_py() if len(rows) else 0.0
            self._at = np.stack(sides, 1)
        except (ValueError, OSError, storage.StorageError) as error:
            self._error = error

    @property
    def at(self) -> Numbers:
        """Where each clip lies, `[n, 2]`; NaN for one without an embedding. Raises ValueError while it is not there."""
        if self._at is None:
            raise ValueError("the map is not there yet; open the view Map, which makes it, and wait until it is drawn")
        return self._at

    def whole(self, width_px: float, height_px: float) -> View:
        """Return a view of all clips, of the shape of a screen."""
        at = self.at[np.isfinite(self.at[:, 0])]
        low, high = (at.min(0), at.max(0)) if len(at) else (np.zeros(2), np.ones(2))
        screen = np.array([width_px, height_px])
        half = (1 + 2 * MARGIN) * (np.maximum(high - low, 1e-6) / screen).max() * screen / 2
        left, bottom = map(float, (low + high) / 2 - half)
        right, top = map(float, (low + high) / 2 + half)
        return left, bottom, right, top

    def tile(self, view: View | None, width_px: float, height_px: float, meant: Mask) -> Tile:
        """Return which clips to draw: one for each square of the screen that has any.

        Args:
            view: what the screen shows; all clips if None.
            width_px: width of the screen.
            height_px: its height.
            meant: clips that stand for a cell before others do.
        """
        view = view or self.whole(width_px, height_px)
        left, bottom, right, top = view
        cell_px = max(CELL_PX, math.sqrt(width_px * height_px / DOTS))
        across, down = math.ceil(width_px / cell_px), math.ceil(height_px / cell_px)
        column = np.floor((self.at[:, 0] - left) / (right - left) * (width_px / cell_px))
        row = np.floor((self.at[:, 1] - bottom) / (top - bottom) * (height_px / cell_px))
        here = np.flatnonzero((column >= 0) & (column < across) & (row >= 0) & (row < down))
        cells = (row[here] * across + column[here]).astype(np.int64)
        first = np.full(across * down, -1)
        for some in (~meant[here], meant[here]):  # of several writes to a cell the last one stays
            first[cells[some][::-1]] = here[some][::-1]
        drawn = np.flatnonzero(first >= 0)
        return Tile(
            view=view, rows=first[drawn], stands_for=np.bincount(cells, minlength=len(first))[drawn], clips=len(here),
            cell_px=cell_px,
        )  # fmt: skip

    def inside(self, line: Sequence[tuple[float, float]]) -> Mask:
        """Return which clips lie inside a closed line: a ray from each crosses it an odd number of times.

        Each stretch of the line looks only at the clips of its own heights, so that a million take milliseconds.
        """
        xs, found = self.at[:, 0], np.zeros(len(self.at), bool)
        assert self._by_height is not None
        order, heights = self._by_height
        for (x0, y0), (x1, y1) in pairwise([*line, line[0]]):
            first, end = np.searchsorted(heights, sorted((y0, y1)))
            rows = order[first:end]
            if len(rows):
                found[rows] ^= xs[rows] < x0 + (heights[first:end] - y0) * ((x1 - x0) / (y1 - y0))
        return found
