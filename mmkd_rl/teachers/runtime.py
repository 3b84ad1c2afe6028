"""How one teacher is run: from a batch to what its taps read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmkd_rl.records import Batch, Output, OutputSpec
from mmkd_rl.registry import EXECUTORS, build
from mmkd_rl.taps import OutputTaps
from mmkd_rl.tasks import Task
from mmkd_rl.teachers.executor import Executor
from mmkd_rl.teachers.normalization import InputAdapter


class FrozenTeacher(nn.Module):
    """A network that is never trained.

    Args:
        name: Its name in configs, logs and messages.
        model: The network; frozen and set to eval here.
        taps: Where its output is read.
        task: How it is run.
        adapter: From the student's images to its own.
        executor: Config of what makes its outputs, see :class:`Executor`.
    """

    def __init__(self, name: str, model: nn.Module, taps: OutputTaps,
                 task: Task, adapter: InputAdapter,
                 executor: str | dict = 'eager') -> None:
        super().__init__()
        self.name = name
        self.model = model
        self.adapter = adapter
        self._taps, self._task = taps, task
        self.executor: Executor = build(
            EXECUTORS,
            dict(type=executor) if isinstance(executor, str) else executor,
            f'teacher {name!r}: executor', name=name, network=model,
            adapter=adapter, task=task, taps=taps)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenTeacher:
        """A teacher stays in eval."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> tuple[Output, tuple[Tensor, ...]]:
        """The teacher's output, logits over its own classes; and the tensors
        of the taps that :meth:`TeacherPool.listen` asks for.

        Args:
            batch: Images normalised for the student.
        """
        return self.executor(batch)

    def classify(self, feature: Tensor) -> Tensor:
        """Logits of the teacher's classifier alone, [B, C]; gradients reach
        the feature.

        Args:
            feature: Of the shape that :meth:`forward` gives.

        Raises:
            ValueError: The task cannot tell where its classifier begins.
        """
        return self._task.classify(self.model, self._taps, feature,
                                   f'teacher {self.name!r}')

    def probe(self, batch: Batch) -> OutputSpec:
        """The sizes of what it returns.

        Raises:
            ValueError: It gives NaN or infinity.
        """
        output, _ = self(batch)
        if not all(t.isfinite().all() for t in output.tensors()):
            raise ValueError(
                f'teacher {self.name!r} gives NaN or infinity even on a grey '
                'image; look at its checkpoint')
        return spec_of(self.name, output)


def spec_of(name: str, output: Output) -> OutputSpec:
    """Sizes of an output.

    Raises:
        ValueError: A feature that is neither a map nor a vector.
    """
    for feature in output.features:
        if feature.ndim not in (2, 4):
            raise ValueError(
                f'{name}: the tapped feature has shape '
                f'{tuple(feature.shape)}; tap a map [B, D, H, W] or a '
                f"vector [B, D] with taps=dict(feature='...')")
    return OutputSpec.of(name, output)
