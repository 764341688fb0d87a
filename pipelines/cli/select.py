"""`rushes select`: what a policy keeps of a run."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from rushes.pipelines.cli.command import DONE, FAILED, Command, show
from rushes.pipelines.progress import Reporter


def _select_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str, required=True, help="folder or s3:// URI of the run")
    parser.add_argument(
        "--policy", type=str, default="",
        help="a preset, the path of a YAML file, or a selection of the run; that of config.yaml if not given. "
        "Edited under its own name a policy replaces its selection; the name of a preset is refused to other rules",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be kept and dropped, and write nothing")
    parser.add_argument("--against", type=str, default="", help="selection that a dry run compares with")
    parser.add_argument("--list", type=int, default=0, help="name so many newly kept and newly dropped clips")
    parser.add_argument(
        "--skip-unmeasured", action="store_true",
        help="let a dry run count without the rules whose measure was not made: upper bounds; a name that is no "
        "measure at all stays an error",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def _select(options: Namespace) -> int:
    if options.dry_run:
        from rushes.pipelines.stages.select import trial

        with Reporter().work("select"):
            found = trial.trial(options.out, options.policy, against=options.against, examples=options.list,
                                skip_unmeasured=options.skip_unmeasured)  # fmt: skip
        show(found, options.json, trial.lines(found))
        return DONE if found["counted"] else FAILED
    if options.skip_unmeasured or options.against or options.list:
        raise ValueError("--skip-unmeasured, --against and --list belong to --dry-run; a selection skips no rule")
    from rushes.pipelines.stages.select import selections

    with Reporter().work("select"):
        found = selections.make(options.out, options.policy)
    show(found, options.json, selections.lines(found))
    return DONE


COMMANDS = [
    Command(
        name="select",
        help="what a policy keeps of a run: try it in seconds, or select",
        arguments=_select_arguments,
        run=_select,
    ),
]
