"""How the threads of torch wait for each other: asleep. One place for all trainings. A leaf: no torch.

Torch cuts each operation into as many parts as it has threads, and OpenMP's threads spin for milliseconds where they
wait for the others. Beside another busy process that takes the core away from the very thread that is waited for: on
two cores a training falls to a tenth of its pace or less. Asleep they lose nothing, and two threads are as fast as the
cores allow. OpenMP reads its settings once, when torch is loaded.
"""

from __future__ import annotations

import logging
import os
import sys

log = logging.getLogger(__name__)
POLICY = "OMP_WAIT_POLICY"
TOO_LATE = "torch" in sys.modules and POLICY not in os.environ
"""Whether torch was loaded before this and its threads spin."""


def sleep_while_waiting() -> None:
    """Have OpenMP's threads sleep while they wait, in this process and those that it starts, unless told otherwise."""
    os.environ.setdefault(POLICY, "PASSIVE")


def warn_of_spinning(threads: int) -> None:
    """Warn where a training with so many threads will crawl beside a busy process."""
    if TOO_LATE and threads > 1:
        log.warning(
            "torch was loaded before rushes, so its %d threads spin while they wait, and a busy core beside them slows "
            "the training down many times; import rushes.tokenizer or rushes.dit first, or set %s=PASSIVE",
            threads, POLICY,
        )  # fmt: skip
