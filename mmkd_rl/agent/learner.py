"""The agent with all that it needs to learn, as one thing to save and move.

It is no ``nn.Module`` on purpose: the agent is no part of the student's
optimiser, of its weight averages or of DDP's buckets.
"""

from __future__ import annotations

from collections.abc import Callable

from mmengine import dist
from torch import Tensor

from mmkd_rl.agent.history import History
from mmkd_rl.agent.policy import WeightPolicy
from mmkd_rl.agent.reward import Reward
from mmkd_rl.agent.updaters import Updater
from mmkd_rl.utils.random_state import RandomNumbers


class AgentLearner:
    """Policy, updater and history.

    Args:
        policy: The agent's network.
        updater: How it is trained.
        history: What it is trained on.
        reward: The rule that rewards it, if what that remembers is to be
            saved and moved.
    """

    def __init__(self, policy: WeightPolicy, updater: Updater,
                 history: History, reward: Reward | None = None) -> None:
        self.policy = policy
        self.updater = updater
        self.history = history
        self.reward = reward
        #: Updates so far; 0 while equal weights warm the student up.
        self.updates = 0

    def __deepcopy__(self, memo: dict) -> AgentLearner:
        """Copies of a distiller (EMA makes one) share its agent."""
        return self

    @property
    def random(self) -> RandomNumbers:
        """Generators of the updater's random numbers (exploration, replay)."""
        return self.updater.random

    def update(self) -> dict[str, float]:
        """Train the agent on the history, then forget the history.

        Returns:
            What the updater logs; empty if there is no history.
        """
        if not len(self.history):
            return {}
        scalars = self.updater.update(self.history)
        scalars['history_share'] = self.history.share
        self.history.clear()
        self.updates += 1
        return scalars

    def synchronize(self) -> None:
        """Give every process the first one's policy."""
        for module in (self.policy, self.updater.extra):
            for tensor in module.state_dict().values():
                dist.broadcast(tensor)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """What ``nn.Module._apply`` does to the tree: device, precision."""
        self.policy._apply(fn)
        self.history.apply_(fn)
        self.updater.apply_(fn)
        if self.reward is not None:
            self.reward.apply_(fn)

    def state_dict(self) -> dict:
        """Tensors and plain values only."""
        memory = self.reward.state_dict() if self.reward else {}
        return dict(
            policy={k: v.cpu() for k, v in self.policy.state_dict().items()},
            updater=self.updater.state_dict(),
            history=self.history.state_dict(),
            updates=self.updates,
            random=self.random.state_dict(),
            **({'reward': memory} if memory else {}))

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: The state is of another agent.
        """
        try:
            self.policy.load_state_dict(state['policy'])
        except RuntimeError as error:
            raise ValueError(
                "the checkpoint's agent does not fit this config (other "
                f'teachers, state or agent): {error}') from error
        self.updater.load_state_dict(state['updater'])
        self.history.load_state_dict(state['history'])
        device = next(self.policy.parameters()).device
        self.history.apply_(lambda t: t.to(device))
        if self.reward is not None:
            self.reward.load_state_dict(state.get('reward', {}))
            self.reward.apply_(lambda t: t.to(device))
        self.updates = state['updates']
        if 'random' in state:  # not in checkpoints of 0.1's first layout
            self.random.load_state_dict(state['random'])
