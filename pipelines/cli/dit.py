"""`rushes dit train|distill|sample|eval|toy`."""

from __future__ import annotations

import re
from dataclasses import replace

from jsonargparse import ArgumentParser, Namespace

from rushes.dit.config import DistillConfig, EvalConfig, SampleConfig, ToyConfig, TrainConfig
from rushes.pipelines.cli.command import (
    DONE,
    FAILED,
    Command,
    configured,
    selection,
    set_of,
    settings_of,
    show,
    tokenizer,
    tokenizer_of,
)
from rushes.pipelines.progress import Reporter


def _dit_train_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with latents")
    parser.add_argument("--out", type=str, default="", help="folder of the training; RUN/dit if not given")
    selection(parser, "whose latents to train on")
    configured(parser, TrainConfig, {"compile": "compile what blocks do with single tokens by torch.compile: a minute "
                                     "at the start, then faster steps; on CPUs it needs a C++ compiler",
                                     "checkpointing": "compute blocks again in the backward pass: slower, much less "
                                     "memory, the same gradients"})  # fmt: skip


def _dit_train(options: Namespace) -> int:
    from rushes.dit import train
    from rushes.pipelines.report import summary

    out = options.out or f"{options.run.rstrip('/')}/dit"
    with Reporter().work("dit") as beat:
        model = train.train(settings_of(TrainConfig, options), set_of(options, "latents"), out, beat.tell)
    summary.outdate(options.run.rstrip("/"))  # the page tells of trainings, too
    print(model)
    return DONE


def _dit_distill_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with latents and a DiT trained on them, the teacher")
    parser.add_argument("--dit", type=str, default="", help="folder of its training; RUN/dit if not given")
    selection(parser, "whose latents it was trained on")
    parser.add_argument("--out", type=str, default="", help="folder of the student; RUN/student if not given")
    configured(parser, DistillConfig)


def _dit_distill(options: Namespace) -> int:
    from rushes.dit import distill

    run = options.run.rstrip("/")
    teacher, out = options.dit.rstrip("/") or f"{run}/dit", options.out or f"{run}/student"
    with Reporter().work("dit") as beat:
        config = settings_of(DistillConfig, options)
        model = distill.distill(config, teacher, set_of(options, "latents"), out, beat.tell)
    print(model)
    return DONE


def _dit_sample_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with a trained DiT")
    parser.add_argument("--dit", type=str, default="", help="folder of the model; RUN/dit/model if not given")
    tokenizer(parser)
    parser.add_argument(
        "--out", type=str, default="",
        help="the mp4, RUN/dit/sample.mp4 if not given; with --prompts a folder, RUN/dit/samples if not given",
    )  # fmt: skip
    parser.add_argument("--prompts", type=str, default="", help="a text file with a prompt a line: an mp4 for each")
    configured(parser, SampleConfig)


def _sample_words(words: list[str]) -> list[str]:
    """Return the words with lists of numbers as YAML has them, and `--guide pan=3` as `--guide.pan 3`."""
    found: list[str] = []
    for word in words:
        option = found[-1] if found else ""
        if option in ("--guide", "--facts") and (pair := re.fullmatch(r"(\w+)=([^=]+)", word)):
            found[-1:] = [f"{option}.{pair[1]}", pair[2]]
        elif option in ("--rates", "--mask") and "[" not in word:
            found.append(f"[{word}]")
        else:
            found.append(word)
    return found


def _dit_sample(options: Namespace) -> int:
    from rushes.dit import sample, words

    run, config = options.run.rstrip("/"), settings_of(SampleConfig, options)
    if options.prompts and config.prompt:
        raise ValueError("prompt and prompts contradict each other; give one of them")
    asked = {options.out or f"{run}/dit/sample.mp4": config}
    if options.prompts:
        folder = (options.out or f"{run}/dit/samples").rstrip("/")
        lines = words.prompts(options.prompts)
        asked = {f"{folder}/{number:03d}.mp4": replace(config, prompt=line) for number, line in enumerate(lines)}
    with Reporter().work("dit") as beat:
        sampler = sample.Sampler(options.dit or f"{run}/dit/model", tokenizer_of(options), config.device)
        for one in asked.values():
            sampler.text.require_room(one.prompt)  # all of them, before the first is made
        made = {out: sampler.write(one, out, beat.tell) for out, one in asked.items()}
    for out, planned in made.items():
        size = f"{sum(planned.lengths)} frames of {planned.width}×{planned.height} at {planned.fps:.4g} fps"
        print(f"{out}: {size}, {planned.tokens} tokens")
    return DONE


def _dit_eval_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with latents and a DiT trained on them")
    parser.add_argument("--dit", type=str, default="", help="folder of the training; RUN/dit if not given")
    tokenizer(parser)
    selection(parser, "whose latents it was trained on")
    parser.add_argument("--out", type=str, default="", help="folder; eval/ in that of the training if not given")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    configured(parser, EvalConfig)


def _dit_eval(options: Namespace) -> int:
    from rushes.dit import evaluate
    from rushes.pipelines.models import weights

    folder = options.dit.rstrip("/") or f"{options.run.rstrip('/')}/dit"
    out = options.out or f"{folder}/eval"
    with Reporter().work("dit") as beat:
        found = evaluate.evaluate(
            folder, tokenizer_of(options), set_of(options, "latents"), out, settings_of(EvalConfig, options),
            weights.lite0(), beat.tell,
        )  # fmt: skip
    show(found, options.json, [*evaluate.lines_of(found), f"written to {out}"])
    return DONE


def _dit_toy_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str, default="toy", help="folder of the pictures")
    configured(parser, ToyConfig)


def _dit_toy(options: Namespace) -> int:
    from rushes.dit import claims

    with Reporter().work("dit") as beat:
        figures, picture = claims.prove(settings_of(ToyConfig, options), options.out, beat.tell)
    for one in figures:
        print(f"{one.name}: {one.found:.3g}, {one.expected} expected{'' if one.met else ': missed'}")
    print(picture)
    return DONE if all(one.met for one in figures) else FAILED


COMMANDS = [
    Command(
        name="dit train",
        help="train the diffusion transformer on the latents of a run",
        arguments=_dit_train_arguments,
        run=_dit_train,
    ),
    Command(
        name="dit distill",
        help="make a student that needs few steps: segment by segment, or on straighter paths",
        arguments=_dit_distill_arguments,
        run=_dit_distill,
    ),
    Command(
        name="dit sample",
        help="generate clips",
        arguments=_dit_sample_arguments,
        run=_dit_sample,
        words=_sample_words,
    ),
    Command(
        name="dit eval",
        help="loss beside simple predictors, distance, camera, diversity and nearest training clips",
        arguments=_dit_eval_arguments,
        run=_dit_eval,
    ),
    Command(
        name="dit toy",
        help="try a claim about the diffusion transformer, in minutes on a CPU",
        arguments=_dit_toy_arguments,
        run=_dit_toy,
    ),
]
