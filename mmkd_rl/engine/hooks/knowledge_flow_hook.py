"""Train any model with a KnowledgeFlowBackbone in it.

The model is not touched: a forward hook adds the two losses to its loss dict,
and this hook tells the backbone how strong its teachers are.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor, nn

from mmkd_rl.distillers import MultiTeacherDistiller
from mmkd_rl.engine.hooks.common import unwrapped
from mmkd_rl.flow import FlowSchedule, KnowledgeFlow, flow_of
from mmkd_rl.flow.losses import kl_to_old
from mmkd_rl.flow.old_student import OldStudent, find_logits, logits_tap
from mmkd_rl.flow.schedule import to_iterations
from mmkd_rl.registry import HOOKS
from mmkd_rl.taps import Tap
from mmkd_rl.teachers.normalization import Normalization

#: Where a checkpoint keeps theta_old.
CHECKPOINT_KEY = 'mmkd_rl_knowledge_flow'


@HOOKS.register_module()
class KnowledgeFlowHook(Hook):
    """Losses, schedule, retirement and validation of Knowledge Flow.

    Adds ``loss_dependency`` (lambda_1 times Eq. 5) and ``loss_kl`` (lambda_2
    times Eq. 6) to the model's losses until the student is independent; a
    classifier's own ``loss`` is then called ``loss_student``, as MMEngine logs
    the sum under that name. Logs ``flow/LAYER/student`` and
    ``flow/LAYER/TEACHER:LAYER``, the weights of every link, and their means
    over layers, ``flow/student`` and ``flow/TEACHER``, which sum to one.

    Args:
        dependency_weight: Final lambda_1; it rises linearly from 0 until
            ``independent_at``.
        kl_weight: lambda_2; 0: no KL term (Sec. 7.4.2).
        handover_weight: Of ``loss_handover``, with which the student's layers
            learn to say what is passed on in their place, see
            :func:`handover_gap`. 0: the paper's.
        kl_interval: Iterations between two KL terms. Each costs one more
            forward pass of the student.
        old: theta_old: ``'previous'`` iteration, or exponential
            ``'average'`` (Sec. 7.6).
        old_momentum: Of the average.
        logits: Tap of the logits for the KL term, a module's path in the
            model or a dict; ``None``: the head of a classifier, ``conv_seg``
            of a segmentor, and no KL term for anything else.
        withdraw_from: From when on the teachers' shares are scaled down, see
            schedule.py. Float: share of the training; int: epochs, or
            iterations where the training counts those.
        independent_at: When the student is alone, likewise.
        threshold: A teacher whose weights are all below it is not run any
            more. 0: none before ``independent_at``.
        interval: Iterations between two looks at the weights, for the log
            and the threshold.
        validate: ``'student'``: alone; ``'fused'``: with its teachers;
            ``'both'``: alone, and then fused as ``fused/...``.

    Raises:
        ValueError: An option out of range. Before training: no
            KnowledgeFlowBackbone in the model, or a schedule that is longer
            than the training.
    """

    # Before EMAHook, whose averages the fused validation must see, too, and
    # before LoggerHook, for which the weights are.
    priority = 'ABOVE_NORMAL'

    def __init__(self,
                 dependency_weight: float = 0.1,
                 kl_weight: float = 0.05,
                 handover_weight: float = 10.,
                 kl_interval: int = 1,
                 old: str = 'previous',
                 old_momentum: float = 0.9,
                 logits: str | dict | None = None,
                 withdraw_from: float = 0.1,
                 independent_at: float = 0.5,
                 threshold: float = 0.01,
                 interval: int = 50,
                 validate: str = 'student') -> None:
        name = 'KnowledgeFlowHook'
        for key, weight in (('dependency_weight', dependency_weight),
                            ('kl_weight', kl_weight),
                            ('handover_weight', handover_weight)):
            if not 0 <= weight < math.inf:
                raise ValueError(f'{name}.{key} must be >= 0 and finite, got '
                                 f'{weight}')
        for key, count in (('kl_interval', kl_interval),
                           ('interval', interval)):
            if not isinstance(count, int) or count < 1:
                raise ValueError(f'{name}.{key} must be a whole number >= 1, '
                                 f'got {count!r}')
        if not 0 <= threshold < 1:
            raise ValueError(f'{name}.threshold must be in [0, 1), got '
                             f'{threshold}')
        if not 0 <= old_momentum < 1:
            raise ValueError(f'{name}.old_momentum must be in [0, 1), got '
                             f'{old_momentum}')
        for key, choice, known in (('old', old, ('previous', 'average')),
                                   ('validate', validate,
                                    ('student', 'fused', 'both'))):
            if choice not in known:
                raise ValueError(f'{name}.{key} must be one of {known}, got '
                                 f'{choice!r}')
        self.dependency_weight, self.kl_weight = dependency_weight, kl_weight
        self.handover_weight = handover_weight
        self.kl_interval = kl_interval
        self.old, self.old_momentum = old, old_momentum
        self.logits = logits
        self.withdraw_from, self.independent_at = withdraw_from, independent_at
        self.threshold, self.interval = threshold, interval
        self.validate = validate
        self._old: OldStudent | None = None
        self._resumed: dict | None = None
        self._handles: list[Any] = []

    # ------------------------------------------------------ before training

    def before_train(self, runner: Runner) -> None:
        """Check the schedule and join the model.

        Raises:
            ValueError: See above.
        """
        model = unwrapped(runner)
        # What is missing in the model is said first.
        if flow_of(model).waits_for_teachers:
            raise ValueError(
                "KnowledgeFlowBackbone(teachers='distiller') is the student's "
                'in a MultiTeacherDistiller, but the model is a '
                f'{type(model).__name__}; give it teachers=[dict(name=..., '
                'config=..., checkpoint=...)] of its own')
        self.attach(model, self._schedule(runner), runner.iter)
        print_log(
            f'knowledge flow: teachers withdraw from iteration '
            f'{self.schedule.withdraw_from} on, the student is alone from '
            f'{self.schedule.independent_at} on (of {runner.max_iters})',
            'current')

    def attach(self, model: BaseModel, schedule: FlowSchedule,
               iteration: int = 0) -> None:
        """Join a model; for those who train without a Runner, too.

        Args:
            model: With a knowledge flow in it.
            schedule: When its teachers leave.
            iteration: Where the training begins.
        """
        self.flow, self.schedule = flow_of(model), schedule
        self.flow.set_normalization(
            Normalization.of(getattr(model, 'data_preprocessor', None)))
        self.flow.watch_gaps(self.handover_weight > 0)
        self._set_stage(iteration)
        network = model.student if isinstance(
            model, MultiTeacherDistiller) else model
        self._tap = self._logits_tap(network)
        if self._tap is not None and not self.flow.independent:
            self._old = OldStudent(
                network, self._logits_cfg(network) or {},
                self.old_momentum if self.old == 'average' else 0.)
            if self._resumed is not None:
                self._old.load_state_dict(self._resumed)
        self._recording: Any = None
        self._iteration, self._will_step = iteration, True
        self._handles = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._add_losses, with_kwargs=True)
        ]

    @property
    def old_student(self) -> OldStudent | None:
        """theta_old; ``None``: there is no KL term, or none any more."""
        return self._old

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
                'knowledge flow: the student is alone only when the training '
                'is over, and its batch norms have then never seen it so; '
                'independent_at=0.5 would leave it half', 'current',
                level=logging.WARNING)
        return FlowSchedule(begin, end, self.dependency_weight)

    def _logits_cfg(self, network: nn.Module) -> str | dict | None:
        return self.logits if self.logits is not None else find_logits(network)

    def _logits_tap(self, network: nn.Module) -> Tap | None:
        if not self.kl_weight:
            return None
        cfg = self._logits_cfg(network)
        if cfg is None:
            print_log(
                f'knowledge flow: {type(network).__name__} has no class '
                'logits to compare from iteration to iteration, so the KL '
                'term (Eq. 6) is off; KnowledgeFlowHook.logits=PATH names '
                'some', 'current')
            return None
        return logits_tap(network, cfg)

    # ------------------------------------------------------- each iteration

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: Any = None) -> None:
        """Set how strong the teachers are."""
        counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        self.begin(runner.iter, self.every_n_train_iters(runner, counts) or
                   self.is_last_train_iter(runner))

    def begin(self, iteration: int, will_step: bool = True) -> None:
        """An iteration begins.

        Args:
            iteration: Which, from 0 on.
            will_step: Whether its gradients, and not only their sum with
                those of iterations to come, change the weights.
        """
        # Not after the last one: hooks may have looked at its batch again.
        self.flow.forget()
        self._set_stage(iteration)
        self._iteration, self._will_step = iteration, will_step

    def _set_stage(self, iteration: int) -> None:
        self.flow.strength = self.schedule.strength(iteration)
        if self.flow.strength == 0 and not self.flow.independent:
            self.flow.retire(self.flow.teacher_names)
            print_log(f'knowledge flow: the student is alone from iteration '
                      f'{iteration} on', 'current')
        if self.flow.independent:
            self._old = None

    def _before(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Listen to the logits, if this forward pass needs them."""
        self._stop_listening()
        if _mode(args, kwargs) == 'loss' and self._kl_is_on():
            assert self._tap is not None
            self._recording = self._tap.recording()
            self._recording.__enter__()

    def _kl_is_on(self) -> bool:
        return self._old is not None and not self.flow.independent and \
            self._iteration % self.kl_interval == 0

    def _stop_listening(self) -> None:
        if self._recording is not None:
            self._recording.__exit__(None, None, None)
            self._recording = None

    def _add_losses(self, model: nn.Module, args: tuple, kwargs: dict,
                    losses: Any) -> Any:
        if _mode(args, kwargs) != 'loss' or not isinstance(losses, dict):
            return None
        listened = self._recording is not None
        self._stop_listening()
        losses = dict(losses)
        if 'loss' in losses:
            # MMEngine logs the sum of all under this name.
            losses['loss_student'] = losses.pop('loss')
        zero = torch.zeros((), device=self.flow.active.device)
        losses['loss_dependency'] = self._unused() + (
            zero if self.flow.independent else self.schedule.lambda_1(
                self._iteration) * self.flow.dependency())
        if self.handover_weight:
            losses['loss_handover'] = \
                self.handover_weight * self.flow.handover()
        if listened:
            assert self._tap is not None and self._old is not None
            inputs = kwargs['inputs'] if 'inputs' in kwargs else args[0]
            losses['loss_kl'] = self.kl_weight * kl_to_old(
                self._tap.take(), self._old.logits(inputs))
        elif self._tap is not None and self.flow.independent:
            losses['loss_kl'] = zero  # else the log would show the last one
        if self._old is not None and self._will_step:
            # Now, for the optimiser's step comes next.
            self._old.update()
        return losses

    def _unused(self) -> Tensor | float:
        """Zero, with a gradient of zero for all that has left: the processes
        of a distributed run wait for each parameter's gradient."""
        if not is_distributed():
            return 0.
        parts = [p.sum() for p in self.flow.parameters()]
        return 0. * torch.stack(parts).sum()

    def after_train_iter(self, runner: Runner, batch_idx: int,
                         data_batch: Any = None, outputs: Any = None) -> None:
        """Log the weights and send teachers home that nobody listens to."""
        if not self.every_n_train_iters(runner, self.interval) and \
                not self.is_last_train_iter(runner):
            return
        if not self.flow.independent:
            weak = self.flow.weak_teachers(self.threshold)
            if weak:
                self.flow.retire(weak)
                rest = self.flow.active_teachers
                print_log(
                    f'knowledge flow: iteration {runner.iter + 1}: all '
                    f'weights of {", ".join(weak)} are below '
                    f'{self.threshold}, not run any more; '
                    f'{"the student is alone" if not rest else rest}',
                    'current')
        for name, value in _scalars(self.flow).items():
            runner.message_hub.update_scalar(f'train/{name}', value)

    def after_train(self, runner: Runner) -> None:
        """Leave the model, with the student alone in any case."""
        self._stop_listening()
        self.flow.forget()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._old = None
        if not self.flow.independent:
            # The schedule's last step may be the end of the training; or a
            # hook has ended it before.
            if runner.iter < self.schedule.independent_at:
                print_log(
                    f'knowledge flow: the training ended at iteration '
                    f'{runner.iter}, the student was to be alone from '
                    f'{self.schedule.independent_at} on: its teachers are cut '
                    'off, which it has not been trained for', 'current',
                    level=logging.WARNING)
            self.flow.strength = 0.
            self.flow.retire(self.flow.teacher_names)

    # ----------------------------------------------------------- validation

    def before_val_epoch(self, runner: Runner) -> None:
        """With or without teachers; without, where nothing was trained and
        nobody knows how strong they were."""
        trained = flow_of(unwrapped(runner)).strength is not None
        self._fuse(runner, trained and self.validate == 'fused')

    def after_val_epoch(self, runner: Runner,
                        metrics: dict | None = None) -> None:
        """Once more with teachers, if both were asked for."""
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
        """theta_old goes along."""
        if self._old is not None:
            checkpoint[CHECKPOINT_KEY] = self._old.state_dict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """A resumed run goes on from its theta_old. A new run that takes
        another one's weights has all its teachers, also those that the other
        has sent home."""
        if runner._resume:
            self._resumed = checkpoint.get(CHECKPOINT_KEY)
            return
        weights = checkpoint.get('state_dict', {})
        for name, value in weights.items():
            if name.endswith('knowledge_flow.active'):
                weights[name] = torch.ones_like(value)


def _mode(args: tuple, kwargs: dict) -> str:
    return kwargs.get('mode', args[2] if len(args) > 2 else 'tensor')


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
