"""Executors make a teacher's outputs, by running its network or otherwise.

A teacher asks its executor alone, so that a network can be compiled, or its
outputs read from a store, without a change elsewhere. ``executor='eager'`` in
a teacher's config is the one that is there; others register themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from mmkd_rl.records import Batch
from mmkd_rl.registry import EXECUTORS
from mmkd_rl.teachers.tapped import TappedNetwork


class Executor(ABC):
    """Makes one teacher's outputs.

    Args:
        name: The teacher's name.
        network: From the student's images to the tensors of all taps, frozen.
    """

    #: Whether it can give the layers that Knowledge Flow links.
    gives_inner_layers = True

    def __init__(self, name: str, network: TappedNetwork) -> None:
        self.name, self.network = name, network

    @abstractmethod
    def __call__(self, batch: Batch) -> tuple[tuple[Tensor, ...], ...]:
        """What :meth:`TappedNetwork.forward` returns of these images.

        Args:
            batch: Images normalised for the student. Called without gradient,
                but not under ``inference_mode``: the student's losses save
                these tensors for their backward pass.
        """


@EXECUTORS.register_module(name='eager')
class EagerExecutor(Executor):
    """Runs the network as it is."""

    def __call__(self, batch: Batch) -> tuple[tuple[Tensor, ...], ...]:
        """See :meth:`Executor.__call__`."""
        return self.network(batch.images, batch.samples)
