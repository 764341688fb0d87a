"""Policies: the limits that decide which clips stay, and nothing else does.

A policy is plain YAML: rules in the order in which they are tried, and how duplicates are told. The first rule that
fails names the reason for dropping a clip. Every limit says where it comes from, and how sure that is.

    name: mine
    about: bright, moving footage
    rules:
      - {name: too_dark, measure: luma_mean, min: 16, basis: ours, source: "below, faces are black"}
      - {name: not_handheld, measure: camera, not_in: [shake], basis: ours, source: a matter of taste}
    dedup: {min_overlap: 0.75}
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from typing import Any

import yaml

from filters import duplicates
from filters.duplicates import DuplicateRules

Value = float | str | bool | None
BASES = ("published", "unverified", "ours")
_RENAMED = {"in": "among", "not_in": "not_among"}


class PolicyError(ValueError):
    """A policy is malformed; the message names the place, what was expected and the remedy."""


class MissingMeasure(ValueError):
    """A rule needs a measure that nobody made; the message names it and how to get it."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One limit on one measure. A clip passes if every bound that is set holds; bounds are inclusive."""

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
    optional: bool = False
    """Whether a clip without this measure passes; otherwise it is dropped, and without the scorer nothing runs."""
    source: str = ""
    """Where the limit comes from."""
    basis: str = "ours"
    """`published` and read there, `unverified` (said to be published, not read), or `ours`: chosen or translated."""

    def passes(self, value: Value) -> bool:
        """Return whether a value passes; None and NaN, which mean that it could not be measured, only if optional."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return self.optional
        listed = self.among is None or value in self.among
        unlisted = self.not_among is None or value not in self.not_among
        return listed and unlisted and self.broken(value) is None

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
class Verdict:
    """What a policy says of one clip: kept, or the first rule that failed with the value and the limit it broke."""

    kept: bool
    rule: str | None = None
    value: Value = None
    limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Rules in order, and how duplicates are told."""

    name: str
    about: str = ""
    rules: tuple[Rule, ...] = ()
    dedup: DuplicateRules = field(default_factory=DuplicateRules)

    def verdict(self, measures: Mapping[str, Value]) -> Verdict:
        """Return the verdict on one clip. Raises MissingMeasure if a rule's measure is not among the keys.

        A key whose value is None was tried and could not be measured; unless the rule is optional, the clip is dropped.
        """
        for rule in self.rules:
            if rule.measure not in measures and not rule.optional:
                raise missing(rule, measures)
            value = measures.get(rule.measure)
            if not rule.passes(value):
                return Verdict(kept=False, rule=rule.name, value=value, limit=rule.broken(value))
        return Verdict(kept=True)


def missing(rule: Rule, known: Any) -> MissingMeasure:
    """Return the error for a rule whose measure is nowhere."""
    return MissingMeasure(
        f"rule {rule.name} needs the measure {rule.measure!r}, which no clip has; measures here: "
        f"{', '.join(sorted(known))}. If it is a model's, add it to score.scorers and give its weights "
        f"(rushes doctor says how), or set optional: true in the rule to pass clips without it"
    )


def load(policy: str | Mapping[str, Any]) -> Policy:
    """Return the policy that YAML text or a mapping describes. Raises PolicyError for unknown keys and wrong values."""
    if isinstance(policy, str):
        try:
            policy = yaml.safe_load(policy)
        except yaml.YAMLError as error:
            raise PolicyError(f"the policy is not valid YAML: {error}") from error
    if not isinstance(policy, Mapping):
        raise PolicyError(f"a policy is a mapping with name, about, rules and dedup, not {type(policy).__name__}")
    _known(policy, {"name", "about", "rules", "dedup"}, "the policy")
    if not policy.get("name"):
        raise PolicyError("the policy has no name; give it one, since it stands in every row of the selection")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", str(policy["name"])):
        raise PolicyError(f"the policy's name {policy['name']!r} may hold only letters, digits, _ and -")
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


def presets() -> list[str]:
    """Return the names of the policies that come with the package."""
    folder = resources.files("filters") / "presets"
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
    return (resources.files("filters") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def _known(given: Mapping[str, Any], allowed: set[str], where: str) -> None:
    if unknown := sorted(str(key) for key in set(given) - allowed):
        raise PolicyError(f"{where} has no key {', '.join(unknown)}; it has {', '.join(sorted(allowed))}")


def _rule(given: Any, place: int) -> Rule:
    if not isinstance(given, Mapping):
        raise PolicyError(
            f"rule {place} is a mapping such as {{name: dark, measure: luma_mean, min: 16}}, not {given!r}"
        )
    where = f"rule {given.get('name', place)}"
    back = {new: old for old, new in _RENAMED.items()}
    _known(given, {back.get(f.name, f.name) for f in fields(Rule)}, where)
    values: dict[str, Any] = {_RENAMED.get(str(key), str(key)): value for key, value in given.items()}
    for key in ("name", "measure"):
        if not isinstance(values.get(key), str) or not values[key]:
            raise PolicyError(f"{where} needs a {key}")
    for key in ("min", "max"):
        number = values.get(key)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise PolicyError(f"{where}: {key}={number!r} is not a number")
    for key in ("among", "not_among"):
        if key in values:
            if not isinstance(values[key], list):
                raise PolicyError(f"{where}: {back[key]} is a list of values, not {values[key]!r}")
            values[key] = tuple(values[key])
    rule = Rule(**values)
    if rule.basis not in BASES:
        raise PolicyError(f"{where}: basis={rule.basis!r} is none of {', '.join(BASES)}")
    if all(bound is None for bound in (rule.min, rule.max, rule.among, rule.not_among)):
        raise PolicyError(f"{where} sets no limit; give min, max, in or not_in")
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        raise PolicyError(f"{where}: min={rule.min} is above max={rule.max}, so no clip would pass")
    return rule


def _dedup(given: Any) -> DuplicateRules:
    try:
        return duplicates.rules({} if given is None else given)
    except ValueError as error:
        raise PolicyError(str(error)) from error
