"""Train a strategy's learner in turns with the student.

One hook for every :class:`Learner`: it passes each step of the student to the
learner, calls the learner's update when one is due, logs the scalars that the
update returns, and saves the learner in the run's checkpoints.
"""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmkd_rl.distillers import distillation_of
from mmkd_rl.engine.hooks.common import distillation_in, unwrapped
from mmkd_rl.options import Checked, Count, under
from mmkd_rl.registry import HOOKS
from mmkd_rl.weighting import Learner, Student


@HOOKS.register_module()
class LearnerHook(Checked, Hook):
    """Trains the learner of the model's strategy.

    In distributed training each process has a memory of its own steps. A
    checkpoint written between two updates holds the main process's memory,
    with which all processes resume.

    Args:
        warmup: Time of the first update, in epochs or iterations of the
            student.
        interval: Length of the student's training between two updates.
        by_epoch: Whether the two count epochs or iterations.
    """

    # Before checkpoints are written and scalars are logged.
    priority = 'NORMAL'
    #: Class of the learner; its name and a strategy that has one, for
    #: messages.
    learner: type = Learner
    has: str = 'learner'
    strategy: str = 'MTKDRL'
    #: The option with the time of the first update.
    first: str = 'warmup'

    def __init__(self,
                 warmup: Count = 1,
                 interval: Count = 1,
                 by_epoch: bool = True) -> None:
        self.warmup, self.interval, self.by_epoch = warmup, interval, by_epoch

    def before_train(self, runner: Runner) -> None:
        """Check the schedule and synchronise the learner.

        Raises:
            TypeError: The model's strategy has no learner of this kind.
            ValueError: ``warmup`` is not shorter than the training, or epochs
                are counted in a loop of iterations.
        """
        learner = self._learner(runner)
        name = type(self).__name__
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(
                f'{name} counts epochs (by_epoch=True), but train_cfg counts '
                'iterations: set by_epoch=False and give warmup and interval '
                'in iterations')
        unit, length = ('epochs', runner.max_epochs) if self.by_epoch else (
            'iterations', runner.max_iters)
        if self.warmup >= length:
            given = f'{self.warmup} {unit}' if self.first == 'warmup' else \
                self.warmup
            advice = f'Give a shorter {self.first}' + (
                ' or count in iterations (by_epoch=False)'
                if self.by_epoch else '')
            raise ValueError(
                f'custom_hooks.{name}.{self.first}={given}, but training has '
                f'{length} {unit}: weights would stay equal. {advice}')
        learner.has_hook = True
        learner.synchronize()

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Any = None,
                         outputs: Any = None) -> None:
        """Pass the step to the learner; update it if an update is due."""
        learner, student = self._learner(runner), _student(runner)
        step = student.distillation.last_step
        assert step is not None
        with under('model.weighting'):
            learner.observe(step, student)
        if not self.by_epoch and self._due(runner.iter + 1):
            self._update(runner, learner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Update the learner if an update is due."""
        learner = self._learner(runner)
        if self.by_epoch and self._due(runner.epoch + 1):
            self._update(runner, learner)
        learner.end_epoch()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the learner in the checkpoint."""
        learner = self._learner(runner)
        checkpoint[learner.checkpoint_key] = learner.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore the learner of a resumed run.

        Raises:
            ValueError: The checkpoint has no learner, or another one.
        """
        if not runner._resume:
            return  # load_from: only weights are loaded
        learner = self._learner(runner)
        key = learner.checkpoint_key
        if key not in checkpoint:
            raise ValueError(
                f'the checkpoint to resume from has no {key!r}: it was not '
                f'written by a run with {type(self).__name__}. To start from '
                'its weights alone use load_from without --resume')
        learner.load_state_dict(checkpoint[key])

    def _due(self, done: int) -> bool:
        """Whether an update is due after ``done`` epochs or iterations."""
        return done >= self.warmup and \
            (done - self.warmup) % self.interval == 0

    def _update(self, runner: Runner, learner: Learner) -> None:
        with under('model.weighting'):
            scalars = learner.update(_student(runner))
        for name, value in scalars.items():
            runner.message_hub.update_scalar(
                f'train/{learner.log_name}/{name}', value)

    def _learner(self, runner: Runner) -> Learner:
        name = type(self).__name__
        strategy = distillation_in(runner, name).weighting
        learner = strategy.learner
        if learner is None or not isinstance(learner, self.learner):
            raise TypeError(
                f'custom_hooks has {name}, but model.weighting is '
                f'{type(strategy).__name__}, which has no {self.has}; remove '
                f"the hook or use weighting=dict(type='{self.strategy}')")
        return learner


def _student(runner: Runner) -> Student:
    model = unwrapped(runner)
    distillation = distillation_of(model)
    assert distillation is not None
    return Student(model, distillation, runner.optim_wrapper)
