"""Builds, checks, moves and runs all teachers.

The pool is no ``nn.Module`` on purpose. In the distiller's module tree the
teachers would be saved in checkpoints, copied by EMA, broadcast by DDP and
passed to the optimiser. Instead the distiller moves the pool to its own
device, and copies of the distiller share the pool.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from mmengine import dist
from torch import Tensor, nn

from mmkd_rl.options import under
from mmkd_rl.records import Batch, Output, OutputSpec, TeacherStep
from mmkd_rl.taps import Tap
from mmkd_rl.tasks import Task
from mmkd_rl.teachers.building import build_teacher
from mmkd_rl.teachers.class_map import ClassMap, check_names
from mmkd_rl.teachers.loading import check_teachers, require_checkpoints
from mmkd_rl.teachers.normalization import Normalization
from mmkd_rl.teachers.stored import StoredExecutor, StoredViews
from mmkd_rl.teachers.teacher import FrozenTeacher

#: Keys of a teacher's dict, and further keys for tasks with outputs.
_KEYS = {
    'name', 'config', 'checkpoint', 'normalization', 'input_size',
    'input_scale', 'precision', 'executor'
}
_OF_OUTPUTS = {'taps', 'class_map'}


class TeacherPool:
    """Frozen teachers.

    Args:
        teachers: One dict for each teacher. Optional keys are marked with *:

            - ``name``: shown in logs, reports and messages;
            - ``config``: see :func:`load_model_config`, or a name of
              :mod:`.sources`;
            - ``checkpoint``: file or URL, or ``'untrained'``;
            - ``normalization`` *: ``dict(mean, std, to_rgb)`` of the teacher's
              training, if its config has none;
            - ``input_size`` *: side or (H, W) of the images it needs;
            - ``input_scale`` *: factor by which the student's images are
              resized for it;
            - ``precision`` *: ``'float32'``, ``'bfloat16'`` or ``'float16'``,
              if it differs from the student's;
            - ``executor`` *: runs the network, see :class:`Executor`;
            - ``taps`` *: see :meth:`Task.taps`;
            - ``class_map`` *: if its classes are not the student's, see
              :class:`ClassMap`.
        task: Adapter of the task; :class:`BackboneTask`: teachers' backbones
            alone, which have neither ``taps`` nor ``class_map``.
        key: Config key of the teachers, for messages.

    Raises:
        ValueError, TypeError, FileNotFoundError: The config of a teacher is
            wrong; the message names the teacher.
    """

    def __init__(self, teachers: Sequence[dict], task: Task,
                 key: str = 'model.teachers') -> None:
        self._task = task
        keys = _KEYS if task.backbone_only else _KEYS | _OF_OUTPUTS
        self.names = check_teachers(teachers, keys)
        require_checkpoints(teachers, key)
        built = []
        for i, (cfg, name) in enumerate(zip(teachers, self.names)):
            with under(f'teachers.{i}'):
                built.append(build_teacher(cfg, name, task))
        self._teachers = tuple(built)
        self._class_maps = tuple(cfg.get('class_map') for cfg in teachers)
        #: Class maps by the index of the teachers that have one.
        self._maps: dict[int, ClassMap] = {}
        self._finite: Tensor | None = None
        #: Names of teachers whose inner layers have been checked.
        self._looked_at: set[str] = set()
        #: Whether features are used, so that they must be finite, too.
        self.watch_features = False
        #: Whether feature maps are compared with the student's.
        self.compares_features = False

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
        """Set the normalisation of the student's images; ``None``: assumed to
        be that of each teacher."""
        for teacher in self._teachers:
            teacher.adapt(student)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Like ``nn.Module._apply``: change device or precision."""
        for teacher in self._teachers:
            teacher._apply(fn)
        for class_map in self._maps.values():
            class_map._apply(fn)
        if self._finite is not None:
            self._finite = fn(self._finite)

    def probe(self, batch: Batch) -> tuple[OutputSpec, ...]:
        """The sizes of each teacher's output, logits over its own classes.

        Raises:
            ValueError: A teacher fails on these images.
        """
        return tuple(teacher.probe(batch) for teacher in self._teachers)

    def pair_levels(self, student: OutputSpec, specs: Sequence[OutputSpec]
                    ) -> tuple[OutputSpec, ...]:
        """Leave out teachers' levels of features that are compared with none
        of the student's, see :meth:`Task.pair_levels`.

        Args:
            student: Sizes of the student's output.
            specs: Sizes from :meth:`probe`.

        Returns:
            The sizes of the outputs of :meth:`__call__` from now on.

        Raises:
            ValueError: No level of a teacher can be compared; or scores are,
                and it sees images in another size.
        """
        paired = []
        for teacher, spec in zip(self._teachers, specs):
            if self._task.needs_same_size and (
                    teacher.input_size or teacher.input_scale != 1):
                raise ValueError(
                    f'teacher {teacher.name!r} sees images in another size '
                    '(input_size, input_scale), so its anchors mean other '
                    "boxes than the student's; distil features alone with "
                    'task.scores=False')
            pairs = self._task.pair_levels(student, spec)
            if pairs is not None:
                own, teacher.levels = zip(*pairs)
                spec = replace(spec, levels=own, features=tuple(
                    spec.features[i] for i in teacher.levels))
            paired.append(spec)
        return tuple(paired)

    def match_classes(self, specs: Sequence[OutputSpec],
                      num_classes: int) -> tuple[OutputSpec, ...]:
        """Build the teachers' class maps.

        Args:
            specs: Sizes from :meth:`probe`.
            num_classes: Number of the student's classes.

        Returns:
            The sizes of the outputs of :meth:`__call__` from now on.

        Raises:
            ValueError: See :class:`ClassMap`; or a teacher has a class map,
                but there are no class scores.
        """
        matched = []
        copies = self._task.scores_per_class
        own_count = num_classes // copies
        for m, (spec, classes) in enumerate(zip(specs, self._class_maps)):
            key, count = f'teacher {spec.name!r}', spec.num_classes // copies
            if classes is None and copies > 1 and count != own_count:
                # Terms would count channels.
                raise ValueError(
                    f'{key} has {count} classes and the student {own_count}; '
                    'give the teacher class_map=[...], its index for each of '
                    "the student's classes (-1 where it has none), or distil "
                    'features alone')
            if classes is not None:
                if not spec.logits or not num_classes:
                    raise ValueError(
                        f'{key}: class_map has no effect, because this task '
                        'uses no class scores; remove it')
                own = ClassMap(classes, count, own_count, key, copies)
                self._maps[m] = own
                spec = replace(
                    spec,
                    logits=tuple((num_classes, *shape[1:])
                                 for shape in spec.logits),
                    known=own.known)
            matched.append(spec)
        return tuple(matched)

    def check_class_names(self, own: Sequence[str]) -> None:
        """Compare the names of the teachers' classes with the student's, where
        the teachers' files have them. Teachers with a class map are left out.

        Args:
            own: Names of the student's classes.

        Raises:
            ConfigError: A name has another index.
        """
        for m, teacher in enumerate(self._teachers):
            if m not in self._maps and teacher.facts.classes is not None:
                check_names(teacher.name, teacher.facts.classes, own)

    @property
    def stored(self) -> tuple[StoredExecutor, ...]:
        """Executors of the teachers whose outputs are stored."""
        return tuple(t.executor for t in self._teachers
                     if isinstance(t.executor, StoredExecutor))

    def begin(self, views: StoredViews) -> None:
        """Prepare the teachers' stores for a training, see
        :meth:`StoredExecutor.begin`.

        Args:
            views: The training's images.
        """
        for m, teacher in enumerate(self._teachers):
            if isinstance(teacher.executor, StoredExecutor):
                own = self._maps.get(m)
                teacher.executor.begin(
                    views, self.compares_features,
                    None if own is None else own.indices,
                    dict(task=type(self._task).__name__,
                         levels=teacher.levels))

    def __call__(self, batch: Batch) -> tuple[Output, ...]:
        """Run every teacher once, see :meth:`run`."""
        return self.run(batch).outputs

    def run(self, batch: Batch) -> TeacherStep:
        """Run every teacher once.

        Args:
            batch: Images normalised for the student.

        Returns:
            Output of each teacher, in order, without gradient, logits over
            the student's classes; and the inner layers set by :meth:`listen`.

        Raises:
            FloatingPointError: A teacher's first outputs are not finite. Later
                ones are checked by :meth:`check_finite`, because the check
                synchronises with the device.
        """
        return self._step([teacher(batch) for teacher in self._teachers])

    def run_timed(self, batch: Batch) -> tuple[TeacherStep, list[float]]:
        """As :meth:`run`, with the seconds that each teacher took."""
        given, seconds = [], []
        for teacher in self._teachers:
            start = time.perf_counter()
            given.append(teacher(batch))
            if batch.images.is_cuda:
                torch.cuda.synchronize(batch.images.device)
            seconds.append(time.perf_counter() - start)
        return self._step(given), seconds

    def _step(self, given: Sequence[tuple[Output, tuple[Tensor, ...]]]
              ) -> TeacherStep:
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
        """Set the taps of inner layers that are read in each forward pass.

        Args:
            taps: Taps of each teacher.
        """
        for teacher, own in zip(self._teachers, taps):
            teacher.listen(own)

    def inner(self, images: Tensor, active: Sequence[bool]
              ) -> tuple[tuple[Tensor, ...], ...]:
        """Run active teachers and return only the layers set by
        :meth:`listen`.

        Args:
            images: Images normalised for the student, [B, 3, H, W].
            active: Whether each teacher is run; others have empty tuples.

        Raises:
            FloatingPointError: A teacher's first layers are not finite.
        """
        batch = Batch(images)
        given = tuple(teacher(batch)[1] if on else ()
                      for teacher, on in zip(self._teachers, active))
        for name, features in zip(self.names, given):
            if features and name not in self._looked_at:
                # Only once, because it synchronises with the device.
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
            # The sum, because isfinite() of a map makes another large map.
            finite += [f.sum(dtype=torch.float32).isfinite()
                       for f in output.features]
        return torch.stack(finite).all()

    def classify(self, index: int, feature: Tensor) -> Tensor:
        """Logits of one teacher's classifier over the student's classes, see
        :meth:`FrozenTeacher.classify`."""
        logits = self._teachers[index].classify(feature)
        return self._maps[index].select(logits) if index in self._maps \
            else logits

    def predict(self, index: int, features: Sequence[Tensor]) -> Output:
        """Output of one teacher's head, logits over the student's classes,
        see :meth:`FrozenTeacher.predict`."""
        return self._select(index, self._teachers[index].predict(features))

    def check_first(self, device: torch.device) -> None:
        """Take part in the check of the first batch, which all processes do
        together, in a process that has no batch."""
        if self._finite is None:
            self._finite = torch.ones(
                len(self), dtype=torch.bool, device=device)
            self.check_finite()

    def check_finite(self, together: bool = True) -> None:
        """Check that no teacher has given NaN or infinity so far.

        Args:
            together: Check the teachers of all processes; then all must call
                this, and all raise, so that none waits for a stopped one.

        Raises:
            FloatingPointError: A teacher has; the message names all that have.
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

    The distiller finds the part in the student's model and gives it the pool;
    the part sets the layers with :meth:`TeacherPool.listen`, and gets their
    tensors in each step.
    """

    @property
    @abstractmethod
    def waits_for_teachers(self) -> bool:
        """Whether the part has no teachers yet."""

    @property
    @abstractmethod
    def wants_features(self) -> bool:
        """Whether the student's next forward pass in training needs the
        layers' tensors."""

    @abstractmethod
    def borrow(self, pool: TeacherPool) -> None:
        """Use the distiller's teachers."""

    @abstractmethod
    def lend(self, features: tuple[tuple[Tensor, ...], ...] | None) -> None:
        """Set the layers' tensors for the student's next forward pass in
        training.

        Args:
            features: One tensor for each layer of each teacher; ``None``:
                clear the tensors set before.
        """


def _not_finite(names: Sequence[str]) -> FloatingPointError:
    return FloatingPointError(
        f'teachers {list(names)} gave NaN or infinite logits or features; '
        'check their checkpoint, their normalization and, with mixed '
        'precision, their range')
