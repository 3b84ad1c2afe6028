"""Base class of weighting strategies, and functions that several share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from mmkd_rl.context import WeightingContext
from mmkd_rl.losses import MixtureTerm
from mmkd_rl.options import Checked, ConfigError
from mmkd_rl.records import DistillationBatch, Output, TeacherWeights
from mmkd_rl.tasks import LogitTask, Task
from mmkd_rl.weighting.learner import Learner

Scale = Literal['unit', 'paper']


class WeightingStrategy(Checked, nn.Module, ABC):
    """Base of all strategies, which give each teacher a weight per sample.

    A strategy is a module, so that it may have parameters that the student's
    optimiser trains. Parts with their own optimiser are not in the module tree
    and are moved by :meth:`apply_`.

    Args:
        context: Sizes of the networks, task and terms, given by the
            distiller.
        scale: ``'unit'``: weights sum to one over the teachers, so that the
            strength of distillation is the same for all strategies;
            ``'paper'``: the scale of the strategy's own paper.
    """

    #: Configs of hooks that a run with the strategy needs.
    hooks: tuple[dict, ...] = ()
    #: Whether the batch and the teachers' outputs are kept until hooks after
    #: the student's update have run.
    keeps_batch: bool = False
    #: Whether the learner reads :attr:`TrainingStep.scale`.
    needs_loss_scale: bool = False
    #: Whether the strategy reads teachers' scores of the student's classes.
    needs_classes: bool = True
    #: Whether the strategy needs labels and class scores.
    needs_labels: bool = False
    #: Whether the strategy takes images with boxes as labels.
    takes_objects: bool = True
    #: Whether the strategy reads teachers' features beside the terms' pairs.
    reads_features: bool = False
    #: Whether the strategy reads :attr:`Gaps.similarity`.
    needs_similarity: bool = True

    def __init__(self, context: WeightingContext,
                 scale: Scale = 'unit') -> None:
        super().__init__()
        self.context = context
        self.scale = scale
        #: The part that is trained by its own optimiser, if any.
        self.learner: Learner | None = None

    @property
    def num_teachers(self) -> int:
        """M."""
        return len(self.context.teachers)

    @property
    def judge(self) -> LogitTask:
        """The task, for strategies that need class scores and labels."""
        judge = self.context.task.judge
        assert judge is not None
        return judge

    @classmethod
    def needed_hooks(cls, options: dict) -> tuple[dict, ...]:
        """Configs of the hooks that a run needs.

        Args:
            options: The strategy's config.
        """
        return cls.hooks

    @abstractmethod
    def forward(self, batch: DistillationBatch) -> TeacherWeights:
        """Weights of a training batch, [B, M] each, detached unless the
        strategy trains them through the student's loss."""

    def mixture_terms(self) -> tuple[MixtureTerm, ...]:
        """Terms that the strategy adds to those of the config."""
        return ()

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the tensors that are not in the module tree."""
        if self.learner is not None:
            self.learner.apply_(fn)


def equal_weights(batch: DistillationBatch, num_teachers: int,
                  total: float = 1.) -> Tensor:
    """[B, M] of ``total / M``, in float32 or better."""
    like = batch.student.tensors()[-1].detach()
    return like.new_full(
        (len(like), num_teachers), total / num_teachers,
        dtype=torch.promote_types(like.dtype, torch.float32))


def require_terms(context: WeightingContext, kind: type) -> None:
    """Raise ConfigError if no term compares the student with each teacher,
    which a strategy needs to learn weights."""
    if not context.terms:
        raise ConfigError(
            f'{kind.__name__} needs terms that compare the student with '
            'each teacher, and model.losses has none; add '
            "dict(type='KDLoss') or dict(type='FitNetLoss'), or use "
            "weighting=dict(type='AverageWeighting')")


def confidence(ce_BM: Tensor) -> Tensor:
    """w^conf_m = (1 - softmax_m CE(z_m, y)) / (M - 1), [B, M] (CA-MKD;
    MTKD-RL, Eq. 9, where the printed K is M)."""
    num_teachers = ce_BM.shape[1]
    if num_teachers == 1:
        return torch.ones_like(ce_BM)
    return (1 - ce_BM.softmax(1)) / (num_teachers - 1)


def cross_entropies(task: Task, batch: DistillationBatch,
                    outputs: Iterable[Output]) -> Tensor:
    """The task's loss of each teacher's output, minus its quality, [B, M]."""
    return -torch.stack([task.quality(o, batch.truth) for o in outputs], 1)


def restrict(weights: TeacherWeights,
             coverage_BM: Tensor | None) -> TeacherWeights:
    """Set the logit weights of teachers that do not know an image's class to
    zero and scale the others to the same sum; all are zero where no teacher
    knows the class. Feature weights stay.

    Args:
        weights: Weights of a batch.
        coverage_BM: See :attr:`DistillationBatch.class_coverage`.
    """
    if coverage_BM is None:
        return weights
    kept_BM = weights.logit * coverage_BM
    total_B1 = kept_BM.sum(1, keepdim=True)
    scale_B1 = torch.where(total_B1 > 0,
                           weights.logit.sum(1, keepdim=True) /
                           total_B1.clamp_min(1e-12), 0.)
    # With mixup a label may be covered in part.
    return replace(
        weights,
        logit=kept_BM * scale_B1 * coverage_BM.amax(1, keepdim=True))
