"""What a captioning model says against what was measured: fixed words for fields, and contradictions by kind.

A model that is told `pan left` and still writes `static` is wrong about the one thing that an instrument saw. Only
plain contradictions count: what the words leave open, or no instrument measures, is never one. English words are
understood, others are left in peace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rushes.filters.caption import BRIGHT, DARK, FAST_WIDTHS, LARGE_AREA, Facts, action, camera_motion

SHOT_SIZES = (
    "extreme close-up", "close-up", "medium close-up", "medium shot", "full shot", "wide shot", "extreme wide shot",
)  # fmt: skip
CAMERA_MOTIONS = (
    "static", "pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out", "roll", "shake", "moving",
)  # fmt: skip
KINDS = ("camera", "movement", "light", "cuts", "length", "shot_size")
"""What a contradiction can be about; `shot_size` is a word outside the vocabulary."""

LONGEST_QUOTE = 60  # characters of an answer that are quoted


class Check(NamedTuple):
    """One contradiction between an answer and a measurement."""

    kind: str
    """One of `KINDS`."""
    said: str
    """The words of the answer."""
    measured: str
    """The measurement, in words."""

    def __str__(self) -> str:
        said = self.said[:LONGEST_QUOTE].replace(";", ",")  # which parts the checks of a caption
        return f"{self.kind}: said '{said}', measured '{self.measured}'"


# --------------------------------------------------------------------------------------------------- fixed vocabularies

_SIZES = (  # the first that is found; the longer names stand before what they contain
    (r"extreme(ly)?[- ](close|tight)|\becu\b|\bxcu\b|macro", "extreme close-up"),
    (r"medium[- ]close|\bmcu\b|head[- ]and[- ]shoulders|bust", "medium close-up"),
    (r"close[- ]?up|\bcu\b|tight shot", "close-up"),
    (r"extreme(ly)?[- ](wide|long)|establishing|\bews\b|\bels\b|aerial", "extreme wide shot"),
    (r"medium[- ](wide|long)|full|\bfs\b|american shot|cowboy", "full shot"),
    (r"medium|mid[- ]?shot|\bms\b|waist|half[- ]body", "medium shot"),
    (r"wide|long|\bws\b|\bls\b", "wide shot"),
)
_MOTIONS = (
    (r"\b(no|without|not any) (camera )?(motion|movement)|\bstatic\b|\bstationary\b|\bfixed\b|\bstill\b|\btripod\b"
     r"|\bdoes(n't| not) move|^none$|\bunmoving\b|\blocked[- ](off|down)\b", "static"),
    (r"\bpan\w*\b.*\bleft|\bleft\w*\b.*\bpan", "pan left"),
    (r"\bpan\w*\b.*\bright|\bright\w*\b.*\bpan", "pan right"),
    (r"\btilt\w*\b.*\bup|\bup\w*\b.*\btilt", "tilt up"),
    (r"\btilt\w*\b.*\bdown|\bdown\w*\b.*\btilt", "tilt down"),
    (r"\b(zoom\w*|push\w*|dolly\w*|dollies)\b.*\bin\b|\bin\w*\b.*\bzoom", "zoom in"),
    (r"\b(zoom\w*|pull\w*|dolly\w*|dollies)\b.*\b(out|back)\b|\bout\w*\b.*\bzoom", "zoom out"),
    (r"\b(roll(s|ing)?|rotat\w*)\b", "roll"),
    (r"\bshak\w*|\bhand-?held|\bjitter\w*|\bwobbl\w*", "shake"),
    (r"\bmov\w*|\btrack\w*|\bfollow\w*|\bpan\w*|\btilt\w*|\bzoom\w*|\bdolly\w*|\bcrane\w*|\borbit\w*|\bfl(y|ies|ying)\b"
     r"|\bdrift\w*|\bslid\w*|\bpush\w*|\bpull\w*", "moving"),
)  # fmt: skip


def shot_size(text: str) -> str:
    """Return the shot size that some words name, one of `SHOT_SIZES`; empty where they name none."""
    return _first(_SIZES, text)


def said_motion(text: str) -> str:
    """Return the camera motion that some words name, one of `CAMERA_MOTIONS`; empty where they name none."""
    return _first(_MOTIONS, text)


def _first(named: tuple[tuple[str, str], ...], text: str) -> str:
    text = text.lower()
    return next((name for pattern, name in named if re.search(pattern, text)), "")


# ------------------------------------------------------------------------------------------------------- contradictions


def reconcile(parts: Mapping[str, str], facts: Facts) -> tuple[dict[str, str], list[Check]]:
    """Return a model's caption in the fixed vocabularies, the measured camera put in place, and what it contradicts.

    Args:
        parts: every field of `rushes.filters.caption.FIELDS`.
        facts: the measured columns of the clip.
    """
    size = shot_size(parts["shot_size"])
    measured = camera_motion(facts)
    settled = {**parts, "shot_size": size, "camera_motion": measured or said_motion(parts["camera_motion"])}
    found = [*_camera(parts, measured), *_movement(parts, facts), *_light(parts, facts), *_cuts(parts)]
    found += _length(parts, facts)
    if parts["shot_size"] and not size:
        found.append(Check("shot_size", parts["shot_size"], "no size of that name"))
    return settled, found


_CAMERA_IN_TEXT = re.compile(
    r"\b(?:static|stationary|fixed|still|shaky|moving|panning|tilting|zooming|handheld|hand-held) (?:camera|shot)\b"
    r"|\bcamera (?:is|stays|remains|holds)? ?(?:slowly |gently |quickly |smoothly |slightly |steadily )?"
    r"(?:static|stationary|fixed|still|shaky|(?:pan|tilt|zoom)\w*(?: to the)? (?:left|right|up|down|in|out))\b"
)


def _camera(parts: Mapping[str, str], measured: str) -> Iterator[Check]:
    if not measured:
        return
    told = [parts["camera_motion"], *_CAMERA_IN_TEXT.findall(f"{parts['short']} {parts['long']}".lower())]
    for words in told:
        if _disagree(said_motion(words), measured):
            yield Check("camera", words, measured)
            return  # one finding of a kind


def _disagree(said: str, measured: str) -> bool:
    """Whether one name excludes the other: a camera that moves in no one way may well be said to pan a little."""
    if not said or said == measured:
        return False
    if "static" in (said, measured):
        return True
    return not {"moving", "shake"} & {said, measured}


_STILL = re.compile(
    r"\b(motionless|immobile|unmoving|nothing moves|no (visible )?(movement|motion)|frozen in place|(a|the) still "
    r"(picture|image|photo\w*|frame)|perfectly still|completely still)\b"
)
_MOVES = re.compile(
    r"\b(runs?|running|walks?|walking|jumps?|jumping|danc(es|ing)|driv(es|ing)|speeds|races|racing|flies|flying|swims?|"
    r"swimming|spins|spinning|fights|fighting|explodes|exploding|gallops|galloping)\b"
)


def _movement(parts: Mapping[str, str], facts: Facts) -> Iterator[Check]:
    told = f"{parts['action']} {parts['short']}".lower()
    measured = action(facts)
    if measured == "a still picture" and (found := _MOVES.search(told)):
        yield Check("movement", found[0], measured)
    speed, area = facts.get("object_speed"), facts.get("object_area")
    lively = not facts.get("still_picture") and (speed or 0) > FAST_WIDTHS and (area or 0) > LARGE_AREA
    if lively and (found := _STILL.search(told)):
        yield Check("movement", found[0], measured)


_DARK = re.compile(r"\b(night(time)?|dark(ness)?|dim(ly)?( lit)?|unlit|low[- ]key|pitch[- ]black|nearly black)\b")
_BRIGHT = re.compile(r"\b(bright(ly)?|sunny|sunlit|daylight|high[- ]key|overexposed|dazzling)\b")


def _light(parts: Mapping[str, str], facts: Facts) -> Iterator[Check]:
    """Only the field `light` speaks of the whole picture; a dark coat in the text says nothing of it."""
    luma = facts.get("luma_mean")
    if luma is None:
        return
    told = parts["light"].lower()
    dark, bright = _DARK.search(told), _BRIGHT.search(told)
    if dark and not bright and luma > BRIGHT:
        yield Check("light", dark[0], f"mean luma {luma:.0f} of 255")
    if bright and not dark and luma < DARK:
        yield Check("light", bright[0], f"mean luma {luma:.0f} of 255")


_CUTS = re.compile(
    r"\b((then |video |scene |shot |camera |clip )cuts (to|away|back)|scene changes|(video|scene|shot) (then )?"
    r"(switches|transitions|shifts|changes) to|montage|(a )?(series|sequence) of (shots|scenes|clips)|(two|three|four|"
    r"five|several|multiple|different) (shots|scenes))\b"
)


def _cuts(parts: Mapping[str, str]) -> Iterator[Check]:
    """A clip is one shot: whoever sees a cut in it saw another clip, or took frames apart in time for scenes."""
    if found := _CUTS.search(f"{parts['action']} {parts['short']} {parts['long']}".lower()):
        yield Check("cuts", found[0], "one shot")


_SECONDS = re.compile(r"\b(\d+(?:\.\d+)?)[- ]?seconds?[- ](?:long |of )?(?:clip|video|shot)\b")


def _length(parts: Mapping[str, str], facts: Mapping[str, Any]) -> Iterator[Check]:
    measured = facts.get("duration_s")
    found = _SECONDS.search(f"{parts['short']} {parts['long']}".lower())
    if found and measured is not None and abs(float(found[1]) - measured) > max(1.0, 0.25 * measured):
        yield Check("length", found[0], f"{measured:.1f} s")
