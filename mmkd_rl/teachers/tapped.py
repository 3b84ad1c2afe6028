"""A teacher's network as a function from the student's images to tensors.

The taps are installed once, when the teacher is built: only the images change
from batch to batch, so that the whole function can be compiled or captured.
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
from mmkd_rl.teachers.windows import SlidingWindow

#: Values of a teacher's ``precision``.
PRECISIONS = dict(
    float32=torch.float32, bfloat16=torch.bfloat16, float16=torch.float16)


class TappedNetwork(nn.Module):
    """A network with permanent hooks, which record only in :meth:`forward`.

    Args:
        network: The network.
        run: Runs a forward pass, at least up to the taps; see
            :meth:`Task.run`.
        adapter: Converts the student's images for the network.
        precision: A key of :data:`PRECISIONS`: the network runs in autocast of
            this precision, independent of the student's, and all tensors are
            returned in float32. ``None``: the student's precision.
        window: Images that are larger are run in windows of this size, one
            after the other, and the tensors are put together; ``None``: whole
            images.
    """

    def __init__(self, network: nn.Module, run: Callable[[nn.Module, Batch],
                                                         Any],
                 adapter: InputAdapter, precision: str | None = None,
                 window: SlidingWindow | None = None) -> None:
        super().__init__()
        self.network, self.adapter = network, adapter
        self.precision, self.window = precision, window
        self._run = run
        self._taps: list[Tap] = []
        #: Recorded values of each tap in the current forward pass; ``None``
        #: outside of :meth:`forward`: hooks do nothing.
        self._seen: list[list[Any]] | None = None

    def install(self, root: nn.Module, taps: Sequence[Tap]) -> slice:
        """Install more taps.

        Args:
            root: The module to which the taps' paths are relative: the
                network, or a module in it.
            taps: The taps.

        Returns:
            Slice of the taps' tensors in the output of :meth:`forward`.
        """
        first = len(self._taps)
        for number, tap in enumerate(taps, first):
            tap.install(root, partial(self._record, number))
            self._taps.append(tap)
        return slice(first, len(self._taps))

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The installed taps."""
        return tuple(self._taps)

    def _record(self, number: int, value: Any) -> None:
        if self._seen is not None:
            self._seen[number].append(value)

    def forward(self, images: Tensor, samples: Sequence = ()
                ) -> tuple[tuple[Tensor, ...], ...]:
        """Run the network once.

        Args:
            images: Images normalised for the student, [B, 3, H, W].
            samples: Data samples of the images, for networks that need them.

        Returns:
            Tensors of each installed tap, one for each level.
        """
        images = self.adapter(images)
        if self.window is None:
            return self._tensors(images, samples)
        places = self.window.places(images.shape[2], images.shape[3])
        if len(places) == 1:
            return self._tensors(images, samples)
        windows = [self._tensors(part, samples) for part in places.cut(images)]
        return tuple(tuple(places.stitch(level) for level in zip(*tap))
                     for tap in zip(*windows))

    def _tensors(self, images: Tensor, samples: Sequence
                 ) -> tuple[tuple[Tensor, ...], ...]:
        """As :meth:`forward`, of images in the network's normalisation."""
        seen: list[list[Any]] = [[] for _ in self._taps]
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
