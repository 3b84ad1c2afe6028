"""Replay buffer of off-policy updaters, over several intervals.

Like the history it holds batches within a set number of bytes; when it is full
the oldest batches are removed.
"""

from __future__ import annotations

import torch

from mmkd_rl.records import Transition
from mmkd_rl.weighting.mtkd_rl.history import History


class Replay(History):
    """The newest transitions of all intervals.

    Args:
        max_bytes: Largest number of bytes.
    """

    key = 'replay_bytes'

    def add(self, transition: Transition) -> None:
        """Append a batch, or as many of its samples as fit in ``max_bytes``.

        Raises:
            ConfigError: Not even one sample fits in ``max_bytes``.
        """
        self._seen += 1
        self._batches.append(self._fitting(transition))
        while self.nbytes > self.max_bytes:
            self._batches.pop(0)

    def draw(self, generator: torch.Generator | None = None
             ) -> tuple[Transition, Transition]:
        """A batch drawn uniformly, and the next one (the last batch is its own
        next one).

        Args:
            generator: A generator on the CPU; ``None``: the global one.
        """
        i = int(torch.randint(len(self), (), generator=generator))
        return self._batches[i], self._batches[min(i + 1, len(self) - 1)]
