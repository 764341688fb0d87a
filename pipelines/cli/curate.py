"""`rushes curate`, and `rushes scan|score|caption|pack`, which run it through one stage with the run's own settings."""

from __future__ import annotations

from argparse import SUPPRESS
from argparse import ArgumentParser as PlainParser
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from rushes.pipelines.cli.command import DONE, PARTLY, Command, configured, settings_of, show
from rushes.pipelines.config import STAGES, CurateConfig
from rushes.pipelines.progress import Reporter

if TYPE_CHECKING:
    from rushes.pipelines.engine.removal import Takedown

GROUPED = {item.name for item in fields(CurateConfig)}


def _curate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "footage", nargs="*", type=str, help="files, folders, globs, s3:// URIs, CSV/JSONL/Parquet lists"
    )
    parser.add_argument("--through", choices=STAGES, default="pack", help="last stage to run")
    _run_arguments(parser)


def _run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str, required=True, help="folder or s3:// URI of the run")
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed in earlier runs")
    parser.add_argument(
        "--takedown", type=str, default="", metavar="LIST",
        help="take footage down for good: a text, CSV, JSONL or Parquet file that names URIs, source ids, digests or "
        "clip keys (columns uri, source_id, digest or key, and reason); the run goes on by its own settings",
    )  # fmt: skip
    parser.add_argument(
        "--takedown-withdraw", type=str, default="", metavar="LIST", help="give back what such a list names"
    )
    parser.add_argument("--takedown-similar", action="store_true", help="take down clips that resemble them as well")
    parser.add_argument("--takedown-date", type=str, default="", help="when, as 2026-11-29; now if not given")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")
    configured(parser, CurateConfig)


def _curate(options: Namespace) -> int:
    from rushes.pipelines.store import runfile

    config = settings_of(CurateConfig, options)
    runfile.check_secrets(config)
    takedown = _takedown(options)
    if options.dry_run:
        from rushes.pipelines.engine import dry_run

        with Reporter().work("plan"):
            planned = dry_run.dry_run(options.footage, options.out, config, takedown, options.through)
        show(planned, options.json, dry_run.dry_run_lines(planned))
        return DONE
    from rushes.pipelines.engine import cluster, curate
    from rushes.pipelines.report import accounting, page, summary
    from rushes.pipelines.store import storage

    with cluster.apart():
        state = curate.curate(
            options.footage, options.out, config, through=options.through, retry_failed=options.retry_failed,
            takedown=takedown,
        )  # fmt: skip
    found = summary.kept(options.out, state) or {}
    if found.get("run") != options.out or not storage.exists(found["report"]):
        with Reporter().work("report"):
            books = accounting.open_books(options.out)
            found = summary.of(options.out, books=books)
            found["report"] = page.write(options.out, books=books)
            summary.keep(options.out, state, found)
    show(found, options.json, summary.lines(found))
    return PARTLY if found["failures"] else DONE


def _takedown(options: Namespace) -> Takedown:
    from rushes.pipelines.engine.removal import Takedown

    return Takedown(
        listed=options.takedown, withdrawn=options.takedown_withdraw, similar=options.takedown_similar,
        date=options.takedown_date,
    )  # fmt: skip


def _going_on(words: list[str]) -> list[str]:
    """Return the words of `curate`; one that takes footage down goes on by the settings of its run, if there is one."""
    takes = any(word.split("=")[0] in ("--takedown", "--takedown-withdraw", "--takedown-similar") for word in words)
    return _with_saved(words, "scan") if takes and not any(w.split("=")[0] == "--config" for w in words) else words


# Single stages: `curate` through one stage with the settings saved in the run, so that none falls back to its default
# and redoes what is done. Only the settings of the stage stand in its help; the others can be given all the same.
SINGLE = {
    "scan": ("find the clips of footage and measure them", "shots", ("inputs", "scan", "shots", "ray")),
    "score": ("let models look at the clips of a run", "score", ("score", "ray")),
    "caption": ("describe the clips of a run that its policy keeps", "caption", ("caption", "ray")),
    "pack": ("cut the kept clips of a run and write its shards", "pack", ("pack", "ray")),
}


def _single(name: str) -> Command:
    text, through, shown = SINGLE[name]

    def arguments(parser: ArgumentParser) -> None:
        if name == "scan":
            parser.add_argument("footage", nargs="*", type=str, help="as of curate; none goes on with those of the run")
        _run_arguments(parser)
        for group in parser._action_groups:
            if {action.dest.split(".")[0] for action in group._group_actions} & GROUPED - set(shown):
                group.title = group.description = None
                for action in group._group_actions:
                    action.help = SUPPRESS

    def run(options: Namespace) -> int:
        return _curate(Namespace(**{"footage": [], **vars(options), "through": through}))

    return Command(name=name, help=text, arguments=arguments, run=run, words=partial(_with_saved, name=name))


def _with_saved(words: list[str], name: str) -> list[str]:
    """Return the words of a single stage behind the settings of its run, which what is typed overrides."""
    from rushes.pipelines.store import runfile

    finder = PlainParser(add_help=False, exit_on_error=False)
    finder.add_argument("--out")
    run = finder.parse_known_args(words)[0].out
    saved = runfile.saved(run) if run else None
    if run and saved is None and name != "scan":
        raise ValueError(f"{run} is no run of rushes; begin one with: rushes scan FOOTAGE --out {run}")
    if saved:
        runfile.check_known(run, saved, CurateConfig())
    return ["--config", saved, *words] if saved else words


COMMANDS = [
    Command(name="curate", help="raw footage to shards", arguments=_curate_arguments, run=_curate, words=_going_on),
    *(_single(name) for name in SINGLE),
]
