"""What the camera of a clip does, from the motion of its ticks (`filters/motion.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

STILL = 0.012
"""Camera speed, widths per second, below which a camera stands (a tripod's wobble and the flow's noise)."""


class Camera(NamedTuple):
    """The camera of a clip; the speeds are means over its ticks, with their sign."""

    label: str
    """static, pan, tilt, zoom, roll, shake or moving."""
    speed: float
    """Mean speed of the camera's motion over the picture: widths per second."""
    shake: float
    """Mean change of pan and tilt from tick to tick: widths per second."""
    pan: float
    tilt: float
    zoom: float
    roll: float
    steady: float
    """Speed of the mean motion, which goes one way and adds up: widths per second, at most `speed`."""


def camera(
    ticks: Mapping[str, npt.NDArray[np.floating]], lasting_s: npt.NDArray[np.float64], aspect: float = 16 / 9
) -> Camera:
    """Summarise the camera over the ticks of one clip.

    The first tick of a clip compares it with what stood before and must be left out.

    Args:
        ticks: arrays `pan`, `tilt`, `zoom`, `roll`, one number per tick.
        lasting_s: how long each tick lasts: at 15 frames per second, two frames or three.
        aspect: width by height of the picture.
    """
    pan, tilt, zoom, roll = (np.asarray(ticks[name], np.float64) for name in ("pan", "tilt", "zoom", "roll"))
    speed = mean(camera_speed(pan, tilt, zoom, roll, aspect), lasting_s)
    shake = mean(np.hypot(np.diff(pan), np.diff(tilt)), lasting_s[1:])
    means = (mean(pan, lasting_s), mean(tilt, lasting_s), mean(zoom, lasting_s), mean(roll, lasting_s))
    across, up, grows, turns = np.array(means)[:, None]
    steady = float(camera_speed(across, up, grows, turns, aspect)[0])
    return Camera(camera_label(*means, speed=speed, shake=shake, aspect=aspect), speed, shake, *means, steady)


def mean(values: npt.NDArray[np.float64], lasting_s: npt.NDArray[np.float64]) -> float:
    """Return the mean over time of numbers that last unequally long; 0 without any."""
    return float(values @ lasting_s / lasting_s.sum()) if len(values) else 0.0


def camera_speed(
    pan: npt.NDArray, tilt: npt.NDArray, zoom: npt.NDArray, roll: npt.NDArray, aspect: float = 16 / 9
) -> npt.NDArray[np.float64]:
    """Return the root mean square over the picture of the camera's motion, in widths per second."""
    return np.sqrt(pan**2 + tilt**2 + _reach(aspect) ** 2 * (zoom**2 + roll**2))


def _reach(aspect: float) -> float:
    """Root mean square distance of a pixel from the centre, in widths."""
    return float(np.sqrt((1 + aspect**-2) / 12))


def camera_label(
    pan: float, tilt: float, zoom: float, roll: float, *, speed: float, shake: float, aspect: float = 16 / 9
) -> str:
    """Return static, pan, tilt, zoom, roll, shake or moving from a clip's mean camera motion.

    A steady move adds up over the clip and its largest part names it, if it clearly is the largest; motion that does
    not add up is shake.
    """
    if speed < STILL:
        return "static"
    parts = {"pan": abs(pan), "tilt": abs(tilt), "zoom": abs(zoom) * _reach(aspect), "roll": abs(roll) * _reach(aspect)}
    name = max(parts, key=lambda part: parts[part])
    steady = float(np.sqrt(sum(part**2 for part in parts.values())))
    if steady < 0.4 * speed:
        return "shake" if shake > 0.5 * speed else "moving"
    others = max(value for part, value in parts.items() if part != name)
    return name if parts[name] > 1.6 * others else "moving"
