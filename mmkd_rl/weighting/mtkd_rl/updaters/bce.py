r"""The published code's agent loss (github winycg/MTKD-RL).

.. math:: minimise R \cdot BCE(w, 1) = -R \frac{1}{M} \sum_m \log w_m

mean over samples and heads, R one reward for all teachers
(:class:`BatchReward`). For comparisons with the published code only; it does
not learn which teacher is good. Weights sum to one, so for R > 0 the loss is
smallest for equal weights (Jensen), however good the teachers are; R is only a
weight of the sample. Use :class:`PolicyGradient` for an agent that learns.
"""

from __future__ import annotations

from torch import Tensor

from mmkd_rl.options import Count, Positive
from mmkd_rl.records import Transition
from mmkd_rl.registry import UPDATERS
from mmkd_rl.weighting.mtkd_rl.action import mix
from mmkd_rl.weighting.mtkd_rl.policy import WeightPolicy
from mmkd_rl.weighting.mtkd_rl.updaters.base import Updater, by_head


@UPDATERS.register_module()
class BCEUpdater(Updater):
    """Binary cross entropy of the weights against ones, times the reward.

    With learnable balances w is the whole action, and the balances are trained
    by the same loss.

    Args:
        policy: The agent's network, given by the strategy.
        optimizer: Config of its optimiser; SGD, 0.1, as published.
        epochs: Passes over the history.
        max_grad_norm: See :class:`Updater`; none as published.
    """

    scalar_reward = True

    def __init__(self,
                 policy: WeightPolicy,
                 optimizer: dict | None = None,
                 epochs: Count = 1,
                 max_grad_norm: Positive | None = None) -> None:
        super().__init__(
            policy,
            optimizer or dict(type='SGD', lr=0.1),
            epochs=epochs,
            max_grad_norm=max_grad_norm,
            normalization='none',
            entropy_weight=0.)

    def loss(self, batch: Transition) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, a mean over samples, heads and teachers."""
        log_w_B2M = self.policy(batch.state)
        w_B2M = log_w_B2M.exp()
        entropy = -(w_B2M * log_w_B2M).sum(-1).mean()
        log_action_B2M = log_w_B2M
        if self.policy.balance is not None:
            w_B2M = mix(w_B2M, batch.sources, self.policy.balances())
            log_action_B2M = w_B2M.clamp_min(1e-12).log()
        reward_B2M = by_head(batch.reward)
        # BCE against ones is -log w; log weights do not overflow at w = 0.
        loss = -(reward_B2M * log_action_B2M).mean()
        return loss, {
            'entropy': entropy.detach(),
            'expected_reward': (reward_B2M * w_B2M.detach()).sum(-1).mean()
        }
