r"""Learnable balances of the action's sources (MTKD-RL, A.1).

.. math:: maximise_\gamma \sum_m \bar R_m f(w_m) + \lambda H(\gamma),\quad
    w = \gamma^{gen} \pi + \gamma^{conf} w^{conf} + \gamma^{div} w^{div}

The balances are trained through the whole action, whatever the updater; the
agent is trained through its own weights, as with constant balances, because
through the action its gradient would be scaled by its balance, and the entropy
term would dominate. With f the identity the optimum is softmax(g / lambda), g
being the expected reward of each source alone: a source that prefers a wrong
teacher gets almost zero, and equally good sources stay equal. The paper does
not say how it trains the balances; the entropy term is ours.
"""

from __future__ import annotations

from torch import Tensor

from mmkd_rl.records import Transition
from mmkd_rl.weighting.mtkd_rl.action import mix
from mmkd_rl.weighting.mtkd_rl.policy import SOURCES, WeightPolicy


def balance_loss(policy: WeightPolicy, batch: Transition, w_B2M: Tensor,
                 reward_B2M: Tensor, entropy_weight: float, log: bool = False
                 ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Minus the objective above.

    Args:
        policy: The policy with the balances.
        batch: Transitions with the two other sources.
        w_B2M: The policy's weights, detached.
        reward_B2M: R-bar, [B, 1 or 2, M].
        entropy_weight: lambda.
        log: Whether f is the logarithm.

    Returns:
        The whole action [B, 2, M], the loss, and the balances for the log.
    """
    gamma_23 = policy.balances()
    action_B2M = mix(w_B2M, batch.sources, gamma_23)
    value_B2M = action_B2M.clamp_min(1e-12).log() if log else action_B2M
    # Clamped: a source that is left out has gamma = 0.
    entropy = -(gamma_23 * gamma_23.clamp_min(1e-12).log()).sum(-1).mean()
    loss = -(reward_B2M * value_B2M).sum(-1).mean() - entropy_weight * entropy
    logged = {
        f'balance_{head}/{source}': value
        for head, row in zip(('logit', 'feature'), gamma_23.detach())
        for source, value in zip(SOURCES, row)
    }
    return action_B2M, loss, logged
