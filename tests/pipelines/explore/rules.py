"""Rules of every form, drawn for property tests on the small run."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from rushes.filters import policy as policies

NUMBERS = ("motion", "luma_mean", "duration_s", "quality", "min_side_px", "aspect", "flicker", "object_speed")


@st.composite
def rules(draw: Any) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(0, 4))):
        name, missing = f"r{number}", draw(st.sampled_from(policies.MISSING))
        form = draw(st.sampled_from(["min", "max", "keep_highest", "keep_lowest", "camera", "still"]))
        rule = {"name": name, "measure": draw(st.sampled_from(NUMBERS)), "missing": missing}
        if form == "camera":
            rule |= {"measure": "camera", draw(st.sampled_from(["in", "not_in"])): ["pan", "static"]}
        elif form == "still":
            rule |= {"measure": "still_picture", "in": [draw(st.booleans())]}
        else:
            rule[form] = draw(st.floats(0.05, 1) if form.startswith("keep") else st.floats(-1, 300))
        found.append(rule)
    return found
