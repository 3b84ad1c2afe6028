"""What an off-policy updater remembers beyond the last interval.

Like the history it holds batches within a set number of bytes; when it is full
the oldest go.
"""

from __future__ import annotations

import torch

from mmkd_rl.records import Transition
from mmkd_rl.weighting.mtkd_rl.history import History


class Replay(History):
    """Transitions, the newest of all intervals.

    Args:
        max_bytes: Bound on its memory.
    """

    key = 'replay_bytes'

    def add(self, transition: Transition) -> None:
        """Append a batch. Of one that is larger than the bound, as many
        samples are kept as fit.

        Raises:
            ConfigError: Not even one sample fits in ``max_bytes``.
        """
        self._seen += 1
        self._batches.append(self._fitting(transition))
        while self.nbytes > self.max_bytes:
            self._batches.pop(0)

    def draw(self, generator: torch.Generator | None = None
             ) -> tuple[Transition, Transition]:
        """A batch drawn evenly, and the one after it (or itself, if it is
        the last).

        Args:
            generator: Of the CPU; ``None``: the global one.
        """
        i = int(torch.randint(len(self), (), generator=generator))
        return self._batches[i], self._batches[min(i + 1, len(self) - 1)]
