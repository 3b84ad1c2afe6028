r"""Deep deterministic policy gradient (Lillicrap et al., ICLR 2016; MTKD-RL,
Table 6a).

.. math::
    critic: & minimise (Q(s, w) - y)^2,\quad
        y = r + \gamma Q'(s', \pi'(s')),\quad r = \sum_m w_m \bar R_m \\
    actor: & maximise Q(s, \pi(s)) + \lambda H(\pi(s)) \\
    targets: & \theta' \leftarrow \tau \theta + (1 - \tau) \theta'

:class:`DPG` with a critic that is any function of state and action (one hidden
layer over both), target networks Q' and pi', and a replay buffer: batches are
drawn from several intervals instead of the last one. Their rewards are those
of the student at that time.

s' is the sample at the same position in the next batch that was kept. It does
not depend on the weights for s, so gamma > 0 only adds a general level of
reward to the critic; 0 is exact, and the target networks are then not used.
The paper gives no gamma.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkd_rl.options import BelowOne, Count, Share
from mmkd_rl.records import Transition
from mmkd_rl.registry import UPDATERS
from mmkd_rl.weighting.mtkd_rl.policy import WeightPolicy
from mmkd_rl.weighting.mtkd_rl.replay import Replay
from mmkd_rl.weighting.mtkd_rl.updaters.dpg import DPG


class Critic(nn.Module):
    """Q(s, w) of both heads, from one hidden layer over state and action.

    Args:
        size: S.
        num_teachers: M.
        hidden: Width of the hidden layer.
    """

    def __init__(self, size: int, num_teachers: int, hidden: int) -> None:
        super().__init__()
        self.num_teachers = num_teachers
        self.state = nn.Linear(size, hidden)
        self.action = nn.Linear(2 * num_teachers, hidden, bias=False)
        self.head = nn.Linear(hidden, 2)

    def forward(self, state_BS: Tensor, w_B2M: Tensor) -> Tensor:
        """Q, [B, 2]."""
        # Scaled like the standardised entries of the state.
        action = (self.num_teachers * w_B2M - 1).flatten(1)
        return self.head((self.state(state_BS) + self.action(action)).relu())


@UPDATERS.register_module()
class DDPG(DPG):
    """DPG with target networks and a replay buffer.

    Args:
        policy: The actor, given by the strategy.
        optimizer: See :class:`DPG`.
        discount: gamma, in [0, 1).
        tau: Step of the target networks towards the trained ones, in (0, 1].
        replay_bytes: Largest number of bytes of the replay buffer.
        **kwargs: See :class:`DPG`.
    """

    def __init__(self,
                 policy: WeightPolicy,
                 optimizer: dict | None = None,
                 *,
                 discount: BelowOne = 0.5,
                 tau: Share = 0.01,
                 replay_bytes: Count = 32 * 2**20,
                 **kwargs) -> None:
        self.discount, self.tau = discount, tau
        self.replay = Replay(replay_bytes)
        super().__init__(policy, optimizer, **kwargs)
        self.target_critic = self.networks['target_critic']
        self.target_policy = self.networks['target_policy']

    def prepare(self, batches: Sequence[Transition]) -> None:
        """Add the history to the replay buffer."""
        for batch in batches:
            self.replay.add(batch)

    def minibatches(self, batches: Sequence[Transition]
                ) -> Iterable[tuple[Transition, Transition]]:
        """Batches drawn from the replay buffer, as many as the history has."""
        for _ in batches:
            yield self.replay.draw(self.random.on('cpu'))

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of critic and actor on a drawn batch and its next one."""
        now, self._next = batch
        return super().loss(now)

    def after_step(self) -> None:
        """Update the target networks."""
        with torch.no_grad():
            for target, online in ((self.target_critic, self.critic),
                                   (self.target_policy, self.policy)):
                for p, q in zip(target.parameters(), online.parameters()):
                    p.lerp_(q, self.tau)
                # Statistics of the standardiser are copied, not averaged.
                for old, new in zip(target.buffers(), online.buffers()):
                    old.copy_(new)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Also move the replay buffer."""
        super().apply_(fn)
        self.replay.apply_(fn)

    def state_dict(self) -> dict:
        """State including the replay buffer."""
        return {**super().state_dict(), 'replay': self.replay.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self.replay.load_state_dict(state.get('replay', {}))
        device = next(self.policy.parameters()).device
        self.replay.apply_(lambda t: t.to(device))

    def _networks(self, policy: WeightPolicy, hidden: int) -> nn.ModuleDict:
        critic = Critic(sum(policy.sizes), policy.num_teachers, hidden)
        return nn.ModuleDict(
            dict(
                critic=critic,
                target_critic=copy.deepcopy(critic).requires_grad_(False),
                target_policy=copy.deepcopy(policy).requires_grad_(False)))

    def _target(self, batch: Transition, reward_B2: Tensor) -> Tensor:
        if self.discount == 0:
            return reward_B2
        state = self._next.state
        state = state[torch.arange(len(reward_B2)) % len(state)]
        with torch.no_grad():
            value_B2 = self.target_critic(
                self.policy.standardized(state),
                self.target_policy(state).exp())
        return reward_B2 + self.discount * value_B2
