"""Executors compute or read the tensors of a teacher's taps.

A teacher gets its tensors only from its executor, so that a network can be
compiled, or outputs read from a store, without a change elsewhere. The only
one in this package is ``executor='eager'``; others can be registered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from mmkd_rl.records import Batch
from mmkd_rl.registry import EXECUTORS
from mmkd_rl.teachers.tapped import TappedNetwork


class Executor(ABC):
    """Base of executors, which give the tensors of one teacher's taps.

    Args:
        name: The teacher's name.
        network: The frozen network with its taps.
    """

    #: Whether it can give the inner layers that Knowledge Flow links.
    gives_inner_layers = True

    def __init__(self, name: str, network: TappedNetwork) -> None:
        self.name, self.network = name, network

    @abstractmethod
    def __call__(self, batch: Batch) -> tuple[tuple[Tensor, ...], ...]:
        """Return what :meth:`TappedNetwork.forward` returns for the batch.

        Args:
            batch: Images normalised for the student. Called without gradient,
                but not under ``inference_mode``: the student's losses save
                these tensors for their backward pass.
        """


@EXECUTORS.register_module(name='eager')
class EagerExecutor(Executor):
    """Runs the network without changes."""

    def __call__(self, batch: Batch) -> tuple[tuple[Tensor, ...], ...]:
        """See :meth:`Executor.__call__`."""
        return self.network(batch.images, batch.samples)
