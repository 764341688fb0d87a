"""What a command of `rushes` is, and what several of them take."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # what stands under a field is its help
log = logging.getLogger("rushes")
DONE, FAILED, USAGE, PARTLY = 0, 1, 2, 3
SWITCHES = ("-h", "--help", "--json", "--csv", "--no-browser")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command: its name (two words for a group), its help, its arguments and what it does."""

    name: str
    help: str
    arguments: Callable[[ArgumentParser], Any]
    run: Callable[[Namespace], int]
    words: Callable[[list[str]], list[str]] = list
    """What is read in place of the words typed after the name."""


def settings_of(kind: type, options: Namespace) -> Any:
    """Return the configuration dataclass that stands flat in the options of a command."""
    return kind(**{item.name: options[item.name] for item in fields(kind)})


def configured(parser: ArgumentParser, kind: type, flags: Mapping[str, str] | None = None) -> None:
    """Let a command take a dataclass of settings, flat, or from a file; `flags` are switches of it, with their help."""
    parser.add_argument("--config", action="config", help="a YAML file with any of the settings below")
    parser.add_class_arguments(kind, None, skip=set(flags or ()))
    for name, text in (flags or {}).items():
        parser.add_argument(f"--{name}", action="store_true", help=text)


def options_last(words: list[str]) -> list[str]:
    """Return words with the options behind the others: argparse ends an optional word where an option comes before it.

    For commands whose switches are those of `SWITCHES`; every other option takes a word.
    """
    first, behind, rest = [], [], iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            first.append(word)
            continue
        behind.append(word)
        if "=" not in word and word not in SWITCHES:
            behind += [value for value in [next(rest, None)] if value is not None]
    return [*first, *behind]


def show(record: Any, as_json: bool, lines: Sequence[str]) -> None:
    """Print a record for machines, or lines for people."""
    print(json.dumps(record, indent=2, default=str) if as_json else "\n".join(lines))


def selection(parser: ArgumentParser, what: str) -> None:
    """Let a command take `--selection`."""
    parser.add_argument(
        "--selection", type=str, default="",
        help=f"{what}, where a run has several; the only one, else that of the policy in config.yaml, if not given",
    )  # fmt: skip


def set_of(options: Namespace, kind: str = "shards") -> str:
    """Return the folder of the shards or latents of the selection that is meant; they may stand without a ledger."""
    from rushes.pipelines.stages.select import selections
    from rushes.pipelines.store import storage
    from rushes.pipelines.store.ledger import Ledger

    ledger = Ledger(options.run)
    if not ledger.check() and not storage.list_folders(f"{ledger.run}/{kind}"):
        ledger.require()
    return selections.folder(options.run, kind, options.selection)


def tokenizer(parser: ArgumentParser) -> None:
    """Let a command take `--tokenizer`."""
    parser.add_argument(
        "--tokenizer", type=str, default="",
        help="folder of the model, `shipped`, or a frozen VAE as wan:PATH or hunyuan:PATH (a file, a folder or a hub's "
        "name); RUN/tokenizer/model if not given",
    )  # fmt: skip


def tokenizer_of(options: Namespace) -> str:
    """Return the name of the tokenizer: the given one, else the folder of the run's own."""
    return options.tokenizer or f"{options.run.rstrip('/')}/tokenizer/model"
