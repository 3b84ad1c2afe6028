r"""Policy gradient (MTKD-RL, Eq. 7).

.. math:: maximise \sum_m \bar R_m f(w_m) + \lambda H(w)

with R-bar the normalised reward (Eq. 8) and f the logarithm or the identity.
Printed as "theta - eta R grad pi", the paper's sign would lower the weight of
the teacher with the best reward, against its text; ours raises it.

- ``objective='log'``: f = log. Since R-bar sums to zero over the teachers, the
  gradient at the scores is R-bar itself, however far they have gone: the
  policy drifts to one teacher and never comes to rest.
- ``objective='probability'``: f = identity, Eq. (7) as its gradient is
  printed. This is the exact gradient of the expected reward sum_m w_m R_m: no
  sampling, no variance. It comes to rest when the best teacher has all.

With the entropy term (not in the paper) the probability form rests at
w = softmax(R-bar / lambda), a matter of degree instead of all or nothing.

Learnable balances maximise the same of the whole action, with the same
entropy term on themselves: they rest at softmax(g / lambda), g what each
source earns by itself. So a source that favours a wrong teacher goes to almost
nothing, and sources that are equally good stay equal.
"""

from __future__ import annotations

from torch import Tensor

from mmkd_rl.agent.action import mix
from mmkd_rl.agent.policy import SOURCES, WeightPolicy
from mmkd_rl.agent.reward import NORMALIZATIONS, normalize_reward
from mmkd_rl.agent.updaters.base import Updater
from mmkd_rl.records import Transition
from mmkd_rl.registry import UPDATERS

_OBJECTIVES = ('log', 'probability')


@UPDATERS.register_module()
class PolicyGradient(Updater):
    """All teachers' rewards at once, weighted by the policy.

    Args:
        policy: The agent's network, given by the strategy.
        optimizer: Config of its optimiser.
        objective: ``'probability'`` or ``'log'``, see above.
        normalization: See :func:`normalize_reward`.
        entropy_weight: lambda.
        **kwargs: See :class:`Updater`.

    Raises:
        ValueError: An unknown objective or normalisation, or lambda < 0.
    """

    def __init__(self,
                 policy: WeightPolicy,
                 optimizer: dict | None = None,
                 objective: str = 'probability',
                 normalization: str = 'standard',
                 entropy_weight: float = 0.1,
                 **kwargs) -> None:
        if objective not in _OBJECTIVES:
            raise ValueError('weighting.updater.objective must be one of '
                             f'{_OBJECTIVES}, got {objective!r}')
        if normalization not in NORMALIZATIONS:
            raise ValueError('weighting.updater.normalization must be one of '
                             f'{NORMALIZATIONS}, got {normalization!r}')
        if entropy_weight < 0:
            raise ValueError('weighting.updater.entropy_weight must be >= 0, '
                             f'got {entropy_weight}')
        super().__init__(policy, optimizer or dict(type='Adam', lr=1e-3),
                         **kwargs)
        self.objective = objective
        self.normalization = normalization
        self.entropy_weight = entropy_weight

    def loss(self, batch: Transition) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the objective, mean over samples and heads."""
        log_w_B2M = self.policy(batch.state)
        w_B2M = log_w_B2M.exp()
        entropy = -(w_B2M * log_w_B2M).sum(-1).mean()
        reward_B1M = normalize_reward(batch.reward,
                                      self.normalization).unsqueeze(1)
        value_B2M = log_w_B2M if self.objective == 'log' else w_B2M
        gain = (reward_B1M * value_B2M).sum(-1).mean()
        loss = -gain - self.entropy_weight * entropy
        logged = {'entropy': entropy.detach()}
        if self.policy.balance is not None:
            action_B2M, term, balances = self._balance(batch, w_B2M.detach(),
                                                       reward_B1M)
            loss = loss + term
            w_B2M = action_B2M
            logged.update(balances)
        logged['expected_reward'] = (batch.reward.unsqueeze(1) *
                                     w_B2M.detach()).sum(-1).mean()
        return loss, logged

    def _balance(self, batch: Transition, w_B2M: Tensor, reward_B1M: Tensor
                 ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The whole action, the balances' loss, and what to log of them.

        They are learned from what they do to the whole action, and the agent
        from its own weights, as it is with constant balances: through the
        action it would get its balance's share of the gradient only, and the
        entropy term would win.
        """
        gamma_23 = self.policy.balances()
        action_B2M = mix(w_B2M, batch.sources, gamma_23)
        value_B2M = action_B2M.clamp_min(1e-12).log() \
            if self.objective == 'log' else action_B2M
        # Clamped: a source that is left out has gamma = 0.
        entropy = -(gamma_23 * gamma_23.clamp_min(1e-12).log()).sum(-1).mean()
        loss = -(reward_B1M * value_B2M).sum(-1).mean() \
            - self.entropy_weight * entropy
        logged = {
            f'balance_{head}/{source}': value
            for head, row in zip(('logit', 'feature'), gamma_23.detach())
            for source, value in zip(SOURCES, row)
        }
        return action_B2M, loss, logged
