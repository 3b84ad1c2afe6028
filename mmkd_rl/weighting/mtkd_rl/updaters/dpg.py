r"""Deterministic policy gradient (Silver et al., 2014; MTKD-RL, Table 6a).

.. math::
    critic: & minimise (Q(s, w) - r)^2,\quad r = \sum_m w_m \bar R_m \\
    actor: & maximise Q(s, \pi(s)) + \lambda H(\pi(s))

w is the agent's action, s the state; each head (logits, features) has its own
Q. The next images do not depend on the weights of these images, so there is no
return beyond r and no bootstrapping: a contextual bandit.

The critic is linear in the action, Q = V(s) + <A(s), w>, V and A from one
hidden layer: the paper's compatible form (their Theorem 3), which can be exact
because r is linear in w. It is trained on single actions, so the agent must
explore: while the student is trained, normal noise is added to the log
weights, w = softmax(log pi(s) + sigma n), as in the paper's off-policy
variant. MTKD-RL gives no details; the entropy term is that of our policy
gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mmkd_rl.options import Count, NonNegative, Positive
from mmkd_rl.records import Transition
from mmkd_rl.registry import UPDATERS
from mmkd_rl.weighting.mtkd_rl.policy import WeightPolicy
from mmkd_rl.weighting.mtkd_rl.updaters.base import Updater


class CompatibleCritic(nn.Module):
    """Q(s, w) = V(s) + <A(s), w>, for both heads; initially zero.

    Args:
        size: S.
        num_teachers: M.
        hidden: Width of the hidden layer.
    """

    def __init__(self, size: int, num_teachers: int, hidden: int) -> None:
        super().__init__()
        self.trunk = nn.Linear(size, hidden)
        self.head = nn.Linear(hidden, 2 * (num_teachers + 1))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, state_BS: Tensor, w_B2M: Tensor) -> Tensor:
        """Q, [B, 2]."""
        out = self.head(self.trunk(state_BS).relu()).view(len(state_BS), 2, -1)
        return out[..., -1] + (out[..., :-1] * w_B2M).sum(-1)


@UPDATERS.register_module()
class DPG(Updater):
    """Trains actor and critic on the last history.

    Args:
        policy: The actor, given by the strategy.
        optimizer: Config of the optimiser of both.
        critic_lr: The critic's learning rate.
        critic_hidden: Width of the critic's hidden layer.
        noise: sigma; with 0 the critic cannot distinguish teachers.
        epochs: Passes over the history.
        **kwargs: See :class:`Updater`.
    """

    def __init__(self,
                 policy: WeightPolicy,
                 optimizer: dict | None = None,
                 critic_lr: Positive = 3e-3,
                 critic_hidden: Count = 128,
                 noise: NonNegative = 1.0,
                 epochs: Count = 4,
                 **kwargs) -> None:
        self.noise = noise
        self.networks = self._networks(policy, critic_hidden)
        super().__init__(
            policy,
            optimizer or dict(type='Adam', lr=1e-3),
            epochs=epochs,
            extra=self.networks,
            extra_lr=critic_lr,
            **kwargs)
        self.critic = self.networks['critic']

    def explore(self, log_w_B2M: Tensor) -> Tensor:
        """softmax(log w + sigma n)."""
        noise_B2M = torch.randn(
            log_w_B2M.shape, dtype=log_w_B2M.dtype, device=log_w_B2M.device,
            generator=self.random.on(log_w_B2M.device))
        return (log_w_B2M + self.noise * noise_B2M).softmax(-1)

    def loss(self, batch: Transition) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of critic and actor on one batch."""
        reward_B2M = self._reward(batch)
        state_BS = self.policy.standardized(batch.state)
        action_B2M = batch.action.to(state_BS)
        error = self.critic(state_BS, action_B2M) - self._target(
            batch, (reward_B2M * action_B2M).sum(-1))
        critic_loss = error.square().mean()

        log_w_B2M = self.policy(batch.state)
        w_B2M = log_w_B2M.exp()
        # The actor's loss must not train the critic.
        fixed = {k: v.detach() for k, v in self.critic.named_parameters()}
        value = functional_call(self.critic, fixed, (state_BS, w_B2M)).mean()
        entropy = -(w_B2M * log_w_B2M).sum(-1).mean()
        loss, logged = self._complete(
            critic_loss - value - self.entropy_weight * entropy, batch, w_B2M,
            reward_B2M)
        return loss, {**logged, 'critic_loss': critic_loss.detach(),
                      'value': value.detach()}

    def _networks(self, policy: WeightPolicy, hidden: int) -> nn.ModuleDict:
        """Networks beside the policy."""
        return nn.ModuleDict(
            dict(
                critic=CompatibleCritic(
                    sum(policy.sizes), policy.num_teachers, hidden)))

    def _target(self, batch: Transition, reward_B2: Tensor) -> Tensor:
        """Target of Q, [B, 2]."""
        return reward_B2
