r"""Rewards of the teachers, per sample, [B, M].

Two rules, both computed from tensors of the student's step.

``DistanceReward`` is MTKD-RL's Eq. (6). The student's cross entropy in it is
the same for all teachers and cancels in Eq. (8); so the reward ranks teachers
by how close the student is to them already, and a teacher with a large weight
is approached and gets a larger reward. The rule finds a good teacher among
confidently wrong ones, because the labels move the student away from those. It
fails among nearly uniform teachers, which at T = 4 are close to every student:
the only right one of four got no weight at all, with three seeds
(docs/mtkd_rl.md).

``AgreementReward``, the default, measures a teacher's effect on the student's
task. A small step of the student's logits down D_m changes its cross entropy
by minus the inner product of the two gradients,

.. math::
    R_m = <\nabla_z CE_S, \nabla_z D_m>
        = <p_S - e_y,\; T (q_S - q_m)>

with p at T = 1, q at the losses' T: positive where imitating teacher m lowers
the student's cross entropy. Over the teachers it ranks
q_m[y] - <p_S, q_m>: the probability of the true class minus the mean
probability under the student's prediction. Samples that the student predicts
correctly have rewards near zero. With ``feature='own'`` features have separate
rewards, from the same inner product at the student's last feature map,

.. math:: R^f_m = <\nabla_{F_S} CE_S, \nabla_{F_S} MSE_m>

so that the two heads of w^gen learn different things. Further rules are in
``rewards/``.

A teacher with a class map is not distilled on images of classes that it was
not trained on. There its reward is the mean of the others, which is neutral
(:func:`neutral_where_not_distilled`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mmkd_rl.context import WeightingContext
from mmkd_rl.losses.class_map import complete
from mmkd_rl.losses.kd import kd_gradient
from mmkd_rl.options import Checked, ConfigError
from mmkd_rl.records import DistillationBatch
from mmkd_rl.registry import REWARDS
from mmkd_rl.tasks import LogitTask
from mmkd_rl.utils.gradients import float32_gradients
from mmkd_rl.utils.processes import mean_over_processes

RewardScale = Literal['minmax', 'literal', 'standard', 'none']


@dataclass(frozen=True)
class Step:
    """Weights and cross entropies of the student's step.

    Attributes:
        weights: Weights of the teachers as used, logits first, [B, 2, M].
        ce: CE(z_S, y) before it, [B].
        coverage: See :attr:`DistillationBatch.class_coverage`.
    """
    weights: Tensor
    ce: Tensor
    coverage: Tensor | None = None


class RewardRule(Checked, ABC):
    """Gives each teacher its reward on each sample, either at once
    (:class:`Reward`) or after the student's backward pass
    (:class:`DeferredReward`).

    Args:
        context: alpha, beta, T and the task, given by the distiller.

    Raises:
        ConfigError: The rule needs class scores or labels, and the task has
            none.
    """

    #: The only valid ``reward_time``, if any: ``'before'`` or ``'after'``.
    only: str | None = None
    #: Whether a sample has one reward for all teachers, in [0, 1].
    scalar = False
    #: Whether the rule works without class scores and labels.
    works_without_logits = False
    #: Whether the rule takes class scores through a softmax.
    softmax = False

    def __init__(self, context: WeightingContext) -> None:
        self.task = context.task
        if context.task.judge is None and not self.works_without_logits:
            raise ConfigError(
                f'{type(self).__name__} reads class scores and labels, and '
                f'{type(context.task).__name__} has none; use '
                "reward=dict(type='GradientReward')")
        if self.softmax and not context.task.softmax:
            raise ConfigError(
                f'{type(self).__name__} takes class scores through a softmax, '
                f'and those of {type(context.task).__name__} are for a '
                "sigmoid each; use reward=dict(type='GradientReward')")
        self.context = context
        self.temperature = context.temperature
        self.known = tuple(t.known for t in context.teachers)

    @property
    def logit_weight(self) -> float:
        """alpha, at present; 0: logits are not distilled."""
        return self.context.logit_weight

    @property
    def feature_weight(self) -> float:
        """beta, at present; 0: features are not distilled."""
        return self.context.feature_weight

    @property
    def judge(self) -> LogitTask:
        """The task, for rules that read class scores and labels."""
        judge = self.task.judge
        assert judge is not None
        return judge

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move the tensors that the rule keeps between batches, if any."""
        return None

    def state_dict(self) -> dict:
        """State that the rule keeps between batches."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned."""
        return None


