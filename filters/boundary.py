"""Where one shot ends and the next begins, and what those who look for it need to be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """The end of one shot and the beginning of the next."""

    start_s: float
    """First second that is not the old shot alone; for a cut the time of the first frame of the new shot."""
    end_s: float
    """First second of the new shot; for a cut the same."""
    kind: str
    """cut, fade, dissolve or wipe."""
    score: float
    """How sure: for a cut how likely it is, 0–1, for a fade the depth of luma it crosses,
    for a dissolve or wipe how near it is to the model of one, 1 for a perfect one."""


class Rules(Protocol):
    """What `boundaries` and `clips` need to be told; `rushes.pipelines.config.ShotsConfig` holds it."""

    @property
    def min_clip_s(self) -> float: ...  # noqa: D102
    @property
    def max_clip_s(self) -> float: ...  # noqa: D102
    @property
    def cut_likely(self) -> float: ...  # noqa: D102
    @property
    def fade_luma(self) -> float: ...  # noqa: D102
    @property
    def fade_max_s(self) -> float: ...  # noqa: D102
    @property
    def dark_s(self) -> float: ...  # noqa: D102
    @property
    def trim_s(self) -> float: ...  # noqa: D102
