"""The records that pass between the parts.

Legend: B batch, M teachers, C classes, D channels, H W space, L levels, S size
of the agent's state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What the student is given, and all that a teacher may look at.

    Attributes:
        images: Augmented, normalised for the student and padded,
            [B, 3, H, W].
        samples: Their data samples; two-stage and DETR models need them to
            run.
        keys: Index in the data set and view of each image, for stored
            outputs; ``None``: not known.
    """
    images: Tensor
    samples: Sequence = ()
    keys: Sequence | None = None


@dataclass(frozen=True)
class Output:
    """What one network, student or teacher, says about a batch.

    Attributes:
        features: Levels, [B, D_l, H_l, W_l] or vectors [B, D_l].
        logits: Levels of class scores before the softmax, [B, C, ...];
            empty: the network has none, or they are not looked at.
    """
    features: tuple[Tensor, ...] = ()
    logits: tuple[Tensor, ...] = ()

    def map(self, fn: Callable[[Tensor], Tensor]) -> Output:
        """``fn`` of each tensor."""
        return Output(tuple(map(fn, self.features)),
                      tuple(map(fn, self.logits)))

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, features first."""
        return (*self.features, *self.logits)

    def detach(self) -> Output:
        """The same numbers, cut off from the graph."""
        return self.map(Tensor.detach)


@dataclass(frozen=True)
class TeacherStep:
    """One forward pass of all teachers.

    Attributes:
        outputs: One a teacher, logits over the student's classes.
        inner: What else was asked for of each teacher, see
            :meth:`TeacherPool.listen`; empty: nothing.
    """
    outputs: tuple[Output, ...]
    inner: tuple[tuple[Tensor, ...], ...] = ()


@dataclass(frozen=True)
class OutputSpec:
    """The sizes of a network's :class:`Output`, known when it is built.

    Attributes:
        name: Teacher's name, or ``'student'``.
        features: Of each level (D, H, W) at the probing size, or (D,).
        logits: Of each level (C, ...).
        known: Which of the student's classes a teacher with a class map has
            been trained on, [C]; ``None``: all. Its logits for the others
            mean nothing.
    """
    name: str
    features: tuple[tuple[int, ...], ...] = ()
    logits: tuple[tuple[int, ...], ...] = ()
    known: Tensor | None = field(default=None, compare=False)

    @classmethod
    def of(cls, name: str, output: Output) -> OutputSpec:
        """Sizes of an output."""
        return cls(name, tuple(tuple(f.shape[1:]) for f in output.features),
                   tuple(tuple(z.shape[1:]) for z in output.logits))

    @property
    def num_classes(self) -> int:
        """C; 0 without logits."""
        return self.logits[0][0] if self.logits else 0

    @property
    def channels(self) -> tuple[int, ...]:
        """D of each level."""
        return tuple(shape[0] for shape in self.features)


@dataclass(frozen=True)
class Truth:
    """Labels and valid points of a batch; the task makes them once.

    Attributes:
        targets: As the task needs them. Classification: class indices [B] or
            class probabilities [B, C].
        valid: Which points count, in [0, 1], [B, H, W] in the resolution of
            the images: 0 for padding and ignored pixels. ``None``: all.
        count: Valid points of each image, [B]; an image with 0 leaves every
            mean over images.
    """
    targets: Any
    valid: Tensor | None
    count: Tensor

    @classmethod
    def of_labels(cls, targets: Tensor) -> Truth:
        """Of images with a label each, [B, ...], which all count the same."""
        return cls(targets, None,
                   torch.ones(len(targets), device=targets.device))

    def valid_at(self, level: Tensor) -> Tensor | None:
        """``valid`` in a level's resolution, [B, H_l, W_l]; ``None``: all of
        its points count, or it has no space.

        Args:
            level: Features or logits of the batch, [B, D, H_l, W_l] or
                [B, D].
        """
        if self.valid is None or level.ndim != 4:
            return None
        size = (level.shape[2], level.shape[3])
        return self.valid if tuple(self.valid.shape[1:]) == size else \
            F.adaptive_avg_pool2d(self.valid, size)

    def mean(self, values_B: Tensor) -> Tensor:
        """Mean over the images that have valid points; 0 without any."""
        if self.valid is None:
            return values_B.mean()
        counts_B = (self.count > 0).to(values_B)
        # Not a product: what was computed of nothing may be NaN.
        kept_B = torch.where(counts_B > 0, values_B, 0.)
        return kept_B.sum() / counts_B.sum().clamp_min(1)


@dataclass(frozen=True)
class Pair:
    """One level of student and teacher in a form that can be compared.

    Attributes:
        student: The student's, with its gradient; a feature after the
            projector, r_m(F_S), [B, D_m, ...].
        teacher: The teacher's, of the same shape, without gradient.
        valid: Which points count, [B, H, W]; ``None``: all.
    """
    student: Tensor
    teacher: Tensor
    valid: Tensor | None = None


#: For each teacher, its levels.
Pairs = tuple[tuple[Pair, ...], ...]


@dataclass(frozen=True)
class Gaps:
    """How far the student is from each teacher, per sample.

    ``None`` where that kind of distillation is off. These tensors carry the
    student's gradient; code that only reads them must detach
    them.

    Attributes:
        logit: Mean of the terms that read logits, by their loss weights,
            [B, M].
        feature: Likewise of those that read features, [B, M].
        similarity: Cosine of the pooled projected student feature and the
            pooled teacher feature, [B, M], detached; ``None`` also where the
            strategy does not look at it.
    """
    logit: Tensor | None
    feature: Tensor | None
    similarity: Tensor | None = None


@dataclass(frozen=True)
class DistillationBatch:
    """All that a weighting strategy may look at.

    Attributes:
        student: The student's output, with gradient.
        teachers: One output a teacher, without gradient, its logits over the
            student's classes.
        truth: Labels and valid points.
        gaps: Student to teachers.
        pairs: Aligned features of each teacher, the levels of all terms that
            read features; empty where features are not distilled.
        class_coverage: Which teachers have been trained on each sample's
            class, [B, M] in [0, 1]; ``None``: all on all. Logits of those
            that have not are not distilled, whatever their weights.
    """
    student: Output
    teachers: tuple[Output, ...]
    truth: Truth
    gaps: Gaps
    pairs: Pairs = ()
    class_coverage: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.student.tensors()[0].device


@dataclass(frozen=True)
class TeacherWeights:
    """Trust in each teacher, per sample, [B, M] both; rows sum to the
    strategy's scale (1 unless it is told to keep its paper's scale).

    Attributes:
        logit: For all terms that read logits.
        feature: For all terms that read features.
        record: What a strategy with a training of its own needs to know of
            this batch when the student's step is done, see
            :meth:`Learner.observe`.
    """
    logit: Tensor
    feature: Tensor
    record: Any = None

    def detach(self) -> TeacherWeights:
        """The same numbers, cut off from the graph."""
        return TeacherWeights(self.logit.detach(), self.feature.detach(),
                              self.record)


@dataclass(frozen=True)
class SeenBatch:
    """A batch that the teachers have seen.

    Attributes:
        batch: Images and data samples.
        truth: Labels and valid pixels of the batch.
        teachers: The outputs of the teachers for the batch.
    """
    batch: Batch
    truth: Truth
    teachers: TeacherStep


@dataclass(frozen=True)
class TrainingStep:
    """Result of the student's last step, for hooks that run after it.

    Attributes:
        weights: Weights of the teachers, detached.
        seen: What the student and the teachers were given and what the
            teachers said; ``None`` unless the strategy wants to see the batch
            again after the student's update.
    """
    weights: TeacherWeights
    seen: SeenBatch | None


@dataclass(frozen=True)
class Transition:
    """States, actions and rewards of the agent on one batch.

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
