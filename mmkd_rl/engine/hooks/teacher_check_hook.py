"""Stop a run whose teachers give NaN, before a checkpoint is written, a
resumed run with other teachers, and teachers with classes in another order;
warn where no image has a label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmkd_rl.distillers import Distillation
from mmkd_rl.engine.hooks.common import check_resumed, distillation_in
from mmkd_rl.options import Checked, ConfigError, Count, under
from mmkd_rl.registry import HOOKS

#: Where a checkpoint keeps the teachers' names and the strategy.
CHECKPOINT_KEY = 'mmkd_rl_teachers'
#: Below it: digests of the teachers' weights by their names.
_WEIGHTS = 'digests'


@HOOKS.register_module()
class TeacherCheckHook(Checked, Hook):
    """Checks that all teachers' outputs are finite, that a resumed run has
    the same teachers, and that images have labels.

    The check synchronises with the device, so it is done only every
    ``interval`` iterations and before each checkpoint; the pool itself checks
    the first batch.

    Args:
        interval: Iterations between two checks.
    """

    priority = 'NORMAL'

    def __init__(self, interval: Count = 50) -> None:
        self.interval = interval
        #: Number of images with labels so far, a scalar.
        self._labelled: Tensor | None = None

    def before_train(self, runner: Runner) -> None:
        """Check the model before training starts.

        Raises:
            TypeError: The model has no distillation.
            ConfigError: The classes of a teacher's checkpoint are those of
                the training data in another order.
        """
        distillation = distillation_in(runner, type(self).__name__)
        for text in _without_effect(distillation):
            runner.logger.warning(text)
        metainfo = getattr(runner.train_loop.dataloader.dataset, 'metainfo',
                           None) or {}
        names = metainfo.get('classes')
        if isinstance(names, (list, tuple)) and distillation.reads_classes:
            _check_count(names, distillation)
            with under('model.teachers'):
                distillation.teachers.check_class_names(names)

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch=None,
                         outputs=None) -> None:
        """Check every ``interval`` iterations."""
        step = distillation_in(runner, type(self).__name__).last_step
        if step is not None:
            self._labelled = step.labelled if self._labelled is None else \
                self._labelled + step.labelled
        if self.every_n_train_iters(runner, self.interval):
            self._check(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check the teachers of all processes before the epoch's
        checkpoint."""
        self._check(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check before anything is written. Only the main process calls this,
        so it checks only its own teachers."""
        self._check(runner, together=False)
        checkpoint[CHECKPOINT_KEY] = {
            **self._description(runner), _WEIGHTS: self._digests(runner)}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check that a resumed run has the same teachers in the same order, on
        which projectors and learned weights depend.

        Raises:
            ValueError: Other teachers, another order, or another strategy.
        """
        if runner._resume:
            saved = checkpoint.get(CHECKPOINT_KEY)
            check_resumed(saved, self._description(runner))
            self._check_weights(runner, (saved or {}).get(_WEIGHTS) or {})

    def _check_weights(self, runner: Runner, saved: dict) -> None:
        """Raise ValueError where a teacher has other weights than in the run
        that is resumed."""
        for name, digest in self._digests(runner).items():
            if digest and saved.get(name, digest) not in (None, digest):
                raise ValueError(
                    f'teacher {name!r} has other weights than in the run that '
                    'is resumed: its checkpoint was changed, or files of '
                    'teachers were swapped. Use the same, or start a new run '
                    'with load_from and another work_dir')

    def _digests(self, runner: Runner) -> dict[str, str | None]:
        teachers = distillation_in(runner, type(self).__name__).teachers
        return {t.name: t.facts.digest for t in teachers}

    def _description(self, runner: Runner) -> dict:
        distillation = distillation_in(runner, type(self).__name__)
        return dict(teachers=list(distillation.teacher_names),
                    strategy=type(distillation.weighting).__name__)

    def _check(self, runner: Runner, together: bool = True) -> None:
        distillation_in(runner, type(self).__name__).teachers.check_finite(
            together)
        if self._labelled is not None and not self._labelled:
            # Said again at each check.
            runner.logger.warning(
                'no image has had a label of a class so far: the student '
                'learns nothing from them. Look at the values in the label '
                'maps, reduce_zero_label, and the ignore_index of the decode '
                'head')


def _without_effect(distillation: Distillation) -> Iterator[str]:
    """Warnings of settings that leave teachers without an effect of their
    own."""
    if not any(term.strength or term.weight
               for term in distillation.all_terms):
        yield ('all loss weights are 0: the student is trained as without '
               'teachers')
    seen: dict[str, str] = {}
    for teacher in distillation.teachers:
        first = seen.setdefault(teacher.facts.digest or teacher.name,
                                teacher.name)
        if first != teacher.name:
            yield (f'teachers {first!r} and {teacher.name!r} have the same '
                   'weights: they count as one teacher with twice the weight')


def _check_count(names: Sequence[str], distillation: Distillation) -> None:
    """Raise ConfigError where the data have more classes than a classifying
    student: a folder that is no class, perhaps."""
    student = distillation.weighting.context.student.num_classes
    if distillation.task.softmax and student and len(names) > student:
        raise ConfigError(
            'train_dataloader.dataset', f'the data have {len(names)} classes '
            f'({", ".join(map(repr, names[:6]))}'
            f'{", ..." if len(names) > 6 else ""}), and the student '
            f'{student}. Folders that are no classes, also hidden ones, '
            'count, too')
