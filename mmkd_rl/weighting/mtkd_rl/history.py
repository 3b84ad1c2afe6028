"""The transitions since the agent's last update (MTKD-RL, Algorithm 2).

Batches within a set number of bytes, whatever the size of the data set. When
the history is full every other batch is removed, and from then on only every
second (fourth, ...) batch is added, so that the batches still cover the whole
interval evenly. The next interval begins with that stride. Rewards are
computed for kept batches alone, so that on large data sets they cost little.
Tensors stay on their device, without synchronisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from mmkd_rl.options import ConfigError
from mmkd_rl.records import Transition

_FIELDS = tuple(f.name for f in fields(Transition))


class History:
    """Transitions, one for each training batch.

    Args:
        max_bytes: Largest number of bytes.
    """

    #: The option that sets the bound.
    key = 'history_bytes'

    def __init__(self, max_bytes: int = 8 * 2**20) -> None:
        self.max_bytes = max_bytes
        self._stride = 1  # every stride-th batch is kept
        self.clear()

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Transition]:
        """Batches, oldest first."""
        return iter(self._batches)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(map(_nbytes, self._batches))

    def nbytes_after(self, steps: int) -> int:
        """Bytes after as many batches of the size of the first one.

        Args:
            steps: Number of batches.
        """
        size = _nbytes(self._batches[0])
        return size * min(steps, self.max_bytes // size)

    @property
    def share(self) -> float:
        """Share of the added batches that is still held; 1 when empty."""
        return len(self._batches) / self._seen if self._seen else 1.

    @property
    def wants_next(self) -> bool:
        """Whether :meth:`add` would keep the next batch."""
        return self._seen % self._stride == 0

    def skip(self) -> None:
        """Count a batch that is not added."""
        self._seen += 1

    def clear(self) -> None:
        """Remove all batches. The stride stays, since the next interval is
        probably as long; it is halved if twice the batches had fitted."""
        if self._stride > 1 and 2 * self.nbytes <= self.max_bytes:
            self._stride //= 2
        self._batches: list[Transition] = []
        self._seen = 0  # batches of this interval

    def add(self, transition: Transition) -> None:
        """Add a batch, or as many of its samples as fit in ``max_bytes``, if
        the stride keeps it.

        Raises:
            ConfigError: Not even one sample fits in ``max_bytes``.
        """
        keep = self.wants_next
        self._seen += 1
        if not keep:
            return
        self._batches.append(self._fitting(transition))
        while self.nbytes > self.max_bytes:
            self._batches = self._batches[::2]
            self._stride *= 2

    def _fitting(self, transition: Transition) -> Transition:
        """The first samples of a batch, as many as fit in ``max_bytes``."""
        samples = len(transition.state)
        row = _nbytes(transition) // samples
        if row > self.max_bytes:
            raise ConfigError(self.key, f'{self.max_bytes} is too small: one '
                              f'sample takes {row} bytes')
        if row * samples <= self.max_bytes:
            return transition
        return Transition(*(
            getattr(transition, f)[:self.max_bytes // row].clone()
            for f in _FIELDS))

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move all tensors."""
        self._batches = [
            Transition(*(fn(getattr(t, f)) for f in _FIELDS))
            for t in self._batches
        ]

    def state_dict(self) -> dict[str, Any]:
        """All samples, [N, ...] each, sizes of batches, and the stride."""
        state: dict = dict(
            seen=self._seen, stride=self._stride,
            batch_sizes=[len(t.state) for t in self._batches])
        if self._batches:
            state.update({
                f: torch.cat([getattr(t, f) for t in self._batches]).cpu()
                for f in _FIELDS})
        return state

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._batches = []
        # Files of earlier versions have no entries for an empty history.
        self._seen = state.get('seen', 0)
        self._stride = state.get('stride', 1)
        if not state.get('batch_sizes'):
            return
        columns = [state[f].split(state['batch_sizes']) for f in _FIELDS]
        for batch in zip(*columns):
            # Cloned: a slice would keep the whole file's tensor alive.
            self._batches.append(Transition(*(t.clone() for t in batch)))


def _nbytes(transition: Transition) -> int:
    return sum(
        getattr(transition, f).numel() * getattr(transition, f).element_size()
        for f in _FIELDS)
