"""Base classes of distillation terms, which compare student and teachers.

A term brings the outputs of student and teachers into one form (``align``:
projectors, resolutions, class maps) and computes their distance (``compare``):
one number per image and teacher. Levels, sizes, masks and denominators are
handled by the term, the weights of the teachers by the distiller.

Legend: B batch, M teachers, C classes, D channels, H W space, L levels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from mmkd_rl.losses.class_map import complete
from mmkd_rl.losses.projector import Projector
from mmkd_rl.losses.standardize import TeacherScales
from mmkd_rl.losses.strength import OPTIONS, Strength
from mmkd_rl.options import Checked, ConfigError, NonNegative, Positive
from mmkd_rl.records import (
    Output,
    OutputSpec,
    Pair,
    Pairs,
    TeacherWeights,
    Truth,
)
from mmkd_rl.registry import construct

T = TypeVar('T')


class _Term(Checked, nn.Module, ABC):
    #: ``'logits'``, ``'features'`` or ``''``; the term gets the strategy's
    #: weights of that kind.
    reads: str = ''
    #: Options that the builder takes out of the term's config.
    further_options = OPTIONS

    def __init__(self, loss_weight: NonNegative = 1.) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        #: Set by the builder from further options of the config.
        self.strength: Strength | None = None

    @property
    def weight(self) -> float:
        """The present weight of the term in the student's loss."""
        return self.loss_weight if self.strength is None else \
            self.strength.weight(self.loss_weight)


class DistillationTerm(_Term):
    """Base of all terms that compare the student with each teacher.

    Args:
        loss_weight: Weight of the term in the student's loss; applied by the
            distiller. alpha or beta of MTKD-RL, Eq. (2).
    """

    #: Configs of hooks that a run with the term needs.
    hooks: tuple[dict, ...] = ()
    #: Whether the term reads boxes of objects as :attr:`Truth.targets`.
    reads_objects = False
    #: Runs a teacher's head on features, see :meth:`TeacherPool.predict`; set
    #: by the builder.
    predict: Callable[[int, Sequence[Tensor]], Output]

    @classmethod
    def needed_hooks(cls, options: dict) -> tuple[dict, ...]:
        """Configs of the hooks that a run needs.

        Args:
            options: The term's config.
        """
        return cls.hooks

    def _check_levels(self, student: OutputSpec,
                      teachers: Sequence[OutputSpec], tap: str, what: str,
                      advice: str) -> None:
        """Raise ConfigError if a network lacks the outputs that the term
        reads, or a teacher has another number of levels than the student."""
        name = type(self).__name__
        own = getattr(student, self.reads)
        for spec in (student, *teachers):
            levels = getattr(spec, self.reads)
            if not levels:
                raise ConfigError(f'{name} needs {what}, but {spec.name!r} '
                                  f'has none{advice}')
            if spec is not student and self.reads == 'features' and \
                    spec.levels is not None:
                continue
            if len(levels) != len(own):
                raise ConfigError(
                    f'{name} compares {self.reads} level by level, but '
                    f'the student has {_levels(own)} and teacher '
                    f'{spec.name!r} has {_levels(levels)}; list the same '
                    f'number of taps in taps.{tap}=[...] of both')

    @abstractmethod
    def build(self, student: OutputSpec, teachers: Sequence[OutputSpec],
              projector: dict | None = None) -> None:
        """Make the modules that depend on the networks' sizes.

        Args:
            student: Sizes of the student's output.
            teachers: Sizes of the teachers' outputs.
            projector: Options of :class:`Projector`, for terms with
                projectors.

        Raises:
            ConfigError: A network lacks the outputs that the term reads, or
                levels or classes differ.
        """

    @abstractmethod
    def align(self, student: Output, teachers: Sequence[Output],
              truth: Truth) -> Pairs:
        """Bring student and each teacher into one form."""

    @abstractmethod
    def compare(self, pairs: Pairs, truth: Truth) -> Tensor:
        """Distance of the pairs, [B, M], in float32 or better.

        Args:
            pairs: Pairs of :meth:`align`.
            truth: Labels and valid pixels.
        """

    def forward(self, student: Output, teachers: Sequence[Output],
                truth: Truth) -> Tensor:
        """The whole term, [B, M]."""
        return self.compare(self.align(student, teachers, truth), truth)


