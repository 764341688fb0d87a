"""`rushes report`, `sql`, `schema` and `verify`: what a run came to, questions to its ledger, what its shards are."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial

from jsonargparse import ArgumentParser, Namespace

from rushes.pipelines.cli.command import DONE, FAILED, Command, options_last, selection, show
from rushes.pipelines.progress import Reporter


def _report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run")
    selection(parser, "which one to report")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")


def _report(options: Namespace) -> int:
    from rushes.pipelines.report import accounting, page, summary
    from rushes.pipelines.store.ledger import Ledger

    Ledger(options.run).require()
    with Reporter().work("report"):
        books = accounting.open_books(options.run, options.selection)
        found = summary.of(options.run, books=books)
    try:
        with Reporter().work("report"):
            summary.outdate(options.run)  # curate writes its own page again
            found["report"] = page.write(options.run, books=books)
    finally:  # who may only read the run still gets its account
        show(found, options.json, summary.lines(found))
    return DONE


def _sql_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run")
    parser.add_argument(
        "query", type=str, nargs="?", default="",
        help="SQL, or the name of a documented query (`rushes schema --page` lists them); a shell if not given",
    )  # fmt: skip
    selection(parser, "under which one verdicts and fates are told")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--csv", action="store_true", help="print rows as CSV")


def _sql(options: Namespace) -> int:
    if options.json and options.csv:
        raise ValueError("--json and --csv are two forms of the same rows; give one of them")
    from rushes.pipelines.explore import shell, views

    with Reporter().work("sql"):
        books = views.opened(options.run, options.selection)
    form = "json" if options.json else "csv" if options.csv else "text"
    if options.query:
        shell.show(shell.asked(books, options.query), form, sys.stdout)
        return DONE
    return DONE if shell.shell(books, form, sys.stdin, sys.stdout) else FAILED


def _explore_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run")
    parser.add_argument("other", type=str, nargs="?", default="", help="another run to compare with")
    selection(parser, "which one to look at and to compare with")
    parser.add_argument("--port", type=int, default=0, help="port to answer on; a free one if not given")
    parser.add_argument(
        "--host", type=str, default="127.0.0.1",
        help="address or name to answer on; whoever reaches another than the default sees the footage",
    )  # fmt: skip
    parser.add_argument("--no-browser", action="store_true", help="print the address and open no browser")


def _explore(options: Namespace) -> int:
    try:
        from rushes.pipelines.explore import serve
    except ModuleNotFoundError as error:
        raise ValueError(f"explore needs {error.name}: pip install 'rushes[explore]'") from error

    serve.run(
        options.run, partial(print, flush=True), options.other, options.selection, options.host, options.port,
        not options.no_browser,
    )  # fmt: skip
    return DONE


def _eval_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with labels")
    selection(parser, "which one to hold against the labels")
    parser.add_argument("--json", action="store_true", help="print the evaluation as JSON")


def _eval(options: Namespace) -> int:
    from rushes.pipelines.explore import labels

    found = labels.evaluated(options.run, options.selection)
    show(found, options.json, labels.lines(found))
    return DONE


def _schema_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("tables", type=str, nargs="*", help="some tables or views; all if none is named")
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    parser.add_argument("--page", action="store_true", help="print pipelines/ledger.md: all of them, and ten queries")


def _schema(options: Namespace) -> int:
    from rushes.pipelines.explore import schema

    found = schema.described(options.tables)
    show(found, options.json, [schema.page(found)] if options.page else schema.lines(found))
    return DONE


def _verify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with shards")
    parser.add_argument(
        "--export", type=str, default="", metavar="DIR",
        help="check an export of the run instead: its videos against its account, and that what was taken down left it",
    )  # fmt: skip
    parser.add_argument("--full", action="store_true", help="decode every clip, not a few of each shard")
    selection(parser, "which one to check")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")


def _verify(options: Namespace) -> int:
    if options.export:
        from rushes.pipelines.export import verify as exported

        with Reporter().work("verify"):
            found = exported.of_run(options.run, options.export)
        well = "the export agrees with its account, and nothing that was taken down is left in it"
        show(found, options.json, found or [well])
        return FAILED if found else DONE
    from rushes.pipelines.stages.pack import verify

    problems = verify.verify(options.run, full=options.full, selection=options.selection, reporter=Reporter())
    records = [asdict(problem) for problem in problems]
    show(records, options.json, [str(problem) for problem in problems] or ["the shards agree with manifest and ledger"])
    return FAILED if problems else DONE


COMMANDS = [
    Command(
        name="report",
        help="write the report page of a run and print its account",
        arguments=_report_arguments,
        run=_report,
    ),
    Command(
        name="sql",
        help="ask the ledger of a run, in SQL: one query, or a shell",
        arguments=_sql_arguments,
        run=_sql,
        words=options_last,
    ),
    Command(
        name="explore",
        help="a page to move limits on, to look at clips and to ask by SQL",
        arguments=_explore_arguments,
        run=_explore,
        words=options_last,
    ),
    Command(
        name="eval",
        help="hold cuts, policy and captions against what people labelled in explore",
        arguments=_eval_arguments,
        run=_eval,
    ),
    Command(
        name="schema",
        help="what stands in the ledger: tables, views and columns, with units",
        arguments=_schema_arguments,
        run=_schema,
    ),
    Command(
        name="verify",
        help="check shards against manifest, ledger and decoder",
        arguments=_verify_arguments,
        run=_verify,
    ),
]
