"""A teacher's network as a function: from the student's images to tensors.

Its taps are installed once, when the teacher is built: nothing but the images
changes from batch to batch, so that the function can be compiled or captured
whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_rl.records import Batch
from mmkd_rl.taps import Tap
from mmkd_rl.teachers.normalization import InputAdapter

#: What ``precision`` of a teacher may be.
PRECISIONS = dict(
    float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)


class TappedNetwork(nn.Module):
    """A network with hooks for good, which record while it is called here.

    Args:
        network: The network.
        run: One forward pass of it, as far as its taps need it; see
            :meth:`Task.run`.
        adapter: From the student's images to the network's own.
        precision: A key of :data:`PRECISIONS`: the network runs in it by
            autocast, whatever the student is trained in, and all tensors are
            returned in float32. ``None``: as the student.
    """

    def __init__(self, network: nn.Module, run: Callable[[nn.Module, Batch],
                                                         Any],
                 adapter: InputAdapter, precision: str | None = None) -> None:
        super().__init__()
        self.network, self.adapter, self.precision = (network, adapter,
                                                      precision)
        self._run = run
        self._taps: list[Tap] = []
        #: Of each tap, what its module's calls gave in the forward pass that
        #: is going on; ``None``: there is none, and hooks do nothing.
        self._seen: list[list[Any]] | None = None

    def install(self, root: nn.Module, taps: Sequence[Tap]) -> slice:
        """Read more tensors from now on.

        Args:
            root: The module to which the taps' paths are relative: the
                network, or a module in it.
            taps: What to read.

        Returns:
            Where :meth:`forward` returns them.
        """
        first = len(self._taps)
        for number, tap in enumerate(taps, first):
            tap.install(root, partial(self._record, number))
            self._taps.append(tap)
        return slice(first, len(self._taps))

    def _record(self, number: int, value: Any) -> None:
        if self._seen is not None:
            self._seen[number].append(value)

    def forward(self, images: Tensor, samples: Sequence = ()
                ) -> tuple[tuple[Tensor, ...], ...]:
        """Run the network once.

        Args:
            images: Normalised for the student, [B, 3, H, W].
            samples: Their data samples, for networks that need them to run.

        Returns:
            Of each installed tap its tensors, one or one a level.
        """
        seen: list[list[Any]] = [[] for _ in self._taps]
        images = self.adapter(images)
        self._seen = seen
        try:
            with self._autocast(images.device.type):
                self._run(self.network, Batch(images, samples))
        finally:
            self._seen = None
        tensors = tuple(tap.read(values)
                        for tap, values in zip(self._taps, seen))
        if self.precision is None:
            return tensors
        return tuple(tuple(t.float() for t in levels) for levels in tensors)

    def _autocast(self, device: str) -> AbstractContextManager:
        if self.precision is None:
            return nullcontext()
        dtype = PRECISIONS[self.precision]
        return torch.autocast(device, dtype=dtype,
                              enabled=dtype != torch.float32)
