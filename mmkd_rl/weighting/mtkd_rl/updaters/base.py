r"""Base of updaters, which train the agent on a history.

Updaters that learn from single actions (all but the policy gradient, which
uses every teacher's reward and no action) use one reward for each sample and
head of an action w,

.. math:: r = \sum_m w_m \bar R_m

with R-bar the normalised reward of each teacher, which is stored in the
history. Since r is known for any w, the agent's actions in the warm-up are
used, too, although the student is trained with equal weights there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import mmengine.optim  # noqa: F401  (registers PyTorch's optimisers)
import torch
from mmengine import dist
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn

from mmkd_rl.options import Checked, Count, NonNegative, Positive
from mmkd_rl.records import Transition
from mmkd_rl.registry import build_nested
from mmkd_rl.utils.random_state import RandomNumbers
from mmkd_rl.weighting.learner import move_optimizer
from mmkd_rl.weighting.mtkd_rl.history import History
from mmkd_rl.weighting.mtkd_rl.policy import WeightPolicy
from mmkd_rl.weighting.mtkd_rl.reward import RewardScale, normalize_reward
from mmkd_rl.weighting.mtkd_rl.updaters.balance import balance_loss


class Updater(Checked, ABC):
    """One pass over the history, batch by batch (Algorithm 2, lines 11-13).

    In distributed training each process has its own history; gradients and
    statistics are averaged over the processes, so that all have one policy.

    Args:
        policy: The agent's network.
        optimizer: Config of its optimiser, without the parameters.
        epochs: Passes over the history.
        max_grad_norm: Gradients of each group of parameters (policy,
            balances, critic) are clipped to this norm; ``None``: no clipping.
        normalization: See :func:`normalize_reward`.
        entropy_weight: lambda of an updater's entropy term.
        extra: Other networks (critics, targets), which are saved, moved and
            synchronised over processes with the policy.
        extra_lr: Learning rate of the trained parameters in ``extra``.
    """

    #: Whether it needs one reward per sample for all teachers, in [0, 1].
    scalar_reward = False
    #: Arguments that only subclasses set.
    not_options = ('extra', 'extra_lr')
    nested = dict(optimizer=(OPTIMIZERS, None, ('params', )))

    def __init__(self,
                 policy: WeightPolicy,
                 optimizer: dict,
                 epochs: Count = 1,
                 max_grad_norm: Positive | None = 1.0,
                 normalization: RewardScale = 'standard',
                 entropy_weight: NonNegative = 0.1,
                 extra: nn.Module | None = None,
                 extra_lr: Positive = 1e-3) -> None:
        self.policy = policy
        #: Generators of exploration and replay.
        self.random = RandomNumbers()
        self.epochs = epochs
        self.max_grad_norm = max_grad_norm
        self.normalization = normalization
        self.entropy_weight = entropy_weight
        self.extra = nn.Module() if extra is None else extra
        groups = policy.parameter_groups()
        trained = [p for p in self.extra.parameters() if p.requires_grad]
        if trained:
            if not isinstance(groups[0], dict):
                groups = [dict(params=groups)]
            groups.append(dict(params=trained, lr=extra_lr))
        self.optimizer: torch.optim.Optimizer = build_nested(
            self, 'optimizer', optimizer, params=groups)

    def explore(self, log_w_B2M: Tensor) -> Tensor:
        """The agent's weights while the student is trained.

        Args:
            log_w_B2M: The policy's log weights.

        Returns:
            w^gen, [B, 2, M]: the policy's weights, unless the method explores.
        """
        return log_w_B2M.exp()

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one of the :meth:`minibatches`, and scalars to log."""

    def prepare(  # noqa: B027 (most have nothing to do)
            self, batches: Sequence[Transition]) -> None:
        """Called with the history before the policy is changed."""

    def minibatches(self, batches: Sequence[Transition]) -> Iterable[Any]:
        """The minibatches of one pass: the history's batches."""
        return batches

    def after_step(self) -> None:  # noqa: B027 (likewise)
        """Called after each step of the optimiser."""

    def update(self, history: History) -> dict[str, float]:
        """Train the policy.

        Args:
            history: A history with at least one batch.

        Returns:
            Means over the batches of the loss and scalars of :meth:`loss`.

        Raises:
            FloatingPointError: The loss is not finite.
        """
        batches = _common_length(history)
        self.prepare(batches)
        self._standardize(batches)
        logged: list[dict[str, Tensor]] = []
        with torch.enable_grad():
            for _ in range(self.epochs):
                for batch in self.minibatches(batches):
                    loss, scalars = self.loss(batch)
                    self.optimizer.zero_grad()
                    loss.backward()
                    self._step()
                    self.after_step()
                    logged.append({'loss': loss.detach(), **scalars})
        means = {
            name: torch.stack([entry[name] for entry in logged]).mean()
            for name in logged[0]
        }
        result = {name: float(value) for name, value in means.items()}
        if not math.isfinite(result['loss']):
            raise FloatingPointError(
                f"the agent's loss became {result['loss']}: lower "
                'weighting.updater.optimizer.lr, set updater.max_grad_norm, '
                'or leave agent.standardize on')
        return result

    def apply_(self, fn: Any) -> None:
        """Move ``extra`` and the optimiser's state."""
        self.extra._apply(fn)
        move_optimizer(self.optimizer, fn)

    def state_dict(self) -> dict:
        """The optimiser's state, and ``extra``'s if there is any."""
        state = self.optimizer.state_dict()
        extra = {k: v.cpu() for k, v in self.extra.state_dict().items()}
        return {**state, 'extra': extra} if extra else state

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: The state is of another updater.
        """
        try:
            self.extra.load_state_dict(state.get('extra', {}))
            self.optimizer.load_state_dict(
                {k: state[k] for k in ('state', 'param_groups')})
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                "the checkpoint's weighting.updater is not the config's "
                f'{type(self).__name__}, or has other arguments: {error}'
            ) from error

    def _reward(self, batch: Transition) -> Tensor:
        """R-bar, [B, 2, M]."""
        reward = normalize_reward(batch.reward, self.normalization)
        return by_head(reward)

    def _complete(self, loss: Tensor, batch: Transition, w_B2M: Tensor,
                  reward_B2M: Tensor, log: bool = False
                  ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the loss of learnable balances, and the scalars of all updaters.

        Args:
            loss: The agent's loss.
            batch: The transitions.
            w_B2M: The policy's weights.
            reward_B2M: R-bar.
            log: See :func:`balance_loss`.
        """
        w_B2M = w_B2M.detach()
        entropy = -(w_B2M * w_B2M.clamp_min(1e-12).log()).sum(-1).mean()
        logged = {'entropy': entropy}
        if self.policy.balance is not None:
            w_B2M, term, balances = balance_loss(
                self.policy, batch, w_B2M, reward_B2M, self.entropy_weight,
                log)
            loss = loss + term
            logged.update(balances)
        logged['expected_reward'] = (by_head(batch.reward) *
                                     w_B2M.detach()).sum(-1).mean()
        return loss, logged

    def _step(self) -> None:
        groups = [[p for p in group['params'] if p.grad is not None]
                  for group in self.optimizer.param_groups]
        dist.all_reduce_params([p.grad for g in groups for p in g], op='mean')
        if self.max_grad_norm is not None:
            for parameters in groups:
                nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        self.optimizer.step()

    def _standardize(self, batches: Sequence[Transition]) -> None:
        """Update the policy's standardiser with the new states."""
        if self.policy.standardizer is None:
            return
        # Sums in float64, batch by batch: the states as one tensor would
        # double the history's memory.
        first = batches[0].state
        sums = first.new_zeros(3, first.shape[1], dtype=torch.float64)
        for batch in batches:
            state = batch.state.double()
            sums[0] += len(state)
            sums[1] += state.sum(0)
            sums[2] += state.square().sum(0)
        dist.all_reduce(sums)
        count, mean = sums[0], sums[1] / sums[0]
        var = (sums[2] / count - mean.square()).clamp_min(0)
        self.policy.standardizer.merge(mean.float(), var.float(),
                                       count[0].float())


def _common_length(history: History) -> list[Transition]:
    """The newest batches, the same number in each process."""
    batches = list(history)
    shortest = torch.tensor(len(batches), device=batches[0].state.device)
    dist.all_reduce(shortest, op='min')
    return batches[len(batches) - int(shortest):]


def by_head(reward: Tensor) -> Tensor:
    """Reshape [B, M] (the same for both heads) or [B, 2, M] to
    [B, 1 or 2, M]."""
    return reward if reward.ndim == 3 else reward.unsqueeze(1)
