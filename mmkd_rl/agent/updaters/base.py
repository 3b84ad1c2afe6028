"""Train the agent on a history: the part that all updaters share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import mmengine.optim  # noqa: F401  (registers PyTorch's optimisers)
import torch
from mmengine import dist
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn

from mmkd_rl.agent.history import History
from mmkd_rl.agent.policy import WeightPolicy
from mmkd_rl.records import Transition


class Updater(ABC):
    """One pass over the history, batch by batch (Algorithm 2, lines 11-13).

    In distributed training each process has its own history; gradients and
    statistics are averaged over the processes, so that all keep one policy.

    Args:
        policy: The agent's network.
        optimizer: Config of its optimiser, without the parameters.
        epochs: Passes over the history.
        max_grad_norm: Gradients are clipped to this norm; ``None``: not.

    Raises:
        ValueError: ``epochs`` is not positive.
    """

    def __init__(self,
                 policy: WeightPolicy,
                 optimizer: dict,
                 epochs: int = 1,
                 max_grad_norm: float | None = 1.0) -> None:
        if epochs < 1:
            raise ValueError('weighting.updater.epochs must be >= 1, got '
                             f'{epochs}')
        self.policy = policy
        self.epochs = epochs
        self.max_grad_norm = max_grad_norm
        self.optimizer: torch.optim.Optimizer = OPTIMIZERS.build(
            dict(optimizer, params=policy.parameter_groups()))

    @abstractmethod
    def loss(self, batch: Transition) -> tuple[Tensor, dict[str, Tensor]]:
        """What to minimise on one batch, and what to log, scalars all."""

    def update(self, history: History) -> dict[str, float]:
        """Train the policy.

        Args:
            history: At least one batch.

        Returns:
            Means over the batches of what :meth:`loss` returned.

        Raises:
            FloatingPointError: The loss is not finite any more.
        """
        batches = _common_length(history)
        self._standardize(batches)
        logged: list[dict[str, Tensor]] = []
        with torch.enable_grad():
            for _ in range(self.epochs):
                for batch in batches:
                    loss, scalars = self.loss(batch)
                    self.optimizer.zero_grad()
                    loss.backward()
                    self._step()
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

    def state_dict(self) -> dict:
        """The optimiser's state."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.optimizer.load_state_dict(state)

    def _step(self) -> None:
        parameters = [p for p in self.policy.parameters()
                      if p.grad is not None]
        dist.all_reduce_params([p.grad for p in parameters], op='mean')
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        self.optimizer.step()

    def _standardize(self, batches: Sequence[Transition]) -> None:
        """Show the new states to the policy's standardiser."""
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
    """The newest batches, as many as every process has."""
    batches = list(history)
    shortest = torch.tensor(len(batches), device=batches[0].state.device)
    dist.all_reduce(shortest, op='min')
    return batches[len(batches) - int(shortest):]
