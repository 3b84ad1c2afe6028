"""Add Knowledge Flow's losses to those of any model.

The model's class is not changed: forward hooks record its logits and add
entries to the loss dict that it returns in ``mode='loss'``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from mmengine.dist import is_distributed
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmkd_rl.flow.knowledge_flow import flow_of
from mmkd_rl.flow.losses import kl_to_old
from mmkd_rl.flow.old_student import OldStudent, find_logits, logits_tap
from mmkd_rl.flow.schedule import FlowSchedule
from mmkd_rl.taps import Listener, Tap
from mmkd_rl.teachers.normalization import Normalization
from mmkd_rl.utils.forward_hooks import (
    argument,
    computes_losses,
    with_losses,
)


@dataclass(frozen=True)
class LossOptions:
    """Weights of the losses, and how theta_old is made.

    Attributes:
        kl_weight: lambda_2; 0: no KL term.
        kl_interval: Iterations between two KL terms.
        old_momentum: Momentum of theta_old; 0: the previous iteration.
        logits: Tap of the logits; ``None``: see :func:`find_logits`.
        handover_weight: Weight of the handover loss.
    """
    kl_weight: float
    kl_interval: int
    old_momentum: float
    logits: str | dict | None
    handover_weight: float


class JointLoss:
    """Hooks on a model that add Knowledge Flow's losses during training.

    Args:
        model: The trained model, with a knowledge flow somewhere in it.
        schedule: Schedule of the teachers' withdrawal.
        options: Weights and settings of the losses.
        iteration: First iteration of the training, not 0 if resumed.
    """

    def __init__(self, model: BaseModel, schedule: FlowSchedule,
                 options: LossOptions, iteration: int = 0) -> None:
        self.flow, self.schedule, self.options = (flow_of(model), schedule,
                                                  options)
        self.flow.set_normalization(
            Normalization.of(getattr(model, 'data_preprocessor', None)))
        self.flow.watch_gaps(options.handover_weight > 0)
        self._model = model
        logits = self._logits_of(model)
        self._tap: Tap | None = None if logits is None else logits_tap(
            model, logits)
        #: theta_old; ``None``: there is no KL term, or it has ended.
        self.old: OldStudent | None = None
        #: During a forward pass: the listener on the student's logits, and
        #: the logits of theta_old.
        self._running: tuple[Listener, Tensor] | None = None
        self.begin(iteration)
        if logits is not None and not self.flow.independent:
            self.old = OldStudent(model, logits, options.old_momentum)
        self._handles = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._add, with_kwargs=True)
        ]

    def begin(self, iteration: int, will_step: bool = True) -> None:
        """Begin an iteration: set the strength and retire the teachers if the
        schedule has ended.

        Args:
            iteration: Index of the iteration, from 0.
            will_step: Whether the optimiser steps in this iteration; with
                gradient accumulation it does not in each.
        """
        # Here and not after an iteration: hooks may use its batch again.
        self.flow.forget()
        self.flow.strength = self.schedule.strength(iteration)
        if self.flow.strength == 0 and not self.flow.independent:
            self.flow.retire(self.flow.teacher_names)
            print_log(f'knowledge flow: the student is alone from iteration '
                      f'{iteration} on', 'current')
        if self.flow.independent:
            self.old = None
        self._iteration, self._will_step = iteration, will_step

    def detach(self) -> None:
        """Remove the hooks from the model."""
        self._stop()
        self.flow.forget()
        for handle in self._handles:
            handle.remove()
        self.old = None

    def _logits_of(self, network: nn.Module) -> str | dict | None:
        if not self.options.kl_weight:
            return None
        logits = self.options.logits or find_logits(network)
        if logits is None:
            print_log(
                f'knowledge flow: {type(network).__name__} has no class '
                'logits that can be compared between iterations, so the KL '
                'term (Eq. 6) is off; to use it, set KnowledgeFlowHook.logits '
                'to the path of a module that gives logits', 'current')
        return logits

    def _before(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        """Run the old student, and record the present student's logits, if
        this forward pass needs them."""
        self._stop()
        given = self.flow.lent_by_distiller
        self.flow.lend(given)  # clears features of a pass that failed
        if not computes_losses(args, kwargs) or self.old is None or \
                self.flow.independent or \
                self._iteration % self.options.kl_interval:
            return
        assert self._tap is not None
        # Before the student's pass, which keeps its maps for backward. If a
        # distiller's hook has not run the teachers already, the old student
        # runs them, and the present student gets the same features.
        old, features = self.old.logits(
            argument('inputs', args, kwargs), given)
        self.flow.lend(features)
        self._running = self._tap.listen(self._model), old

    def _stop(self) -> None:
        if self._running is not None:
            self._running[0].stop()
            self._running = None

    def _add(self, model: nn.Module, args: tuple, kwargs: dict,
             losses: Any) -> Any:
        if not computes_losses(args, kwargs) or not isinstance(losses, dict):
            return None
        running = self._running
        self._stop()
        self.flow.lend(None)
        zero = torch.zeros((), device=self.flow.active.device)
        added = dict(loss_dependency=self._unused() + (
            zero if self.flow.independent else self.schedule.lambda_1(
                self._iteration) * self.flow.dependency()))
        if self.options.handover_weight:
            added['loss_handover'] = \
                self.options.handover_weight * self.flow.handover()
        if running is not None:
            listener, old = running
            added['loss_kl'] = self.options.kl_weight * kl_to_old(
                listener.tensor(), old)
        elif self._tap is not None and self.flow.independent:
            added['loss_kl'] = zero  # else the log would repeat the last one
        if self.old is not None and self._will_step:
            # Here, because the optimiser's step comes next.
            self.old.update()
        return with_losses(losses, added)

    def _unused(self) -> Tensor | float:
        """Zero, with a zero gradient for all parameters of the flow: the
        processes of a distributed run wait for each parameter's gradient."""
        if not is_distributed():
            return 0.
        parts = [p.sum() for p in self.flow.parameters()]
        return 0. * torch.stack(parts).sum()
