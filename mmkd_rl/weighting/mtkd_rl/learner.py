"""Trains, saves and moves the agent with its updater, history and reward."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from mmengine import dist
from mmengine.logging import print_log
from torch import Tensor

from mmkd_rl.options import under
from mmkd_rl.records import DistillationBatch, TrainingStep, Transition
from mmkd_rl.utils.random_state import RandomNumbers
from mmkd_rl.weighting.learner import Learner, Student
from mmkd_rl.weighting.mtkd_rl.history import History
from mmkd_rl.weighting.mtkd_rl.policy import WeightPolicy
from mmkd_rl.weighting.mtkd_rl.reward import (
    DeferredReward,
    Reward,
    RewardRule,
    Step,
    neutral_where_not_distilled,
)
from mmkd_rl.weighting.mtkd_rl.updaters import Updater

#: Record of a strategy's forward pass for the learner. The last item is the
#: result of :meth:`DeferredReward.watch`.
Record = tuple[Transition, Step, Any]


class AgentLearner(Learner):
    """Policy, updater, history and reward.

    Args:
        policy: The agent's network.
        updater: Trains the policy.
        history: The transitions on which the policy is trained.
        reward: The reward rule; ``None``: the caller adds rewards to the
            history.
    """

    noun = 'agent'
    plural = False
    log_name = 'agent'
    checkpoint_key = 'mmkd_rl_agent'
    networks_key = 'policy'
    fitting = 'teachers, state or agent'
    learns_from_all = True
    _said_empty = False

    def __init__(self, policy: WeightPolicy, updater: Updater,
                 history: History, reward: RewardRule | None = None) -> None:
        super().__init__(policy)
        self.policy = policy
        self.updater = updater
        self.history = history
        self.reward = reward

    @property
    def random(self) -> RandomNumbers:
        """Generators of the updater (exploration, replay)."""
        return self.updater.random

    def parts(self) -> dict[str, Any]:
        """See :meth:`Learner.parts`."""
        reward = {} if self.reward is None else dict(reward=self.reward)
        return dict(updater=self.updater, history=self.history, **reward)

    def nbytes_after(self, steps: int) -> int:
        """See :meth:`Learner.nbytes_after`."""
        history = self.history
        return super().nbytes_after(steps) - history.nbytes + \
            history.nbytes_after(steps)

    def observe(self, step: TrainingStep, student: Student) -> None:
        """Add a step to the history (Algorithm 2, lines 5 to 8). With
        ``reward_time='after'`` the student runs again."""
        after = None
        if step.seen is not None and step.weights.record is not None:
            # In the precision of the step itself.
            with student.optim_wrapper.optim_context(student.model):
                after = student.distillation.forward_after_step(
                    student.model, step.seen)
        scale = None if step.scale is None else step.scale.value
        self.remember(step.weights.record, after, scale)

    def watch(self, batch: DistillationBatch, step: Step) -> Any:
        """Watch the backward pass for a deferred reward; ``None``: the reward
        is not deferred, or there is no gradient."""
        return self.reward.watch(batch, step) if isinstance(
            self.reward, DeferredReward) else None

    def remember(self, record: Record | None,
                 after: DistillationBatch | None = None,
                 scale: Tensor | None = None) -> None:
        """Add a training batch to the history.

        Args:
            record: Record of the batch's weights; ``None``: count the batch
                only.
            after: The same batch after the student's update; needed when
                ``reward_time='after'``.
            scale: Factor by which the batch's losses were scaled; needed by
                deferred rewards. ``None``: 1.
        """
        if record is None:
            self.history.skip()
            return
        transition, step, watched = record
        if after is not None:
            transition = replace(transition, reward=self.earned(after, step))
        if isinstance(self.reward, DeferredReward):
            reward = None if watched is None else self.reward.earned(
                watched, torch.ones(()).to(transition.state.device)
                if scale is None else scale)
            if reward is None:
                return  # a step without a backward pass has no reward
            if self.reward.context.reading('logits'):
                reward = neutral_where_not_distilled(reward, step.coverage)
            transition = replace(transition, reward=reward)
        self.history.add(transition)

    def earned(self, batch: DistillationBatch, step: Step) -> Tensor:
        """The reward of a batch, see :class:`Reward`."""
        assert isinstance(self.reward, Reward)
        reward = self.reward(batch, step)
        return reward if self.reward.scalar else neutral_where_not_distilled(
            reward, batch.class_coverage)

    def update(self, student: Student | None = None) -> dict[str, float]:
        """Train the agent on the history, then empty the history
        (Algorithm 2, lines 10 to 13).

        Args:
            student: Not used.

        Returns:
            Scalars of the updater; empty if the history is empty.
        """
        if not len(self.history):
            if isinstance(self.reward, DeferredReward) and \
                    not self._said_empty:
                self._said_empty = True
                print_log(
                    'no batch of this interval has rewards: nothing that is '
                    'distilled gets a gradient in the student, so the agent '
                    'learns nothing, and all weights stay as they are',
                    'current', logging.WARNING)
            return {}
        with under('updater'):
            scalars = self.updater.update(self.history)
        scalars['history_share'] = self.history.share
        self.history.clear()
        self.updates += 1
        return {name: value for name, value in scalars.items()
                if not name.startswith(self._unread())}

    def _unread(self) -> tuple[str, ...]:
        """Prefixes of the scalars of weights that no term reads."""
        return () if self.reward is None else tuple(
            prefix for prefix, kind in (('balance_logit/', 'logits'),
                                        ('balance_feature/', 'features'))
            if not self.reward.context.reading(kind))

    def synchronize(self) -> None:
        """Broadcast the first process's policy and critics."""
        super().synchronize()
        for tensor in self.updater.extra.state_dict().values():
            dist.broadcast(tensor)
