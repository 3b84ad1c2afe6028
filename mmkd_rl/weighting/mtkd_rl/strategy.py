r"""MTKD-RL (Yang et al., AAAI 2025): an agent weighs the teachers, per image.

.. math::
    w = \gamma^{gen} \pi(s) + \gamma^{conf} w^{conf} + \gamma^{div} w^{div}

(Eqs. 9 to 14; state: Eq. 5). The student is trained with these weights while
states, actions and rewards (Eq. 6) are added to a history; then the agent is
trained on the history (Eq. 7), which is emptied. In Algorithm 1's warm-up,
until the agent's first update, weights are equal.

Deviations from the paper: the default reward is :class:`AgreementReward`
(``reward=dict(type='DistanceReward')`` is Eq. 6), the default updater
maximises the expected reward with an entropy term, by Adam with clipped
gradients, states are standardised, the heads start at zero and the history is
bounded. Reasons, and options for the paper's rule, are in docs/mtkd_rl.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from mmengine.dist import get_world_size
from torch import Tensor

from mmkd_rl.context import WeightingContext
from mmkd_rl.options import ConfigError, Count
from mmkd_rl.records import DistillationBatch, TeacherWeights, Transition
from mmkd_rl.registry import (
    MODELS,
    REWARDS,
    UPDATERS,
    WEIGHTINGS,
    build_nested,
    construct,
)
from mmkd_rl.weighting.base import (
    Scale,
    WeightingStrategy,
    confidence,
    cross_entropies,
    equal_weights,
    restrict,
)
from mmkd_rl.weighting.mtkd_rl.action import divergence, mix
from mmkd_rl.weighting.mtkd_rl.history import History
from mmkd_rl.weighting.mtkd_rl.learner import AgentLearner
from mmkd_rl.weighting.mtkd_rl.policy import WeightPolicy
from mmkd_rl.weighting.mtkd_rl.reward import DeferredReward, RewardRule, Step
from mmkd_rl.weighting.mtkd_rl.state import StateBuilder, StatePart
from mmkd_rl.weighting.mtkd_rl.updaters import Updater

_HALF_MAX = 6e4


@WEIGHTINGS.register_module()
class MTKDRL(WeightingStrategy):
    """Weights from a reinforcement learning agent.

    Needs :class:`AgentAlternationHook`, which trains the agent.

    Args:
        context: Given by the distiller.
        state: Parts of the state, of ``('feature', 'logit', 'ce',
            'similarity', 'divergence')``; ``None``: all that exist.
        agent: Arguments of :class:`WeightPolicy`.
        reward: Config of the reward rule; default type: AgreementReward.
        reward_time: ``'before'``: from the forward pass of the student's step
            (published code; no extra cost); ``'after'``: from another forward
            pass after its update (Algorithm 2, line 8).
        updater: Config of the agent's updater; default type: PolicyGradient.
        history_bytes: Largest number of bytes of the history; when it is full,
            batches are removed evenly. A sample takes about 2 S bytes (4 kB
            with four teachers of CIFAR-100's size). ``agent/history_share`` in
            the log is the share of an interval that fits.
        scale: Scale of the warm-up's equal weights: ``'unit'``: 1 / M;
            ``'paper'``: 1 each (Algorithm 1). Later weights sum to one.

    Raises:
        ConfigError: An option of a part is wrong, or parts do not work
            together.
    """

    hooks = (dict(type='mmkd_rl.AgentAlternationHook'), )
    nested = dict(agent=(MODELS, WeightPolicy, ('sizes', )),
                  reward=(REWARDS, 'AgreementReward', ('context', )),
                  updater=(UPDATERS, 'PolicyGradient', ('policy', )))
    learner: AgentLearner

    def __init__(self,
                 context: WeightingContext,
                 state: Sequence[StatePart] | None = None,
                 agent: dict | None = None,
                 reward: dict | None = None,
                 reward_time: Literal['before', 'after'] = 'before',
                 updater: dict | None = None,
                 history_bytes: Count = 8 * 2**20,
                 scale: Scale = 'unit') -> None:
        super().__init__(context, scale)
        self.keeps_batch = reward_time == 'after'
        self.build_state = StateBuilder(
            context.teachers,
            context.task,
            state,
            has_logit=bool(context.reading('logits')),
            has_feature=bool(context.reading('features')))
        self.reads_features = 'feature' in self.build_state.parts
        policy: WeightPolicy = construct(
            WeightPolicy, agent or {}, 'agent', sizes=self.build_state.sizes)
        self.reward: RewardRule = build_nested(
            self, 'reward', reward, context=context)
        self.needs_loss_scale = isinstance(self.reward, DeferredReward)
        made: Updater = build_nested(self, 'updater', updater, policy=policy)
        _check_fit(self.reward, reward_time, made)
        self.learner = AgentLearner(policy, made, History(history_bytes),
                                    self.reward)

    def forward(self, batch: DistillationBatch) -> TeacherWeights:
        """Weights, [B, M] each, detached, in float32: autocast would round
        the differences between teachers away."""
        with torch.no_grad(), torch.autocast(batch.device.type,
                                             enabled=False):
            return self._weigh(batch)

    def _weigh(self, batch: DistillationBatch) -> TeacherWeights:
        self.learner.warn_without_hook(self)
        task = self.context.task
        ce_BM = cross_entropies(task, batch, batch.teachers)
        state_BS = self.build_state(batch, ce_BM)
        sources_B22M = self._sources(batch, ce_BM)
        policy = self.learner.policy
        log_w_B2M = policy(state_BS)
        generated_B2M = self.learner.updater.explore(
            log_w_B2M) if self.training else log_w_B2M.exp()
        if self.learner.updates:
            action_B2M = mix(generated_B2M, sources_B22M, policy.balances())
        else:
            total = 1. if self.scale == 'unit' else float(self.num_teachers)
            action_B2M = equal_weights(
                batch, self.num_teachers, total).unsqueeze(1).expand(
                    -1, 2, -1)
        record = None
        # All processes must take part in what they compute together.
        if self.training and (self.learner.history.wants_next or (
                get_world_size() > 1 and (self.keeps_batch
                                          or self.reward.scalar))):
            # The state takes most of the history's memory; half precision is
            # enough, since it is standardised before it is used.
            half_BS = state_BS.clamp(-_HALF_MAX, _HALF_MAX).half()
            step = Step(
                _used(action_B2M, batch.class_coverage),
                -task.quality(batch.student, batch.truth),
                batch.class_coverage)
            later = self.keeps_batch or self.needs_loss_scale
            record = Transition(
                half_BS, generated_B2M.contiguous(), sources_B22M,
                torch.empty_like(ce_BM) if later else
                self.learner.earned(batch, step)), step, \
                self.learner.watch(batch, step)
        return TeacherWeights(action_B2M[:, 0], action_B2M[:, 1], record)

    def _sources(self, batch: DistillationBatch, ce_BM: Tensor) -> Tensor:
        """w^conf and w^div, [B, 2, 2, M]; w^div is equal for all teachers
        where a kind of distillation is off."""
        conf_BM = confidence(ce_BM)
        zero_BM = torch.zeros_like(ce_BM)
        gaps = batch.gaps
        div_l = divergence(zero_BM if gaps.logit is None else gaps.logit)
        div_f = divergence(
            zero_BM if gaps.similarity is None else gaps.similarity)
        return torch.stack([
            torch.stack([conf_BM, div_l], 1),
            torch.stack([conf_BM, div_f], 1)
        ], 1)


def _used(action_B2M: Tensor, coverage_BM: Tensor | None) -> Tensor:
    """The weights as the student's step uses them, [B, 2, M]."""
    if coverage_BM is None:
        return action_B2M
    used = restrict(
        TeacherWeights(action_B2M[:, 0], action_B2M[:, 1]), coverage_BM)
    return torch.stack([used.logit, used.feature], 1)


def _check_fit(reward: RewardRule, reward_time: str, updater: Updater) -> None:
    """Raise ConfigError for parts that do not work together."""
    rule, method = type(reward).__name__, type(updater).__name__
    if reward.only not in (None, reward_time):
        raise ConfigError(
            'reward', f'{rule} with these arguments works with '
            f'reward_time={reward.only!r} only, got {reward_time!r}')
    if reward.scalar and not updater.scalar_reward:
        raise ConfigError(
            'reward', f'{rule} is the same for all teachers, so '
            f'{method} would learn nothing from it; use '
            "updater=dict(type='BCEUpdater') with it, or "
            "reward=dict(type='AgreementReward')")
    if updater.scalar_reward and not reward.scalar:
        raise ConfigError(
            'updater', f'{method} needs a single reward in [0, 1] for all '
            f'teachers, but {rule} gives each teacher its own, of any sign; '
            "use reward=dict(type='BatchReward') with it, or "
            "updater=dict(type='PolicyGradient')")
