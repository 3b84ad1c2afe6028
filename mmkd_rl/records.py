"""The records that pass between the parts.

Legend: B batch, M teachers, C classes, D channels, H W space, S size of the
agent's state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ModelOutput:
    """What one network, student or teacher, says about a batch.

    Attributes:
        logits: Class scores before the softmax, [B, C] (dense tasks add space
            behind C).
        feature: Last feature map [B, D, H, W], or vector [B, D].
    """
    logits: Tensor
    feature: Tensor

    def detach(self) -> ModelOutput:
        """The same numbers, cut off from the graph."""
        return ModelOutput(self.logits.detach(), self.feature.detach())

    @property
    def embedding(self) -> Tensor:
        """The feature averaged over space, [B, D]."""
        return self.feature.flatten(2).mean(2) if self.feature.ndim > 2 \
            else self.feature


@dataclass(frozen=True)
class ModelSpec:
    """The sizes of a network's :class:`ModelOutput`, known when it is built.

    Attributes:
        name: Teacher's name, or ``'student'``.
        num_classes: C.
        feature_shape: (D, H, W) at the probing size, or (D,).
    """
    name: str
    num_classes: int
    feature_shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        """D."""
        return self.feature_shape[0]


@dataclass(frozen=True)
class Gaps:
    """How far the student is from each teacher, per sample.

    ``None`` where that kind of distillation is off. These tensors carry the
    student's gradient; whoever only reads them detaches.

    Attributes:
        logit: Logit loss of each teacher, [B, M].
        feature: Feature loss of each teacher, [B, M].
        similarity: Cosine of the pooled projected student feature and the
            pooled teacher feature, [B, M], detached; ``None`` also where the
            strategy does not look at it.
    """
    logit: Tensor | None
    feature: Tensor | None
    similarity: Tensor | None


@dataclass(frozen=True)
class DistillationBatch:
    """All that a weighting strategy may look at.

    Attributes:
        student: The student's output, with gradient.
        teachers: One output a teacher, without gradient.
        targets: Class indices [B], or class probabilities [B, C].
        gaps: Student to teachers.
        pairs: For each teacher r_m(F_S), with gradient, and F_m, of one shape
            [B, D_m, ...]; empty where features are not distilled.
        cross_entropy: The task's CE(logits, targets), one number a sample.
        verdicts: What each teacher says of the student's classes by itself,
            [B, C] each, for judging the teacher; ``None``: its logits, which
            are that too unless a class map completed them with what the
            student believes. See :attr:`own_logits`.
        knows: Which teachers know each sample's class, [B, M] in [0, 1];
            ``None``: all know all. Logits of those that do not are not
            distilled, whatever their weights.
    """
    student: ModelOutput
    teachers: tuple[ModelOutput, ...]
    targets: Tensor
    gaps: Gaps
    pairs: tuple[tuple[Tensor, Tensor], ...] = ()
    cross_entropy: Callable[[Tensor, Tensor], Tensor] = partial(
        F.cross_entropy, reduction='none')
    verdicts: tuple[Tensor, ...] | None = None
    knows: Tensor | None = None

    @property
    def own_logits(self) -> tuple[Tensor, ...]:
        """Logits of each teacher without anything of the student, [B, C]:
        what its entropy and its cross entropy are of."""
        return tuple(t.logits for t in self.teachers) \
            if self.verdicts is None else self.verdicts


@dataclass(frozen=True)
class TeacherWeights:
    """Trust in each teacher, per sample, [B, M] both; rows sum to the
    strategy's scale (1 unless it is told to keep its paper's scale)."""
    logit: Tensor
    feature: Tensor

    def detach(self) -> TeacherWeights:
        """The same numbers, cut off from the graph."""
        return TeacherWeights(self.logit.detach(), self.feature.detach())


@dataclass(frozen=True)
class Transition:
    """One batch of what the agent saw, did and got.

    Attributes:
        state: [B, S].
        action: What the agent did, w^gen with its exploration, logits first,
            [B, 2, M]; during the warm-up, what it would have done.
        sources: The action's two sources beside the agent, confidence first,
            [B, 2, 2, M]: logits or features, which source, teacher.
        reward: [B, M], before normalisation; [B, 2, M] where teachers earn
            apart for logits and features.
    """
    state: Tensor
    action: Tensor
    sources: Tensor
    reward: Tensor
