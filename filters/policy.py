"""Policies: the limits that decide which clips stay, and nothing else does.

A policy is plain YAML: rules in the order in which they are tried, and how duplicates are told. The first rule that
fails names the reason for dropping a clip. Every limit says where it comes from, and how sure that is.

    name: mine
    about: bright, moving footage
    rules:
      - {name: too_dark, measure: luma_mean, min: 16, basis: ours, source: "below, faces are black"}
      - {name: not_handheld, measure: camera, not_in: [shake], basis: ours, source: a matter of taste}
      - {name: not_the_best, measure: quality, keep_highest: 0.3, basis: ours, source: what we can afford to train on}
    dedup: {min_overlap: 0.75}

A rule has either limits on the value (`min`, `max`, `in`, `not_in`) or a share of the clips: `keep_highest: 0.3` keeps
the 30 % with the highest values, `keep_lowest` those with the lowest. The share is of the clips that passed the rules
before it and have the measure; it is rounded up to whole clips, and equal values are told apart by the clip's key.

Text is limited by `in` and `not_in`, what the lists of inputs say of a film too; letters count as they are written:

      - {name: not_free, measure: licence, in: [CC0-1.0, CC-BY-4.0], basis: ours, source: what our lawyers allow}

A clip without a value is dropped by the rule, or kept by it where that says `missing: keep`.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cached_property
from importlib import resources
from typing import Any

import yaml

from rushes.filters import duplicates
from rushes.filters.duplicates import DuplicateRules

Value = float | str | bool | None
BASES = ("published", "unverified", "ours")
MISSING = ("drop", "keep")
DUPLICATE = "duplicate"
"""The reason that dropped duplicates show."""
TAKEDOWN = "takedown"
"""The reason that footage shows which was taken down."""
RESERVED = frozenset(
    {
        DUPLICATE,
        TAKEDOWN,
        "exact_duplicate",
        "unnamed",
        "kept",
        "dropped",
        "trimmed",
        "failed",
        "pending",
        "found",
        "sum",
    }
)
"""What an account says of its own; as the name of a rule it would be read for that."""
_shown = reprlib.repr  # a policy may come from anywhere: a message quotes no more of it than a line
_RENAMED = {"in": "among", "not_in": "not_among"}


class PolicyError(ValueError):
    """A policy is malformed; the message names the place, what was expected and the remedy."""


class MissingMeasure(ValueError):
    """A rule needs a measure that nobody made; the message names it and how to get it."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One limit on one measure: bounds, all of which must hold and which are inclusive, or a share of the clips."""

    name: str
    """The reason that dropped clips will show."""
    measure: str
    """A measured column of a clip, a derived one (`pixels`, `min_side_px`, `aspect`), or the name of a scorer."""
    min: float | None = None
    """Smallest value that passes."""
    max: float | None = None
    """Largest value that passes."""
    among: tuple[Value, ...] | None = None
    """Values that pass; written `in` in YAML."""
    not_among: tuple[Value, ...] | None = None
    """Values that do not; written `not_in` in YAML."""
    keep_highest: float | None = None
    """Share of the clips that passed the rules before, 0 < share ≤ 1, that stays: those with the highest values."""
    keep_lowest: float | None = None
    """The same for the lowest values."""
    missing: str = "drop"
    """What becomes of a clip that has no such value: `drop`, and where nobody measured it nothing runs, or `keep`."""
    source: str = ""
    """Where the limit comes from."""
    basis: str = "ours"
    """`published` and read there, `unverified` (said to be published, not read), or `ours`: chosen or translated."""

    @property
    def share(self) -> float | None:
        """The share of clips that the rule keeps; None where it limits the value itself."""
        return self.keep_lowest if self.keep_highest is None else self.keep_highest

    def count(self, clips: int) -> int:
        """Return how many of the clips a share keeps: rounded up, of the share as it is written, not as floats are."""
        return clips if self.share is None else math.ceil(Fraction(str(self.share)) * clips)

    def passes(self, value: Value) -> bool:
        """Return whether a value passes; None and NaN, which mean that there is none, only where `missing` is keep.

        Raises PolicyError for a share, which no value passes by itself.
        """
        if self.share is not None:
            raise PolicyError(f"rule {self.name} keeps a share of all clips, so {self.measure} must be a number")
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return self.missing == "keep"
        among, not_among = self._lists
        listed = among is None or value in among
        unlisted = not_among is None or value not in not_among
        return listed and unlisted and self.broken(value) is None

    @cached_property
    def _lists(self) -> tuple[frozenset[Value] | None, ...]:
        """`among` and `not_among` as sets: a list of films may be long, and every film is looked up in it."""
        return tuple(None if one is None else frozenset(one) for one in (self.among, self.not_among))

    def broken(self, value: Value) -> float | None:
        """Return the numeric limit that a value breaks, None where it breaks none."""
        if value is None or (self.min is None and self.max is None):
            return None
        if isinstance(value, str):
            raise PolicyError(f"rule {self.name} compares {self.measure}={value!r} with a number; use in or not_in")
        if self.min is not None and value < self.min:
            return float(self.min)
        return float(self.max) if self.max is not None and value > self.max else None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Rules in order, and how duplicates are told."""

    name: str
    about: str = ""
    rules: tuple[Rule, ...] = ()
    dedup: DuplicateRules = field(default_factory=DuplicateRules)


def missing(rule: Rule, known: Iterable[str], remedy: str = "") -> MissingMeasure:
    """Return the error for a rule whose measure is nowhere: what gets it, or the measures that there are."""
    said = remedy or f"measures here are {', '.join(sorted(known))}"
    return MissingMeasure(f"rule {rule.name} needs the measure {rule.measure!r}, which no clip has; {said}")


def load(policy: str | Mapping[str, Any]) -> Policy:
    """Return the policy that YAML text or a mapping describes. Raises PolicyError for unknown keys and wrong values."""
    if isinstance(policy, str):
        try:
            policy = yaml.load(policy, _Once)
        except yaml.MarkedYAMLError as error:
            raise PolicyError(_unread(error)) from error
        except (yaml.YAMLError, RecursionError) as error:
            said = " ".join(str(error).split()) or "it is nested too deep"
            raise PolicyError(f"the policy is not valid YAML: {said}") from error
    if not isinstance(policy, Mapping):
        raise PolicyError(f"a policy is a mapping with name, about, rules and dedup, not {type(policy).__name__}")
    _known(policy, {"name", "about", "rules", "dedup"}, "the policy")
    if not policy.get("name"):
        raise PolicyError("the policy has no name; give it one, since it stands in every row of the selection")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", str(policy["name"])):
        raise PolicyError(
            f"the policy's name {_shown(policy['name'])} may hold only letters, digits, _ and -, 64 at most"
        )
    rules = policy.get("rules") or []
    if not isinstance(rules, list):
        raise PolicyError(f"rules is a list of mappings, not {type(rules).__name__}")
    parsed = tuple(_rule(rule, place) for place, rule in enumerate(rules, 1))
    names = [rule.name for rule in parsed]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PolicyError(f"rule names must differ, since they are the reasons shown; twice: {', '.join(twice)}")
    return Policy(
        name=str(policy["name"]), about=str(policy.get("about", "")), rules=parsed, dedup=_dedup(policy.get("dedup"))
    )


def _unread(error: yaml.MarkedYAMLError) -> str:
    """Return in one sentence what keeps YAML from being read, and where: the parser's own text takes many lines."""
    said = "; ".join(" ".join(part.split()) for part in (error.context, error.problem) if part)
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{where}the policy is not valid YAML ({said})"


