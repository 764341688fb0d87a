"""Words for what was measured: a caption that says nothing which no instrument saw.

The embedded captioner of the project. It knows no verbs and no people; it names what ImageNet knows where that is
probable, and describes camera, movement, light and length from measurements. Every limit below turns a number into an
everyday word; none decides whether a clip is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rushes.filters.tags import GROUPS, SETTINGS, Tag

FIELDS = ("subject", "action", "setting", "shot_size", "camera_motion", "light", "style", "short", "long")
"""The parts of a structured caption; a part of which nothing is known is an empty string."""

CERTAIN, CERTAIN_ALONE = 0.45, 0.6
"""Probability from which a tag goes into a caption: a name that several classes of ImageNet share, and one of its own.

A picture of what ImageNet does not know often falls to one fine class, seldom to many kinds of one thing. Of 250 clips
and pictures (photographs, films, drawings, test cards) names of one class from 0.4 to 0.6 were wrong, "bubble" 0.56,
"prison" 0.55 and "hair slide" 0.53 among them (of "solar dish" 0.54, for a roof, one may doubt), and one above was
right; shared names were right from 0.45 on but for the silhouette of a horse ("dog"), and wrong as often as not below.
"""
BARE = frozenset(
    {"binoculars", "broccoli", "carbonara", "chain mail", "corn", "dough", "guacamole", "hay", "ice cream",
     "mashed potato", "parallel bars", "rapeseed", "sunglasses", "swimming trunks", "toilet tissue", "velvet", "wool"}
)  # fmt: skip
"""Names of ImageNet that take no article."""
WORDING = 2
"""Counts how the words of captions changed; captions of an older wording are composed anew."""

SLOW_WIDTHS, FAST_WIDTHS = 0.08, 0.4  # picture widths per second
SMALL_AREA, LARGE_AREA = 0.03, 0.25  # share of the picture
NEAR_BLACK, DARK, BRIGHT = 16.0, 60.0, 170.0  # mean luma of 0 … 255
LOW_CONTRAST = 20.0  # deviation of luma
BAR, FLASH = 0.02, 0.15  # share of the picture that is bars, of the frames that are black or white

Facts = Mapping[str, Any]
"""The measured columns of a clip, as the table `clips` names them; what is missing or null is left unsaid."""


def is_certain(tag: Tag) -> bool:
    """Whether a tag is probable enough to be said."""
    return tag.probability >= (CERTAIN if tag.name in GROUPS else CERTAIN_ALONE)


def compose(facts: Facts, tags: Sequence[Tag]) -> dict[str, str]:
    """Return a structured caption, every field of `FIELDS`, of a clip's measured facts and its tags.

    The fields are facts in fixed words; `short` and `long` say of them what tells a clip from others. That a picture is
    of medium light, or has bars, which packing crops, tells nobody anything.
    """
    sure = [tag.name for tag in tags if is_certain(tag)]
    subjects, settings = ([name for name in sure if (name in SETTINGS) is place] for place in (False, True))
    parts = {
        "subject": " and ".join(subjects),
        "action": action(facts),
        "setting": " and ".join(settings),
        "shot_size": "",  # no instrument here measures it
        "camera_motion": camera_motion(facts),
        "light": light(facts),
        "style": style(facts),
    }
    seen = " and ".join(map(with_article, [*subjects, *settings]))
    parts["short"] = short(seen, facts)
    parts["long"] = " ".join(sentences(seen, facts))
    return {field: parts[field] for field in FIELDS}


def _number(facts: Facts, name: str) -> float | None:
    value = facts.get(name)
    return None if value is None else float(value)


def action(facts: Facts) -> str:
    """Return how much moves besides the camera, such as `fast movement in a small part of the picture`; else empty."""
    if facts.get("still_picture"):
        return "a still picture"
    speed, area = _number(facts, "object_speed"), _number(facts, "object_area")
    if speed is None or area is None:
        return ""
    if area < SMALL_AREA / 3 or speed <= 0:
        return "hardly any movement"
    pace = "slow " if speed < SLOW_WIDTHS else "fast " if speed > FAST_WIDTHS else ""
    extent = " in a small part of the picture" if area < SMALL_AREA else ""
    extent = " in much of the picture" if area > LARGE_AREA else extent
    # Movement of a middling pace in some part of the picture: so is most of all footage.
    return f"{pace}movement{extent}" if pace or extent else ""


def camera_motion(facts: Facts) -> str:
    """Return the camera's motion in the fixed words of captions, such as `pan left`; empty where it was not measured.

    The words are static, pan left, pan right, tilt up, tilt down, zoom in, zoom out, roll, shake and moving.
    """
    label = facts.get("camera") or ""
    if label in ("static", "shake", "roll", "moving"):
        return label
    value = _number(facts, label) if label in _WAYS else None
    if not value:
        return "moving" if label in _WAYS else ""
    return f"{label} {_WAYS[label][value < 0]}"


_WAYS = {"pan": ("right", "left"), "tilt": ("up", "down"), "zoom": ("in", "out")}


def camera(facts: Facts) -> str:
    """Return the camera's motion with its pace and direction, such as `slow pan to the left`."""
    label = facts.get("camera") or ""
    if label == "static":
        return "static camera"
    if label == "shake":
        return "shaky camera"
    if label not in _DIRECTIONS:
        return ""
    pace = _pace(_number(facts, "camera_speed"))
    if label == "moving":
        pace = pace.replace(" ", "-")
    return pace + _direction(label, _number(facts, label))


def _pace(speed: float | None) -> str:
    if speed is None or SLOW_WIDTHS <= speed <= FAST_WIDTHS:
        return ""
    return "slow " if speed < SLOW_WIDTHS else "fast "


