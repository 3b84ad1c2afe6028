"""The teachers, together: built, checked, moved and run as one.

The pool is no ``nn.Module`` on purpose. Were it part of the distiller's module
tree, checkpoints would carry the teachers, EMA would copy them, DDP would
broadcast them and the optimiser would see them. The distiller moves it along
to its own device instead, and copies of the distiller share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from mmengine import dist
from mmengine.logging import print_log
from torch import Tensor

from mmkd_rl.records import ModelOutput, ModelSpec
from mmkd_rl.taps import Tap
from mmkd_rl.tasks import Task
from mmkd_rl.teachers.class_map import ClassMap
from mmkd_rl.teachers.loading import (
    UNTRAINED,
    build_network,
    check_teachers,
    input_size,
    load_model_config,
    load_weights,
    offline,
    read_checkpoint,
    require_checkpoints,
)
from mmkd_rl.teachers.normalization import InputAdapter, Normalization
from mmkd_rl.teachers.runtime import FrozenTeacher

_KEYS = {
    'name', 'config', 'checkpoint', 'taps', 'normalization', 'input_size',
    'class_map'
}


class TeacherPool:
    """Frozen teachers.

    Args:
        teachers: One dict a teacher:

            - ``name``: shown in logs, reports and messages;
            - ``config``: see :func:`load_model_config`;
            - ``checkpoint``: file or URL, or ``'untrained'``;
            - ``taps``: see :meth:`Task.taps`, optional;
            - ``normalization``: ``dict(mean, std, to_rgb)`` that it was
              trained with, where its config does not say, optional;
            - ``input_size``: side or (H, W) that it needs, optional;
            - ``class_map``: where its classes are not the student's, see
              :class:`ClassMap`, optional.
        task: Adapter of the task.
        student_normalization: What the images are normalised with.

    Raises:
        ValueError, TypeError, FileNotFoundError: Whatever is wrong with one
            of them; the message says which.
    """

    def __init__(self, teachers: Sequence[dict], task: Task,
                 student_normalization: Normalization | None) -> None:
        names = check_teachers(teachers, _KEYS)
        require_checkpoints(teachers)
        self.names = names
        self._teachers = tuple(
            _build_teacher(cfg, name, task, student_normalization)
            for cfg, name in zip(teachers, names))
        self._class_maps = tuple(cfg.get('class_map') for cfg in teachers)
        #: By the teacher's index; only those whose classes are others.
        self._maps: dict[int, ClassMap] = {}
        self._finite: Tensor | None = None
        #: Images of the last batch and what :meth:`listen` asked for.
        self._inner: tuple[Tensor, tuple[tuple[Tensor, ...], ...]] | None = \
            None
        #: Whether features are used, so that they must be finite, too.
        self.watch_features = False

    def __len__(self) -> int:
        return len(self._teachers)

    def __iter__(self) -> Iterator[FrozenTeacher]:
        return iter(self._teachers)

    def __deepcopy__(self, memo: dict) -> TeacherPool:
        """Copies of a distiller (EMA makes one) share its teachers."""
        return self

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """What ``nn.Module._apply`` does to the tree: device, precision."""
        for teacher in self._teachers:
            teacher._apply(fn)
        for class_map in self._maps.values():
            class_map._apply(fn)
        if self._finite is not None:
            self._finite = fn(self._finite)

    def probe(self, images: Tensor) -> tuple[ModelSpec, ...]:
        """The sizes of each teacher's output.

        Raises:
            ValueError: A teacher cannot run on such images.
        """
        specs = []
        for teacher in self._teachers:
            try:
                specs.append(teacher.probe(images))
            except (RuntimeError, TypeError, AssertionError) as error:
                raise ValueError(
                    f'teacher {teacher.name!r} fails on images of shape '
                    f'{tuple(images.shape)}: {error}; if it needs another '
                    'size, give it input_size=...') from error
        return tuple(specs)

    def match_classes(self, specs: Sequence[ModelSpec], num_classes: int,
                      required: bool) -> tuple[ModelSpec, ...]:
        """Read the teachers' class maps.

        Args:
            specs: What :meth:`probe` returned.
            num_classes: The student's.
            required: Whether logits are distilled, so that the classes must
                be the student's or be mapped to them.

        Returns:
            The sizes of what :meth:`align` returns.

        Raises:
            ValueError: Other classes and no map; or see :class:`ClassMap`.
        """
        matched = []
        for m, (spec, classes) in enumerate(zip(specs, self._class_maps)):
            if classes is not None:
                self._maps[m] = ClassMap(classes, spec.num_classes,
                                         num_classes,
                                         f'teacher {spec.name!r}')
                spec = replace(spec, num_classes=num_classes)
            elif required and spec.num_classes != num_classes:
                raise ValueError(
                    f'teacher {spec.name!r} has {spec.num_classes} classes '
                    f'and the student {num_classes}; give the teacher '
                    f"class_map=[...], its index for each of the student's "
                    'classes (-1 where it has none), or set logit_loss=None '
                    'to distil features alone')
            matched.append(spec)
        return tuple(matched)

    def align(self, outputs: tuple[ModelOutput, ...], student: Tensor,
              temperature: float) -> tuple[ModelOutput, ...]:
        """Outputs whose logits are over the student's classes.

        Args:
            outputs: What :meth:`__call__` returned.
            student: The student's logits, [B, C].
            temperature: Of the logit loss.
        """
        if not self._maps:
            return outputs
        return tuple(
            replace(o, logits=self._maps[m].complete(o.logits, student,
                                                     temperature))
            if m in self._maps else o for m, o in enumerate(outputs))

    def verdicts(self, outputs: tuple[ModelOutput, ...]
                 ) -> tuple[Tensor, ...] | None:
        """Logits over the student's classes without anything of the
        student; ``None``: the teachers' logits are that.

        Args:
            outputs: What :meth:`__call__` returned.
        """
        if not self._maps:
            return None
        return tuple(self._maps[m].select(o.logits) if m in
                     self._maps else o.logits for m, o in enumerate(outputs))

    def knows(self, targets: Tensor) -> Tensor | None:
        """Which teachers know the classes of a batch, [B, M] in [0, 1];
        ``None``: all know all."""
        if not self._maps:
            return None
        columns = torch.ones(len(targets), len(self), device=targets.device)
        for m, class_map in self._maps.items():
            columns[:, m] = class_map.knows(targets)
        return columns

    def __call__(self, images: Tensor) -> tuple[ModelOutput, ...]:
        """Run every teacher once.

        Args:
            images: [B, 3, H, W], normalised for the student.

        Returns:
            One output a teacher, in order, without gradient.

        Raises:
            FloatingPointError: A teacher's first batch is not finite. Later
                batches are checked by :meth:`check_finite`, because looking
                makes the host wait for the device.
        """
        given = [t(images) for t in self._teachers]
        outputs = tuple(ModelOutput(*g[:2]) for g in given)
        if any(len(g) > 2 for g in given):
            self._inner = images, tuple(g[2:] for g in given)
        finite = torch.stack([self._is_finite(o) for o in outputs])
        first = self._finite is None
        self._finite = finite if first else self._finite & finite
        if first:
            self.check_finite()
        return outputs

    def listen(self, taps: Sequence[Sequence[Tap]]) -> None:
        """Read more of each teacher in the same forward pass.

        Args:
            taps: Of each teacher.
        """
        for teacher, own in zip(self._teachers, taps):
            teacher.inner = tuple(own)

    def inner(self, images: Tensor) -> tuple[tuple[Tensor, ...], ...]:
        """What :meth:`listen` asked for, of each teacher. Teachers that
        have just seen these images (the very tensor) are not run again."""
        if self._inner is None or self._inner[0] is not images:
            self(images)
        assert self._inner is not None
        return self._inner[1]

    def forget(self) -> None:
        """Let go of what was read for :meth:`inner`."""
        self._inner = None

    def _is_finite(self, output: ModelOutput) -> Tensor:
        finite = output.logits.isfinite().all()
        if self.watch_features:
            # Of the sum: a map is large, and this needs no other one.
            finite &= output.feature.sum(dtype=torch.float32).isfinite()
        return finite

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
        raise FloatingPointError(
            f'teachers {bad} gave NaN or infinite logits or features; look at '
            'their checkpoint, their normalization and, with mixed precision, '
            'their range')


def _build_teacher(cfg: dict, name: str, task: Task,
                   source: Normalization | None) -> FrozenTeacher:
    key = f'teacher {name!r}'
    if 'config' not in cfg:
        raise ValueError(f'{key} has no config; give a path, '
                         '"package::path" or a dict')
    checkpoint = cfg.get('checkpoint')
    if not isinstance(checkpoint, str) or not checkpoint:
        raise ValueError(
            f'{key} has no checkpoint (got {checkpoint!r}); give a file or a '
            f'URL, or checkpoint={UNTRAINED!r} if that is what you want')
    # Read before anything large is built: a wrong path is found at once.
    weights = None if checkpoint == UNTRAINED else read_checkpoint(
        checkpoint, f'{key}: checkpoint')
    model_cfg, scope = load_model_config(cfg['config'], f'{key}: config')
    model = build_network(offline(model_cfg), task.scope_for(scope), key)
    if weights is not None:
        load_weights(model, weights, checkpoint, f'{key}: checkpoint')
    target: Normalization | None
    if 'normalization' in cfg:
        target = Normalization.from_config(cfg['normalization'],
                                           f'{key}: normalization')
    elif 'data_preprocessor' in model_cfg:
        target = Normalization.of(getattr(model, 'data_preprocessor', None))
    else:
        target = source
        print_log(
            f"{key}: its config has no data_preprocessor; it gets the "
            "student's normalisation. Say normalization=dict(mean=..., "
            'std=..., to_rgb=...) if it was trained with another', 'current')
    return FrozenTeacher(name, model, task.taps(model, cfg.get('taps'), key),
                         task,
                         InputAdapter(source, target, input_size(cfg, key)))
