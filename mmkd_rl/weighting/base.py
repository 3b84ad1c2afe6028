"""What a weighting strategy is: from a batch to weights of the teachers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmkd_rl.records import DistillationBatch, ModelSpec, TeacherWeights

SCALES = ('unit', 'paper')


@dataclass(frozen=True)
class WeightingContext:
    """What a strategy may know when it is built.

    Attributes:
        student: Sizes of the student's output.
        teachers: Sizes of the teachers' outputs.
        logit_weight: alpha; ``None``: logits are not distilled.
        feature_weight: beta; ``None``: features are not distilled.
        temperature: T of the logit loss.
        classify: From a teacher's index and a feature of the shape that it
            gives to the logits of that teacher's classifier, [B, C]; gradients
            reach the feature, never the teacher.
        logit_loss: The logit loss itself, for a strategy whose weights mean
            something else with another one.
    """
    student: ModelSpec
    teachers: tuple[ModelSpec, ...]
    logit_weight: float | None
    feature_weight: float | None
    temperature: float
    classify: Callable[[int, Tensor], Tensor] | None = None
    logit_loss: nn.Module | None = None


class WeightingStrategy(nn.Module, ABC):
    """Base of all strategies.

    It is a module so that a strategy may have parameters that the student's
    optimiser trains. Parts with their own optimiser stay outside of the tree
    and are moved by :meth:`apply_`.

    Args:
        context: What is known when it is built.
        scale: ``'unit'``: weights sum to one over the teachers, so that the
            strength of distillation is the same for all strategies;
            ``'paper'``: the scale of the strategy's own paper.

    Raises:
        ValueError: Another scale.
    """

    #: Whether it wants to see the batch again after the student's update.
    needs_second_look: bool = False
    #: Whether it looks at what teachers say of the student's classes.
    needs_classes: bool = True
    #: Whether it looks at :attr:`Gaps.similarity`.
    needs_similarity: bool = True

    def __init__(self, context: WeightingContext, scale: str = 'unit') -> None:
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f'weighting.scale must be one of {SCALES}, got '
                             f'{scale!r}')
        self.context = context
        self.scale = scale

    @property
    def num_teachers(self) -> int:
        """M."""
        return len(self.context.teachers)

    @abstractmethod
    def forward(self, batch: DistillationBatch) -> TeacherWeights:
        """Weights of a training batch, [B, M] each, detached unless the
        strategy trains them through the student's loss."""

    def losses(self, batch: DistillationBatch,
               weights: TeacherWeights) -> dict[str, Tensor]:
        """Further terms of the student's loss, scalars, by their names in
        the log (``loss_...``).

        Args:
            batch: What :meth:`forward` was called with.
            weights: What it returned.
        """
        return {}

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move what is not in the module tree."""


def equal_weights(like: Tensor, num_teachers: int, total: float) -> Tensor:
    """[B, M] of ``total / M`` on ``like``'s device, B of ``like``."""
    return like.new_full((len(like), num_teachers), total / num_teachers,
                         dtype=like.dtype)


def cross_entropies(batch: DistillationBatch,
                    logits: Iterable[Tensor]) -> Tensor:
    """CE with the targets of each teacher's logits [B, C], [B, M], in
    float32."""
    return torch.stack(
        [batch.cross_entropy(z.float(), batch.targets) for z in logits], 1)


def restrict(weights: TeacherWeights,
             knows_BM: Tensor | None) -> TeacherWeights:
    """Logit weights of those who know the class, with the sum that all had;
    zero where nobody knows. Features keep theirs.

    Args:
        weights: Of a batch.
        knows_BM: See :attr:`DistillationBatch.knows`.
    """
    if knows_BM is None:
        return weights
    kept_BM = weights.logit * knows_BM
    total_B1 = kept_BM.sum(1, keepdim=True)
    scale_B1 = torch.where(total_B1 > 0,
                           weights.logit.sum(1, keepdim=True) /
                           total_B1.clamp_min(1e-12), 0.)
    # A target that is known in part is distilled in part.
    return TeacherWeights(
        kept_BM * scale_B1 * knows_BM.amax(1, keepdim=True), weights.feature)
