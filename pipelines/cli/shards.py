"""`rushes latents` and `rushes export`: what is made of clip shards, for our own training and for other people's."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from rushes.pipelines.cli.command import (
    DONE,
    FAILED,
    PARTLY,
    Command,
    configured,
    selection,
    settings_of,
    show,
    tokenizer,
    tokenizer_of,
)
from rushes.pipelines.config import LatentsConfig, RayConfig
from rushes.pipelines.export.settings import ExportConfig, Preset
from rushes.pipelines.progress import Reporter, counted

DIALECTS = (
    "folder", "musubi", "diffusion-pipe", "ai-toolkit", "simpletuner", "ltx", "diffsynth", "videox-fun", "fastvideo",
    "open-sora", "hf", "lance", "webshart", "fiftyone",
)  # fmt: skip

FLAGS = {
    "split": "make several pieces of a clip that is longer than max_frames, rather than trim its end",
    "link": "let whole shards (webshart) be hard links rather than copies, where the disk can",
}


def _latents_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with shards")
    tokenizer(parser)
    selection(parser, "whose shards to encode")
    configured(parser, LatentsConfig, {"per_clip": "the budget holds for each clip by itself, not for all together"})
    parser.add_class_arguments(RayConfig, "ray")


def _latents(options: Namespace) -> int:
    from rushes.pipelines.engine import cluster, encode_latents

    with cluster.apart():
        manifest = encode_latents.run(
            options.run, tokenizer_of(options), settings_of(LatentsConfig, options), options.ray,
            selection=options.selection,
        )  # fmt: skip
    name = manifest.extra["selection"]
    where = f"{options.run.rstrip('/')}/latents/{name}"
    print(f"latents of {counted(manifest.samples, 'clip')} in {counted(len(manifest.shards), 'shard')} below {where}")
    return PARTLY if encode_latents.failures(options.run, name) else DONE


def _export_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with shards")
    parser.add_argument("--to", choices=DIALECTS, required=True, help="whose trainer it is for")
    parser.add_argument("--out", type=str, required=True, help="a local folder; the same command goes on in it")
    parser.add_argument(
        "--for", type=Preset, default="",
        help="the model that is trained: sets fps, frames, multiple and max_frames (wan 16, 4n+1, 16, 81; hunyuan 24, "
        "4n+1, 16, 129; ltx 24, 8n+1, 32, 121; cosmos 16, 4n+1, 16, 93)",
    )  # fmt: skip
    selection(parser, "whose shards to export")
    configured(parser, ExportConfig, FLAGS)
    parser.add_argument("--json", action="store_true", help="print the account as JSON")


def _export(options: Namespace) -> int:
    from rushes.pipelines.export import account, export

    found = export.run(
        options.run, options.out, options.to, settings_of(ExportConfig, options), preset=options["for"],
        selection=options.selection, reporter=Reporter(),
    )  # fmt: skip
    show(found, options.json, account.lines(found))
    return FAILED if found["problems"] else PARTLY if found["clips"]["failed"] else DONE


COMMANDS = [
    Command(name="latents", help="clip shards to latent shards", arguments=_latents_arguments, run=_latents),
    Command(
        name="export",
        help="write a selection's clips as other people's trainers read them",
        arguments=_export_arguments,
        run=_export,
    ),
]
