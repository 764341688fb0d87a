"""`rushes doctor`: what is here, what is missing and how to get it."""

from __future__ import annotations

from dataclasses import asdict

from jsonargparse import ArgumentParser, Namespace

from rushes.pipelines.cli.command import DONE, FAILED, Command, show


def _doctor_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")


def _doctor(options: Namespace) -> int:
    from rushes.pipelines.cli import checks

    found = checks.checks()
    marks = {True: "ok  ", False: "FAIL", None: "--  "}
    lines = [
        f"{marks[c.ok]} {c.name:<24} {c.found}" + (f"\n     → {c.remedy}" if c.remedy and not c.ok else "")
        for c in found
    ]
    show([asdict(check) for check in found], options.json, lines)
    return FAILED if any(check.ok is False for check in found) else DONE


COMMANDS = [
    Command(
        name="doctor",
        help="what is installed, which models are there, how to get the others",
        arguments=_doctor_arguments,
        run=_doctor,
    ),
]
