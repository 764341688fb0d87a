"""Loggers of a training beside `metrics.jsonl`: Lightning's own, chosen by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from rushes.tokenizer.config import LoggerName

PACKAGES: dict[str, tuple[str, ...]] = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}
"""What a logger is made of, any of them; the others need nothing."""


def require(name: LoggerName) -> None:
    """Raise ValueError where the package of a logger is not installed."""
    packages = PACKAGES.get(name, ())
    if packages and not any(map(find_spec, packages)):
        raise ValueError(
            f"logger={name} needs the package {packages[0]}, which is not installed; `pip install {packages[0]}`, "
            "or use logger=csv; metrics.jsonl is written in any case"
        )


def logger(name: LoggerName, folder: Path, run: str, done: int, record: Mapping[str, Any]) -> Logger | None:
    """Return a logger that writes below `folder/logs`, or None for `none`.

    A resumed training goes on in the same run of Weights & Biases and in the same folder of TensorBoard, where lines
    of steps that will be taken again are hidden; CSV begins another version.

    Args:
        name: Which one.
        folder: Folder of the training.
        run: What tells this training from others, such as a fingerprint of its settings.
        done: Steps taken before.
        record: The resolved settings, which are logged as hyperparameters.

    Raises:
        ValueError: Its package is not installed.
    """
    require(name)
    made: Logger
    if name == "none":
        return None
    if name == "csv":
        made = CSVLogger(folder, name="logs", flush_logs_every_n_steps=1)
    elif name == "tensorboard":
        made = TensorBoardLogger(folder, name="logs", version="", purge_step=done + 1 if done else None)
    else:
        made = WandbLogger(name=folder.name, save_dir=folder / "logs", id=run, project="rushes", resume="allow")
    made.log_hyperparams(dict(record))
    return made


@contextmanager
def ending(logger: Logger | None) -> Iterator[None]:
    """Return a context at whose end, come what may, a run of Weights & Biases is over: the next one is another."""
    try:
        yield
    finally:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
