r"""Proximal policy optimisation (Schulman et al., 2017; MTKD-RL, Table 6a).

.. math::
    w \sim & Dirichlet(1 + \kappa \pi(s)),\quad
        r = \sum_m w_m \bar R_m,\quad A = r - V(s) \\
    maximise & \min(\rho A, clip(\rho, 1 - \epsilon, 1 + \epsilon) A)
        - c (r - V(s))^2 + \lambda H(\pi(s)),\quad
    \rho = p(w | s) / p_{old}(w | s)

with one Dirichlet for each head (logits, features), each with its own r, A and
value V, and A divided by its root mean square in the batch. The mode of the
Dirichlet is the policy pi(s); while the student is trained weights are drawn
from it. kappa, one learned number for each head, is its concentration. p_old
is the policy that drew; it does not change between two updates, so it is
computed when the update begins. No discount: the next images do not depend on
these weights. The entropy is that of pi, as in the policy gradient, not of the
Dirichlet; MTKD-RL gives no details.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_rl.options import Count, Positive
from mmkd_rl.records import Transition
from mmkd_rl.registry import UPDATERS
from mmkd_rl.weighting.mtkd_rl.policy import WeightPolicy
from mmkd_rl.weighting.mtkd_rl.updaters.base import Updater

#: Lower bound of drawn weights, for log w.
_MIN_WEIGHT = 1e-6


def dirichlet_log_prob(alpha: Tensor, w: Tensor) -> Tensor:
    """log Dirichlet(w; alpha) over the last axis; 0 for one teacher."""
    return torch.lgamma(alpha.sum(-1)) - torch.lgamma(alpha).sum(-1) \
        + ((alpha - 1) * w.clamp_min(_MIN_WEIGHT).log()).sum(-1)


class _Extra(nn.Module):
    """V(s) of both heads, and log kappa."""

    def __init__(self, size: int, hidden: int, concentration: float) -> None:
        super().__init__()
        self.trunk = nn.Linear(size, hidden)
        self.head = nn.Linear(hidden, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.log_kappa = nn.Parameter(
            torch.full((2, ), float(concentration)).log())

    def forward(self, state_BS: Tensor) -> Tensor:
        """V, [B, 2]."""
        return self.head(self.trunk(state_BS).relu())


@UPDATERS.register_module()
class PPO(Updater):
    """Policy gradient on drawn actions with clipped ratios.

    Args:
        policy: The agent's network, given by the strategy.
        optimizer: Config of the optimiser of policy, value and kappa.
        clip: epsilon.
        concentration: Initial kappa.
        value_lr: Learning rate of V and kappa.
        value_weight: c.
        value_hidden: Width of V's hidden layer.
        epochs: Passes over the history.
        **kwargs: See :class:`Updater`.
    """

    def __init__(self,
                 policy: WeightPolicy,
                 optimizer: dict | None = None,
                 clip: Positive = 0.2,
                 concentration: Positive = 2.,
                 value_lr: Positive = 3e-3,
                 value_weight: Positive = 0.5,
                 value_hidden: Count = 128,
                 epochs: Count = 4,
                 **kwargs) -> None:
        extra = _Extra(sum(policy.sizes), value_hidden, concentration)
        super().__init__(
            policy,
            optimizer or dict(type='Adam', lr=3e-3),
            epochs=epochs,
            extra=extra,
            extra_lr=value_lr,
            **kwargs)
        self.clip, self.value_weight = clip, value_weight
        self._extra = extra

    def explore(self, log_w_B2M: Tensor) -> Tensor:
        """Weights drawn from the Dirichlet."""
        # The draw's gamma variates underflow in less than float32.
        drawn = torch._sample_dirichlet(
            self._alpha(log_w_B2M).float(), self.random.on(log_w_B2M.device))
        drawn = drawn.clamp_min(_MIN_WEIGHT)
        return (drawn / drawn.sum(-1, keepdim=True)).to(log_w_B2M)

    @torch.no_grad()
    def prepare(self, batches: Sequence[Transition]) -> None:
        """Compute log p_old before the policy changes."""
        self._old = [self._log_prob(self.policy(b.state), b) for b in batches]

    def minibatches(self, batches: Sequence[Transition]
                ) -> Iterable[tuple[Transition, Tensor]]:
        """Batches with their log p_old."""
        return zip(batches, self._old)

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the objective, mean over samples and heads."""
        batch, old_B2 = batch
        reward_B2M = self._reward(batch)
        log_w_B2M = self.policy(batch.state)
        value_B2 = self._extra(self.policy.standardized(batch.state))
        error_B2 = (reward_B2M * batch.action).sum(-1) - value_B2
        advantage_B2 = error_B2.detach()
        # Not centred: V is the baseline, and with B = 1 centring gives zero.
        advantage_B2 = advantage_B2 / advantage_B2.square().mean(
            0, keepdim=True).sqrt().clamp_min(1e-6)

        ratio_B2 = (self._log_prob(log_w_B2M, batch) - old_B2).exp()
        clipped_B2 = ratio_B2.clamp(1 - self.clip, 1 + self.clip)
        gain = torch.minimum(ratio_B2 * advantage_B2,
                             clipped_B2 * advantage_B2).mean()
        w_B2M = log_w_B2M.exp()
        entropy = -(w_B2M * log_w_B2M).sum(-1).mean()
        value_loss = error_B2.square().mean()
        loss, logged = self._complete(
            self.value_weight * value_loss - gain -
            self.entropy_weight * entropy, batch, w_B2M, reward_B2M)
        return loss, {
            **logged, 'value_loss': value_loss.detach(),
            'clipped_share':
            ((ratio_B2 - 1).abs() > self.clip).float().mean().detach(),
            'concentration': self._extra.log_kappa.detach().exp().mean()
        }

    def _alpha(self, log_w_B2M: Tensor) -> Tensor:
        return 1 + self._extra.log_kappa.exp().unsqueeze(-1) * log_w_B2M.exp()

    def _log_prob(self, log_w_B2M: Tensor, batch: Transition) -> Tensor:
        """log p(w | s), [B, 2]."""
        return dirichlet_log_prob(self._alpha(log_w_B2M), batch.action)
