"""Names for what a picture shows: ImageNet probabilities, with fine classes joined to words that people use.

A network trained on ImageNet spreads a dog over 118 breeds and a bottle over four kinds; the sum over the kinds says
"dog" with confidence where no breed does. ImageNet has 1000 classes and no "person": what it does not know, it calls by
the nearest name it has, so only names with a high probability are worth reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float

# Classes by their number in ImageNet-1k (first and last of each range inclusive).
RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "fish": ((0, 6), (389, 397)),
    "bird": ((7, 24), (80, 100), (127, 146)),
    "salamander": ((25, 29),),
    "frog": ((30, 32),),
    "turtle": ((33, 37),),
    "lizard": ((38, 48),),
    "crocodile": ((49, 50),),
    "snake": ((52, 68),),
    "spider": ((72, 77),),
    "dog": ((151, 268),),
    "wild dog": ((269, 275),),
    "fox": ((277, 280),),
    "cat": ((281, 285),),
    "big cat": ((286, 293),),
    "bear": ((294, 297),),
    "insect": ((300, 326),),
    "rabbit": ((330, 332),),
    "deer or antelope": ((351, 353),),  # ImageNet has no deer, and calls one by these
    "monkey": ((365, 384),),
    "fungus": ((991, 997),),
}

# … and by name, where the numbers do not stand together.
MEMBERS: dict[str, tuple[str, ...]] = {
    "elephant": ("tusker", "Indian elephant", "African elephant"),
    "bottle": ("water bottle", "pop bottle", "wine bottle", "beer bottle"),
    "cup": ("cup", "coffee mug", "espresso"),
    "car": (
        "beach wagon", "cab", "convertible", "jeep", "limousine", "minivan", "Model T", "racer", "sports car",
        "police van", "ambulance",
    ),
    "truck": ("fire engine", "garbage truck", "moving van", "pickup", "tow truck", "trailer truck"),
    "bus": ("minibus", "school bus", "trolleybus"),
    "train": ("bullet train", "electric locomotive", "freight car", "passenger car", "steam locomotive", "streetcar"),
    "bicycle": ("bicycle-built-for-two", "mountain bike", "unicycle", "tricycle"),
    "motorcycle": ("moped", "motor scooter"),
    "aircraft": ("airliner", "airship", "warplane", "wing"),
    "boat": (
        "canoe", "catamaran", "fireboat", "gondola", "lifeboat", "schooner", "speedboat", "trimaran", "yawl",
        "container ship", "liner",
    ),
    "bed or couch": ("four-poster", "studio couch", "quilt", "pillow"),
    "suit": ("suit", "Windsor tie", "bow tie"),
    "flower": ("daisy", "yellow lady's slipper"),
    "ball": (
        "baseball", "basketball", "croquet ball", "golf ball", "ping-pong ball", "rugby ball", "soccer ball",
        "tennis ball", "volleyball",
    ),
    "guitar": ("acoustic guitar", "electric guitar"),
    "computer": ("desktop computer", "hand-held computer", "laptop", "notebook", "computer keyboard"),
    "clock": ("analog clock", "digital clock", "wall clock"),
    "bridge": ("steel arch bridge", "suspension bridge", "viaduct"),
    "religious building": ("church", "monastery", "mosque", "stupa"),
}  # fmt: skip

GROUPS = frozenset({*RANGES, *MEMBERS})
"""Names that several classes share."""

# Names that say where something happens rather than what is seen there.
SETTINGS = frozenset(
    {
        "alp", "cliff", "coral reef", "geyser", "lakeside", "promontory", "sandbar", "seashore", "valley", "volcano",
        "bakery", "barbershop", "barn", "bookshop", "butcher shop", "castle", "cinema", "confectionery", "dam", "dock",
        "greenhouse", "grocery store", "home theater", "library", "lumbermill", "palace", "patio", "pier",
        "planetarium", "prison", "religious building", "restaurant", "shoe shop", "stage", "tobacco shop", "toyshop",
        "bridge",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Tag:
    """A name and how probable the network holds it, averaged over the frames."""

    name: str
    probability: float


@cache
def categories() -> tuple[str, ...]:
    """Return the 1000 names of ImageNet in the order of the network's classes."""
    from torchvision.models import EfficientNet_B0_Weights

    return tuple(EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"])


@cache
def names() -> tuple[str, ...]:
    """Return the word for each of the 1000 classes: its group's, or its own."""
    words = list(categories())
    number = {name: k for k, name in enumerate(words)}
    for group, members in MEMBERS.items():
        for member in members:
            words[number[member]] = group
    for group, ranges in RANGES.items():
        for first, last in ranges:
            words[first : last + 1] = [group] * (last + 1 - first)
    return tuple(words)


def tags(probabilities: Float[np.ndarray, "n 1000"], top: int = 5) -> list[Tag]:
    """Return the most probable words for a clip, best first; a group's probability is the sum of its classes'."""
    sums: dict[str, float] = {}
    for word, probability in zip(names(), probabilities.mean(axis=0), strict=True):
        sums[word] = sums.get(word, 0.0) + float(probability)
    best = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:top]
    return [Tag(name, probability) for name, probability in best]


def render(found: Sequence[Tag]) -> str:
    """Return tags as one line, such as `dog 0.71, bridge 0.04`."""
    return ", ".join(f"{tag.name} {tag.probability:.2f}" for tag in found)


def parse(line: str) -> list[Tag]:
    """Return the tags of a line that `render` wrote. Raises ValueError for any other line."""
    found = []
    for item in filter(None, line.split(", ")):
        name, _, probability = item.rpartition(" ")
        try:
            found.append(Tag(name, float(probability)))
        except ValueError:
            raise ValueError(f"{item!r} is no tag; expected a name and a probability, such as 'dog 0.71'") from None
    return found
