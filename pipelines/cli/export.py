"""`rushes export`: the clips of a selection, cut and listed as other people's trainers read them."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from rushes.pipelines.cli.command import DONE, FAILED, PARTLY, Command, configured, selection, settings_of, show
from rushes.pipelines.export.settings import ExportConfig, Preset
from rushes.pipelines.progress import Reporter

DIALECTS = (
    "folder", "musubi", "diffusion-pipe", "ai-toolkit", "simpletuner", "ltx", "diffsynth", "videox-fun", "fastvideo",
    "open-sora", "hf", "lance", "webshart",
)  # fmt: skip


def _export_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with shards")
    parser.add_argument("--to", choices=DIALECTS, required=True, help="whose trainer it is for")
    parser.add_argument("--out", type=str, required=True, help="a local folder; the same command goes on in it")
    parser.add_argument(
        "--for", type=Preset, default="",
        help="the model that is trained: sets fps, frames, multiple and max_frames (wan 16, 4n+1, 16, 81; hunyuan 24, "
        "4n+1, 16, 129; ltx 25, 8n+1, 32, 121; cosmos 16, 4n+1, 16, 93)",
    )  # fmt: skip
    selection(parser, "whose shards to export")
    configured(parser, ExportConfig)
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
    Command(
        name="export",
        help="write a selection's clips as other people's trainers read them",
        arguments=_export_arguments,
        run=_export,
    ),
]
