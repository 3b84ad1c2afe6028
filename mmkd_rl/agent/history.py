"""What happened since the agent was last trained (MTKD-RL, Algorithm 2).

Batch by batch, at most a set number of bytes whatever the size of the data
set: when it is full, the oldest batches go first, since the student that they
were about is gone too. It stays on the device of what is put in and never
makes the host wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import fields

import torch
from torch import Tensor

from mmkd_rl.records import Transition

_FIELDS = tuple(f.name for f in fields(Transition))


class History:
    """Queue of transitions, one a training batch.

    Args:
        max_bytes: Bound on its memory.

    Raises:
        ValueError: The bound is not positive.
    """

    def __init__(self, max_bytes: int = 8 * 2**20) -> None:
        if max_bytes < 1:
            raise ValueError('weighting.history_bytes must be >= 1, got '
                             f'{max_bytes}')
        self.max_bytes = max_bytes
        self._batches: deque[Transition] = deque()
        self.nbytes = 0  #: Bytes that it holds now.

    def __len__(self) -> int:
        """Batches in it."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Transition]:
        """Oldest first."""
        return iter(self._batches)

    def clear(self) -> None:
        """Forget everything."""
        self._batches.clear()
        self.nbytes = 0

    def add(self, transition: Transition) -> None:
        """Append a batch; the oldest go when it does not fit.

        Raises:
            ValueError: Not even this one fits in ``max_bytes``.
        """
        size = _nbytes(transition)
        if size > self.max_bytes:
            raise ValueError(
                f'weighting.history_bytes={self.max_bytes} holds no single '
                f'batch, which takes {size} bytes')
        while self.nbytes + size > self.max_bytes:
            self.nbytes -= _nbytes(self._batches.popleft())
        self._batches.append(transition)
        self.nbytes += size

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move along with the distiller."""
        self._batches = deque(
            Transition(*(fn(getattr(t, f)) for f in _FIELDS))
            for t in self._batches)
        self.nbytes = sum(map(_nbytes, self._batches))

    def state_dict(self) -> dict[str, Tensor | list[int]]:
        """Its samples, [N, ...] each, and how many each batch has."""
        if not self._batches:
            return {}
        state: dict = {
            f: torch.cat([getattr(t, f) for t in self._batches]).cpu()
            for f in _FIELDS
        }
        state['batch_sizes'] = [len(t.state) for t in self._batches]
        return state

    def load_state_dict(self, state: dict) -> None:
        """Fill it with what :meth:`state_dict` returned."""
        self.clear()
        if not state:
            return
        columns = [state[f].split(state['batch_sizes']) for f in _FIELDS]
        for batch in zip(*columns):
            # Cloned: a slice would keep the whole file's tensor alive.
            self.add(Transition(*(t.clone() for t in batch)))


def _nbytes(transition: Transition) -> int:
    return sum(
        getattr(transition, f).numel() * getattr(transition, f).element_size()
        for f in _FIELDS)
