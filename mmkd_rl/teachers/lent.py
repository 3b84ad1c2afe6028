"""A distiller's teachers, for whoever else wants to look inside of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmkd_rl.records import Batch
from mmkd_rl.taps import Tap
from mmkd_rl.teachers.executor import inner_root
from mmkd_rl.teachers.normalization import Normalization
from mmkd_rl.teachers.pool import TeacherPool


class LentFeatures:
    """What a :class:`FeaturePool` is, on the teachers of a
    :class:`TeacherPool`. The distiller runs them, also those that are not
    active here.

    Args:
        pool: The distiller's.
    """

    def __init__(self, pool: TeacherPool) -> None:
        self._pool = pool
        self.names = pool.names

    def __deepcopy__(self, memo: dict) -> LentFeatures:
        """Copies share the teachers."""
        return self

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """What layers' paths are relative to: backbones, where there are."""
        return tuple(inner_root(t.model) for t in self._pool)

    @property
    def input_sizes(self) -> tuple[tuple[int, int] | None, ...]:
        """(H, W) that images are brought to, for each teacher; ``None``: as
        they come."""
        return tuple(t.adapter.input_size for t in self._pool)

    @torch.no_grad()
    def run(self, index: int, images: Tensor) -> None:
        """One forward pass of one teacher, for whoever listens to it."""
        list(self._pool)[index](Batch(images))

    def listen(self, taps: Sequence[Sequence[Tap]]) -> None:
        """What :meth:`__call__` shall return of each teacher."""
        self._pool.listen(taps)

    def adapt(self, student: Normalization | None) -> None:
        """The distiller has said it when it made the pool."""

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """The distiller moves them."""

    def __call__(self, images: Tensor, active: Sequence[bool]
                 ) -> tuple[tuple[Tensor, ...], ...]:
        """Layers of each teacher, of images that the distiller has not shown
        them: what it shows them it hands over itself."""
        return self._pool.run(Batch(images)).inner
