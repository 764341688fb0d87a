"""Duplicates among clips: the same shot in another codec, size, speed or container, and excerpts of a longer shot.

`sketches` proposes couples, `measure` aligns them, `decide` says by a policy's rules which of them show the same, and
`survivors` keeps the best copy of each shot. What is measured depends on no rule but those of `ALIGNED_BY`, so that is
done once and decided often, over columns. A wrong merge is worse than a miss: pictures without structure prove nothing,
what moves must move alike, and clips of one source must move, since a still camera looks like itself at any time.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rushes.filters.matching import Alignment, Floats, Sequences, align, fastest
from rushes.filters.sketches import Ints

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class SemanticRules:
    """Clips that show the same kind of thing are dropped as well; off unless a scorer is named."""

    scorer: str = ""
    """Scorer whose embeddings are compared, `embedding` or `clip`; empty for none."""
    min_cosine: float = 0.97
    """Cosine from which two clips count as semantically the same."""


@dataclass(frozen=True, kw_only=True)
class BalanceRules:
    """Weights that even out how often each kind of thing is shown; off unless a scorer is named."""

    scorer: str = ""
    """Scorer whose embeddings are clustered, `embedding` or `clip`; empty for none."""
    clusters: int | None = None
    """Number of clusters, written `auto` for the root of the number of clips."""


@dataclass(frozen=True, kw_only=True)
class DuplicateRules:
    """When two clips count as the same footage."""

    enabled: bool = True
    """Whether duplicates are dropped at all."""
    min_overlap: float = 0.75
    """Share of the shorter clip that must lie inside the other, and share of length that tells copy from excerpt."""
    min_ticks: int = 5
    """Pictures with structure that must agree; fewer prove nothing."""
    min_luma_std: float = 6.0
    """Clips of less contrast are not compared: the hashes of dark or flat pictures are noise, or a watermark."""
    base_bits: float = 3.0
    """Mean distance, in bits of 64, that encoding alone may cause."""
    motion_share: float = 1 / 3
    """… plus this share of the distance between the clip's own pictures, for sampling instants that differ."""
    min_accord: float = 0.5
    """What moves must move alike: from this correlation of their changes on, moving clips are the same; from 0.8 of it
    on where the distance is small as well."""
    standing_bits: float = 12.0
    """Distance that may stand all the time where the changes agree: a logo, a crop or other light."""
    max_unlike: float = 1.0
    """Still clips must agree in every part of their pictures: at most so many standard deviations between them."""
    max_speed: float = 1.3
    """Copies that run faster or slower by up to this factor are found; 1 for none."""
    prefer: tuple[str, ...] = ("pixels", "bit_rate", "quality?", "duration_s")
    """Measures that choose the surviving copy, most important first; a minus in front means that less is better, a
    question mark behind that the measure is passed over where its scorer did not run."""
    semantic: SemanticRules = field(default_factory=SemanticRules)
    """The last rung: clips near in meaning."""
    balance: BalanceRules = field(default_factory=BalanceRules)
    """How clips are weighted by their clusters."""


def rules(given: Mapping[str, Any]) -> DuplicateRules:
    """Return the rules that a policy's mapping `dedup` describes. Raises ValueError for unknown keys, wrong values."""
    values = _known(given, DuplicateRules, "dedup")
    if "prefer" in values:
        values["prefer"] = tuple(values["prefer"])
    if "semantic" in values:
        values["semantic"] = SemanticRules(**_known(values["semantic"], SemanticRules, "dedup.semantic"))
    if "balance" in values:
        balance = _known(values["balance"], BalanceRules, "dedup.balance")
        if balance.get("clusters") == "auto":
            balance["clusters"] = None
        values["balance"] = BalanceRules(**balance)
    made = DuplicateRules(**values)
    _check(made)
    return made


