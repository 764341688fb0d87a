"""What each command of `rushes` takes and does. Heavy modules are imported inside the function that needs them."""

from __future__ import annotations

import json
import logging
from argparse import SUPPRESS
from argparse import ArgumentParser as PlainParser
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from importlib.metadata import version
from typing import Any

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from dit.config import SampleConfig
from dit.config import TrainConfig as DiTTrainConfig
from pipelines.config import CurateConfig, LatentsConfig, RayConfig
from tokenizer.config import Allocation, Budget, EvalConfig, ScorerConfig, TokenizerConfig
from tokenizer.config import TrainConfig as TokenizerTrainConfig

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # what stands under a field is its help
log = logging.getLogger("rushes")
DONE, FAILED, USAGE, PARTLY = 0, 1, 2, 3
GROUPS = {"tokenizer": "train and try the tokenizer", "dit": "train the diffusion transformer and sample from it"}
GROUPED = {item.name for item in fields(CurateConfig)}
STAGES = ("sources", "scan", "witness", "shots", "score", "select", "caption", "encode", "pack")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command: its name (two words for a group), its help, its arguments and what it does."""

    name: str
    help: str
    arguments: Callable[[ArgumentParser], Any]
    run: Callable[[Namespace], int]
    words: Callable[[list[str]], list[str]] = list
    """What is read in place of the words typed after the name."""


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
    parser.add_argument(
        "footage", nargs="*", type=str, help="files, folders, globs, s3:// URIs, CSV/JSONL/Parquet lists"
    )
    parser.add_argument("--through", choices=STAGES, default="pack", help="last stage to run")
    _run_arguments(parser)


def _run_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str, required=True, help="folder or s3:// URI of the run")
    parser.add_argument("--retry-failed", action="store_true", help="try again what failed in earlier runs")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")
    _configured(parser, CurateConfig)


def _curate(options: Namespace) -> int:
    from pipelines import runfile, summary

    config = _of(CurateConfig, options)
    runfile.check_secrets(config)
    if options.dry_run:
        found = summary.dry_run(options.footage, options.out, config)
        _print(found, options.json, summary.dry_run_lines(found))
        return DONE
    from pipelines import curate, stages
    from pipelines.report import page

    with stages.apart():
        curate.curate(options.footage, options.out, config, through=options.through, retry_failed=options.retry_failed)
    found = summary.of(options.out)
    found["report"] = page.write(options.out)
    _print(found, options.json, summary.lines(found))
    return PARTLY if found["failures"] else DONE


def _selection(parser: ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--selection", type=str, default="",
        help=f"{what}, where a run has several; the only one, else that of the policy in config.yaml, if not given",
    )  # fmt: skip


def _set_of(options: Namespace, kind: str = "shards") -> str:
    """Return the folder of the shards or latents of the selection that is meant; they may stand without a ledger."""
    from pipelines import selections, storage
    from pipelines.ledger import Ledger

    ledger = Ledger(options.run)
    if not ledger.check() and not storage.exists(f"{ledger.run}/{kind}"):
        ledger.require()
    return selections.folder(options.run, kind, options.selection)


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
        from pipelines import trial

        found = trial.trial(options.out, options.policy, against=options.against, examples=options.list,
                            skip_unmeasured=options.skip_unmeasured)  # fmt: skip
        _print(found, options.json, trial.lines(found))
        return DONE if found["counted"] else FAILED
    if options.skip_unmeasured or options.against or options.list:
        raise ValueError("--skip-unmeasured, --against and --list belong to --dry-run; a selection skips no rule")
    from pipelines import selections

    found = selections.make(options.out, options.policy)
    _print(found, options.json, selections.lines(found))
    return DONE


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
    from pipelines import runfile

    finder = PlainParser(add_help=False, exit_on_error=False)
    finder.add_argument("--out")
    run = finder.parse_known_args(words)[0].out
    saved = runfile.saved(run) if run else None
    if run and saved is None and name != "scan":
        raise ValueError(f"{run} is no run of rushes; begin one with: rushes scan FOOTAGE --out {run}")
    return ["--config", saved, *words] if saved else words


def _tokenizer(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer", type=str, default="", help="folder of the model, or `shipped`; RUN/tokenizer/model if not given"
    )


def _tokenizer_of(options: Namespace) -> str:
    """Return the folder of the tokenizer: the given one, else the run's own."""
    return options.tokenizer or f"{options.run.rstrip('/')}/tokenizer/model"


