"""Executors compute or read the outputs of a teacher.

A teacher gets its outputs only from its executor, so that a network can be
compiled, or outputs read from a store, without a change elsewhere:
``executor='eager'``, and :class:`StoredExecutor`; others can be registered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from mmkd_rl.records import Batch, Output
from mmkd_rl.registry import EXECUTORS
from mmkd_rl.teachers.tapped import TappedNetwork

#: Tensors of each tap, one a level.
Tensors = tuple[tuple[Tensor, ...], ...]
#: A teacher's output, and its inner layers.
Given = tuple[Output, tuple[Tensor, ...]]


class Executor(ABC):
    """Base of executors, which give the outputs of one teacher.

    Args:
        name: The teacher's name.
        network: The frozen network with its taps.
        read: Makes the output, logits over the teacher's own classes, and the
            inner layers of the taps' tensors.
    """

    #: Whether it can give the inner layers that Knowledge Flow links.
    gives_inner_layers = True

    def __init__(self, name: str, network: TappedNetwork,
                 read: Callable[[Tensors], Given]) -> None:
        self.name, self.network, self.read = name, network, read

    @abstractmethod
    def __call__(self, batch: Batch) -> Given:
        """The teacher's output for a batch, and its inner layers.

        Args:
            batch: Images normalised for the student. Called without gradient,
                but not under ``inference_mode``: the student's losses save
                these tensors for their backward pass.
        """

    def run(self, batch: Batch) -> Given:
        """Run the network."""
        return self.read(self.network(batch.images, batch.samples))


@EXECUTORS.register_module(name='eager')
class EagerExecutor(Executor):
    """Runs the network without changes."""

    def __call__(self, batch: Batch) -> Given:
        """See :meth:`Executor.__call__`."""
        return self.run(batch)