def _known(given: Any, kind: type[Any], where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is a mapping, not {given!r}")
    allowed = {f.name for f in fields(kind)}
    if unknown := sorted(str(key) for key in set(given) - allowed):
        raise ValueError(f"{where} has no key {', '.join(unknown)}; it has {', '.join(sorted(allowed))}")
    defaults = kind()
    for name, value in given.items():
        _typed(where, name, value, getattr(defaults, name))
    return dict(given)


def _typed(where: str, name: str, value: Any, default: Any) -> None:
    """Refuse a setting of another type than its default has, before it is compared with numbers somewhere."""
    if default is None or is_dataclass(default):
        return  # checked where they are read
    if isinstance(default, tuple):
        right = isinstance(value, list) and all(isinstance(item, str) for item in value)
    elif isinstance(default, bool | str):
        right = isinstance(value, type(default))
    else:
        right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not right:
        kind = "a list of names" if isinstance(default, tuple) else f"like {default!r}"
        raise ValueError(f"{where}: {name}={reprlib.repr(value)} must be {kind}")


def _check(made: DuplicateRules) -> None:
    wrong = {
        f"min_overlap={made.min_overlap} is not a share between 0 and 1": not 0 < made.min_overlap <= 1,
        f"min_ticks={made.min_ticks} must be at least 1": made.min_ticks < 1,
        f"min_accord={made.min_accord} is not a correlation between 0 and 1": not 0 <= made.min_accord <= 1,
        f"max_speed={made.max_speed} must lie between 1 and 2": not 1 <= made.max_speed <= 2,
        f"semantic.min_cosine={made.semantic.min_cosine} is no cosine": not -1 <= made.semantic.min_cosine <= 1,
        f"balance.clusters={made.balance.clusters} is neither auto nor a number from 1 on": not (
            made.balance.clusters is None or (isinstance(made.balance.clusters, int) and made.balance.clusters >= 1)
        ),
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise ValueError(f"dedup: {message}")


ALIGNED_BY = ("min_ticks", "min_overlap", "max_speed")
"""The rules that say how couples are aligned; all others only limit what came of it."""


def same_alignment(one: DuplicateRules, other: DuplicateRules) -> bool:
    """Whether couples that were measured by some rules can be decided by others; without re-timing always."""
    names = ALIGNED_BY if one.max_speed > 1 else ALIGNED_BY[:-1]
    return all(getattr(one, name) == getattr(other, name) for name in names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """Two clips that show the same footage; time in `a` = `speed` × time in `b` + `offset_s`."""

    distance: float
    limit: float
    speed: float
    offset_s: float
    overlap_s: float
    inner: str
    """`a` or `b` where that clip is an excerpt of the other, empty for two copies of about the same length."""
    still: bool
    """Whether too little moves in it for the hashes alone to prove anything: see `filters.stills`."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of couples of clips (a, b); a row of each array is a couple."""

    lengths: Ints
    """[n, 2] informative pictures of a and of b."""
    same_source: Flags
    """Clips of one source must move alike to be duplicates."""
    plain: Alignment
    """As they lie at one speed."""
    timed: Alignment
    """As they lie at the best other speed, where any was tried; elsewhere ticks are 0 and all else is NaN."""

    def at(self, rows: Flags | Ints) -> Measured:
        """Return some of the couples."""
        return Measured(
            lengths=self.lengths[rows], same_source=self.same_source[rows], plain=self.plain.at(rows),
            timed=self.timed.at(rows),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Matches:
    """The couples that show the same, as columns; see `Match`."""

    couples: Ints
    """[m] rows of what was measured, ascending."""
    distance: Floats
    limit: Floats
    speed: Floats
    offset_s: Floats
    overlap_s: Floats
    inner: npt.NDArray[np.str_]
    still: Flags

    def at(self, rows: Flags | Ints) -> Matches:
        """Return some of the matches."""
        return Matches(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def proven(self, unlike: Floats, most: float) -> Matches:
        """Return the matches without those of still clips whose pictures differ, or cannot be compared.

        Args:
            unlike: how unlike the pictures of each couple that was measured are, NaN where there are not two.
            most: the limit, `max_unlike`.
        """
        return self.at(~self.still | (unlike[self.couples] <= most))

    def by_clips(self, pairs: Ints) -> dict[tuple[int, int], Match]:
        """Return the matches as (a, b) → Match, where `pairs` are the clips of all couples that were measured."""
        names = [field.name for field in fields(Match)]
        columns = (getattr(self, name).tolist() for name in names)
        clips = map(tuple, pairs[self.couples].tolist())
        return {pair: Match(**dict(zip(names, row, strict=True)))
                for pair, row in zip(clips, zip(*columns, strict=True), strict=True)}  # fmt: skip


SPEEDS = np.exp(np.arange(-7, 8) * 0.04)
"""Speeds that are tried at first, 4 % apart; those of `FINER` are then tried around the best one."""
FINER = np.exp(np.array([0, -1, 1, -2, 2, -3, 3]) * 0.01)
STILL_BITS = 2.0
"""Pictures of a clip that differ by less from each other do not move enough for their changes to be compared …"""
MOVING_BITS = 4.0
"""… and from here on they move so much that their changes alone prove that a clip is the same …"""
LONG_TICKS = 10
"""… if there are so many of them."""
PLAIN_ACCORD = 0.85
"""Clips that agree so well run at one speed; others are tried at different ones as well."""
PARAMETERS = (tuple(SPEEDS.tolist()), tuple(FINER.tolist()), LONG_TICKS, PLAIN_ACCORD)
"""What a measurement depends on besides its clips and `ALIGNED_BY`."""


def compare(seq: Sequences, pairs: Ints, same_source: Flags, rules: DuplicateRules) -> dict[tuple[int, int], Match]:
    """Return how pairs of clips match, (a, b) → Match, without those that do not show the same footage.

    That is `measure` and `decide` at once. Arguments are theirs.
    """
    return decide(measure(seq, pairs, same_source, rules), rules).by_clips(pairs)


def measure(seq: Sequences, pairs: Ints, same_source: Flags, rules: DuplicateRules) -> Measured:
    """Return how pairs of clips lie at one speed, and at another where they agree little at one.

    Args:
        seq: the clips.
        pairs: [n, 2] clips, the lower one first.
        same_source: [n] whether both are of one source; what one camera took runs at one speed.
        rules: `ALIGNED_BY` of them.
    """
    lengths = seq.counts[pairs].reshape(-1, 2)
    plain = align(seq, pairs, rules.min_ticks, rules.min_overlap)
    doubtful = (plain.accord < PLAIN_ACCORD) & ~same_source & (lengths.min(axis=1) >= LONG_TICKS)
    timed = Alignment.untried(len(pairs))
    if rules.max_speed > 1 and doubtful.any():
        timed.put(doubtful, _retimed(seq, pairs[doubtful], rules))
    return Measured(lengths=lengths, same_source=same_source, plain=plain, timed=timed)


def _retimed(seq: Sequences, pairs: Ints, rules: DuplicateRules) -> Alignment:
    """Return how pairs lie at the speed, within `max_speed`, at which they lie nearest."""
    speeds = SPEEDS[np.abs(np.log(SPEEDS)) <= np.log(rules.max_speed) + 1e-9]
    rough = fastest(seq, pairs, LONG_TICKS, rules.min_overlap, speeds)
    speed = fastest(seq, pairs, LONG_TICKS, rules.min_overlap, FINER, rough)
    return align(seq, pairs, LONG_TICKS, rules.min_overlap, speed)


def decide(measured: Measured, rules: DuplicateRules) -> Matches:
    """Return the couples that show the same by a policy's rules; another speed counts where it fits clearly better.

    Those of still clips are among them, since hashes alone can neither prove nor refute them: see `Matches.proven`.
    """
    plain, timed = measured.plain, measured.timed
    limit = _limits(plain, measured.same_source, rules)
    sure = plain.distance < limit
    if rules.max_speed > 1:  # only clips that move tell their speed
        least = np.maximum(rules.min_accord, np.where(sure, plain.accord, 0.0)) + 0.1
        better = np.where(_in_step(timed, least) & (timed.speed != 1), _bearable(timed, rules), 0.0)
        faster = timed.distance < better
    else:
        better, faster = np.zeros(len(limit)), np.zeros(len(limit), np.bool_)
    rows = np.flatnonzero(sure | faster)
    found = plain.at(rows)
    found.put(faster[rows], timed.at(faster))
    return _matches(rows, measured.lengths[rows], found, np.where(faster, better, limit)[rows], rules)


def _limits(found: Alignment, same_source: Flags, rules: DuplicateRules) -> Floats:
    """Return the distance that each pair must stay below, 0 where nothing could prove that it shows the same.

    The first limit grows with the motion of the overlap: half a tick of delay moves a fast shot by many bits, but no
    two different fast shots come near each other, while still pictures that differ in a word lie within a few bits.
    The second one bears what stands all the time, where the changes agree so well that nothing else explains it.
    """
    moved = rules.motion_share * found.own
    near = np.where(same_source, moved, np.minimum(1 + found.own, rules.base_bits + moved))
    alike = (found.own < STILL_BITS) | (found.accord >= 0.8 * rules.min_accord)
    plain = np.where((found.ticks > 0) & alike, near, 0.0)
    return np.maximum(
        plain, np.where(_in_step(found, rules.min_accord + 0.1 * same_source), _bearable(found, rules), 0)
    )


def _in_step(found: Alignment, accord: npt.NDArray[np.floating] | float) -> Flags:
    return (found.ticks >= LONG_TICKS) & (found.own >= MOVING_BITS) & (found.accord >= accord)


def _bearable(found: Alignment, rules: DuplicateRules) -> Floats:
    """Return what may stand all the time, plus half of the motion: what is left of it at the least accord."""
    return rules.standing_bits + found.own / 2


def _matches(rows: Ints, lengths: Ints, found: Alignment, limit: Floats, rules: DuplicateRules) -> Matches:
    length = np.stack([lengths[:, 0], lengths[:, 1] * found.speed], axis=1)
    copies = found.ticks >= rules.min_overlap * length.max(axis=1, initial=0)
    told = (found.own >= STILL_BITS / 4) & (found.ticks >= LONG_TICKS) & (found.accord >= rules.min_accord + 0.1)
    return Matches(
        couples=rows,
        distance=found.distance,
        limit=limit,
        speed=found.speed,
        offset_s=found.offset_s + 0.0,
        overlap_s=found.overlap_s,
        inner=np.where(copies, "", np.where(length[:, 0] < length[:, 1], "a", "b")),
        still=(found.own < STILL_BITS) & ~told,
    )
