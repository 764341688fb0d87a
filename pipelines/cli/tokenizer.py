"""`rushes tokenizer train|reconstruct|eval`."""

from __future__ import annotations

import json
from dataclasses import asdict

from jsonargparse import ArgumentParser, Namespace

from rushes.pipelines.cli.command import (
    DONE,
    Command,
    configured,
    selection,
    set_of,
    settings_of,
    show,
    tokenizer,
)
from rushes.pipelines.progress import Reporter
from rushes.tokenizer.config import Allocation, Budget, EvalConfig, TokenizerConfig, TrainConfig


def _tokenizer_train_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with shards")
    parser.add_argument("--out", type=str, default="", help="folder of the training; RUN/tokenizer if not given")
    parser.add_argument(
        "--start",
        type=str,
        default="",
        help="a saved tokenizer, or `shipped`, to start from; it may have fewer rates",
    )
    selection(parser, "whose shards to train on")
    parser.add_class_arguments(TokenizerConfig, "model")
    configured(parser, TrainConfig, {"compile": "compile encoder and decoder by torch.compile: minutes at the start, "
                                     "then faster steps; on CPUs it needs a C++ compiler"})  # fmt: skip


def _tokenizer_train(options: Namespace) -> int:
    from rushes.pipelines.report import summary
    from rushes.tokenizer import train

    run, settings = options.run.rstrip("/"), settings_of(TrainConfig, options)
    out = options.out or f"{run}/tokenizer"
    with Reporter().work("tokenizer") as beat:
        done = train.train(set_of(options), out, options.model, settings, options.start, beat.tell)
    summary.outdate(run)  # the page tells of trainings, too
    print(json.dumps(asdict(done), indent=2))
    return DONE


def _reconstruct_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=str, help="a run with shards, or a video file")
    tokenizer(parser)
    parser.add_argument("--out", type=str, default="", help="the mp4; RUN/tokenizer/reconstruction.mp4 if not given")
    selection(parser, "whose shards hold the clip")
    parser.add_argument("--key", type=str, default="", help="a clip of the shards; the first one if not given")
    parser.add_argument(
        "--side_px", "--side-px", type=int, default=256, help="the shorter side is shrunk to this; 0 keeps the size"
    )
    parser.add_argument(
        "--allocation", type=Allocation, default="auto",
        help="measure what each segment loses at each rate, or let the model's linear code predict it; auto: predict "
        "where it has one",
    )  # fmt: skip
    parser.add_class_arguments(Budget, None)


def _reconstruct(options: Namespace) -> int:
    from rushes.pipelines.stages.select import selections
    from rushes.pipelines.store.ledger import Ledger
    from rushes.tokenizer import reconstruct

    root = options.source.rstrip("/")
    is_run = Ledger(root).check()
    if not is_run and not (options.tokenizer and options.out):
        raise ValueError(f"{root} is no run; for a video file also give --tokenizer and --out")
    with Reporter().work("tokenizer") as beat:
        done = reconstruct.reconstruct(
            options.tokenizer or f"{root}/tokenizer/model",
            selections.folder(root, wanted=options.selection) if is_run else root,
            options.out or f"{root}/tokenizer/reconstruction.mp4",
            key=options.key, budget=settings_of(Budget, options), side_px=options.side_px,
            allocation=options.allocation, tell=beat.tell,
        )  # fmt: skip
    print(json.dumps(asdict(done), indent=2))
    return DONE


def _tokenizer_eval_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("tokenizer", type=str, help="folder of the model, `shipped`, wan:PATH or hunyuan:PATH")
    parser.add_argument("sources", type=str, nargs="+", help="runs, roots of clip shards, or video files")
    parser.add_argument(
        "--out", type=str, default="", help="folder; if not given eval/ beside a folder of ours, and here for others"
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    configured(parser, EvalConfig)


def _tokenizer_eval(options: Namespace) -> int:
    from rushes.pipelines.stages.select import selections
    from rushes.pipelines.store import storage
    from rushes.tokenizer import evaluate
    from rushes.tokenizer.shipped import frozen_kind

    sources = [
        selections.folder(source) if storage.exists(f"{source.rstrip('/')}/config.yaml") else source
        for source in options.sources
    ]
    beside = "." if frozen_kind(options.tokenizer)[0] else options.tokenizer.rstrip("/").rpartition("/")[0] or "."
    out = options.out or f"{beside}/eval"
    with Reporter().work("tokenizer") as beat:
        found = evaluate.evaluate(options.tokenizer, sources, out, settings_of(EvalConfig, options), beat.tell)
    show(found, options.json, [*evaluate.lines_of(found), f"written to {out}"])
    return DONE


COMMANDS = [
    Command(
        name="tokenizer train",
        help="train the tokenizer on the shards of a run",
        arguments=_tokenizer_train_arguments,
        run=_tokenizer_train,
    ),
    Command(
        name="tokenizer reconstruct",
        help="original and reconstruction side by side",
        arguments=_reconstruct_arguments,
        run=_reconstruct,
    ),
    Command(
        name="tokenizer eval",
        help="quality at every rate, and what choosing rates gains",
        arguments=_tokenizer_eval_arguments,
        run=_tokenizer_eval,
    ),
]
