"""Verdicts: one for each clip, by trying rules on whole columns of measures, one rule at a time.

    verdicts = Verdicts(clips=3)
    verdicts.numbers(rule, 0, np.array([3.0, 90.0, np.nan]))
    verdicts.failed                 # the place of the first rule that each clip fails, −1 while none

Rows stand in the order of the clips' keys, which decides between equal values. A million clips take a few arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rushes.filters.policy import Rule

UNMEASURED = "not measured"
Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int32]


class Verdicts:
    """For each clip the first rule that it fails, with its value, the limit that it broke and a word on it."""

    def __init__(self, clips: int):
        """Begin with `clips` clips that fail nothing."""
        self.failed: Places = np.full(clips, -1, np.int32)
        """Place of the rule, −1 where the clip is kept."""
        self.values: Numbers = np.full(clips, np.nan)
        self.limits: Numbers = np.full(clips, np.nan)
        """The limit that the value broke; of a share, the value of the last clip that stayed."""
        self.words: Places = np.full(clips, -1, np.int32)
        """Which of `texts` says more of it, −1 for none."""
        self.texts: list[str] = []
        self.thresholds: dict[str, tuple[float, int, int]] = {}
        """For each rule that keeps a share: the value it came to, how many clips stayed, of how many."""

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Which clips failed nothing so far."""
        return self.failed < 0

    def numbers(self, rule: Rule, place: int, values: Numbers) -> None:
        """Drop the clips whose first failing rule this is; NaN is a value that could not be measured."""
        threshold = text = None
        kept = self.kept
        if rule.share is None:
            fails = _outside(rule, values)
        else:
            measured = ~np.isnan(values)
            candidates = kept & measured
            stays, threshold = best(rule, values, candidates)
            fails = ~stays if rule.missing == "drop" else ~stays & measured
            of, left = int(candidates.sum()), int(stays.sum())
            self.thresholds[rule.name] = threshold, left, of
            text = f"not among the {left} {'lowest' if rule.keep_highest is None else 'highest'} of {of}"
        here = np.flatnonzero(fails & kept)
        values = values[here]
        unmeasured = np.isnan(values)
        limits = broken(rule, values) if threshold is None else np.full(len(here), threshold)
        self._drop(here, place, values, np.where(unmeasured, np.nan, limits), text)
        self.words[here[unmeasured]] = self._word(UNMEASURED)

    def labels(self, rule: Rule, place: int, codes: Places, labels: Sequence[str | None]) -> None:
        """Drop the clips whose first failing rule this is; `codes` are places in `labels`. Raises PolicyError."""
        fails = np.array([not rule.passes(label) for label in labels], bool)
        here = np.flatnonzero(fails[codes] & self.kept)
        words = np.array([-1 if not bad else self._word(label or UNMEASURED)
                          for bad, label in zip(fails, labels, strict=True)], np.int32)  # fmt: skip
        self._drop(here, place, np.full(len(here), np.nan), np.full(len(here), np.nan), None)
        self.words[here] = words[codes[here]]

    def drop(
        self, clips: npt.NDArray[np.int64], place: int, values: Numbers, limits: Numbers, texts: Sequence[str]
    ) -> None:
        """Drop some clips, each once, for another reason than a rule; `texts` say more of each."""
        self._drop(clips, place, values, limits, None)
        self.words[clips] = len(self.texts) + np.arange(len(clips), dtype=np.int32)
        self.texts.extend(texts)

    def _drop(
        self, here: npt.NDArray[np.int64], place: int, values: Numbers, limits: Numbers, text: str | None
    ) -> None:
        self.failed[here], self.values[here], self.limits[here] = place, values, limits
        if text is not None and len(here):
            self.words[here] = self._word(text)

    def _word(self, text: str) -> int:
        self.texts.append(text)
        return len(self.texts) - 1


def broken(rule: Rule, values: Numbers) -> Numbers:
    """Return the limit that each number breaks, NaN where it breaks none; agrees with `Rule.broken`."""
    low, high = (np.nan if bound is None else float(bound) for bound in (rule.min, rule.max))
    return np.where(values < low, low, np.where(values > high, high, np.nan))


def _outside(rule: Rule, values: Numbers) -> npt.NDArray[np.bool_]:
    """Return which numbers a rule without a share does not pass; NaN, which no comparison holds for, by `missing`."""
    drops = rule.missing == "drop"
    fails = np.isnan(values) if drops and rule.min is rule.max is None else np.zeros(len(values), bool)
    for bound, inside, outside in ((rule.min, np.greater_equal, np.less), (rule.max, np.less_equal, np.greater)):
        if bound is not None:
            fails |= ~inside(values, bound) if drops else outside(values, bound)
    for among, wanted in ((rule.among, True), (rule.not_among, False)):
        if among is not None:
            listed = np.isin(values, [float(value) for value in among if isinstance(value, int | float)])
            fails |= listed != wanted if drops else (listed != wanted) & ~np.isnan(values)
    return fails


def best(rule: Rule, values: Numbers, candidates: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], float]:
    """Return which of the candidates a share keeps, and the value of the last one that stays, NaN without candidates.

    Exactly `Rule.count` clips stay; of equal values the earlier row does.
    """
    rows = np.flatnonzero(candidates)
    signed = values[rows] if rule.keep_highest is None else -values[rows]
    chosen = rows[np.argsort(signed, kind="stable")[: rule.count(len(rows))]]
    stays = np.zeros(len(values), bool)
    stays[chosen] = True
    return stays, float(values[chosen[-1]]) if len(chosen) else float("nan")