class Reward(RewardRule):
    """Rule whose rewards are computed from the outputs of a batch."""

    @abstractmethod
    def __call__(self, batch: DistillationBatch,
                 step: Step | None = None) -> Tensor:
        """R, [B, M], detached, larger is better; [B, 2, M] if logits and
        features have separate rewards.

        Args:
            batch: The batch; with ``reward_time='after'`` with the student's
                outputs after its step.
            step: Weights and cross entropies of the step, for some rules.
        """


class DeferredReward(RewardRule):
    """Rule whose rewards are known after the student's backward pass."""

    only = 'before'

    @abstractmethod
    def watch(self, batch: DistillationBatch, step: Step) -> Any:
        """Prepare a batch before the student's backward pass.

        Args:
            batch: The batch, with the student's graph.
            step: The weights as the student's step uses them.

        Returns:
            The argument of :meth:`earned` for this batch; ``None``: the
            student has no gradient, so there will be no reward.
        """

    @abstractmethod
    def earned(self, watched: Any, scale: Tensor) -> Tensor | None:
        """The reward of a batch after the student's backward pass.

        Args:
            watched: Result of :meth:`watch`.
            scale: Factor by which the losses were scaled, a scalar.

        Returns:
            R, [B, M] or [B, 2, M], as of :class:`Reward`; ``None``: the
            backward pass did not happen.
        """


@REWARDS.register_module()
class DistanceReward(Reward):
    """R_m = -CE_S - alpha D_m - beta MSE_m (MTKD-RL, Eq. 6).

    Without class scores CE_S is left out; over the teachers it is the same.

    Args:
        context: Given by the distiller.
    """

    works_without_logits = True

    @torch.no_grad()
    def __call__(self, batch: DistillationBatch,
                 step: Step | None = None) -> Tensor:
        """R, [B, M]."""
        quality_B = self.task.quality(batch.student, batch.truth)
        reward = quality_B.unsqueeze(1).expand(-1, len(batch.teachers))
        if batch.gaps.logit is not None:
            reward = reward - self.logit_weight * batch.gaps.logit
        if batch.gaps.feature is not None:
            reward = reward - self.feature_weight * batch.gaps.feature
        return reward.detach()


@REWARDS.register_module()
class AgreementReward(Reward):
    """R_m = <grad_z CE_S, grad_z D_m>: how far a step on D_m lowers CE_S.

    Not in the paper; see the top of this file.

    Args:
        context: Given by the distiller.
        feature: Reward of features: ``'same'`` as of logits, or their
            ``'own'``, which costs M gradients of the projectors and one of the
            student's head.

    Raises:
        ConfigError: ``'own'``, and no features are distilled.
    """

    softmax = True

    def __init__(self, context: WeightingContext,
                 feature: Literal['same', 'own'] = 'same') -> None:
        super().__init__(context)
        if feature == 'own':
            if not context.reading('features'):
                raise ConfigError('feature', "'own' needs a "
                                  'model.feature_loss, which is off')
            self.only = 'before'  # the second pass has no gradients
        self.feature = feature

    def __call__(self, batch: DistillationBatch,
                 step: Step | None = None) -> Tensor:
        """R, [B, M]; [B, 2, M] with ``feature='own'``.

        Raises:
            ConfigError: ``'own'``, and the student's logits are not computed
                from the feature that is tapped.
        """
        with torch.no_grad():
            slopes = self.judge.logit_gradient(batch.student, batch.truth)
            logit_BM = torch.stack([
                self.judge.inner_product(slope, pull, batch.truth)
                for slope, pull in zip(slopes, self.pull(batch))
            ]).sum(0)
        if self.feature == 'same':
            return logit_BM
        return torch.stack([logit_BM, feature_agreement(self.judge, batch)], 1)

    def pull(self, batch: DistillationBatch) -> list[Tensor]:
        """grad_z D_m = T (q_S - q_m) of each level, [B, M, C, ...]; 0 for
        classes that a teacher was not trained on."""
        levels = []
        for level, z in enumerate(batch.student.logits):
            theirs = [t.logits[level] for t in batch.teachers]
            theirs = [
                o if known is None else complete(
                    o, z, known.to(z.device), self.temperature)
                for o, known in zip(theirs, self.known)
            ]
            levels.append(
                kd_gradient(z, torch.stack(theirs, 1), self.temperature))
        return levels


