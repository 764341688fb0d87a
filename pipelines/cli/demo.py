"""`rushes demo`: the whole job on real footage that comes with the dependencies."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from rushes.pipelines.cli.command import DONE, Command


def _demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str, default="demo", help="folder of the demo")


def _demo(options: Namespace) -> int:
    from rushes.pipelines.cli import demo_run
    from rushes.pipelines.report import summary

    found = demo_run.run(options.out)
    print("\n".join(summary.lines(found)))
    print(f"look at {found['report']}, {options.out}/tokenizer/reconstruction.mp4 and {options.out}/dit/sample.mp4")
    return DONE


COMMANDS = [
    Command(
        name="demo",
        help="the whole job on real footage that comes with the dependencies",
        arguments=_demo_arguments,
        run=_demo,
    ),
]
