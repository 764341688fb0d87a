"""The parts of the page about footage, each from facts to markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rushes.filters.policy import TAKEDOWN
from rushes.pipelines.report import charts
from rushes.pipelines.report.accounting import COUNTED_TWICE, EXACT_DUPLICATE, FATES, UNACCOUNTED, Account, Entry
from rushes.pipelines.report.charts import Bar
from rushes.pipelines.report.facts import Card, Pair, Selected, Step, Timeline
from rushes.pipelines.report.markup import Html, clock, count, data_uri, el, number, seconds, section, share, words
from rushes.pipelines.report.measures import Measure

_EXPLAINED = {
    EXACT_DUPLICATE: "the same bytes under another name",
    "too_short": "shorter than the shortest clip wanted",
    "transition": "inside a fade, dissolve or wipe",
    "duplicate": "another clip shows the same, better",
    TAKEDOWN: "taken down, and left out",
    UNACCOUNTED: "in no clip, not trimmed, and lost by no known error",
    COUNTED_TWICE: "claimed by two clips or errors, taken off again",
    "probe": "not opened yet",
    "scan": "not decoded yet",
    "shots": "not divided into clips yet",
    "select": "not judged yet",
}


def headline(account: Account, shards: tuple[int, int]) -> Html:
    """Return the sentence, the bar and the numbers that sum the run up."""
    total, kept = account.input_s, account.seconds("kept")
    found, kept_clips = sum(entry.clips for entry in account.entries), account.clips("kept")
    failed = [entry for entry in account.entries if entry.fate == "failed"]
    tiles = [
        _tile(seconds(total), "footage in", count(account.inputs, "input")),
        _tile(seconds(kept), "kept", f"{share(kept, total)} of the footage", "kept"),
        _tile(number(kept_clips), "clips kept", f"of {count(found, 'clip')} found"),
        _tile(
            seconds(kept / kept_clips) if kept_clips else "–", "mean length", "of a kept clip",
        ),
        _tile(
            number(sum(entry.sources for entry in failed)),
            "inputs with failures",
            f"{seconds(account.seconds('failed'))} lost",
            "failed" if failed else "",
        ),
        _tile(number(shards[0]) or "–", "shards", count(shards[1], "sample") if shards[0] else "not packed yet"),
    ]  # fmt: skip
    return el("div", _fate_bar(account), el("div", *tiles, class_="tiles"), class_="headline")


def _tile(value: str, name: str, note: str, style: str = "") -> Html:
    return el(
        "div", el("strong", value), el("span", name), el("small", note), class_=f"tile {style and 'tile-' + style}"
    )


def _fate_bar(account: Account) -> Html:
    bars, at, keys = [], 0.0, []
    for fate in FATES:
        amount = account.seconds(fate)
        if amount <= 0:
            continue
        text = f"{fate}: {seconds(amount)}, {share(amount, account.input_s)}"
        bars.append(Bar(at, at + amount, fate, text))
        note = el("small", f"{seconds(amount)} · {share(amount, account.input_s)}")
        keys.append(el("li", el("i", class_=f"swatch back-{fate}"), el("b", fate), " ", note))
        at += amount
    return el("div", charts.stacked(bars, 34, "What became of the footage", gap=2), el("ul", *keys, class_="legend"))


def accounting(account: Account, passed_over: str = "") -> Html:
    """Return the table whose seconds sum to the input, and a line on files that are no part of it."""
    total = account.input_s
    rows = [_account_row(entry, total) for entry in account.entries]
    sums = el(
        "tr", el("th", "All footage", scope="row", colspan=2), _amount(sum(e.clips for e in account.entries)),
        el("td", seconds(total), class_="n"), el("td", share(total, total), class_="n"), _BLANK, class_="sum",
    )  # fmt: skip
    head = el("tr", *(el("th", name, scope="col", class_=style) for name, style in _ACCOUNT_COLUMNS))
    table = el("table", el("thead", head), el("tbody", *rows), el("tfoot", sums), class_="account")
    if not account.unexplained_sources:
        verdict = el("p", "✓ Every second is accounted for: the lines sum to the input.", class_="verdict good")
    else:
        named = "; ".join(f"{one.uri} {one.seconds:+.3f} s" for one in account.unexplained[:5])
        verdict = el(
            "p",
            f"{account.unexplained_s:.3f} s of {count(account.unexplained_sources, 'input')} are missing (+) or "
            f"counted twice (−), and stand among the failures so that the lines sum to the input: {named}",
            account.unexplained_sources > 5 and " …",
            class_="verdict bad",
        )
    return section(
        "account", "Where every second went",
        "Each second of input ends in exactly one line. A dropped clip is still in the ledger: another policy may keep "
        "it without reading the footage again.",
        el("div", table, class_="scroll"), verdict, passed_over and el("p", passed_over, class_="verdict"),
    )  # fmt: skip


_ACCOUNT_COLUMNS = (("Fate", ""), ("Reason", ""), ("Clips", "n"), ("Time", "n"), ("Share", "n"), ("", "bar-cell"))


def _account_row(entry: Entry, total: float) -> Html:
    explained = _EXPLAINED.get(entry.reason)
    note = explained or (count(entry.sources, "input") if entry.fate == "failed" else None)
    width = 100 * entry.seconds / total if total else 0
    reason = "passed the policy" if entry.fate == "kept" else words(entry.reason)
    return el(
        "tr",
        el("td", el("i", class_=f"swatch back-{entry.fate}"), entry.fate),
        el("td", reason, note and el("small", note)),
        _amount(entry.clips),
        el("td", seconds(entry.seconds) if entry.seconds else "–", class_="n"),
        el("td", share(entry.seconds, total) if entry.seconds else "–", class_="n"),
        el(
            "td",
            width > 0 and el("i", class_=f"meter back-{entry.fate}", style=f"width:{width:.2f}%"),
            class_="bar-cell",
        ),
    )


def _amount(value: int) -> Html:
    return el("td", number(value) if value else "–", class_="n")


def selections(found: Sequence[Selected], stale: Sequence[str]) -> Html:
    """Return the table that compares the selections of a run; nothing where there is only one."""
    if len(found) < 2:
        return Html("")
    shown = found[0]
    longest = max(one.seconds for one in found) or 1
    rows = [
        el(
            "tr",
            el("th", one.policy, one is shown and el("small", "shown on this page"),
               one.policy in stale and el("small", "made of an older ledger: select again"), scope="row"),
            _amount(one.clips),
            el("td", seconds(one.seconds), class_="n"),
            el("td", _overlap(one, longest), class_="bar-cell"),
            el("td", "" if one is shown else f"{number(one.shared)} · {share(one.shared_s, one.seconds)}", class_="n"),
            el("td", "" if one is shown else number(one.clips - one.shared), class_="n"),
            el("td", "" if one is shown else number(shown.clips - one.shared), class_="n"),
            el("td", number(one.packed) if one.packed else "not packed", class_="n"),
        )
        for one in found
    ]  # fmt: skip
    columns = (
        ("Selection", ""), ("Clips", "n"), ("Time", "n"), ("", "bar-cell"), (f"Shared with {shown.policy}", "n"),
        ("Only here", "n"), (f"Only in {shown.policy}", "n"), ("In shards", "n"),
    )  # fmt: skip
    head = el("tr", *(el("th", name, scope="col", class_=style) for name, style in columns))
    return section(
        "selections", "Selections beside each other",
        "Each selection has shards of its own; captions and encoded clips are made once for all of them. The solid "
        f"part of a bar is what {shown.policy} keeps too.",
        el("div", el("table", el("thead", head), el("tbody", *rows)), class_="scroll"),
    )  # fmt: skip


def _overlap(one: Selected, longest: float) -> Html:
    parts = (("back-kept", one.shared_s), ("rest", one.seconds - one.shared_s))
    meters = [el("i", class_=f"meter {style}", style=f"width:{100 * part / longest:.2f}%")
              for style, part in parts if part > 0]  # fmt: skip
    return el("span", *meters, class_="pairbar")


def funnel(steps: Sequence[Step], packed: tuple[int, float]) -> Html:
    """Return the gates that a clip must pass, each with what it turned away, in clips and in seconds."""
    if not steps[0].clips:
        return Html("")
    whole, whole_s = steps[0].clips, max(steps[0].seconds, 1e-9)
    rows = [
        el(
            "tr",
            el("th", words(step.name), scope="row"),
            el("td", step.note and el("code", step.note)),
            el("td", f"−{number(step.dropped)}" if step.dropped else "–" if place else "", class_="n"),
            el("td", number(step.clips), class_="n"),
            el("td", _remaining(step.clips / whole, step.dropped / whole), class_="bar-cell"),
            el("td", seconds(step.seconds), class_="n"),
            el("td", _remaining(step.seconds / whole_s, step.dropped_s / whole_s), class_="bar-cell"),
            class_=None if step.dropped or not place else "idle",
        )
        for place, step in enumerate(steps)
    ]
    last, last_s = packed if packed[0] else (steps[-1].clips, steps[-1].seconds)
    sums = el(
        "tr", el("th", "in shards" if packed[0] else "kept", scope="row"), el("td"), el("td"),
        el("td", number(last), class_="n"), _BLANK, el("td", seconds(last_s), class_="n"), _BLANK, class_="sum",
    )  # fmt: skip
    head = el("tr", *(el("th", name, scope="col", class_=style) for name, style in _FUNNEL_COLUMNS))
    table = el("table", el("thead", head), el("tbody", *rows), el("tfoot", sums), class_="funnel")
    return section(
        "funnel", "What passed",
        "Clips meet the policy's rules in this order, and the first that fails names the reason. Duplicates are sought "
        "among the clips that are good enough to keep.",
        el("div", table, class_="scroll"),
    )  # fmt: skip


_FUNNEL_COLUMNS = (
    ("Gate", ""), ("Passes where", ""), ("Turned away", "n"), ("Clips left", "n"), ("", "bar-cell"), ("Time left", "n"),
    ("", "bar-cell"),
)  # fmt: skip


_BLANK = el("td", class_="bar-cell")


def _remaining(left: float, dropped: float) -> Html:
    parts = [el("i", class_=f"meter back-{style}", style=f"width:{100 * part:.2f}%")
             for style, part in (("kept", left), ("dropped", dropped)) if part > 0]  # fmt: skip
    return el("span", *parts, class_="pairbar")


def mixture(groups: Mapping[str, list[dict[str, Any]]]) -> Html:
    """Return what the footage is made of, kept beside the rest."""
    if not groups:
        return Html("")
    panels = [_mixture_panel(name, rows) for name, rows in groups.items()]
    return section(
        "mixture", "What it is made of",
        "Time by kind of clip; the solid part was kept. A bar that is nearly hollow shows what the policy turns away.",
        el("div", *panels, class_="grid thirds"),
    )  # fmt: skip


def _mixture_panel(name: str, rows: list[dict[str, Any]]) -> Html:
    longest = max((row["kept_s"] or 0) + (row["other_s"] or 0) for row in rows) or 1
    if all(str(row["label"])[:2].rstrip(":").isdigit() and ": " in row["label"] for row in rows):
        rows = sorted(rows, key=lambda row: row["label"])  # "1: under 2 s": the number is only there to sort by
    lines = []
    for row in rows:
        kept, other = row["kept_s"] or 0.0, row["other_s"] or 0.0
        label = str(row["label"]).split(": ", 1)[-1]
        title = (
            f"{label}: {row['kept']} of {count(row['clips'], 'clip')} kept, {seconds(kept)} of {seconds(kept + other)}"
        )
        meters = (
            el("i", class_="meter back-kept", style=f"width:{100 * kept / longest:.2f}%"),
            el("i", class_="meter rest", style=f"width:{100 * other / longest:.2f}%"),
        )
        value = el("small", share(kept, kept + other), " kept")
        lines.append(
            el("li", el("span", label, class_="clip"), value, el("span", *meters, class_="pairbar"), title=title)
        )
    return el("div", el("h3", name), el("ul", *lines, class_="bars"), class_="panel")


def measures(found: Sequence[Measure]) -> Html:
    """Return a histogram for each measure."""
    if not found:
        return Html("")
    panels = [
        el(
            "figure",
            el("figcaption", el("b", measure.title), el("small", measure.unit)),
            charts.histogram(measure.histogram, measure.limits, f"Histogram of {measure.title}"),
            class_="panel",
        )
        for measure in found
    ]
    bounded = sum(1 for measure in found if measure.limits)
    rest = el("details", el("summary", f"{count(len(found) - bounded, 'measure')} without a limit"),
              el("div", *panels[bounded:], class_="grid thirds"), open=True)  # fmt: skip
    legend = el(
        "ul",
        el("li", el("i", class_="swatch back-kept"), "kept"),
        el("li", el("i", class_="swatch back-dropped"), "dropped, by whatever rule"),
        el("li", el("i", class_="swatch excluded-key"), "beyond the limit"),
        class_="legend",
    )
    return section(
        "measures", "Measures and limits",
        f"Each clip is measured once; the policy limits {count(bounded, 'measure')}. Heights grow with the square root "
        "of the number of clips, so that rare values can be seen; the end bins hold what lies beyond.",
        legend, el("div", *panels[:bounded], class_="grid thirds"), len(found) > bounded and rest,
    )  # fmt: skip


def strips(cards: Sequence[Card], total: int) -> Html:
    """Return the contact strips, with buttons to look at one reason at a time."""
    if not cards:
        return Html("")
    groups: dict[tuple[str, str], int] = {}
    for card in cards:
        groups[(card.fate, card.reason)] = groups.get((card.fate, card.reason), 0) + 1
    buttons = [el("button", "all", el("small", number(len(cards))), type="button", data_show="", aria_pressed="true")]
    for (fate, reason), amount in sorted(groups.items(), key=lambda item: (item[0][0] != "kept", -item[1], item[0])):
        label = (el("i", class_=f"swatch back-{fate}"), words(reason), el("small", number(amount)))
        buttons.append(el("button", *label, type="button", data_show=_group(fate, reason), aria_pressed="false"))
    search = el("input", type="search", placeholder="file, caption, camera…", aria_label="Search the strips")
    shown = (
        "All clips" if total == len(cards) else f"{count(len(cards), 'clip')} of {number(total)}, drawn by their keys"
    )
    return section(
        "clips", "Clips",
        f"{shown}. Each strip runs from the first moment of a clip to its last; click one to enlarge it.",
        el("div", el("div", *buttons, class_="chips"), search, class_="filters"),
        el("div", *(clip_card(card) for card in cards), class_="cards", id="cards"),
        el("p", "No clip here matches.", class_="empty", hidden=True),
        el("button", "Show more", class_="more", type="button", hidden=True),
    )  # fmt: skip


def _group(fate: str, reason: str) -> str:
    return f"{fate}/{reason}"


def clip_card(card: Card, anchor: bool = True) -> Html:
    """Return a clip with its strip, what became of it and its facts; with an anchor it may stand once on the page."""
    reason = "kept" if card.fate == "kept" else words(card.reason)
    pill = el("span", reason, class_=f"pill back-{card.fate}")
    judged = None
    if card.fate == "dropped" and card.value is not None and card.limit is not None:
        judged = el("span", f"{number(card.value)} against {number(card.limit)}", class_="judged")
    place = f"{clock(card.start_s)} – {clock(card.end_s)}"
    facts = " · ".join(_facts(card))
    caption = None
    if card.caption:
        caption = el("p", card.caption, card.caption_source and el("small", card.caption_source), class_="caption")
    return el(
        "article",
        _strip(card),
        el("header", pill, judged, el("b", _name(card.uri), class_="clip", title=card.uri), el("time", place)),
        el("p", facts, class_="facts"),
        card.detail and el("p", card.detail, class_="facts"),
        caption,
        class_="card",
        id=f"c-{card.key}" if anchor else None,
        data_group=_group(card.fate, card.reason),
        title=card.key,
    )


def _strip(card: Card) -> Html:
    if card.strip is None:
        return el("div", "no strip", class_="strip none")
    alt = f"Frames of {_name(card.uri)} from {clock(card.start_s)}"
    image = el("img", src=data_uri(card.strip, "image/webp"), alt=alt, decoding="async")
    return el("button", image, class_="strip", type="button", aria_label=f"Enlarge: {alt}")


def _facts(card: Card) -> list[str]:
    facts = card.facts
    parts = [seconds(facts["duration_s"] or card.end_s - card.start_s)]
    if facts["width"] and facts["height"]:
        parts.append(f"{facts['width']}×{facts['height']}")
    if facts["fps"]:
        parts.append(f"{number(round(facts['fps'], 2))} fps")
    if facts["camera"]:
        parts.append(f"camera {words(facts['camera'])}")
    if facts["motion"] is not None:
        parts.append(f"motion {number(facts['motion'])}")
    return parts


def _name(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]


def duplicates(pairs: Sequence[Pair], total: int) -> Html:
    """Return who was replaced by whom, strips one above the other."""
    if not pairs:
        return Html("")
    shown = "All of them" if len(pairs) == total else f"{number(len(pairs))} of {number(total)}"
    return section(
        "duplicates", "Duplicates",
        f"{shown}. The better copy stays; the distance is the mean number of differing bits of 64 between the two "
        "clips' perceptual hashes, at the offset where they agree best.",
        el("div", *(_pair(pair) for pair in pairs), class_="grid halves"),
    )  # fmt: skip


def _pair(pair: Pair) -> Html:
    facts = [
        pair.level and {"copy": "same shot", "excerpt": "excerpt of it"}.get(pair.level, words(pair.level)),
        pair.distance is not None and f"{number(round(pair.distance, 2))} bits apart",
        pair.overlap_s is not None and f"{seconds(pair.overlap_s)} in common",
        pair.offset_s is not None and abs(pair.offset_s) > 0.005 and f"offset {pair.offset_s:+.2f} s",
    ]
    return el(
        "article",
        _side(pair.kept, "stays"),
        _side(pair.dropped, "goes"),
        el("p", el("b", pair.why), pair.why and " · ", " · ".join(fact for fact in facts if fact), class_="facts"),
        class_="card pair",
    )


def _side(card: Card, verdict: str) -> Html:
    style = "kept" if verdict == "stays" else "dropped"
    line = (el("span", verdict, class_=f"pill back-{style}"), el("b", _name(card.uri), class_="clip", title=card.uri))
    place = el("time", clock(card.start_s), f" · {card.facts['width']}×{card.facts['height']}")
    return el("div", _strip(card), el("header", *line, place))


def failures(rows: Sequence[dict[str, Any]], total: int) -> Html:
    """Return what failed, why, and what to do about it."""
    if not rows:
        return section("failures", "Failures", "None: every input was read from its first second to its last.")
    lines = [
        el(
            "tr",
            el("td", el("b", _name(row["uri"] or row["key"] or "–"), title=row["uri"]), el("small", _where(row))),
            el("td", el("code", row["code"])),
            el("td", seconds(row["seconds"]) if row["seconds"] else "–", class_="n"),
            el("td", row["reason"], el("small", row["remedy"])),
        )
        for row in rows
    ]
    head = el("tr", *(el("th", n, scope="col", class_=s) for n, s in _FAILURE_COLUMNS))
    table = el("table", el("thead", head), el("tbody", *lines), class_="failures")
    more = "" if len(rows) == total else f" The {number(len(rows))} that cost most of {number(total)} are listed."
    return section(
        "failures", "Failures",
        f"Whatever could be read before the failure is kept; everything else in the run went on.{more}",
        el("div", table, class_="scroll"),
    )  # fmt: skip


_FAILURE_COLUMNS = (("Input", ""), ("Code", ""), ("Lost", "n"), ("Reason and remedy", ""))


def _where(row: dict[str, Any]) -> str:
    place = f"at {clock(row['start_s'])}" if row["start_s"] is not None else None
    return " · ".join(part for part in (row["stage"], place) if part)


def sources(found: Sequence[Timeline], total: int, anchors: set[str]) -> Html:
    """Return sources as timelines: what became of each stretch."""
    if not found:
        return Html("")
    shown = "" if len(found) == total else f" {number(len(found))} of {number(total)} are shown."
    return section(
        "sources", "Sources from first second to last",
        f"Each line is one source, scaled to its own length; a gap between two clips is a cut.{shown}",
        el("div", *(_timeline(line, anchors) for line in found), class_="timelines"),
    )  # fmt: skip


def _timeline(line: Timeline, anchors: set[str]) -> Html:
    facts = line.facts
    bars = [
        Bar(
            part.start_s,
            part.end_s,
            part.fate,
            f"{clock(part.start_s)} – {clock(part.end_s)}: {part.fate}"
            + ("" if part.reason == part.fate else f", {words(part.reason)}"),
            f"c-{part.key}" if part.key in anchors else None,
        )
        for part in line.stretches
    ]
    about = " · ".join(
        str(part)
        for part in (facts["video_codec"], facts["width"] and f"{facts['width']}×{facts['height']}", facts["licence"])
        if part
    )
    chart = charts.stacked(bars, 14, f"Timeline of {_name(line.uri)}", gap=1.5) or el("small", "not decoded")
    return el(
        "div",
        el("span", el("b", _name(line.uri), class_="clip", title=line.uri), el("small", about)),
        chart,
        el("small", seconds(facts["input_s"] or 0), class_="n"),
        class_="timeline",
    )