def _latents_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with shards")
    _tokenizer(parser)
    _selection(parser, "whose shards to encode")
    _configured(parser, LatentsConfig)
    parser.add_class_arguments(RayConfig, "ray")


def _latents(options: Namespace) -> int:
    from pipelines import encode_latents, stages

    with stages.apart():
        manifest = encode_latents.run(options.run, _tokenizer_of(options), _of(LatentsConfig, options), options.ray,
                                      selection=options.selection)  # fmt: skip
    name = manifest.extra["selection"]
    print(f"{manifest.samples} latents in {len(manifest.shards)} shards below {options.run.rstrip('/')}/latents/{name}")
    return PARTLY if encode_latents.failures(options.run, name) else DONE


def _tokenizer_train_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with shards")
    parser.add_argument("--out", type=str, default="", help="folder of the training; RUN/tokenizer if not given")
    parser.add_argument(
        "--start",
        type=str,
        default="",
        help="a saved tokenizer, or `shipped`, to start from; it may have fewer rates",
    )
    _selection(parser, "whose shards to train on")
    parser.add_class_arguments(TokenizerConfig, "model")
    _configured(parser, TokenizerTrainConfig)


def _tokenizer_train(options: Namespace) -> int:
    from tokenizer import train

    run, settings = options.run.rstrip("/"), _of(TokenizerTrainConfig, options)
    done = train.train(
        _set_of(options), options.out or f"{run}/tokenizer", options.model, settings, options.start, _logged
    )
    print(json.dumps(asdict(done), indent=2))
    return DONE


def _logged(line: dict[str, float]) -> None:
    log.info("  ".join(f"{name} {value:.5g}" for name, value in line.items()))


def _scorer_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with shards")
    _tokenizer(parser)
    _selection(parser, "whose shards to measure")
    _configured(parser, ScorerConfig)


def _scorer(options: Namespace) -> int:
    from tokenizer import scorer

    print(json.dumps(scorer.fit(_set_of(options), _tokenizer_of(options), _of(ScorerConfig, options)), indent=2))
    return DONE


def _reconstruct_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=str, help="a run with shards, or a video file")
    _tokenizer(parser)
    parser.add_argument("--out", type=str, default="", help="the mp4; RUN/tokenizer/reconstruction.mp4 if not given")
    _selection(parser, "whose shards hold the clip")
    parser.add_argument("--key", type=str, default="", help="a clip of the shards; the first one if not given")
    parser.add_argument(
        "--side_px", "--side-px", type=int, default=256, help="the shorter side is shrunk to this; 0 keeps the size"
    )
    parser.add_argument(
        "--allocation", type=Allocation, default="auto",
        help="measure what each segment loses at each rate, or let the model's scorer predict it; auto: predict where "
        "there is one",
    )  # fmt: skip
    parser.add_class_arguments(Budget, None)


def _reconstruct(options: Namespace) -> int:
    from pipelines import selections
    from pipelines.ledger import Ledger
    from tokenizer import reconstruct

    root = options.source.rstrip("/")
    is_run = Ledger(root).check()
    if not is_run and not (options.tokenizer and options.out):
        raise ValueError(f"{root} is no run; for a video file also give --tokenizer and --out")
    done = reconstruct.reconstruct(
        options.tokenizer or f"{root}/tokenizer/model",
        selections.folder(root, wanted=options.selection) if is_run else root,
        options.out or f"{root}/tokenizer/reconstruction.mp4",
        key=options.key, budget=_of(Budget, options), side_px=options.side_px,
        allocation=options.allocation,
    )  # fmt: skip
    print(json.dumps(asdict(done), indent=2))
    return DONE


