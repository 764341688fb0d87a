"""What each command of `rushes` takes and does. Heavy modules are imported inside the function that needs them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from typing import Any

from jsonargparse import ArgumentParser, Namespace


from pipelines.config import CurateConfig


DONE, FAILED, USAGE, PARTLY = 0, 1, 2, 3
GROUPS = {"tokenizer": "train and try the tokenizer", "dit": "train the diffusion transformer and sample from it"}
STAGES = ("sources", "scan", "shots", "score", "select", "caption", "encode", "pack")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command: its name (two words for a group), its help, its arguments and what it does."""

    name: str
    help: str
    arguments: Callable[[ArgumentParser], Any]
    run: Callable[[Namespace], int]


def version_line() -> str:
    """Return the version as `rushes --version` prints it."""
    return version("rushes")


def _of(kind: type, options: Namespace) -> Any:
    """Return the configuration dataclass that stands flat in the options of a command."""
    return kind(**{item.name: options[item.name] for item in fields(kind)})


def _configured(parser: ArgumentParser, kind: type) -> None:
    parser.add_argument("--config", action="config", help="a YAML file with any of the settings below")
    parser.add_class_arguments(kind, None)


def _print(record: Any, as_json: bool, lines: Sequence[str]) -> None:
    print(json.dumps(record, indent=2, default=str) if as_json else "\n".join(lines))


def _curate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("footage", nargs="*", type=str, help="files, folders, globs, s3:// URIs, CSV/JSONL/Parquet lists")
    parser.add_argument("--out", type=str, required=True, help="folder or s3:// URI of the run")
    parser.add_argument("--through", choices=STAGES, default="pack", help="last stage to run")
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed in earlier runs")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")
    _configured(parser, CurateConfig)


def _curate(options: Namespace) -> int:
    from pipelines import summary

    config = _of(CurateConfig, options)
    if options.dry_run:
        found = summary.dry_run(options.footage, options.out, config)
        _print(found, options.json, summary.dry_run_lines(found))
        return DONE
    from pipelines import curate
    from pipelines.report import page

    curate.curate(options.footage, options.out, config, through=options.through, retry_failed=options.retry_failed)
    found = summary.of(options.out)
    found["report"] = page.write(options.out)
    _print(found, options.json, summary.lines(found))
    return PARTLY if found["failures"] else DONE


def _latents_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with shards")
    parser.add_argument("--tokenizer", type=str, default=None, help="folder of the model; RUN/tokenizer/model if not given")
    pass


def _latents(options: Namespace) -> int:
    from pipelines import encode_latents

    manifest = encode_latents.run(options.run, options.tokenizer, _of(LatentsConfig, options))
    print(f"{manifest.samples} latents in {len(manifest.shards)} shards below {options.run.rstrip('/')}/latents")
    return DONE


def _report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run")
    parser.add_argument("--policy", type=str, default=None, help="which selection to report, where there are several")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")


def _report(options: Namespace) -> int:
    from pipelines import summary
    from pipelines.report import page

    found = summary.of(options.run, options.policy)
    found["report"] = page.write(options.run, policy=options.policy)
    _print(found, options.json, summary.lines(found))
    return DONE


def _verify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with shards")
    parser.add_argument("--full", action="store_true", help="decode every clip, not a sample")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")


def _verify(options: Namespace) -> int:
    from pipelines import verify

    problems = verify.verify(options.run, full=options.full)
    records = [asdict(problem) for problem in problems]
    _print(records, options.json, [str(problem) for problem in problems] or ["the shards agree with manifest and ledger"])
    return FAILED if problems else DONE


def _doctor_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")


def _doctor(options: Namespace) -> int:
    from pipelines import doctor

    checks = doctor.checks()
    marks = {True: "ok  ", False: "FAIL", None: "--  "}
    lines = [f"{marks[c.ok]} {c.name:<24} {c.found}" + (f"\n     → {c.remedy}" if c.remedy and not c.ok else "") for c in checks]
    _print([asdict(check) for check in checks], options.json, lines)
    return FAILED if any(check.ok is False for check in checks) else DONE


def _demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str, default="demo", help="folder of the demo")


def _demo(options: Namespace) -> int:
    from pipelines import demo

    return demo.run(options.out)


COMMANDS = [
    Command(name="demo", help="the whole job on real footage that comes with the dependencies", arguments=_demo_arguments, run=_demo),
    Command(name="curate", help="raw footage to shards", arguments=_curate_arguments, run=_curate),
    Command(name="latents", help="clip shards to latent shards", arguments=_latents_arguments, run=_latents),
    Command(name="report", help="write the report page of a run and print its account", arguments=_report_arguments, run=_report),
    Command(name="verify", help="check shards against manifest, ledger and decoder", arguments=_verify_arguments, run=_verify),
    Command(name="doctor", help="what is installed, which models are there, and how to get the others", arguments=_doctor_arguments, run=_doctor),
]  # fmt: skip
