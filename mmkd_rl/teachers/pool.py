"""The teachers, together: built, checked, moved and run as one.

The pool is no ``nn.Module`` on purpose. Were it part of the distiller's module
tree, checkpoints would carry the teachers, EMA would copy them, DDP would
broadcast them and the optimiser would see them. The distiller moves it along
to its own device instead, and copies of the distiller share it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from mmengine import dist
from torch import Tensor, nn

from mmkd_rl.records import Batch, Output, OutputSpec, TeacherStep
from mmkd_rl.taps import Tap
from mmkd_rl.tasks import Task
from mmkd_rl.teachers.building import build_teacher
from mmkd_rl.teachers.class_map import ClassMap
from mmkd_rl.teachers.loading import check_teachers, require_checkpoints
from mmkd_rl.teachers.normalization import Normalization
from mmkd_rl.teachers.teacher import FrozenTeacher

#: Keys of a teacher's dict, and those that need a task with outputs.
_KEYS = {
    'name', 'config', 'checkpoint', 'normalization', 'input_size', 'precision',
    'executor'
}
_OF_OUTPUTS = {'taps', 'class_map'}


class TeacherPool:
    """Frozen teachers.

    Args:
        teachers: One dict a teacher:

            - ``name``: shown in logs, reports and messages;
            - ``config``: see :func:`load_model_config`, or a name of
              :mod:`.sources`;
            - ``checkpoint``: file or URL, or ``'untrained'``;
            - ``normalization``: ``dict(mean, std, to_rgb)`` that it was
              trained with, where its config does not say, optional;
            - ``input_size``: side or (H, W) that it needs, optional;
            - ``precision``: ``'float32'``, ``'bfloat16'`` or ``'float16'``
              where it is not to be the student's, optional;
            - ``executor``: what makes its outputs, see :class:`Executor`,
              optional;
            - ``taps``: see :meth:`Task.taps`, optional;
            - ``class_map``: where its classes are not the student's, see
              :class:`ClassMap`, optional.
        task: Adapter of the task; :class:`BackboneTask`: teachers' backbones
            alone, which have neither ``taps`` nor ``class_map``.
        key: Where the config has the teachers, for messages.

    Raises:
        ValueError, TypeError, FileNotFoundError: Whatever is wrong with one
            of them; the message says which.
    """

    def __init__(self, teachers: Sequence[dict], task: Task,
                 key: str = 'model.teachers') -> None:
        keys = _KEYS if task.backbone_only else _KEYS | _OF_OUTPUTS
        self.names = check_teachers(teachers, keys)
        require_checkpoints(teachers, key)
        self._teachers = tuple(
            build_teacher(cfg, name, task)
            for cfg, name in zip(teachers, self.names))
        self._class_maps = tuple(cfg.get('class_map') for cfg in teachers)
        #: By the teacher's index; only those whose classes are others.
        self._maps: dict[int, ClassMap] = {}
        self._finite: Tensor | None = None
        #: Names of teachers whose inner layers were looked at once.
        self._looked_at: set[str] = set()
        #: Whether features are used, so that they must be finite, too.
        self.watch_features = False

    def __len__(self) -> int:
        return len(self._teachers)

    def __getitem__(self, index: int) -> FrozenTeacher:
        return self._teachers[index]

    def __iter__(self) -> Iterator[FrozenTeacher]:
        return iter(self._teachers)

    def __deepcopy__(self, memo: dict) -> TeacherPool:
        """Copies of a distiller (EMA makes one) share its teachers."""
        return self

    def adapt(self, student: Normalization | None) -> None:
        """Set the normalisation of the student's images; ``None``: each
        teacher takes it for its own."""
        for teacher in self._teachers:
            teacher.adapt(student)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """What ``nn.Module._apply`` does to the tree: device, precision."""
        for teacher in self._teachers:
            teacher._apply(fn)
        for class_map in self._maps.values():
            class_map._apply(fn)
        if self._finite is not None:
            self._finite = fn(self._finite)

    def probe(self, batch: Batch) -> tuple[OutputSpec, ...]:
        """The sizes of each teacher's output, logits over its own classes.

        Raises:
            ValueError: A teacher cannot run on such images.
        """
        return tuple(teacher.probe(batch) for teacher in self._teachers)

    def match_classes(self, specs: Sequence[OutputSpec],
                      num_classes: int) -> tuple[OutputSpec, ...]:
        """Read the teachers' class maps.

        Args:
            specs: What :meth:`probe` returned.
            num_classes: The student's.

        Returns:
            The sizes of what :meth:`__call__` returns from now on.

        Raises:
            ValueError: See :class:`ClassMap`; or a map where there are no
                class scores.
        """
        matched = []
        for m, (spec, classes) in enumerate(zip(specs, self._class_maps)):
            if classes is not None:
                if not spec.logits or not num_classes:
                    raise ValueError(
                        f'teacher {spec.name!r}: class_map has no effect, '
                        'because this task uses no class scores; remove it')
                own = ClassMap(classes, spec.num_classes, num_classes,
                               f'teacher {spec.name!r}')
                self._maps[m] = own
                spec = replace(
                    spec,
                    logits=tuple((num_classes, *shape[1:])
                                 for shape in spec.logits),
                    known=own.known)
            matched.append(spec)
        return tuple(matched)

    def __call__(self, batch: Batch) -> tuple[Output, ...]:
        """Run every teacher once, see :meth:`run`."""
        return self.run(batch).outputs

    def run(self, batch: Batch) -> TeacherStep:
        """Run every teacher once.

        Args:
            batch: Images normalised for the student.

        Returns:
            One output a teacher, in order, without gradient, logits over the
            student's classes; and what :meth:`listen` asked for.

        Raises:
            FloatingPointError: A teacher's first batch is not finite. Later
                batches are checked by :meth:`check_finite`, because looking
                makes the host wait for the device.
        """
        given = [teacher(batch) for teacher in self._teachers]
        finite = torch.stack([self._is_finite(output) for output, _ in given])
        first = self._finite is None
        self._finite = finite if first else self._finite & finite
        if first:
            self.check_finite()
        inner = tuple(layers for _, layers in given)
        return TeacherStep(
            tuple(self._select(m, output)
                  for m, (output, _) in enumerate(given)),
            inner if any(inner) else ())

    def listen(self, taps: Sequence[Sequence[Tap]]) -> None:
        """Read more of each teacher in the same forward pass.

        Args:
            taps: Of each teacher.
        """
        for teacher, own in zip(self._teachers, taps):
            teacher.listen(own)

    def inner(self, images: Tensor, active: Sequence[bool]
              ) -> tuple[tuple[Tensor, ...], ...]:
        """What :meth:`listen` asked for alone.

        Args:
            images: Normalised for the student, [B, 3, H, W].
            active: Which teachers are run; the others give nothing.

        Raises:
            FloatingPointError: What a teacher gives first is not finite.
        """
        batch = Batch(images)
        given = tuple(teacher(batch)[1] if on else ()
                      for teacher, on in zip(self._teachers, active))
        for name, features in zip(self.names, given):
            if features and name not in self._looked_at:
                # Once, because looking makes the host wait for the device.
                self._looked_at.add(name)
                if not all(bool(f.isfinite().all()) for f in features):
                    raise _not_finite([name])
        return given

    def _select(self, index: int, output: Output) -> Output:
        """The output with its logits over the student's classes."""
        own = self._maps.get(index)
        return output if own is None else replace(
            output, logits=tuple(map(own.select, output.logits)))

    def _is_finite(self, output: Output) -> Tensor:
        finite = [z.isfinite().all() for z in output.logits]
        if self.watch_features or not finite:
            # Of the sum: a map is large, and this needs no other one.
            finite += [f.sum(dtype=torch.float32).isfinite()
                       for f in output.features]
        return torch.stack(finite).all()

    def classify(self, index: int, feature: Tensor) -> Tensor:
        """Logits of one teacher's classifier over the student's classes, see
        :meth:`FrozenTeacher.classify`."""
        logits = self._teachers[index].classify(feature)
        return self._maps[index].select(logits) if index in self._maps \
            else logits

    def check_first(self, device: torch.device) -> None:
        """What the first batch's :meth:`__call__` does together with the
        other processes, for one that has no batch."""
        if self._finite is None:
            self._finite = torch.ones(
                len(self), dtype=torch.bool, device=device)
            self.check_finite()

    def check_finite(self, together: bool = True) -> None:
        """Complain if a teacher has given NaN or infinity so far.

        Args:
            together: Look at the teachers of all processes, which all must
                call this then; none is left waiting for one that stopped.

        Raises:
            FloatingPointError: It names the teachers.
        """
        if self._finite is None:
            return
        if together:
            finite = self._finite.int()
            dist.all_reduce(finite, op='min')
            self._finite = finite.bool()
        if bool(self._finite.all()):
            return
        bad = [n for n, ok in zip(self.names, self._finite.tolist()) if not ok]
        self._finite = None
        raise _not_finite(bad)


class TeacherBorrower(nn.Module, ABC):
    """A part of the student that reads inner layers of a distiller's teachers.

    The distiller finds it in the student's model and lends it the pool; the
    part names the layers with :meth:`TeacherPool.listen`, and gets their
    tensors in each step.
    """

    @property
    @abstractmethod
    def waits_for_teachers(self) -> bool:
        """Whether it has no teachers of its own and was lent none yet."""

    @property
    @abstractmethod
    def wants_features(self) -> bool:
        """Whether the student's next forward pass in training needs the
        layers' tensors."""

    @abstractmethod
    def borrow(self, pool: TeacherPool) -> None:
        """Take the distiller's teachers."""

    @abstractmethod
    def lend(self, features: tuple[tuple[Tensor, ...], ...] | None) -> None:
        """Give the layers' tensors for the student's next forward pass in
        training.

        Args:
            features: Of each teacher, one tensor a layer; ``None``: those that
                were given before do not count any more.
        """


def _not_finite(names: Sequence[str]) -> FloatingPointError:
    return FloatingPointError(
        f'teachers {list(names)} gave NaN or infinite logits or features; '
        'look at their checkpoint, their normalization and, with mixed '
        'precision, their range')
