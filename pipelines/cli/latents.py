"""`rushes latents`: clip shards to latent shards."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from rushes.pipelines.cli.command import (
    DONE,
    PARTLY,
    Command,
    configured,
    selection,
    settings_of,
    tokenizer,
    tokenizer_of,
)
from rushes.pipelines.config import LatentsConfig, RayConfig


def _latents_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=str, help="a run with shards")
    tokenizer(parser)
    selection(parser, "whose shards to encode")
    configured(parser, LatentsConfig)
    parser.add_class_arguments(RayConfig, "ray")


def _latents(options: Namespace) -> int:
    from rushes.pipelines.engine import cluster, encode_latents

    with cluster.apart():
        manifest = encode_latents.run(
            options.run, tokenizer_of(options), settings_of(LatentsConfig, options), options.ray,
            selection=options.selection,
        )  # fmt: skip
    name = manifest.extra["selection"]
    print(f"{manifest.samples} latents in {len(manifest.shards)} shards below {options.run.rstrip('/')}/latents/{name}")
    return PARTLY if encode_latents.failures(options.run, name) else DONE


COMMANDS = [
    Command(name="latents", help="clip shards to latent shards", arguments=_latents_arguments, run=_latents),
]
