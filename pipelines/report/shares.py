"""The part of the page about sampling bias: whose share of the footage a selection makes larger or smaller.

Among all clips that were judged a source, or what a tag names, has a share of the time; among the kept ones it has
another. Clips drawn without regard to what they show would leave these shares as they are, but for chance, by about

    sqrt((1 / p - 1) (Σ d² (1 - 2 b) + b² Σ D²)) / T

for p the share of clips kept, d the seconds of the group's clips, D those of all, T their sum, b the group's share of
it: the deviation of a ratio of sums over a sample drawn without replacement (Cochran, Sampling Techniques, 1977, 6).
What does not go beyond three of these, or has but a few clips, is shown and said to tell nothing. Clips of one source
are alike and stand or fall together, so that chance may well do more than this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rushes.pipelines.report.accounting import Books
from rushes.pipelines.report.markup import Html, count, el, number, section, share
from rushes.pipelines.report.measures import gather
from rushes.pipelines.store.storage import redact

SHOWN = 12
"""Groups that are listed of each kind; the others are summed."""
FEW = 10
"""Below so many clips a group tells nothing of a policy."""
BEYOND = 3.0
"""Deviations from which on a shift is more than chance: the table shows the largest of perhaps many thousands."""


@dataclass(frozen=True)
class Shift:
    """One group's share of the time, before and after."""

    label: str
    clips: int
    kept: int
    before: float
    """Its share of the time of all clips that were judged."""
    after: float
    """Its share of the time kept."""
    chance: float
    """Standard deviation of `after`, had the clips been drawn at random."""

    @property
    def ratio(self) -> float:
        """How many times its share it has now."""
        return self.after / self.before if self.before else 1.0

    @property
    def verdict(self) -> str:
        """Why it tells nothing; empty where it does."""
        if self.clips < FEW:
            return "too few clips to tell"
        return "no more than chance" if abs(self.after - self.before) <= BEYOND * self.chance else ""


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """The groups of one kind whose shares moved most, and all of them in numbers."""

    title: str
    shown: Sequence[Shift]
    """By how far they moved, at most `SHOWN`."""
    groups: int
    moved: float
    """Share of the kept time that other groups have than had it before: the total variation distance."""
    by_chance: float
    """What to expect of that, had the clips been drawn at random."""


def shifts(books: Books) -> list[Shifts]:
    """Return what a selection does to the shares of sources and of tags; none where it kept all clips or none."""
    gather(books)
    kinds = {
        "Source": "(select i.uri as label, f.duration_s, f.fate from fates f join inputs i using (input))",
        "Likely content": "(select sure as label, duration_s, fate from scored where scorer = 'tags')",
    }
    return [found for title, clips in kinds.items() if (found := _shifts(books, title, clips))]


def _shifts(books: Books, title: str, clips: str) -> Shifts | None:
    rows = books.connection.execute(_SHIFTS.format(clips=clips), [SHOWN]).fetchall()
    if not rows:
        return None
    groups, moved, by_chance = rows[0][:3]
    shown = [Shift(redact(label), *numbers) for _, _, _, label, *numbers in rows]
    return Shifts(title=title, shown=shown, groups=groups, moved=moved, by_chance=by_chance)


_SHIFTS = """
with judged as (select * from {clips} where label is not null and fate in ('kept', 'dropped')),
whole as (
    select count(*) filter (fate = 'kept') / count(*) as p, sum(duration_s) as seconds,
           sum(duration_s) filter (fate = 'kept') as kept_s, sum(duration_s * duration_s) as squares
    from judged
),
groups as (
    select label, count(*) as clips, count(*) filter (fate = 'kept') as kept, sum(duration_s) as seconds,
           coalesce(sum(duration_s) filter (fate = 'kept'), 0) as kept_s, sum(duration_s * duration_s) as squares
    from judged group by label
),
shares as (
    select g.label, g.clips, g.kept, g.seconds / w.seconds as before, g.kept_s / w.kept_s as after,
           sqrt((1 / p - 1) * greatest(g.squares * (1 - 2 * before) + before * before * w.squares, 0)) / w.seconds
             as chance
    from groups g, whole w where w.kept_s > 0 and p < 1
)
select count(*) over (), sum(abs(after - before)) over () / 2, sum(chance) over () / sqrt(2 * pi()),
       label, clips, kept, before, after, chance
from shares order by abs(after - before) desc, label limit ?
"""


def page(books: Books) -> Html:
    """Return the section; empty while nothing is selected, or where nothing was dropped."""
    found = [one for one in shifts(books) if one.groups > 1]
    if not found:
        return Html("")
    return section(
        "bias", "What the selection favours",
        "Shares of the time of all judged clips (before) and of the kept ones (after), those that moved most first. "
        "Greyed is what tells nothing: groups of a few clips, and shifts that clips drawn at random would show, too.",
        *(_table(one) for one in found),
    )  # fmt: skip


def _table(found: Shifts) -> Html:
    rows = [_row(one) for one in found.shown]
    if found.groups > len(found.shown):
        before, after = (1 - sum(getattr(one, name) for one in found.shown) for name in ("before", "after"))
        name = count(found.groups - len(found.shown), "other")
        rows.append(_cells(el("td", name), "", max(before, 0.0), max(after, 0.0), "", idle=True))
    columns = ((found.title, ""), *_COLUMNS)
    head = el("tr", *(el("th", name, scope="col", class_=style) for name, style in columns))
    told = (
        f"{share(found.moved, 1)} of the kept time lies elsewhere than it would by the shares before; of as many clips "
        f"drawn at random about {share(found.by_chance, 1)} would."
    )
    table = el("table", el("thead", head), el("tbody", *rows), class_="bias")
    return el("div", el("div", table, class_="scroll"), el("p", told, class_="onward"), class_="block")


_COLUMNS = (("Clips kept", "n"), ("Before", "n"), ("After", "n"), ("Ratio", "n"), ("", "bar-cell"))


def _row(one: Shift) -> Html:
    name = el("td", one.label.rstrip("/").rsplit("/", 1)[-1], one.verdict and el("small", one.verdict), title=one.label)
    kept = f"{number(one.kept)} of {number(one.clips)}"
    return _cells(name, kept, one.before, one.after, f"{number(round(one.ratio, 2))} ×", idle=bool(one.verdict))


def _cells(name: Html, kept: str, before: float, after: float, ratio: str, *, idle: bool) -> Html:
    parts = (("rest", before), ("back-kept", after))
    meters = [el("i", class_=f"meter {style}", style=f"width:{100 * part:.2f}%") for style, part in parts]
    return el(
        "tr", name, el("td", kept, class_="n"), el("td", share(before, 1), class_="n"),
        el("td", share(after, 1), class_="n"), el("td", ratio, class_="n"), el("td", *meters, class_="bar-cell"),
        class_="idle" if idle else None,
    )  # fmt: skip
