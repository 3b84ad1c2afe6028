"""The records that pass between the parts.

Legend: B batch, M teachers, C classes, D channels, H W space, L levels, S size
of the agent's state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

#: Name of a :class:`ViewKey` among a data sample's meta data.
VIEW_KEY = 'view_key'


class ViewKey(NamedTuple):
    """Names one augmented view of one image, for stored outputs.

    Attributes:
        image: Index of the image in the data set.
        view: Number of the view.
        checksum: CRC-32 of the view's pixels.
    """
    image: int
    view: int
    checksum: int

    @classmethod
    def of(cls, samples: Sequence) -> tuple[ViewKey, ...] | None:
        """The keys that :class:`RepeatableViews` wrote into data samples;
        ``None``: there are none."""
        keys = tuple(getattr(s, VIEW_KEY, None) for s in samples)
        return keys if keys and None not in keys else None  # type: ignore[return-value]


@dataclass(frozen=True)
class Batch:
    """The input of the student, and all that a teacher may read.

    Attributes:
        images: Images, augmented, normalised for the student and padded,
            [B, 3, H, W].
        samples: Data samples of the images; two-stage and DETR models need
            them in their forward pass.
        keys: The view that each image is, for stored outputs; ``None``: not
            known.
    """
    images: Tensor
    samples: Sequence = ()
    keys: Sequence[ViewKey] | None = None


@dataclass(frozen=True)
class Output:
    """Features and logits of one network, student or teacher, for a batch.

    Attributes:
        features: Feature maps [B, D_l, H_l, W_l] or vectors [B, D_l], one a
            level.
        logits: Class scores before the softmax, [B, C, ...], one a level;
            empty: the network has none, or they are not read.
        edges: Where the four edges of a box are, as scores of N distances
            each before the softmax, [B, 4 N, H, W], one a level; empty: the
            network has no such distributions, or they are not read.
    """
    features: tuple[Tensor, ...] = ()
    logits: tuple[Tensor, ...] = ()
    edges: tuple[Tensor, ...] = ()

    def map(self, fn: Callable[[Tensor], Tensor]) -> Output:
        """``fn`` of each tensor."""
        return Output(tuple(map(fn, self.features)),
                      tuple(map(fn, self.logits)),
                      tuple(map(fn, self.edges)))

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, features first."""
        return (*self.features, *self.predictions)

    @property
    def predictions(self) -> tuple[Tensor, ...]:
        """Logits and edges, the tensors that terms with
        ``reads='logits'`` compare."""
        return (*self.logits, *self.edges)

    def detach(self) -> Output:
        """The same values, detached from the graph."""
        return self.map(Tensor.detach)


@dataclass(frozen=True)
class TeacherStep:
    """One forward pass of all teachers.

    Attributes:
        outputs: Output of each teacher, logits over the student's classes.
        inner: Inner layers of each teacher, see :meth:`TeacherPool.listen`;
            empty: none were requested.
    """
    outputs: tuple[Output, ...]
    inner: tuple[tuple[Tensor, ...], ...] = ()


