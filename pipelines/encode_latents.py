"""`rushes latents RUN`: clip shards through the tokenizer into latent shards, one for each, on Ray."""

from __future__ import annotations

import logging
from typing import Any

from pipelines import latents, shards, stages, storage
from pipelines.config import LatentsConfig
from pipelines.progress import Reporter

log = logging.getLogger("rushes")