class _Once(yaml.SafeLoader):
    """A safe loader for which a key that comes twice is an error: the first of two lists of rules would go unseen."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping as the safe loader does. Raises YAMLError naming line and key where a key comes twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=f"the key {key.value} comes twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def presets() -> list[str]:
    """Return the names of the policies that come with the package."""
    folder = resources.files("rushes.filters") / "presets"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def preset(name: str) -> Policy:
    """Return a policy that comes with the package. Raises PolicyError that lists them for an unknown name."""
    return load(preset_text(name))


def preset_text(name: str) -> str:
    """Return the YAML of a policy that comes with the package, with its comments; raises as `preset` does."""
    if name not in presets():
        raise PolicyError(
            f"there is no preset {name!r}; there are {', '.join(presets())}, or give the path of a YAML file"
        )
    return (resources.files("rushes.filters") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def _known(given: Mapping[str, Any], allowed: set[str], where: str) -> None:
    if unknown := sorted(str(key) for key in set(given) - allowed):
        raise PolicyError(f"{where} has no key {', '.join(unknown)}; it has {', '.join(sorted(allowed))}")


def _rule(given: Any, place: int) -> Rule:
    if not isinstance(given, Mapping):
        raise PolicyError(
            f"rule {place} is a mapping such as {{name: dark, measure: luma_mean, min: 16}}, not {_shown(given)}"
        )
    where = f"rule {place} ({given['name']})" if given.get("name") else f"rule {place}"
    back = {new: old for old, new in _RENAMED.items()}
    _known(given, {back.get(f.name, f.name) for f in fields(Rule)}, where)
    values: dict[str, Any] = {_RENAMED.get(str(key), str(key)): value for key, value in given.items()}
    for key in ("name", "measure"):
        if not isinstance(values.get(key), str) or not values[key]:
            raise PolicyError(f"{where} needs a {key}, which is text")
    if values["name"].strip().lower() in RESERVED:
        raise PolicyError(f"{where}: the name {values['name']} means something else in every account; choose another")
    for key in ("min", "max", "keep_highest", "keep_lowest"):
        number = values.get(key)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise PolicyError(f"{where}: {key}={_shown(number)} is not a number")
        if number is not None and not math.isfinite(number):
            raise PolicyError(f"{where}: {key}={_shown(number)} is not a finite number")
    for key in ("among", "not_among"):
        if key in values:
            if not isinstance(values[key], list):
                raise PolicyError(f"{where}: {back[key]} is a list of values, not {_shown(values[key])}")
            if any(not isinstance(value, str | bool | int | float | None) for value in values[key]):
                raise PolicyError(
                    f"{where}: {back[key]} holds {_shown(values[key])}; it may hold text, numbers, true, false"
                )
            values[key] = tuple(values[key])
    return _checked(Rule(**values), where)


def _checked(rule: Rule, where: str) -> Rule:
    if rule.missing not in MISSING:
        raise PolicyError(f"{where}: missing={_shown(rule.missing)} is neither drop nor keep")
    for name, listed in (("in", rule.among), ("not_in", rule.not_among)):
        if listed is not None and not listed:
            raise PolicyError(f"{where}: {name} lists no value; fill it, or leave the rule out")
        if listed is not None and None in listed:
            raise PolicyError(
                f"{where}: {name} lists null, which is no value; missing: drop or keep says what has none"
            )
    if rule.basis not in BASES:
        raise PolicyError(f"{where}: basis={_shown(rule.basis)} is none of {', '.join(BASES)}")
    bounded = any(bound is not None for bound in (rule.min, rule.max, rule.among, rule.not_among))
    shares = [share for share in (rule.keep_highest, rule.keep_lowest) if share is not None]
    if not bounded and not shares:
        raise PolicyError(f"{where} sets no limit; give min, max, in, not_in, keep_highest or keep_lowest")
    if len(shares) + bounded > 1:
        raise PolicyError(f"{where} mixes keep_highest, keep_lowest and limits; give one of them a rule of its own")
    if shares and not 0 < shares[0] <= 1:
        raise PolicyError(f"{where}: a share to keep of {shares[0]} is not between 0 and 1; 30 % is 0.3")
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        raise PolicyError(f"{where}: min={rule.min} is above max={rule.max}, so no clip would pass")
    return rule


def _dedup(given: Any) -> DuplicateRules:
    try:
        return duplicates.rules({} if given is None else given)
    except ValueError as error:
        raise PolicyError(str(error)) from error