def feature_agreement(task: LogitTask, batch: DistillationBatch) -> Tensor:
    """<grad_F CE_S, grad_F MSE_m> at the student's features, [B, M], summed
    over levels. The graph is kept; no gradient passes through the student's
    backbone."""
    features, gap_BM = batch.student.features, batch.gaps.feature
    assert gap_BM is not None
    outputs = batch.student.logits
    slopes = task.logit_gradient(batch.student, batch.truth)
    try:
        down = float32_gradients(outputs, features, slopes)
        columns = []
        for one_M in torch.eye(gap_BM.shape[1], device=gap_BM.device):
            # A unit vector selects a column: slices under no_grad have no
            # graph.
            pull = float32_gradients([gap_BM], features,
                                     [one_M.expand_as(gap_BM)])
            columns.append(torch.stack([
                (p * d).flatten(1).sum(1)  # type: ignore[operator]
                for p, d in zip(pull, down)]).sum(0))
    except RuntimeError as error:
        raise ConfigError(
            'feature', "'own' needs a student whose logits come from "
            'the feature at model.taps, both with gradient; use '
            f"feature='same' here ({error})") from error
    return torch.stack(columns, 1)


def neutral_where_not_distilled(reward: Tensor,
                                coverage_BM: Tensor | None) -> Tensor:
    """Replace a teacher's reward by the mean of the others where its logits
    are not distilled, so that the normalised reward is zero there.

    Args:
        reward: Rewards [B, M], or [B, 2, M], of which features are unchanged.
        coverage_BM: See :attr:`DistillationBatch.class_coverage`; partly
            covered images get a weighted mean of both.
    """
    if coverage_BM is None:
        return reward
    own_BM = reward if reward.ndim == 2 else reward[:, 0]
    total_B1 = coverage_BM.sum(1, keepdim=True)
    mean_B1 = (own_BM * coverage_BM).sum(1, keepdim=True) / \
        total_B1.clamp_min(1e-12)
    kept_BM = coverage_BM * own_BM + (1 - coverage_BM) * mean_B1
    return kept_BM if reward.ndim == 2 else torch.stack(
        [kept_BM, reward[:, 1]], 1)


def normalize_reward(reward_BM: Tensor,
                     how: RewardScale = 'minmax') -> Tensor:
    """Normalise rewards: positive for teachers that should get more weight.

    Args:
        reward_BM: R; [B, 2, M] if logits and features have separate rewards,
            which are normalised separately.
        how: ``'minmax'``: to [0, 1] over the teachers of each sample, then
            minus their mean (Eq. 8, the mean being of the rescaled rewards);
            ``'literal'``: Eq. (8) as printed, minus the mean of the raw
            rewards; ``'standard'``: minus the sample's mean, divided by the
            standard deviation over the batch (of all processes), so that
            samples on which the teachers hardly differ have little influence;
            ``'none'``.

    Returns:
        Rewards of the shape of ``reward_BM``. Zero where all teachers have the
        same reward (``'literal'``: minus their mean).
    """
    if how == 'none':
        return reward_BM
    if reward_BM.ndim == 3:
        return torch.stack(
            [normalize_reward(r, how) for r in reward_BM.unbind(1)], 1)
    mean_B1 = reward_BM.mean(1, keepdim=True)
    if how == 'standard':
        centred = reward_BM - mean_B1
        spread = mean_over_processes(centred.square().mean()).sqrt()
        # The rounding error of the mean of equal numbers must not be
        # amplified.
        noise = 1e-6 * reward_BM.abs().amax()
        return torch.where(spread > noise, centred / spread, 0.)
    low, high = reward_BM.aminmax(dim=1, keepdim=True)
    span = high - low
    flat = span <= 1e-12
    scaled = torch.where(flat, 0., (reward_BM - low) /
                         span.masked_fill(flat, 1.))
    return scaled - (mean_B1 if how == 'literal' else
                     scaled.mean(1, keepdim=True))
