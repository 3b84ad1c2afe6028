"""Executors make a teacher's outputs, by running its network or otherwise.

A teacher asks its executor alone, so that a network can be compiled, or its
outputs read from a store, without a change elsewhere. ``executor='eager'`` in
a teacher's config is the one that is there; others register themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from mmkd_rl.records import Batch, Output
from mmkd_rl.registry import EXECUTORS
from mmkd_rl.taps import OutputTaps, Tap
from mmkd_rl.tasks import Task
from mmkd_rl.teachers.normalization import InputAdapter


class Executor(ABC):
    """Makes one teacher's outputs.

    Args:
        name: The teacher's name.
        network: The teacher's network, frozen.
        adapter: From the student's images to the teacher's own.
        task: How networks of its kind are run.
        taps: Where the output is read.
    """

    def __init__(self, name: str, network: nn.Module, adapter: InputAdapter,
                 task: Task, taps: OutputTaps) -> None:
        self.name, self.network, self.adapter = name, network, adapter
        self.task, self.taps = task, taps

    @abstractmethod
    def __call__(self, batch: Batch) -> tuple[Output, tuple[Tensor, ...]]:
        """The output, logits over the teacher's own classes; and the tensors
        of the taps of :meth:`listen`.

        Args:
            batch: Images normalised for the student. Called without gradient,
                but not under ``inference_mode``: the student's losses save
                these tensors for their backward pass.
        """

    def listen(self, taps: Sequence[Tap]) -> None:
        """Read inner layers of the network, too.

        Raises:
            ValueError: This executor has none.
        """
        raise ValueError(
            f'teacher {self.name!r}: {type(self).__name__} gives no inner '
            "layers, which Knowledge Flow needs; use executor='eager'")


@EXECUTORS.register_module(name='eager')
class EagerExecutor(Executor):
    """Runs the network as it is, with taps installed for one forward pass."""

    _inner: tuple[Tap, ...] = ()

    def listen(self, taps: Sequence[Tap]) -> None:
        """See :meth:`Executor.listen`."""
        self._inner = tuple(taps)

    def __call__(self, batch: Batch) -> tuple[Output, tuple[Tensor, ...]]:
        """See :meth:`Executor.__call__`."""
        own = replace(batch, images=self.adapter(batch.images))
        root = inner_root(self.network)
        listeners = [tap.listen(root) for tap in self._inner]
        try:
            output = self.task.teacher_step(self.network, self.taps, own)
        finally:
            for listener in listeners:
                listener.stop()
        return output, tuple(listener.tensor() for listener in listeners)


def inner_root(model: nn.Module) -> nn.Module:
    """The module to which paths of inner taps are relative: the backbone, if
    the network has one."""
    return getattr(model, 'backbone', model)

