"""Knowledge Flow in a run: schedule, retirement, validation, log."""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.runner import IterBasedTrainLoop, Runner

from mmkd_rl.engine.hooks.common import check_resumed, unwrapped
from mmkd_rl.flow import FlowSchedule, KnowledgeFlow, flow_of
from mmkd_rl.flow.joint import JointLoss, LossOptions
from mmkd_rl.flow.schedule import to_iterations
from mmkd_rl.options import BelowOne, Checked, Count, NonNegative
from mmkd_rl.registry import HOOKS

#: Where a checkpoint keeps theta_old, and the teachers' names.
CHECKPOINT_KEY = 'mmkd_rl_knowledge_flow'
TEACHERS_KEY = 'mmkd_rl_flow_teachers'


@HOOKS.register_module()
class KnowledgeFlowHook(Checked, Hook):
    """Losses, schedule, retirement and validation of Knowledge Flow.

    Adds ``loss_dependency`` (lambda_1 times Eq. 5), ``loss_kl`` (lambda_2
    times Eq. 6) and ``loss_handover`` to the model's losses, zero from when
    the student is independent; a classifier's own ``loss`` is called
    ``loss_student``, as MMEngine logs the sum under that name. Logs
    ``flow/LAYER/student`` and ``flow/LAYER/TEACHER:LAYER``, the weights of
    every link, and their means over layers, ``flow/student`` and
    ``flow/TEACHER``, which sum to one.

    Args:
        dependency_weight: Final lambda_1; it rises linearly from 0 until
            ``independent_at``.
        kl_weight: lambda_2; 0: no KL term (Sec. 7.4.2).
        handover_weight: Weight of ``loss_handover``, which trains the
            student's layers to give the mixture that replaces their output,
            see :func:`handover_gap`; 0: as in the paper.
        kl_interval: Iterations between two KL terms. Each costs one more
            forward pass of the student.
        old: theta_old: ``'previous'`` iteration, or exponential
            ``'average'`` (Sec. 7.6).
        old_momentum: Momentum of the average.
        logits: Tap of the logits for the KL term, a module's path in the
            model or a dict; ``None``: the head of a classifier, ``conv_seg``
            of a segmentor, and no KL term for anything else.
        withdraw_from: When the teachers' weights begin to be scaled down, see
            schedule.py. Float: share of the training; int: epochs, or
            iterations if the training loop counts iterations.
        independent_at: When the student has no teachers any more, likewise.
        threshold: A teacher whose weights are all below it is no longer run.
            0: teachers are run until ``independent_at``.
        interval: Iterations between two checks of the weights, for the log
            and the threshold.
        validate: ``'student'``: validate the student alone; ``'fused'``: with
            its teachers; ``'both'``: alone, then with its teachers, logged as
            ``fused/...``.

    Raises:
        ValueError: Before training: the model has no KnowledgeFlowBackbone,
            there is a second KnowledgeFlowHook, ``threshold`` is above the
            teachers' initial weights, or the schedule is longer than the
            training.
    """

    # Before EMAHook, whose averages the fused validation must also use, and
    # before LoggerHook, which logs the weights.
    priority = 'ABOVE_NORMAL'

    def __init__(self,
                 dependency_weight: NonNegative = 0.1,
                 kl_weight: NonNegative = 0.05,
                 handover_weight: NonNegative = 10.,
                 kl_interval: Count = 1,
                 old: Literal['previous', 'average'] = 'previous',
                 old_momentum: BelowOne = 0.9,
                 logits: str | dict | None = None,
                 withdraw_from: NonNegative = 0.1,
                 independent_at: NonNegative = 0.5,
                 threshold: BelowOne = 0.01,
                 interval: Count = 50,
                 validate: Literal['student', 'fused', 'both'] = 'student'
                 ) -> None:
        self.dependency_weight = dependency_weight
        self.losses = LossOptions(
            kl_weight, kl_interval,
            old_momentum if old == 'average' else 0., logits, handover_weight)
        self.withdraw_from, self.independent_at = withdraw_from, independent_at
        self.threshold, self.interval = threshold, interval
        self.validate = validate
        self._resumed: dict | None = None

    # ------------------------------------------------------ before training

    def before_train(self, runner: Runner) -> None:
        """Check the schedule and add the losses to the model.

        Raises:
            ValueError: See above.
        """
        model = unwrapped(runner)
        # Errors of the model are reported before those of the hook.
        if flow_of(model).waits_for_teachers:
            raise ValueError(
                "KnowledgeFlowBackbone(teachers='distiller') works only in "
                'the student of a MultiTeacherDistiller, but the model is a '
                f'{type(model).__name__}; give the backbone teachers of its '
                'own: teachers=[dict(name=..., config=..., checkpoint=...)]')
        if sum(isinstance(h, KnowledgeFlowHook) for h in runner.hooks) > 1:
            raise ValueError('custom_hooks has KnowledgeFlowHook more than '
                             'once; each would add its losses')
        schedule = self._schedule(runner)
        self.attach(model, schedule, runner.iter)
        for fusion in self.joint.flow.fusions:
            share = (1 - fusion.start) / len(fusion.candidates)
            if share < self.threshold:
                raise ValueError(
                    f'KnowledgeFlowHook.threshold={self.threshold}: the '
                    f'initial weight of each teacher at layer {fusion.name!r} '
                    f'is {share:.3g}, below the threshold, so all would be '
                    'removed at the first check; lower the threshold, or the '
                    'student_weight of the KnowledgeFlowBackbone')
        print_log(
            f'knowledge flow: teachers withdraw from iteration '
            f'{schedule.withdraw_from} on, the student is alone from '
            f'{schedule.independent_at} on (of {runner.max_iters})', 'current')

    def attach(self, model: BaseModel, schedule: FlowSchedule,
               iteration: int = 0) -> JointLoss:
        """Add the losses to a model, also in training without a Runner.

        Args:
            model: A model with a knowledge flow in it.
            schedule: Schedule of the teachers' withdrawal.
            iteration: First iteration of the training, not 0 if resumed.
        """
        self.joint = JointLoss(model, schedule, self.losses, iteration)
        if self._resumed is not None and self.joint.old is not None:
            self.joint.old.load_state_dict(self._resumed)
        return self.joint

    def _schedule(self, runner: Runner) -> FlowSchedule:
        total = runner.max_iters
        unit = 1 if isinstance(runner.train_loop, IterBasedTrainLoop) else \
            max(1, total // runner.max_epochs)
        end, begin = (
            to_iterations(value, f'KnowledgeFlowHook.{key}', unit, total)
            for key, value in (('independent_at', self.independent_at),
                               ('withdraw_from', self.withdraw_from)))
        if begin > end:
            raise ValueError(
                f'KnowledgeFlowHook.withdraw_from={self.withdraw_from} is '
                f'later than independent_at={self.independent_at}')
        if end == total:
            print_log(
                'knowledge flow: the teachers are removed only when the '
                'training ends, so the student and its batch norm statistics '
                'are never trained without them; with independent_at=0.5 it '
                'trains alone for the second half', 'current',
                level=logging.WARNING)
        return FlowSchedule(begin, end, self.dependency_weight)

    # ------------------------------------------------------- each iteration

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: Any = None) -> None:
        """Set the teachers' strength."""
        counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        self.joint.begin(
            runner.iter, self.every_n_train_iters(runner, counts)
            or self.is_last_train_iter(runner))

    def after_train_iter(self, runner: Runner, batch_idx: int,
                         data_batch: Any = None, outputs: Any = None) -> None:
        """Log the weights and retire teachers below the threshold."""
        if not self.every_n_train_iters(runner, self.interval) and \
                not self.is_last_train_iter(runner):
            return
        flow = self.joint.flow
        if not flow.independent:
            weak = flow.weak_teachers(self.threshold)
            if weak:
                flow.retire(weak)
                rest = flow.active_teachers
                print_log(
                    f'knowledge flow: iteration {runner.iter + 1}: all '
                    f'weights of {", ".join(weak)} are below '
                    f'{self.threshold}; no longer run. Remaining teachers: '
                    f'{", ".join(rest) or "none, the student is alone"}',
                    'current')
        for name, value in _scalars(flow).items():
            runner.message_hub.update_scalar(f'train/{name}', value)

    def after_train(self, runner: Runner) -> None:
        """Remove the hooks from the model and retire all teachers."""
        joint = self.joint
        joint.detach()
        if not joint.flow.independent:
            # The schedule may end with the training, or a hook may have
            # stopped the training early.
            if runner.iter < joint.schedule.independent_at:
                print_log(
                    f'knowledge flow: the training ended at iteration '
                    f'{runner.iter}, before iteration '
                    f'{joint.schedule.independent_at}, from which on the '
                    'student was to be alone. Its teachers are removed now, '
                    'but it was not trained without them', 'current',
                    level=logging.WARNING)
            joint.flow.strength = 0.
            joint.flow.retire(joint.flow.teacher_names)

    # ----------------------------------------------------------- validation

    def before_val_epoch(self, runner: Runner) -> None:
        """Choose whether teachers are mixed in. They are not if nothing was
        trained before, because the schedule's state is not known then."""
        trained = flow_of(unwrapped(runner)).strength is not None
        self._fuse(runner, trained and self.validate == 'fused')

    def after_val_epoch(self, runner: Runner,
                        metrics: dict | None = None) -> None:
        """Validate again with the teachers, if ``validate='both'``."""
        self._fuse(runner, False)
        flow = flow_of(unwrapped(runner))
        if self.validate != 'both' or flow.strength is None:
            return
        fused = dict(metrics or {}) if flow.independent else \
            self._validate_fused(runner)
        for name, value in fused.items():
            runner.message_hub.update_scalar(f'val/fused/{name}', value)

    @torch.no_grad()
    def _validate_fused(self, runner: Runner) -> dict:
        loop = runner.val_loop
        self._fuse(runner, True)
        try:
            runner.model.eval()
            for batch in loop.dataloader:
                outputs = runner.model.val_step(batch)
                loop.evaluator.process(data_samples=outputs, data_batch=batch)
            return loop.evaluator.evaluate(len(loop.dataloader.dataset))
        finally:
            self._fuse(runner, False)

    def _fuse(self, runner: Runner, on: bool) -> None:
        flow = flow_of(unwrapped(runner))
        flow.fuse_in_eval = on
        flow.forget()

    # -------------------------------------------------------------- resuming

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save theta_old and the teachers' names."""
        checkpoint[TEACHERS_KEY] = self._description(runner)
        if self.joint.old is not None:
            checkpoint[CHECKPOINT_KEY] = self.joint.old.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore theta_old of a resumed run. A new run from the weights of
        another run starts with all teachers, also those that the other run
        has retired.

        Raises:
            ValueError: A resumed run has other teachers or another order.
        """
        if runner._resume:
            check_resumed(checkpoint.get(TEACHERS_KEY),
                          self._description(runner))
            self._resumed = checkpoint.get(CHECKPOINT_KEY)
            return
        weights = checkpoint.get('state_dict', {})
        for name, value in weights.items():
            if name.endswith('knowledge_flow.active'):
                weights[name] = torch.ones_like(value)

    def _description(self, runner: Runner) -> dict:
        return dict(teachers=list(flow_of(unwrapped(runner)).teacher_names))


def _scalars(flow: KnowledgeFlow) -> dict[str, float]:
    """Weights of all links, and their means over the student's layers."""
    scalars: dict[str, float] = {}
    means = dict.fromkeys(('student', *flow.teacher_names), 0.)
    for fusion, weights in zip(flow.fusions, flow.weights()):
        owners = ['student', *(flow.teacher_names[c.teacher]
                               for c in fusion.candidates)]
        for owner, name, p in zip(owners, fusion.names, weights.tolist()):
            scalars[f'flow/{fusion.name}/{name}'] = p
            means[owner] += p / len(flow.fusions)
    return {**scalars, **{f'flow/{n}': p for n, p in means.items()}}