class LogitTerm(DistillationTerm):
    """A term that reads class scores. With a class map, scores of classes
    that the teacher was not trained on are filled in from the student, see
    class_map.py, and pixels of such classes are left out.

    Args:
        temperature: T.
        loss_weight: See :class:`DistillationTerm`.
    """

    reads = 'logits'
    #: Whether the term takes scores through a softmax over classes; ``False``:
    #: through a sigmoid each; ``None``: it takes both kinds.
    softmax: bool | None = True

    def __init__(self, temperature: Positive,
                 loss_weight: NonNegative) -> None:
        super().__init__(loss_weight)
        # A large whole number has no square in a tensor.
        self.temperature = float(temperature)
        self._maps: tuple[str | None, ...] = ()

    def build(self, student: OutputSpec, teachers: Sequence[OutputSpec],
              projector: dict | None = None) -> None:
        """Check that all networks have logits of the same levels and classes.

        Raises:
            ConfigError: A network has no logits, other levels or classes.
        """
        self._check_levels(
            student, teachers, 'logits', 'class scores',
            ' with this task; leave it out (logit_loss=None) and distil '
            "features, or say where they are with taps=dict(logits='...')")
        maps: list[str | None] = []
        for m, spec in enumerate(teachers):
            if _classes(spec) != _classes(student):
                raise ConfigError(
                    f'teacher {spec.name!r} has {_classes(spec)} classes '
                    f'and the student {_classes(student)}; give the teacher '
                    "class_map=[...], its index for each of the student's "
                    'classes (-1 where it has none), or set logit_loss=None '
                    'to distil features alone')
            if spec.known is not None:
                # A buffer, so that it follows the term to its device.
                self.register_buffer(f'known{m}', spec.known,
                                     persistent=False)
            maps.append(None if spec.known is None else f'known{m}')
        self._maps = tuple(maps)

    def align(self, student: Output, teachers: Sequence[Output],
              truth: Truth) -> Pairs:
        """Logits over the student's classes; a teacher's must have the
        student's resolution, see :meth:`Task.match`."""
        return tuple(
            self._align_one(m, student, teacher, truth)
            for m, teacher in enumerate(teachers))

    def _align_one(self, index: int, student: Output, teacher: Output,
                   truth: Truth) -> tuple[Pair, ...]:
        name = self._maps[index] if self._maps else None
        pairs = []
        for own, theirs in zip(student.logits, teacher.logits):
            if name is not None:
                own, theirs = self._known_alone(
                    own, theirs, self.get_buffer(name))
            pairs.append(Pair(own, theirs, truth.valid_at(own, index)))
        return tuple(pairs)

    def _known_alone(self, student: Tensor, teacher: Tensor,
                     known_C: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of student and teacher with which classes that the teacher
        was not trained on are not distilled."""
        return student, complete(teacher, student, known_C, self.temperature)


class FeatureTerm(DistillationTerm):
    """A term that reads features, the student's through a projector for each
    teacher and level.

    Args:
        loss_weight: See :class:`DistillationTerm`.
        standardize: Bring each teacher's channels to mean 0 and variance 1,
            see standardize.py.
    """

    reads = 'features'
    #: Terms to use instead, for the message, if the term needs maps;
    #: ``''``: it takes vectors, too.
    instead_of_vectors = ''

    def __init__(self, loss_weight: NonNegative,
                 standardize: bool = False) -> None:
        super().__init__(loss_weight)
        self.standardize = standardize

    def build(self, student: OutputSpec, teachers: Sequence[OutputSpec],
              projector: dict | None = None) -> None:
        """Make the projectors.

        Raises:
            ConfigError: A network has no features, another number of levels,
                or vectors where the term needs maps.
        """
        self._check_levels(
            student, teachers, 'feature', 'features',
            "; say where they are with taps=dict(feature='...')")
        if self.instead_of_vectors:
            for spec in (student, *teachers):
                for shape in spec.features:
                    need_maps(type(self).__name__, spec.name, len(shape) - 1,
                              self.instead_of_vectors)
        #: [M][L].
        self.projectors = nn.ModuleList(
            nn.ModuleList(
                construct(
                    Projector, projector or {}, 'projector',
                    student=own, teacher=theirs)
                for own, theirs in level_pairs(student, t))
            for t in teachers)
        #: Index of the student's level for each level of each teacher.
        self._levels = [t.levels for t in teachers]
        self.scales = TeacherScales([
            t.channels for t in teachers]) if self.standardize else None

    def align(self, student: Output, teachers: Sequence[Output],
              truth: Truth) -> Pairs:
        """r_m(F_S) and F_m, or F'_m, of each level."""
        pairs = tuple(
            tuple(
                _pair(projector(own, theirs), truth)
                for projector, (own, theirs) in zip(
                    projectors,  # type: ignore[call-overload]
                    _paired(student.features, teacher.features, levels)))
            for projectors, levels, teacher in zip(
                self.projectors, self._levels, teachers))
        return pairs if self.scales is None else self.scales(pairs)


class MixtureTerm(_Term):
    """A term that compares the student with the teachers' weighted mixture.

    Args:
        loss_weight: Weight of the term in the student's loss; applied here.
    """

    #: Name of the loss in the log.
    name: str

    @abstractmethod
    def forward(self, student: Output, teachers: Sequence[Output],
                truth: Truth, weights: TeacherWeights) -> Tensor:
        """The term, a scalar with the student's gradient."""


def level_pairs(student: OutputSpec, teacher: OutputSpec
                ) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes of the student's and the teacher's feature of each level that
    is compared, see :attr:`OutputSpec.levels`."""
    return _paired(student.features, teacher.features, teacher.levels)


def _paired(student: Sequence[T], teacher: Sequence[T],
            levels: Sequence[int] | None) -> list[tuple[T, T]]:
    """The student's and the teacher's item of each level that is compared,
    see :attr:`OutputSpec.levels`."""
    own = student if levels is None else [student[i] for i in levels]
    return list(zip(own, teacher))


def need_maps(term: str, name: str, axes: int, instead: str) -> None:
    """Raise ConfigError where a feature has no spatial axes.

    Args:
        term: Name of the term's class.
        name: Name of the network.
        axes: Number of spatial axes.
        instead: Terms that take vectors.
    """
    if axes < 1:
        raise ConfigError(
            f'{term} needs maps [B, D, H, W], but the feature '
            f'of {name!r} is a vector; tap a layer before the pooling with '
            f"taps=dict(feature='...'), or use {instead}")


def stacked_levels(pairs: Pairs) -> Iterator[
        tuple[Tensor, Tensor, Tensor | None]]:
    """Yield the student's tensor [B, C, ...], the teachers' [B, M, C, ...] and
    the mask [B, M, ...] of each level; the student's must be the same in all
    pairs."""
    for level in zip(*pairs):
        masks = [p.valid for p in level]
        yield (level[0].student, torch.stack([p.teacher for p in level], 1),
               None if masks[0] is None else torch.stack(
                   masks, 1))  # type: ignore[arg-type]


def mean_over_levels(values: Sequence[Tensor]) -> Tensor:
    """Mean of the values of several levels, [B, M]."""
    return values[0] if len(values) == 1 else torch.stack(
        list(values)).mean(0)


def _pair(aligned: tuple[Tensor, Tensor], truth: Truth) -> Pair:
    return Pair(*aligned, truth.valid_at(aligned[0]))


def _levels(shapes: tuple[tuple[int, ...], ...]) -> str:
    return f'{len(shapes)} ({", ".join(map(str, shapes))})'


def _classes(spec: OutputSpec) -> int | list[int]:
    """C, or a list with C of each level if they differ."""
    counts = [shape[0] for shape in spec.logits]
    return counts if len(set(counts)) > 1 else counts[0]
