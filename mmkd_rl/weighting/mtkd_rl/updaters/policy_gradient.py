r"""Policy gradient (MTKD-RL, Eq. 7).

.. math:: maximise \sum_m \bar R_m f(w_m) + \lambda H(w)

with R-bar the normalised reward (Eq. 8) and f the logarithm or the identity.
Printed as "theta - eta R grad pi", the paper's sign would lower the weight of
the teacher with the best reward, against its text; ours raises it.

- ``objective='log'``: f = log. Since R-bar sums to zero over the teachers, the
  gradient at the scores is always R-bar itself: the policy moves to one
  teacher and does not converge.
- ``objective='probability'``: f = identity, Eq. (7) as its gradient is
  printed. This is the exact gradient of the expected reward sum_m w_m R_m,
  without sampling and variance. It converges to all weight on the best
  teacher.

With the entropy term (not in the paper) the probability form converges to
w = softmax(R-bar / lambda), in which good teachers share the weight.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from mmkd_rl.records import Transition
from mmkd_rl.registry import UPDATERS
from mmkd_rl.weighting.mtkd_rl.policy import WeightPolicy
from mmkd_rl.weighting.mtkd_rl.updaters.base import Updater


@UPDATERS.register_module()
class PolicyGradient(Updater):
    """Maximises the rewards of all teachers, weighted by the policy.

    Args:
        policy: The agent's network, given by the strategy.
        optimizer: Config of its optimiser.
        objective: ``'probability'`` or ``'log'``, see above.
        **kwargs: See :class:`Updater`.
    """

    def __init__(self,
                 policy: WeightPolicy,
                 optimizer: dict | None = None,
                 objective: Literal['log', 'probability'] = 'probability',
                 **kwargs) -> None:
        super().__init__(policy, optimizer or dict(type='Adam', lr=1e-3),
                         **kwargs)
        self.objective = objective

    def loss(self, batch: Transition) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the objective, mean over samples and heads."""
        log_w_B2M = self.policy(batch.state)
        w_B2M = log_w_B2M.exp()
        entropy = -(w_B2M * log_w_B2M).sum(-1).mean()
        reward_B2M = self._reward(batch)
        log = self.objective == 'log'
        gain = (reward_B2M * (log_w_B2M if log else w_B2M)).sum(-1).mean()
        return self._complete(-gain - self.entropy_weight * entropy, batch,
                              w_B2M, reward_B2M, log)
