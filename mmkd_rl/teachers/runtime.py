"""How one teacher is run: a function from images to a tuple of tensors."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from mmkd_rl.records import ModelOutput, ModelSpec
from mmkd_rl.taps import OutputTaps, Tap
from mmkd_rl.tasks import Task
from mmkd_rl.teachers.normalization import InputAdapter


class FrozenTeacher(nn.Module):
    """A network that is never trained.

    Args:
        name: Its name in configs, logs and messages.
        model: The network; frozen and set to eval here.
        taps: Where its output is read.
        task: How it is run.
        adapter: From the student's images to its own.
    """

    def __init__(self, name: str, model: nn.Module, taps: OutputTaps,
                 task: Task, adapter: InputAdapter) -> None:
        super().__init__()
        self.name = name
        self.model = model
        self.adapter = adapter
        self._taps, self._task = taps, task
        #: What else is read on the way, see :meth:`TeacherPool.listen`.
        self.inner: tuple[Tap, ...] = ()
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenTeacher:
        """A teacher stays in eval."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Logits [B, C] and feature [B, D, H, W] of normalised images, then
        what ``inner`` reads.

        Not under ``inference_mode``: the student's losses save these tensors
        for their backward pass, which inference tensors forbid.
        """
        with ExitStack() as stack:
            for tap in self.inner:
                stack.enter_context(tap.recording())
            output = self._task.infer(self.model, self._taps,
                                      self.adapter(images))
        return (output.logits, output.feature,
                *(tap.take() for tap in self.inner))

    def classify(self, feature: Tensor) -> Tensor:
        """Its classifier alone, [B, C]; gradients reach the feature.

        Args:
            feature: Of the shape that :meth:`forward` gives.

        Raises:
            ValueError: The task cannot tell where its classifier begins.
        """
        return self._task.classify(self.model, self._taps, feature,
                                   f'teacher {self.name!r}')

    def probe(self, images: Tensor) -> ModelSpec:
        """The sizes of what it returns.

        Raises:
            ValueError: It gives NaN or infinity.
        """
        logits, feature = self(images)[:2]
        if not (logits.isfinite().all() and feature.isfinite().all()):
            raise ValueError(
                f'teacher {self.name!r} gives NaN or infinity even on a grey '
                'image; look at its checkpoint')
        return spec_of(self.name, ModelOutput(logits, feature))


def spec_of(name: str, output: ModelOutput) -> ModelSpec:
    """Sizes of an output.

    Raises:
        ValueError: A feature that is neither a map nor a vector.
    """
    if output.feature.ndim not in (2, 4):
        raise ValueError(
            f'{name}: the tapped feature has shape '
            f'{tuple(output.feature.shape)}; tap a map [B, D, H, W] or a '
            f"vector [B, D] with taps=dict(feature='...')")
    return ModelSpec(name, output.logits.shape[1],
                     tuple(output.feature.shape[1:]))
