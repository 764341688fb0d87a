"""The command `rushes`.

    rushes curate footage/ --out RUN
    rushes report RUN

Settings are the fields of the configuration dataclasses: `--scan.tick_hz 8`, or `--config run.yaml`. Heavy modules are
imported inside the subcommand that needs them, so that `rushes --help` answers at once.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some sources failed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from rushes.pipelines.cli import curate, demo, dit, doctor, report, select, shards, tokenizer
from rushes.pipelines.cli.command import DONE, FAILED, USAGE, Command

GROUPS = {
    "tokenizer": "train and try the tokenizer",
    "dit": "train, try and evaluate the diffusion transformer",
}
COMMANDS = [
    command for module in (demo, curate, select, report, doctor, tokenizer, shards, dit) for command in module.COMMANDS
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_Stderr()])
    logging.getLogger("rushes").setLevel(logging.INFO)
    parser, parsers = build()
    if not arguments:
        parser.print_help()
        return USAGE
    name = _asked(arguments)
    try:
        if name not in parsers:
            parser.parse_args(arguments)  # help, version, or an error
            return USAGE
        command = next(command for command in COMMANDS if command.name == name)
        options = parsers[name].parse_args(command.words(arguments[len(name.split()) :]))
    except argparse.ArgumentError as error:
        return _say(f"{_flat(error)} (see: rushes {name and name + ' '}--help)", USAGE)
    except (ValueError, OSError) as error:  # a run whose saved settings cannot be had
        return _say(error, FAILED if isinstance(error, OSError) else USAGE)
    return _run(command, parsers[name], options)


class _Stderr(logging.StreamHandler[Any]):
    """Writes to stderr as it is now: a live display puts itself in its place, so that lines stand above it."""

    @property
    def stream(self) -> Any:
        """The stream."""
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None:
        pass


def build() -> tuple[ArgumentParser, dict[str, ArgumentParser]]:
    """Return the parser of everything, and the parser of each command by its name."""
    parser = ArgumentParser(
        prog="rushes",
        description="Turn raw footage into training data for video generators, and train the first two models on it.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done but some sources failed.",
        version=version("rushes"),
        exit_on_error=False,
    )
    top = parser.add_subcommands(dest="command", title="commands", metavar="COMMAND")
    groups = {}
    parsers = {}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group and group not in groups:
            holder = ArgumentParser(description=GROUPS[group], exit_on_error=False)
            top.add_subcommand(group, holder, help=GROUPS[group])
            groups[group] = holder.add_subcommands(dest="command", title="commands", metavar="COMMAND")
        child = ArgumentParser(description=command.help, exit_on_error=False)
        command.arguments(child)
        (groups[group] if group else top).add_subcommand(name, child, help=command.help)
        child.prog = f"rushes {command.name}"
        parsers[command.name] = child
    return parser, parsers


def _run(command: Command, parser: ArgumentParser, options: Namespace) -> int:
    """Run a command; what is the user's to mend becomes one sentence on stderr."""
    try:
        _check_groups(parser, options)
        return command.run(parser.instantiate(options))
    except (ValueError, FileNotFoundError, PermissionError) as error:
        return _say(error, USAGE)
    except BrokenPipeError:  # who reads, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (RuntimeError, OSError) as error:
        return _say(error, FAILED)
    except KeyboardInterrupt:
        print("rushes: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def _check_groups(parser: ArgumentParser, options: Namespace) -> None:
    """Raise ValueError where a file of settings gives one value to a whole group of them."""
    for name, default in vars(parser.get_defaults(skip_validation=True)).items():
        if isinstance(default, Namespace) and not isinstance(options[name], Namespace):
            raise ValueError(f"{name} holds {', '.join(vars(default))}, not one value: {options[name]!r}")


def _say(error: BaseException | str, code: int) -> int:
    if os.environ.get("RUSHES_DEBUG") and isinstance(error, BaseException):
        raise error
    from rushes.pipelines.store.storage import redact

    print(f"rushes: error: {redact(_flat(error))}", file=sys.stderr)
    return code


def _flat(error: BaseException | str) -> str:
    return " ".join(str(error).split())


def _asked(arguments: Sequence[str]) -> str:
    """Return the command or group that the first words name, empty where they name none."""
    known = {command.name for command in COMMANDS} | set(GROUPS)
    return next((name for count in (2, 1) if (name := " ".join(arguments[:count])) in known), "")


if __name__ == "__main__":
    sys.exit(main())