# What a positive and a negative value of the column means.
_DIRECTIONS = {
    "pan": ("pan to the right", "pan to the left"),
    "tilt": ("tilt up", "tilt down"),
    "zoom": ("zoom in", "zoom out"),
    "roll": ("roll", "roll"),
    "moving": ("moving camera", "moving camera"),
}


def _direction(label: str, value: float | None) -> str:
    ahead, back = _DIRECTIONS[label]
    if ahead == back:
        return ahead
    return label if not value else ahead if value > 0 else back


def light(facts: Facts) -> str:
    """Return how light the picture is (nearly black, dark, medium, bright), and whether it is of low contrast."""
    mean, spread = _number(facts, "luma_mean"), _number(facts, "luma_std")
    if mean is None:
        return ""
    if mean < NEAR_BLACK:
        return "nearly black"
    name = "dark" if mean < DARK else "bright" if mean > BRIGHT else "medium light"
    return f"{name}, low contrast" if spread is not None and spread < LOW_CONTRAST else name


def style(facts: Facts) -> str:
    """Return what was measured of the form: black bars, frames of black or white; empty where there is none."""
    left, top, right, bottom = (_number(facts, f"crop_{side}") or 0.0 for side in ("left", "top", "right", "bottom"))
    found = ["letterboxed"] if top + bottom > BAR else []
    found += ["pillarboxed"] if left + right > BAR else []
    found += [f"{name} frames" for name in ("black", "white") if (_number(facts, name) or 0.0) > FLASH]
    return ", ".join(found)


def with_article(noun: str) -> str:
    """Return a noun with its article, where it takes one: `a dog`, `an insect`, `wool`."""
    if noun in BARE:
        return noun
    vowel = noun[:1].lower() in "aeiou" and not noun.startswith("uni")
    return f"{'an' if vowel else 'a'} {noun}"


def short(seen: str, facts: Facts) -> str:
    """Return one line: what is seen, where that is known, then how; empty where nothing is known."""
    moves = "" if facts.get("still_picture") else action(facts)
    line = ", ".join(filter(None, [_shown(seen, facts), _camera_told(facts), moves, *_shade(facts)]))
    return f"{_capital(line)}." if line else ""


def sentences(seen: str, facts: Facts) -> Iterator[str]:
    """Yield the sentences of the long caption; the first has what is seen, how long, and what the camera does."""
    seconds = _number(facts, "duration_s")
    shot = f"A shot of {seconds:.1f} seconds" if seconds is not None else "A shot"
    shown, motion, moves = _shown(seen, facts), _camera_told(facts), action(facts)
    shot += f" that shows {shown}" if shown else ""
    if motion:
        shot += f"{', ' if shown else ' '}with a {motion.replace('roll', 'roll of the camera')}"
    yield f"{shot}."
    if moves == "hardly any movement":
        stands = motion in ("", "static camera")
        yield "Hardly anything moves." if stands else "Apart from the camera hardly anything moves."
    elif moves and not facts.get("still_picture"):
        yield f"There is {moves}."
    if shade := _shade(facts):
        yield f"The picture is {' and '.join(shade).replace('low contrast', 'of low contrast')}."
    yield from (f"Some frames are {name}." for name in _flashes(facts))


def _shown(seen: str, facts: Facts) -> str:
    if not facts.get("still_picture"):
        return seen
    return f"a still picture of {seen}" if seen else "a still picture"


def _camera_told(facts: Facts) -> str:
    """Return what the camera does, where that is not told by the picture's being still."""
    motion = camera(facts)
    return "" if motion == "static camera" and facts.get("still_picture") else motion


def _shade(facts: Facts) -> list[str]:
    """Return what is uncommon in the light of a picture: nearly black, dark or bright, and low contrast."""
    told = light(facts).split(", ")
    return [word for word in told if word not in ("", "medium light")]


def _flashes(facts: Facts) -> list[str]:
    """Return which frames a clip has beside pictures: black, white; none where the whole of it is still or so."""
    whole = facts.get("still_picture") or light(facts).startswith(("nearly black", "bright, low contrast"))
    return [] if whole else [name for name in ("black", "white") if (_number(facts, name) or 0.0) > FLASH]


def _capital(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}"


def near_identical(
    captions: Mapping[str, str], threshold: float = 0.8, permutations: int = 128
) -> list[tuple[str, str, float]]:
    """Return pairs of keys whose captions say almost the same, with their Jaccard similarity over words, sorted.

    Candidates come from MinHash LSH, so that the cost grows with the captions, not with their pairs; each is then
    verified on the words themselves. Captions of the same words are joined first: what a million clips share gives a
    million pairs with the first of them, not their square.
    """
    from datasketch import MinHash, MinHashLSH

    said_by: dict[str, frozenset[str]] = {}
    first: dict[frozenset[str], str] = {}
    pairs: list[tuple[str, str, float]] = []
    for key, caption in sorted(captions.items()):
        said = words(caption)
        if said in first:
            pairs.append((first[said], key, 1.0))
        elif said:
            first[said] = key
            said_by[key] = said
    index = MinHashLSH(threshold=max(0.1, threshold - 0.15), num_perm=permutations)  # wider: verified below
    for key, said in said_by.items():
        sketch = MinHash(num_perm=permutations)
        sketch.update_batch([word.encode() for word in sorted(said)])
        for other in index.query(sketch):
            similarity = len(said & said_by[other]) / len(said | said_by[other])
            if similarity >= threshold:
                pairs.append((other, key, similarity))
        index.insert(key, sketch)
    return sorted(pairs)


def words(caption: str) -> frozenset[str]:
    """Return the words of a caption in lower case, without punctuation, in any script."""
    return frozenset(re.findall(r"\w+", caption.lower()))
