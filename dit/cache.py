"""A cache of what the blocks say: steps of a sampler in which little has changed pass them by.

The idea of TeaCache, arXiv 2411.19108: what goes into the first block, modulated by the time, tells cheaply how much
comes out. Its polynomials, fitted to each model, are left out: the change of the input is taken as it is.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor


class StepCache:
    """Keeps what the blocks added to tokens, for one clip that is generated."""

    def __init__(self, threshold: float):
        """Take how much the input may change in all until the blocks are asked again; 0 asks them at each step."""
        self.threshold = threshold
        self.asked = self.computed = 0
        """Steps, and those in which the blocks were asked."""
        self._before: Tensor | None = None
        self._changed = 0.0
        self._added: Tensor | None = None

    def __call__(
        self, x: Float[Tensor, "n d"], seen: Float[Tensor, "n d"], blocks: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "n d"]:
        """Return what the blocks make of x, or x and what they added last.

        Args:
            x: tokens.
            seen: what the first block sees of them.
            blocks: all blocks.
        """
        due, self._before = self.due(seen, self._before), seen
        self.asked += 1
        if not due and self._added is not None:
            return x + self._added
        found = blocks(x)
        self.computed, self._added = self.computed + 1, found - x
        return found

    def due(self, seen: Float[Tensor, "n d"], before: Float[Tensor, "n d"] | None) -> bool:
        """Return whether the blocks have to be asked: always at first."""
        if before is not None:
            self._changed += float((seen - before).abs().mean() / before.abs().mean())
            if self._changed < self.threshold:
                return False
        self._changed = 0.0
        return True