@dataclass(frozen=True)
class OutputSpec:
    """The sizes of a network's :class:`Output`, known when it is built.

    Attributes:
        name: Teacher's name, or ``'student'``.
        features: Shape of each feature level, (D, H, W) at the probing size
            or (D,).
        logits: Shape of each logit level, (C, ...).
        edges: Shape of each level of edges, (4 N, H, W).
        known: Mask of the student's classes that a teacher with a class map
            has been trained on, [C]; ``None``: all. Its logits for the other
            classes have no meaning.
        levels: Of a teacher: index of the student's level with which each of
            its levels of features is compared; ``None``: that of the same
            index.
    """
    name: str
    features: tuple[tuple[int, ...], ...] = ()
    logits: tuple[tuple[int, ...], ...] = ()
    known: Tensor | None = field(default=None, compare=False)
    levels: tuple[int, ...] | None = None
    edges: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, name: str, output: Output) -> OutputSpec:
        """Sizes of an output."""
        features, logits, edges = (
            tuple(tuple(x.shape[1:]) for x in kind)
            for kind in (output.features, output.logits, output.edges))
        return cls(name, features, logits, edges=edges)

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
    """Labels and valid pixels of a batch; the task makes them once.

    Attributes:
        targets: Labels in the task's format. Classification: class indices
            [B] or class probabilities [B, C]. Segmentation: class indices
            [B, H, W], with numbers that are no class where a pixel is ignored.
        valid: Weight of each pixel in [0, 1], [B, H, W] in the resolution of
            the images: 0 for padding and ignored pixels. ``None``: all are
            valid.
        count: Valid pixels of each image, [B]; an image with 0 is left out of
            every mean over images.
        covered: For each teacher the valid pixels of classes that it was
            trained on, like ``valid``. Empty: all teachers were trained on all
            classes, or there is one label an image.
        images: Number of images with valid pixels in a process, a mean over
            the processes, each of which has a part of the batch; ``None``:
            that of this process.
    """
    targets: Any
    valid: Tensor | None
    count: Tensor
    covered: tuple[Tensor, ...] = ()
    images: Tensor | None = None
    #: Results of :meth:`valid_at`, which each teacher and term asks for; not
    #: taken over by ``dataclasses.replace``.
    _levels: dict[tuple, Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of_labels(cls, targets: Tensor) -> Truth:
        """Truth of images with one label each, [B, ...], all valid."""
        return cls(targets, None,
                   torch.ones(len(targets), device=targets.device))

    def valid_at(self, level: Tensor,
                 teacher: int | None = None) -> Tensor | None:
        """``valid`` in a level's resolution, [B, H_l, W_l]; ``None``: all
        pixels are valid, or the level has no spatial axes.

        Args:
            level: Features or logits of the batch, [B, D, H_l, W_l] or
                [B, D].
            teacher: Index of a teacher: only pixels of classes that it was
                trained on.
        """
        if not self.covered:
            teacher = None
        valid = self.valid if teacher is None else self.covered[teacher]
        if valid is None or level.ndim != 4:
            return None
        size = (level.shape[2], level.shape[3])
        if (teacher, size) not in self._levels:
            self._levels[teacher, size] = \
                valid if tuple(valid.shape[1:]) == size else \
                F.adaptive_avg_pool2d(valid, size)
        return self._levels[teacher, size]

    def mean(self, values_B: Tensor) -> Tensor:
        """Mean over the images that have valid pixels; 0 without any.

        With :attr:`images`, the mean over the processes of this value is the
        mean over all their images.
        """
        if self.valid is None:
            return values_B.mean()
        counts_B = (self.count > 0).to(values_B)
        # Not a product: values of images without valid pixels may be NaN.
        kept_B = torch.where(counts_B > 0, values_B, 0.)
        return kept_B.sum() / self.images_in_mean(len(values_B))

    def images_in_mean(self, batch_size: int) -> Tensor:
        """The number by which :meth:`mean` divides a sum over images."""
        if self.valid is None:
            return self.count.new_tensor(batch_size)
        images = (self.count > 0).to(self.count).sum() \
            if self.images is None else self.images
        return images.clamp_min(1e-6)


@dataclass(frozen=True)
class Pair:
    """One level of student and teacher in a form that can be compared.

    Attributes:
        student: The student's logits, or its feature after the projector,
            r_m(F_S), [B, D_m, ...]; with gradient.
        teacher: The teacher's logits or feature, of the same shape, without
            gradient.
        valid: Weight of each pixel, [B, H, W]; ``None``: all are valid.
        scale: Mean and standard deviation of the teacher's channels, [D_m]
            each, if both sides are standardised by them; ``None``: they are
            not.
    """
    student: Tensor
    teacher: Tensor
    valid: Tensor | None = None
    scale: tuple[Tensor, Tensor] | None = None

    def student_as_teacher(self) -> Tensor:
        """The student's side in the scale of the teacher's own feature."""
        if self.scale is None:
            return self.student
        mean, deviation = (
            s.view(-1, *[1] * (self.student.ndim - 2)) for s in self.scale)
        return self.student * deviation + mean


#: For each teacher, its levels.
Pairs = tuple[tuple[Pair, ...], ...]


@dataclass(frozen=True)
class Gaps:
    """How far the student is from each teacher, per sample.

    ``None`` where that kind of distillation is off. These tensors carry the
    student's gradient; code that only reads them must detach them.

    Attributes:
        logit: Mean of the terms that read logits, by their loss weights,
            [B, M].
        feature: Likewise of the terms that read features, [B, M].
        similarity: Cosine of the pooled projected student feature and the
            pooled teacher feature, [B, M], detached; ``None`` also where the
            strategy does not use it.
    """
    logit: Tensor | None
    feature: Tensor | None
    similarity: Tensor | None = None


@dataclass(frozen=True)
class DistillationBatch:
    """The input of a weighting strategy.

    Attributes:
        student: The student's output, with gradient.
        teachers: Output of each teacher, without gradient, logits over the
            student's classes.
        truth: Labels and valid pixels.
        gaps: Gaps between the student and each teacher.
        pairs: Aligned features of each teacher, the levels of all terms that
            read features; empty where features are not distilled.
        class_coverage: 1 where a teacher has been trained on the sample's
            class, 0 where not, between for class probabilities, [B, M];
            ``None``: 1 everywhere. Logits of a teacher with 0 are not
            distilled, whatever its weight.
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
    """Weight of each teacher for each sample; rows sum to the strategy's
    scale (1, or with ``scale='paper'`` that of its paper).

    Attributes:
        logit: Weights of all terms that read logits, [B, M].
        feature: Weights of all terms that read features, [B, M].
        record: Data about this batch that the strategy's learner needs after
            the student's step, see :meth:`Learner.observe`.
    """
    logit: Tensor
    feature: Tensor
    record: Any = None

    def detach(self) -> TeacherWeights:
        """The same values, detached from the graph."""
        return TeacherWeights(self.logit.detach(), self.feature.detach(),
                              self.record)


@dataclass(frozen=True)
class SeenBatch:
    """A batch for which the teachers' outputs are known.

    Attributes:
        batch: Images and data samples.
        truth: Labels and valid pixels of the batch.
        teachers: The outputs of the teachers for the batch.
    """
    batch: Batch
    truth: Truth
    teachers: TeacherStep


class LossScale:
    """The factor by which an optimiser scales a loss before its backward pass
    (mixed precision, accumulated gradients).

    Args:
        loss: The loss, with gradient.
    """

    def __init__(self, loss: Tensor) -> None:
        #: The factor, a scalar; ``None`` before the backward pass.
        self.value: Tensor | None = None
        if loss.requires_grad:
            loss.register_hook(self._record)

    def _record(self, gradient: Tensor) -> None:
        self.value = gradient.detach().float()


@dataclass(frozen=True)
class TrainingStep:
    """Result of the student's last step, for hooks that run after it.

    Attributes:
        weights: Weights of the teachers, detached.
        seen: The batch and the teachers' outputs; ``None`` unless the
            strategy needs the batch again after the student's update.
        labelled: Number of images with a label or a valid pixel, a scalar.
        scale: Factor by which the optimiser scaled the step's losses.
    """
    weights: TeacherWeights
    seen: SeenBatch | None
    labelled: Tensor
    scale: LossScale | None = None


@dataclass(frozen=True)
class Transition:
    """States, actions and rewards of the agent on one batch.

    Attributes:
        state: States, [B, S].
        action: The agent's actions, w^gen with exploration noise, logits
            first, [B, 2, M]; also in the warm-up, in which they are not used.
        sources: The action's two sources beside the agent, confidence first,
            [B, 2, 2, M]; axes: image, logits or features, source, teacher.
        reward: Rewards before normalisation, [B, M]; [B, 2, M] where logits
            and features have separate rewards.
    """
    state: Tensor
    action: Tensor
    sources: Tensor
    reward: Tensor