def _tokenizer_eval_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="folder of the model, or `shipped`")
    parser.add_argument("sources", type=str, nargs="+", help="runs, roots of clip shards, or video files")
    parser.add_argument(
        "--out", type=str, default="", help="folder; if not given eval/ beside the model, and here for `shipped`"
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    _configured(parser, EvalConfig)


def _tokenizer_eval(options: Namespace) -> int:
    from pipelines import selections, storage
    from tokenizer import evaluate

    sources = [
        selections.folder(source) if storage.exists(f"{source.rstrip('/')}/config.yaml") else source
        for source in options.sources
    ]
    beside = options.model.rstrip("/").rpartition("/")[0] or "."
    out = options.out or f"{beside}/eval"
    found = evaluate.evaluate(options.model, sources, out, _of(EvalConfig, options), log.info)
    _print(found, options.json, [*evaluate.lines_of(found), f"written to {out}"])
    return DONE


def _dit_train_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with latents")
    parser.add_argument("--out", type=str, default="", help="folder of the training; RUN/dit if not given")
    _selection(parser, "whose latents to train on")
    _configured(parser, DiTTrainConfig)


def _dit_train(options: Namespace) -> int:
    from dit import train

    run = options.run.rstrip("/")
    print(train.train(_of(DiTTrainConfig, options), _set_of(options, "latents"), options.out or f"{run}/dit"))
    return DONE


def _dit_sample_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with a trained DiT")
    parser.add_argument("--dit", type=str, default="", help="folder of the model; RUN/dit/model if not given")
    _tokenizer(parser)
    parser.add_argument("--out", type=str, default="", help="the mp4; RUN/dit/sample.mp4 if not given")
    _configured(parser, SampleConfig)


def _dit_sample(options: Namespace) -> int:
    from dit import sample

    run = options.run.rstrip("/")
    out = options.out or f"{run}/dit/sample.mp4"
    planned = sample.sample(_of(SampleConfig, options), options.dit or f"{run}/dit/model", _tokenizer_of(options), out)
    print(f"{out}: {sum(planned.lengths)} frames of {planned.width}×{planned.height} at {planned.fps:.4g} fps")
    return DONE


def _report_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run")
    _selection(parser, "which one to report")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")


def _report(options: Namespace) -> int:
    from pipelines import summary
    from pipelines.report import page

    found = summary.of(options.run, options.selection)
    try:
        found["report"] = page.write(options.run, policy=options.selection)
    finally:  # who may only read the run still gets its account
        _print(found, options.json, summary.lines(found))
    return DONE


def _verify_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with shards")
    parser.add_argument("--full", action="store_true", help="decode every clip, not a few of each shard")
    _selection(parser, "which one to check")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")


def _verify(options: Namespace) -> int:
    from pipelines import verify
    from pipelines.progress import Reporter

    problems = verify.verify(options.run, full=options.full, selection=options.selection, reporter=Reporter())
    records = [asdict(problem) for problem in problems]
    _print(
        records, options.json, [str(problem) for problem in problems] or ["the shards agree with manifest and ledger"]
    )
    return FAILED if problems else DONE


def _doctor_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")


def _doctor(options: Namespace) -> int:
    from pipelines import doctor

    checks = doctor.checks()
    marks = {True: "ok  ", False: "FAIL", None: "--  "}
    lines = [
        f"{marks[c.ok]} {c.name:<24} {c.found}" + (f"\n     → {c.remedy}" if c.remedy and not c.ok else "")
        for c in checks
    ]
    _print([asdict(check) for check in checks], options.json, lines)
    return FAILED if any(check.ok is False for check in checks) else DONE


def _demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str, default="demo", help="folder of the demo")


def _demo(options: Namespace) -> int:
    from pipelines import demo_run, summary

    found = demo_run.run(options.out)
    print("\n".join(summary.lines(found)))
    print(f"look at {found['report']}, {options.out}/tokenizer/reconstruction.mp4 and {options.out}/dit/sample.mp4")
    return DONE


COMMANDS = [
    Command(name=name, help=text, arguments=arguments, run=run)
    for name, text, arguments, run in (
        ("demo", "the whole job on real footage that comes with the dependencies", _demo_arguments, _demo),
        ("curate", "raw footage to shards", _curate_arguments, _curate),
        ("select", "what a policy keeps of a run: try it in seconds, or select", _select_arguments, _select),
        ("report", "write the report page of a run and print its account", _report_arguments, _report),
        ("verify", "check shards against manifest, ledger and decoder", _verify_arguments, _verify),
        ("doctor", "what is installed, which models are there, how to get the others", _doctor_arguments, _doctor),
        ("tokenizer train", "train the tokenizer on the shards of a run", _tokenizer_train_arguments, _tokenizer_train),
        ("tokenizer scorer", "train what predicts the loss at each rate, beside the model", _scorer_arguments, _scorer),
        ("tokenizer reconstruct", "original and reconstruction side by side", _reconstruct_arguments, _reconstruct),
        (
            "tokenizer eval",
            "quality at every rate, and what choosing rates gains",
            _tokenizer_eval_arguments,
            _tokenizer_eval,
        ),
        ("latents", "clip shards to latent shards", _latents_arguments, _latents),
        ("dit train", "train the diffusion transformer on the latents of a run", _dit_train_arguments, _dit_train),
        ("dit sample", "generate a clip", _dit_sample_arguments, _dit_sample),
    )
]
COMMANDS[2:2] = [_single(name) for name in SINGLE]  # after curate
